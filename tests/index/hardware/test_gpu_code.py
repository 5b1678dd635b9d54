"""What a library holds GPU code for, read from its bytes, and which cards run it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from semrec_faiss.index.hardware.gpu_code import code_in, has_code, is_newer


def container(*entries: tuple[int, int], code: int = 24) -> bytes:
    """GPU code as nvcc packs it: a kind (1 PTX, 2 machine code) and an architecture each."""
    packed = b"".join(
        struct.pack("<HHIQ12xI32x", kind, 0x101, 64, code, number) + bytes(code) for kind, number in entries
    )
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(packed)) + packed


def test_the_code_of_libraries_is_told(tmp_path: Path) -> None:
    first, second, empty = (tmp_path / name for name in ("a.so", "b.so", "c.so"))
    first.write_bytes(b"ELF" * 99 + container((2, 80), (2, 90)) + bytes(5) + container((1, 90), (2, 90)) + b"end")
    second.write_bytes(container((2, 120)))
    empty.write_bytes(b"")
    assert code_in([first, second, empty]) == ["sm_80", "sm_90", "sm_120", "compute_90"]


@pytest.mark.parametrize("end", range(0, 200, 7))
def test_a_library_that_is_cut_off_or_holds_something_else_is_read_without_harm(tmp_path: Path, end: int) -> None:
    whole = container((2, 80), (2, 90))
    (tmp_path / "a.so").write_bytes(whole[:end] + b"\x50\xed\x55\xba")
    assert set(code_in([tmp_path / "a.so"])) <= {"sm_80", "sm_90"}
    (tmp_path / "a.so").write_bytes(container((7, 80)))
    assert code_in([tmp_path / "a.so"]) == []


@pytest.mark.parametrize(
    ("built", "runs", "fails"),
    [
        ("sm_80", [(8, 0), (8, 6), (8, 9)], [(7, 5), (9, 0), (12, 0)]),
        ("sm_86", [(8, 6), (8, 9)], [(8, 0), (9, 0)]),
        ("sm_120", [(12, 0), (12, 1)], [(10, 0), (9, 0)]),
        ("sm_90a", [(9, 0)], [(8, 0), (10, 0)]),
        ("compute_80", [(8, 0), (9, 0), (12, 0)], [(7, 5)]),
        ("compute_90a", [(9, 0)], [(10, 0)]),
        ("gfx90a", [], [(9, 0)]),
    ],
)
def test_which_cards_run_it(built: str, runs: list[tuple[int, int]], fails: list[tuple[int, int]]) -> None:
    assert [has_code([built], capability) for capability in [*runs, *fails]] == [True] * len(runs) + [False] * len(
        fails
    )


def test_a_card_is_newer_than_all_that_was_built_for() -> None:
    assert is_newer(["sm_80", "sm_90"], (12, 0))
    assert not is_newer(["sm_80", "sm_90"], (8, 9))
