"""Which machine code multiplies matrices: the BLAS kernels of FAISS and numpy, and a better choice where one is blind.

FAISS's wheels carry an OpenBLAS of 2021. On a processor that it does not know it runs the kernels of 2004 ("Prescott",
SSE3) without a word, at a quarter of the speed or less. Those of Haswell run on every processor that has AVX2 and FMA.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

Library = Literal["faiss", "numpy"]
LIBRARIES: tuple[Library, ...] = ("faiss", "numpy")

CHOICE = "OPENBLAS_CORETYPE"
"""The variable that names OpenBLAS's kernels; whoever sets it decides."""

SAFE = "Haswell"
"""Right on every processor with AVX2 and FMA; newer kernels of an old OpenBLAS are known to be wrong on some."""

_NEEDED = {"avx2", "fma"}
_WIDTH = {"skylakex": 2, "cooperlake": 2, "sapphirerapids": 2, "haswell": 1, "zen": 1, "excavator": 1}
"""How wide the kernels compute: 2 for AVX-512, 1 for AVX2 with FMA; all others are older, or of another family."""

_OLDER = frozenset({"prescott", "core2", "penryn", "dunnington", "nehalem", "sandybridge", "opteron_sse3", "barcelona"})

_TRIED = 64
"""Queries and titles of the product that new kernels are held against."""


@dataclass(frozen=True)
class Kernels:
    """The BLAS of a library.

    Attributes:
        name: such as ``openblas``.
        version: its version; None where it does not tell.
        architecture: the processor that its kernels are written for; None where it does not tell.
        by_itself: the architecture that it chose, where we named another.
    """

    name: str
    version: str | None
    architecture: str | None
    by_itself: str | None = None

    def __str__(self) -> str:
        told = f"{self.name} {self.version or ''}".strip() + f", kernels {self.architecture or 'not told'}"
        return told if self.by_itself is None else f"{told} (by itself {self.by_itself})"

    @property
    def width(self) -> int:
        """How wide they compute; comparable between libraries on one machine."""
        return _WIDTH.get((self.architecture or "").lower(), 0)

    @property
    def is_older_than_processor(self) -> bool:
        """Whether the processor has AVX2 and FMA, and these do not use them."""
        return (self.architecture or "").lower() in _OLDER and processor_flags() >= _NEEDED


class Blas:
    """An OpenBLAS, or another BLAS, of which only the name is known.

    threadpoolctl finds it; it remembers the kernels that it has seen once, and lets one thread alone set the number of
    threads, so both are asked of the library itself.
    """

    def __init__(self, found: Any) -> None:
        """Take what threadpoolctl has found."""
        self.name = str(found.internal_api)
        self.version: str | None = found.version
        self._library = found.dynlib
        self._functions: dict[str, Any | None] = {}

    @classmethod
    def of(cls, library: Library) -> Blas | None:
        """Return the BLAS of a library that is imported; None where it cannot be told."""
        import threadpoolctl

        # conda's FAISS and numpy share one; a wheel keeps its own beside itself, in faiss_cpu.libs or numpy.libs.
        found = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
        own = [blas for blas in found if Path(blas.filepath).parent.name.startswith(library)]
        shared = [blas for blas in found if not Path(blas.filepath).parent.name.endswith(".libs")]
        return next(map(cls, [*own, *shared]), None)

    @property
    def architecture(self) -> str | None:
        """The processor that its kernels are written for."""
        corename = self._function("openblas_get_corename")
        if corename is None:
            return None
        corename.restype = ctypes.c_char_p
        return str(corename().decode())

    @property
    def threads(self) -> int | None:
        """How many threads it multiplies with; None where that cannot be set."""
        count = self._function("openblas_get_num_threads")
        return None if count is None or self._function("openblas_set_num_threads") is None else int(count())

    @threads.setter
    def threads(self, count: int) -> None:
        set_threads = self._function("openblas_set_num_threads")
        assert set_threads is not None, "only where `threads` is known"
        set_threads(count)

    @property
    def can_be_named(self) -> bool:
        """Whether other kernels can be named."""
        return all(hasattr(self._library, f"gotoblas_dynamic_{name}") for name in ("quit", "init"))

    def choose(self, architecture: str | None) -> None:
        """Have OpenBLAS choose its kernels again: these, or by itself. It reads the variable when it does."""
        if architecture is not None:
            os.environ[CHOICE] = architecture
        try:
            self._library.gotoblas_dynamic_quit()
            self._library.gotoblas_dynamic_init()
        finally:
            os.environ.pop(CHOICE, None)  # numpy of a child process chooses for itself

    def _function(self, name: str) -> Any | None:
        if name not in self._functions:
            self._functions[name] = self._found(name)
        return self._functions[name]

    def _found(self, name: str) -> Any | None:
        spelled = (f"{prefix}{name}{suffix}" for prefix in ("", "scipy_") for suffix in ("", "64_"))
        return next((getattr(self._library, one) for one in spelled if hasattr(self._library, one)), None)


