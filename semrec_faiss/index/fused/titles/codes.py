"""Titles as int8 codes beside their vectors: half the bytes to read for the first look of a small batch.

Scalar quantisation with a step of each title's own. What a code leaves out is bounded by the length of the rest, which
is kept too, so that answers found through codes are proven like all others: by Cauchy-Schwarz no score exceeds that of
the codes by more than |query| × |rest|.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from semrec_faiss.index.fused.plan import code_width

_LARGEST = 127
_STEP_MARGIN, _LEAST_STEP = 1 + 2.0**-10, 2.0**-24
_REST_MARGIN, _LEAST_REST = 1 + 2.0**-9, 1e-6
"""Float16 rounds to nearest: with so much added, what is rounded is never less than what it stands for."""


@dataclass(frozen=True)
class TitleCodes:
    """The codes of all titles, on a GPU.

    Attributes:
        codes: int8 (titles, `code_width` of dim), the components past dim 0.
        steps: float16 (titles,), what one of a code is worth.
        rests: float16 (titles,), at least the length of what the codes leave out.
        norm: the largest length of a vector that codes stand for.
    """

    codes: Any
    steps: Any
    rests: Any
    norm: float

    @property
    def bytes(self) -> int:
        """GPU memory of them."""
        return sum(int(part.nbytes) for part in (self.codes, self.steps, self.rests))

    def gather(self, rows: Any) -> TitleCodes:
        """Copy those of some titles together; ``rows`` are integers on the GPU."""
        codes, steps, rests = (part.index_select(0, rows) for part in (self.codes, self.steps, self.rests))
        return TitleCodes(codes, steps, rests, self.norm)


def encode(torch: Any, count: int, dim: int, device: Any, scaled_parts: Iterable[tuple[slice, Any]]) -> TitleCodes:
    """Encode vectors that come in parts: which of all they are, and float32 (some, dim) on the GPU, changed."""
    codes = torch.zeros((count, code_width(dim)), dtype=torch.int8, device=device)
    steps, rests = (torch.empty(count, dtype=torch.float16, device=device) for _ in range(2))
    norm = 0.0
    for part, scaled in scaled_parts:
        steps[part] = (scaled.abs().amax(dim=1) * (_STEP_MARGIN / _LARGEST) + _LEAST_STEP).half()
        step = steps[part].float()[:, None]
        rounded = torch.round(scaled / step)
        codes[part, :dim] = rounded.to(torch.int8)
        rounded *= step
        norm = max(norm, float(torch.linalg.vector_norm(rounded, dim=1).max()))
        rest = torch.linalg.vector_norm(scaled.sub_(rounded), dim=1)
        rests[part] = (rest * _REST_MARGIN + _LEAST_REST).half()
    return TitleCodes(codes, steps, rests, 1.00001 * norm)
