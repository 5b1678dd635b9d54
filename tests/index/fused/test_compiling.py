"""Kernels that are compiled while somebody waits are told of, once; what Triton finds on the disk is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HANG_SECONDS

from semrec_faiss.index.fused.cards import COPY_ENGINE
from semrec_faiss.index.fused.filters.shelves import shelf_size
from semrec_faiss.index.fused.plan import Masking
from semrec_faiss.search.warming import SHARES, WARM_BATCHES_KERNELS
from tests.index.fused.compiled import CARDS, Launch, Search, launches_of
from tests.index.fused.worlds import needs_kernels

COMPILE_TWO = """
import sys, warnings
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from semrec_faiss.index.fused.kernels.compiling import tell_of_compiling
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
    vectors = {"vectors": "*fp32", "which": "*i64", "into": "*fp32", "there": "*i64", "dim": "i32"}
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


@needs_kernels
@pytest.mark.parametrize("titles", [62_423, 250_000])
def test_whatever_a_filter_lets_through_the_kernels_for_it_were_compiled_beforehand(titles: int) -> None:
    """Shelves of up to half of the titles, for titles and for users, searched by any number at once."""
    card = next(card for card in CARDS if card.capability == COPY_ENGINE)

    def launched(shares: tuple[float, ...], sizes: tuple[int, ...]) -> set[Launch]:
        shelves = {shelf_size(max(1, int(share * titles))) for share in shares}
        maskings: tuple[Masking, ...] = ("shared", "own")
        return {
            launch
            for shelf in shelves
            for size in sizes
            for masking in maskings
            for launch in launches_of(Search(shelf, size, 10, masking, False, "rounded", shelved=True), card)
        }

    shares = (0.0005, 0.002, 0.02, 0.03, 0.07, 0.13, 0.25, 0.35, 0.4, 0.45)
    assert launched(shares, (1, 3, 10, 17, 30, 33, 64, 65, 100, 129, 300, 700, 1500, 3000, 4096)) <= launched(
        SHARES, WARM_BATCHES_KERNELS
    )
