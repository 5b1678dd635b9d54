"""BLAS kernels: which ones multiply, and new ones in the place of those that are older than the processor."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import HANG_SECONDS, run_python

from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.index.hardware.kernels import CHOICE, SAFE, Blas, Kernels, kernels_of, processor_flags

AS_ON_A_NEW_PROCESSOR = """
import os
import numpy as np
os.environ["OPENBLAS_CORETYPE"] = "Prescott"  # what FAISS's OpenBLAS takes where it does not know the processor
import faiss
del os.environ["OPENBLAS_CORETYPE"]
from semrec_faiss.index.hardware.kernels import as_faiss_comes, kernels_of, replace_old_kernels
def told():
    kernels = kernels_of("faiss")
    return f"{kernels.architecture} {kernels.by_itself}"
print(told())
replace_old_kernels(faiss)
print(told())
with as_faiss_comes():
    print(told())
print(told(), os.environ.get("OPENBLAS_CORETYPE"))
vectors = np.random.default_rng(0).integers(-3, 4, (500, 384)).astype(np.float32)
index = faiss.IndexFlatIP(384)
index.add(vectors)
scores, rows = index.search(vectors, 3)
assert (scores == -np.sort(-(vectors @ vectors.T), axis=1)[:, :3]).all()
"""


def can_replace() -> bool:
    load_faiss()
    blas = Blas.of("faiss")
    return blas is not None and blas.can_be_named and processor_flags() >= {"avx2", "fma"}


def test_old_kernels_give_way_to_those_of_haswell_and_multiply_right() -> None:
    if not can_replace():
        pytest.skip("no OpenBLAS with kernels to choose, or a processor without AVX2")
    plain = {name: value for name, value in os.environ.items() if name != CHOICE}
    done = subprocess.run(
        [sys.executable, "-c", AS_ON_A_NEW_PROCESSOR],
        capture_output=True,
        encoding="utf-8",
        env=plain,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = ["Prescott None", f"{SAFE} Prescott", "Prescott Prescott", f"{SAFE} Prescott None"]
    assert done.stdout.splitlines() == expected


@pytest.mark.slow
def test_kernels_that_somebody_named_stay() -> None:
    if not can_replace():
        pytest.skip("no OpenBLAS with kernels to choose, or a processor without AVX2")
    program = (
        "from semrec_faiss.index.hardware.device import load_faiss; load_faiss()\n"
        "from semrec_faiss.index.hardware.kernels import kernels_of; print(kernels_of('faiss').architecture)\n"
        "from semrec_faiss.index.diagnosis import diagnose\n"
        "print(next(check.state for check in diagnose() if check.name == 'arithmetic'))"
    )
    done = run_python("-c", program, **{CHOICE: "Prescott"})
    assert done.stdout.split() == ["Prescott", "missing"], done.stderr


def test_both_libraries_are_told() -> None:
    load_faiss()
    for library in ("faiss", "numpy"):
        kernels = kernels_of(library)
        assert kernels is not None
        assert kernels.name


@pytest.mark.parametrize(
    ("architecture", "width"),
    [("SkylakeX", 2), ("Zen", 1), ("Haswell", 1), ("Prescott", 0), ("neoversen1", 0), (None, 0)],
)
def test_wider_kernels_are_known(architecture: str | None, width: int) -> None:
    assert Kernels("openblas", "0.3", architecture).width == width
