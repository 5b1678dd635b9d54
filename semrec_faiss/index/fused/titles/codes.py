"""Titles as int8 codes beside their vectors: half the bytes to read for the first look, and products twice as fast.

Scalar quantisation with a step that the eight titles of a piece share. What a code leaves out is bounded by the length
of the rest, which is kept too, so that answers found through codes are proven like all others: by Cauchy-Schwarz no
score exceeds that of the codes by more than |query| × |rest|.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from semrec_faiss.index.fused.plan import CODED_PIECE, SOME_TITLES
from semrec_faiss.index.fused.room import code_width

PIECES_ROWS = 4 * CODED_PIECE
"""Titles that four pieces divide among themselves."""

COUNTED_TITLES, WANTED = 65_536, 11
"""Titles that are looked at together, or counted; and the best of a query: ten, and the title that was asked about."""

CUT_WIDTHS, CUT_LEFT = 64, 160.0
"""Codes of some directions are a multiple of the first wide: rows at 176 bytes are read slower than at 256."""

CODES_LOOSE = 0.012
"""How much more bounds from codes are, of a title's length."""

CODED_TRIED, CODED_LEFT = 256, 0.25
"""After so many queries of small batches, codes that leave more than this share of them unproven are read no more."""

MULTIPLIED_TRIED, MULTIPLIED_LEFT, FEW_TITLES_LEFT = 4096, 0.25, 0.05
"""The same of large batches; of catalogues below `SOME_TITLES`, of which products of codes save little, the last."""

_LARGEST = 127
_LENGTH_MARGIN = 1.00001
_STEP_MARGIN, _LEAST_STEP = 1 + 2.0**-10, 2.0**-24
_REST_MARGIN, _LEAST_REST = 1 + 2.0**-9, 1e-6
"""Float16 rounds to nearest: with so much added, what is rounded is never less than what it stands for."""


@dataclass(frozen=True)
class TitleCodes:
    """The codes of all titles, on a GPU.

    Attributes:
        codes: int8 (titles, `code_width`), the components past those of the vectors 0.
        steps: float16 (titles,), what one of a code is worth.
        rests: float16 (titles,), at least the length of what the codes leave out.
        norm: the largest length of a vector that codes stand for.
        cut: None where they are of all components, else of so many, and of the length of the others.
        in_pieces: whether the titles of a piece share a step and a rest; those that were gathered do not.
    """

    codes: Any
    steps: Any
    rests: Any
    norm: float
    cut: int | None = None
    in_pieces: bool = True

    @property
    def width(self) -> int:
        """Bytes of a title's codes."""
        return int(self.codes.shape[1])

    @property
    def tables(self) -> tuple[Any, Any, Any]:
        """What has a line for each title."""
        return self.codes, self.steps, self.rests

    @property
    def bytes(self) -> int:
        """GPU memory of them."""
        return sum(int(part.nbytes) for part in self.tables)

    def gather(self, rows: Any) -> TitleCodes:
        """Copy those of some titles together; ``rows`` are integers on the GPU."""
        codes, steps, rests = (part.index_select(0, rows) for part in self.tables)
        return replace(self, codes=codes, steps=steps, rests=rests, in_pieces=False)


@dataclass
class CodesTried:
    """How many queries were searched through codes, and how many of them that left unproven.

    Attributes:
        tried, most: after so many queries, codes that leave more than this share of them do not pay.
        pay: whether they do, as far as is known.
    """

    tried: int
    most: float
    pay: bool = True
    searched: int = 0
    left: int = 0

    @classmethod
    def of(cls, titles: int, *, multiplied: bool) -> CodesTried:
        """Begin to count large batches, which multiply codes of so many titles, or small ones."""
        if not multiplied:
            return cls(CODED_TRIED, CODED_LEFT)
        return cls(MULTIPLIED_TRIED, MULTIPLIED_LEFT if titles >= SOME_TITLES else FEW_TITLES_LEFT)

    def count(self, searched: int, left: int) -> None:
        """Count a batch: titles may lie so near to one another that codes often do not tell them apart."""
        self.searched, self.left = self.searched + searched, self.left + left
        self.pay = self.pay and not (self.searched >= self.tried and self.left > self.most * self.searched)


