"""The title vectors as they lie on a GPU: uploaded, rounded, coded; and some of them gathered together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from semrec_faiss.errors import MissingPackageError
from semrec_faiss.index.fused.plan import gathers_codes
from semrec_faiss.index.fused.titles.as_halves import exactly
from semrec_faiss.index.fused.titles.codes import TitleCodes

INSTALL = "pip install 'semrec-faiss[gpu]', or set device.kind=cpu"


def load_torch() -> Any:
    """Import torch and Triton.

    Raises:
        MissingPackageError: one of them is missing or does not load.
    """
    try:
        import torch
        import triton
    except (ImportError, OSError) as error:
        raise MissingPackageError(f"type fused needs torch and triton: {error}", fix=INSTALL) from error
    del triton
    return torch


@dataclass(frozen=True)
class GpuTitles:
    """The title vectors as a fused search keeps them.

    Attributes:
        halves: float16 (titles, `dim`), the vectors times ``scale``, rounded; or what they came as, see ``factors``;
            or bounds, see ``directions``. Vectors are filled up with zeros, see `copy_width`.
        originals: float32 (titles, vector_dim), here or page-locked on the host; beside bounds float16, as ``halves``,
            of titles that came as that. None where rescoring is done with the halves.
        vector_dim: dimensions of a vector.
        scale: a power of two that brings the longest vector to a length of at most 1, but for rounding.
        norm: the largest length of a rounded vector.
        error: the largest length of a scaled vector's rounding residual; of bounds its part along the directions.
        wide: whether lengths differ by so much that a scaled float32 may vanish, so that nothing can be proven.
        codes: int8 codes of the scaled vectors, where there are so many that batches gain by them.
        factors: float64 (titles,), of titles that came as float16: `as_halves.exactly` makes float32 originals of them.
        even: whether factors are so alike that scores of the copies are within ``error`` without them.
        origins: int32 (titles,), ascending: where these are some of a larger catalogue, which rows of it; ``originals``
            are then the whole catalogue's. None where they are all.
        directions: float64 (kept, `vector_dim`), orthonormal: ``halves`` are then coordinates along them and the length
            of the rest, `width_of` wide, whose inner products are bounds of scores. None where they are scores.
    """

    halves: Any
    originals: Any
    vector_dim: int
    scale: float
    norm: float
    error: float
    wide: bool = False
    codes: TitleCodes | None = None
    factors: Any = None
    origins: Any = None
    directions: Any = None
    even: bool = False

    @property
    def proves(self) -> bool:
        """Whether there are originals to rank by."""
        return self.originals is not None or self.factors is not None

    @property
    def score_factors(self) -> Any:
        """What a score of a copy has to be multiplied with, beside ``scale``; None where it is one of the title."""
        return None if self.even or self.screened else self.factors

    @property
    def count(self) -> int:
        """The number of titles."""
        return int(self.halves.shape[0])

    @property
    def dim(self) -> int:
        """How wide a copy is, or a bound."""
        return int(self.halves.shape[1])

    @property
    def screened(self) -> bool:
        """Whether scores of copies are bounds."""
        return self.directions is not None

    @property
    def bytes(self) -> int:
        """GPU memory of the vectors; of some of a catalogue that of the copies alone."""
        parts = [self.halves, self.origins, self._own_factors]
        if self.origins is None:
            parts = [self.halves, self.originals, self.factors]
        held = sum(int(part.nbytes) for part in parts if part is not None and part.device == self.halves.device)
        return held + (0 if self.codes is None else self.codes.bytes)

    @property
    def _own_factors(self) -> Any:
        """Those of the copies; where originals lie beside, which stay where they are, factors are theirs: None."""
        return self.factors if self.originals is None else None

    def gather(self, rows: Any) -> GpuTitles:
        """Copy some titles together: their float16 copies and, of many, their codes.

        The originals stay where they are, and answers have the rows of the whole catalogue.

        Args:
            rows: int32 (some,), ascending, on the GPU; at least one.
        """
        codes = self.codes.gather(rows) if self.codes is not None and gathers_codes(len(rows)) else None
        own = self._own_factors
        factors = self.factors if own is None else own.index_select(0, rows)
        return replace(self, halves=self.halves.index_select(0, rows), codes=codes, factors=factors, origins=rows)

    def gathered_bytes(self, count: int) -> int:
        """Return the GPU memory that `gather` takes for so many titles, their row numbers included."""
        factors = 0 if self._own_factors is None else self._own_factors.nbytes
        codes = self.codes.bytes if self.codes is not None and gathers_codes(count) else 0
        return count * (int(self.halves.nbytes + factors + codes) // self.count + 4)

    def gather_again(self, some: GpuTitles) -> None:
        """Copy titles ``some.origins`` to where `gather` has put as many before."""
        tables = [(self.halves, some.halves)]
        if self._own_factors is not None:
            tables.append((self.factors, some.factors))
        if self.codes is not None and some.codes is not None:
            tables += zip(self.codes.tables, some.codes.tables, strict=True)
        for its, mine in tables:
            load_torch().index_select(its, 0, some.origins, out=mine)

    def exact_vectors(self, part: slice) -> Any:
        """Return the originals of some of these titles, float32 on the GPU."""
        if self._own_factors is not None:
            return exactly(self.halves[part, : self.vector_dim], self.factors[part])
        if self.origins is not None:
            return self.originals_of(self.origins[part])
        its = self.originals[part, : self.vector_dim].to(self.halves.device)
        return its if self.factors is None else exactly(its, self.factors[part])

    def originals_of(self, rows: Any) -> Any:
        """Return originals that lie beside the copies, float32 on the GPU, by their rows in the catalogue."""
        its = self.originals.index_select(0, rows.to(self.originals.device))[:, : self.vector_dim]
        its = its.to(self.halves.device)
        return its if self.factors is None else exactly(its, self.factors.index_select(0, rows.to(its.device)))


def as_tensor(array: Any) -> Any:
    """Give an array to torch, which warns of one that it may not write to, such as a mapped file's."""
    if isinstance(array, load_torch().Tensor):
        return array
    array = np.ascontiguousarray(array)
    return load_torch().from_numpy(array if array.flags.writeable else array.copy())
