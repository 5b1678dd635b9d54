"""Which GPUs a library has code for: machine code for cards of one kind, or PTX, which drivers compile for newer ones.

Named as nvcc names them: ``sm_86`` is machine code for compute capability 8.6 and later ones of 8, ``compute_90`` PTX
for 9.0 and all later ones (NVIDIA's CUDA C++ Programming Guide, "Binary Compatibility" and "PTX Compatibility").
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterable
from pathlib import Path

_MAGIC = 0xBA55ED50.to_bytes(4, "little")
"""What begins each container of GPU code in a library (``fatBinaryHeader`` in CUDA's fatbinary.h)."""

_HEADER = struct.Struct("<IHHQ")  # magic, version, bytes of this header, bytes of all entries
_ENTRY = struct.Struct("<HHIQ12xI")  # kind, version, bytes of this header, bytes of the code; the architecture
_KINDS = {1: "compute", 2: "sm"}

_NAME = re.compile(r"(sm|compute)_(\d+)(\d)([a-z]?)")


def code_in(libraries: Iterable[Path]) -> list[str]:
    """Return what shared libraries hold GPU code for, sorted by kind and number; empty where that cannot be told."""
    found: set[tuple[str, int]] = set()
    for path in libraries:
        if path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                found.update(_entries(data))
    return [f"{kind}_{number}" for kind, number in sorted(found, key=lambda one: (one[0] == "compute", one[1]))]


def _entries(data: mmap.mmap) -> Iterable[tuple[str, int]]:
    at = data.find(_MAGIC)
    while 0 <= at <= len(data) - _HEADER.size:
        _, _, header, size = _HEADER.unpack_from(data, at)
        entry, end = at + header, min(at + header + size, len(data))
        while entry + _ENTRY.size <= end:
            kind, _, own, code, number = _ENTRY.unpack_from(data, entry)
            if kind not in _KINDS or own < _ENTRY.size or entry + own + code > end:
                break
            yield _KINDS[kind], number
            entry += own + code
        at = data.find(_MAGIC, at + 1)


def has_code(built: Iterable[str], capability: tuple[int, int]) -> bool:
    """Whether what was built for these architectures runs on a card of this compute capability."""
    return any(_runs(match, capability) for name in built if (match := _NAME.fullmatch(name)))


def _runs(match: re.Match[str], capability: tuple[int, int]) -> bool:
    kind, least, suffix = match[1], (int(match[2]), int(match[3])), match[4]
    if suffix == "a":  # code with features that only this one architecture has
        return capability == least
    return capability >= least and (kind == "compute" or capability[0] == least[0])


def is_newer(built: Iterable[str], capability: tuple[int, int]) -> bool:
    """Whether a card of this compute capability came after all that was built for."""
    return all(capability > (int(match[2]), int(match[3])) for name in built if (match := _NAME.fullmatch(name)))