def kernels_of(library: Library) -> Kernels | None:
    """Tell the kernels of a library that is imported; None where it cannot be told."""
    blas = Blas.of(library)
    return None if blas is None else _kernels_in(blas, library)


def _kernels_in(blas: Blas, library: Library) -> Kernels:
    return Kernels(blas.name, blas.version, blas.architecture, _replaced.get(library))


_replaced: dict[str, str] = {}
"""The architecture that FAISS's BLAS chose by itself, where another was named."""


def replace_old_kernels(faiss: Any) -> None:
    """Have FAISS's OpenBLAS take the kernels of Haswell where it took older ones than the processor can run.

    To be called when FAISS has just been imported, before anything is multiplied. Nothing is done where
    ``OPENBLAS_CORETYPE`` is set, and the new kernels go where they multiply wrongly.
    """
    if CHOICE in os.environ or "faiss" in _replaced:
        return
    blas = Blas.of("faiss")
    kernels = None if blas is None else _kernels_in(blas, "faiss")
    if blas is None or kernels is None or not kernels.is_older_than_processor or not blas.can_be_named:
        return
    blas.choose(SAFE)
    if _multiplies_right(faiss):
        _replaced["faiss"] = str(kernels.architecture)
    else:
        blas.choose(None)


@contextlib.contextmanager
def as_faiss_comes() -> Iterator[None]:
    """Let FAISS multiply with the kernels that it chose by itself; only while nothing else searches."""
    blas = Blas.of("faiss") if "faiss" in _replaced else None
    if blas is None:
        yield
        return
    blas.choose(_replaced["faiss"])
    try:
        yield
    finally:
        blas.choose(SAFE)


def _multiplies_right(faiss: Any) -> bool:
    generator = np.random.default_rng(0)
    queries, titles = generator.standard_normal((2, _TRIED, _TRIED), dtype=np.float32)
    scores, rows = faiss.knn(queries, titles, _TRIED, metric=faiss.METRIC_INNER_PRODUCT)
    right = np.einsum("qd,td->qt", queries.astype(np.float64), titles.astype(np.float64))
    return bool(np.allclose(scores, np.take_along_axis(right, rows.astype(np.int64), axis=1), atol=1e-4))


@lru_cache(maxsize=1)
def processor_flags() -> frozenset[str]:
    """Return what the processor says that it can do; nothing where the system does not tell."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return frozenset()
    return frozenset(flags.partition(":")[2].split())


@lru_cache(maxsize=1)
def numpy_is_faster() -> bool:
    """Tell whether numpy's kernels compute wider than FAISS's, and can be kept to one thread."""
    faiss, numpy, blas = kernels_of("faiss"), kernels_of("numpy"), Blas.of("numpy")
    if faiss is None or numpy is None or blas is None or blas.threads is None:
        return False
    return numpy.width > faiss.width
