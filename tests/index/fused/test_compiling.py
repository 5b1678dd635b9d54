"""Kernels that are compiled while somebody waits are told of, once; what Triton finds on the disk is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import HANG_SECONDS
from fused_worlds import needs_kernels

COMPILE_TWO = """
import sys, warnings
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from semrec_faiss.index.fused.compiling import tell_of_compiling
from semrec_faiss.index.fused.kernels.gathering import count_rows, gather_vectors

def compile(kernel, kinds, constants):
    at = kernel.arg_names.index
    source = ASTSource(kernel, kinds | dict.fromkeys(constants, "constexpr"),
                       {(at(name),): value for name, value in constants.items()})
    triton.compile(source, target=GPUTarget("cuda", 90, 32))

tell_of_compiling()
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    rows = {"bitmap": "*i32", "counts": "*i32", "word_count": "i32"}
    compile(count_rows, rows, {"WORDS": 256})
    vectors = {"vectors": "*fp32", "which": "*i64", "into": "*fp32", "dim": "i32"}
    compile(gather_vectors, vectors, {"D_BLOCK": 64})
for one in heard:
    if one.category is RuntimeWarning:  # Triton warns of its own
        print(one.message)
"""


def heard(cache: Path) -> list[str]:
    own = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    own |= {"TRITON_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE_TWO],
        capture_output=True,
        encoding="utf-8",
        env=own,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@needs_kernels
def test_the_first_kernel_that_is_compiled_is_told_of(tmp_path: Path) -> None:
    (said,) = heard(tmp_path)
    assert said.startswith("Triton compiles the kernels of type fused as they are first used")
    assert said.endswith(f"and keeps them in {tmp_path}; `semrec warm INDEX` has all of them compiled beforehand")
    assert heard(tmp_path) == [], "they are there now"