def encode(
    torch: Any, count: int, dim: int, device: Any, scaled_parts: Iterable[tuple[slice, Any]], cut: int | None = None
) -> TitleCodes:
    """Encode vectors that come in parts: which of all they are, and float32 (some, dim) on the GPU, changed.

    All parts but the last have a multiple of `PIECES_ROWS` titles.
    """
    width = dim if cut is None else cut + 1
    codes = torch.zeros((count, code_width(width)), dtype=torch.int8, device=device)
    steps, rests = (torch.empty(count, dtype=torch.float16, device=device) for _ in range(2))
    norm = 0.0
    for part, given in scaled_parts:
        scaled = given
        if cut is not None:
            scaled = given[:, :width]
            scaled[:, cut] = torch.linalg.vector_norm(given[:, cut:], dim=1) * _LENGTH_MARGIN
        most = _largest_of_pieces(torch, scaled.abs().amax(dim=1))
        steps[part] = (most * (_STEP_MARGIN / _LARGEST) + _LEAST_STEP).half()
        step = steps[part].float()[:, None]
        rounded = torch.round(scaled / step)
        codes[part, : rounded.shape[1]] = rounded.to(torch.int8)
        rounded *= step
        norm = max(norm, float(torch.linalg.vector_norm(rounded, dim=1).max()))
        rest = _largest_of_pieces(torch, torch.linalg.vector_norm(scaled.sub_(rounded), dim=1))
        rests[part] = (rest * _REST_MARGIN + _LEAST_REST).half()
    return TitleCodes(codes, steps, rests, 1.00001 * norm, cut)


def _largest_of_pieces(torch: Any, values: Any) -> Any:
    """Return, for each title, the largest of a number that the titles of its piece have; float32 (some,).

    A piece is what a thread of the score pass holds next to one another, see `kernels.scoring`.
    """
    filled = torch.nn.functional.pad(values, (0, -len(values) % PIECES_ROWS)).view(-1, CODED_PIECE // 2, 4, 2)
    return filled.amax(dim=(1, 3), keepdim=True).expand_as(filled).reshape(-1)[: len(values)]


def choose_cut(torch: Any, halves: Any, queries: Any) -> int | None:
    """Choose of how many directions codes are: as few as leave, on the average, `CUT_LEFT` titles that may be the best.

    Reading less is worth rescoring more where a few queries are asked. The scores of the best are estimated by all
    directions, without what those leave; titles that may reach them are counted in a sample.

    Args:
        torch: the module.
        halves: float16 (titles, width) on the GPU, bounds.
        queries: float32 (some, kept + 1), their side of them, of unit length.

    Returns:
        How many directions, or None where all of them are needed.
    """
    kept = queries.shape[1] - 1
    best = torch.full((len(queries), 1), -math.inf, device=halves.device)
    for start in range(0, len(halves), COUNTED_TITLES):
        block = halves[start : start + COUNTED_TITLES, :kept].float()
        best = torch.cat([best, queries[:, :kept] @ block.T], dim=1)
        best = best.topk(min(WANTED, best.shape[1]), dim=1).values
    step = -(-len(halves) // COUNTED_TITLES)
    sample = halves[::step, : kept + 1].float()
    lengths = torch.linalg.vector_norm(sample, dim=1)
    for width in range(CUT_WIDTHS, kept + 1, CUT_WIDTHS):
        cut = width - 1
        tails = [torch.linalg.vector_norm(some[:, cut:], dim=1) for some in (queries, sample)]
        bounds = queries[:, :cut] @ sample[:, :cut].T + tails[0][:, None] * tails[1] + CODES_LOOSE * lengths
        if step * float((bounds >= best[:, -1:]).sum(dim=1).float().mean()) <= CUT_LEFT:
            return cut
    return None
