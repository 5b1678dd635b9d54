"""The sizes that one fused search runs with: tiles, chunks, how many candidates are kept, how many queries at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from semrec_faiss.index.fused.listing import (
    READ_AT_ONCE,
    SEGMENT,
    SHORT_QUERIES,
    SHORT_SEGMENT,
    SHORT_VALUES,
    capacity_of,
    groups_of,
    picks_of,
    power_of_two,
    segments_of,
    width_of,
)

Masking = Literal["none", "shared", "own"]
"""Which rows are allowed: all, the same ones for all queries of a batch, or other ones for each query."""

LEAST_CAPABILITY = (8, 0)
"""Compute capability that the kernels need, Ampere's: before it nothing is loaded while something else is computed."""

LARGEST_TILE = 128
"""Queries that one program multiplies at most."""

FEW_QUERIES, MANY_QUERIES = 32, 256
"""Up to the first reading the titles bounds the time, from the second on multiplying."""

SMALL_TITLES = 8192
"""Up to so many, such as a filter's, chunks without pieces have four titles where there are many queries: looking
through more maxima takes less than rescoring more titles."""

SOME_TITLES, MANY_TITLES, MOST_TITLES = 500_000, 2_000_000, 20_000_000
"""From so many on larger chunks pay: fewer maxima to write, for more titles to rescore; and more pieces by codes."""

MOST_KEPT = 1024
"""The most candidates that a repetition keeps, chunks or titles."""

SCREENED_TITLES = 500_000
"""From so many titles on multiplying fewer dimensions saves more than rescoring more titles costs."""

CODED_TITLES = 500_000
"""From so many titles on small batches read int8 codes instead of vectors: of fewer, starting to read takes as long."""

CODED_QUERIES, CODED_QUERIES_OF_MANY, CODED_K = 64, 128, 64
"""The largest batch, of many titles too, and the most titles a query that codes are read for: beyond, reading the
vectors is not what takes time."""

MULTIPLIED_TITLES, MULTIPLIED_SCORES = 50_000, 50_000_000
"""From so many titles, and scores of a batch, on more queries than `MANY_QUERIES` multiply codes, which tensor cores do
faster: of fewer, rescoring more titles costs what that saves."""

MULTIPLIED_REGISTERS = 168
"""Of a thread that multiplies codes in pieces: on Hopper three programs of four warps are at work side by side then."""

CODED_PIECE = 8
"""Titles that share a step of their codes: the piece of a chunk where codes are multiplied."""

TWO_PLANES, TWO_PLANES_QUERIES = 2, 8
"""Up to so many queries have two rows of codes each: the tensor cores multiply 16 rows at a time anyway."""

CUT_KEPT = 272
"""Chunks that may hold one of the best by codes of few directions: twice as many as those are chosen to leave."""

CUT_PIECES = 96
"""Pieces that may hold one of the best besides, where codes are multiplied that may be of few directions."""

PIECED_K, TITLES_A_PAIR = 32, 32
"""Up to so many titles a query, of so many titles for each pair of chunks that are kept, only the best piece of a chunk
is looked at: two of the best seldom lie in one."""

RANKED_QUERIES = 2048
"""Up to so many queries of a small catalogue a piece is a title, which is ranked at once."""

SORTED_APART = 256
"""With more titles to rank than this, they are scored by several programs a query and sorted between two launches."""

SOME_RESULTS, MANY_RESULTS = 128, 512
"""Titles a query beyond which chunks get smaller: the k best chunks hold fewer titles that are rescored for nothing."""

RESCORED_AT_ONCE = 64
"""Titles that one program rescores in float16, at most."""

GRAPH_BYTES = 192 << 20
"""GPU memory of the largest batch that is captured as a CUDA graph."""

_TITLE_PADDING = 256


@dataclass(frozen=True)
class FusedPlan:
    """What one block of queries is searched with.

    Attributes:
        span: a chunk holds 2 × span titles.
        planes: rows of int8 codes that a query has where chunk maxima are bounds from codes; 0 where they are scores.
        tile_queries, tile_titles, tile_dim: the block that one program multiplies; rows of codes where there are any.
        warps, stages: of that program.
        group: tiles of queries that share a pass over the titles.
        segments, row_segments: parts that the chunk maxima of a query, and the scores of titles, are looked through
            in, side by side, of about ``segment`` values.
        width: maxima that selection holds at once.
        keep: chunks that are rescored at least; ``capacity`` bounds them.
        keep_rows: titles that are rescored in float32 at least; ``picks`` bounds them.
        rescore_rows: titles that one program rescores in float16.
        many: whether there are queries enough to keep the whole GPU busy by one program each.
        piece: of the titles of a chunk only so many are rescored, those with its best one, unless others may be among
            the best too; 1: not rescored but ranked at once. 0 where all of a chunk are.
        pointers: whether tiles are loaded by every thread, instead of by the copy engine.
        parts: tiles of titles that a program multiplies one after the other; chunks have titles of all of them, and of
            several tiles four chunks have all titles.
        most_registers: of a thread that multiplies; 0 for as many as it takes.
    """

    span: int
    planes: int
    tile_queries: int
    tile_titles: int
    tile_dim: int
    warps: int
    stages: int
    group: int
    segment: int
    segments: int
    width: int
    keep: int
    capacity: int
    keep_rows: int
    picks: int
    rescore_rows: int
    many: bool = False
    piece: int = 0
    pointers: bool = False
    parts: int = 1
    most_registers: int = 0

    @property
    def multiplies(self) -> bool:
        """Whether codes are multiplied in pieces."""
        return self.planes > 0 and self.piece > 0

    @property
    def program_titles(self) -> int:
        """Titles that one program multiplies."""
        return self.parts * self.tile_titles

    @property
    def listed(self) -> int:
        """Titles of what selection lists: a chunk or a piece of one."""
        return self.piece or 2 * self.span

    @property
    def row_segments(self) -> int:
        """Parts that the scores of the titles that are rescored are looked through in; as ``segments``."""
        return 1 if self.many else segments_of(self.capacity * self.listed, self.keep_rows, self.segment)

    @property
    def groups(self) -> int:
        """Room for the largest values of groups, where there are several segments."""
        chunks, rows = groups_of(self.keep, self.segments), groups_of(self.keep_rows, self.row_segments)
        return max(self.segments * chunks, self.row_segments * rows)

    @property
    def columns(self) -> int:
        """Chunks that selection looks at more closely, at most, where it lists their pieces."""
        return capacity_of(self.keep)

    def tiles(self, titles: int) -> int:
        """Return how many programs it takes to multiply all titles with a tile of queries."""
        return -(-titles // self.program_titles)

    def chunks(self, titles: int) -> int:
        """Return how many chunk maxima a query has, those of missing titles included: up to what is read at once."""
        chunks = self.tiles(titles) * self.program_titles // (2 * self.span)
        return -(-chunks // READ_AT_ONCE) * READ_AT_ONCE


def keeps_codes(titles: int, rescore: str) -> bool:
    """Tell whether int8 codes are kept beside the vectors; where nothing is proven, memory matters more."""
    return rescore == "float32" and titles >= min(CODED_TITLES, MULTIPLIED_TITLES)


def gathers_codes(titles: int) -> bool:
    """Tell whether codes are gathered with so many titles of a catalogue: they are read then, but not multiplied."""
    return titles >= CODED_TITLES


def multiplies_codes(queries: int) -> bool:
    """Tell whether such a batch multiplies codes in pieces, where it is searched through them."""
    return queries > MANY_QUERIES


def through_codes(titles: int, queries: int, k: int, *, screened: bool = False) -> bool:
    """Tell whether a batch is searched through the codes of a whole catalogue, where there are any."""
    if multiplies_codes(queries):
        least = max(MULTIPLIED_TITLES, TITLES_A_PAIR * _kept_pieces(k, titles, screened=screened) ** 2)
        return k <= PIECED_K and titles >= least and titles * queries >= MULTIPLIED_SCORES
    if titles < CODED_TITLES:
        return False
    if screened:
        return k <= CODED_K and queries <= TWO_PLANES_QUERIES
    return k <= CODED_K and queries <= (CODED_QUERIES_OF_MANY if titles >= MANY_TITLES else CODED_QUERIES)


@lru_cache(maxsize=1024)
def plan_search(
    titles: int,
    dim: int,
    queries: int,
    k: int,
    *,
    coded: bool = False,
    screened: bool = False,
    pieces: bool | None = None,
) -> FusedPlan:
    """Choose the sizes for a block of queries; the numbers were tried out on an H100.

    Args:
        titles: how many there are.
        dim: dimensions of a vector.
        queries: the size of the block.
        k: titles a query, at most `FUSED_K_LIMIT`.
        coded: whether chunk maxima are to come from codes, whose bounds are wider: more chunks are kept. Many queries
            multiply codes in pieces.
        screened: whether scores are bounds from principal directions, ``dim`` wide: more titles are rescored, too.
        pieces: whether `takes_pieces`, where some of these titles are never allowed; None where all may be.
    """
    few, many = queries <= FEW_QUERIES, queries > MANY_QUERIES
    reached = _reached(k) if screened else 0
    multiplied = coded and multiplies_codes(queries)
    planes = 0 if not coded else TWO_PLANES if queries <= TWO_PLANES_QUERIES and not multiplied else 1
    if multiplied:
        keep = _kept_pieces(k, titles, screened=screened)
    else:
        keep = _kept_chunks(k, planes) + (CUT_KEPT if coded and screened else reached)
    keep_rows = k + max(4, k // 8) + reached
    pieces = takes_pieces(titles, k, coded=coded, screened=screened) if pieces is None else pieces
    piece = _coded_piece(titles) if multiplied else _piece(titles, queries) if pieces else 0
    wide = multiplied or (many and k <= SOME_RESULTS and titles >= (SOME_TITLES if piece else MANY_TITLES))
    coarse = titles >= SOME_TITLES or piece > 1
    span = 32 if wide else 16 if coarse else 8
    tile_titles = 64 if few and span == 8 else 128
    parts = 2 if wide else 1
    fine = many and not (piece or wide) and titles <= SMALL_TITLES
    span = 2 if fine or k > MANY_RESULTS else 4 if k > SOME_RESULTS else span
    tile_queries = 16 if queries <= 16 else 64 if queries <= 64 else LARGEST_TILE
    chunks = -(-titles // (parts * tile_titles)) * parts * tile_titles // (2 * span)
    capacity = capacity_of(keep)
    segment = SHORT_SEGMENT if queries <= SHORT_QUERIES and chunks <= SHORT_VALUES else SEGMENT
    plan = FusedPlan(
        span=span,
        planes=planes,
        tile_queries=tile_queries,
        tile_titles=tile_titles,
        tile_dim=128 if (queries <= 16 or coded) and dim >= 128 else 64,
        warps=8 if coded and tile_queries == 64 else 4,
        stages=2 if many or (coded and screened) else 4 if coded and tile_queries <= 64 else 3,
        group=32,
        segment=segment,
        segments=1 if many else segments_of(chunks, keep, segment),
        many=many,
        width=width_of(keep, many=many),
        keep=keep,
        capacity=capacity,
        keep_rows=keep_rows,
        picks=picks_of(keep, keep_rows),
        rescore_rows=min(RESCORED_AT_ONCE, capacity * 2 * span),
        parts=parts,
        most_registers=MULTIPLIED_REGISTERS if multiplied else 0,
    )
    if not piece or plan.segments > 1:
        return plan
    return with_pieces(plan, piece)


def takes_pieces(titles: int, k: int, *, coded: bool, screened: bool) -> bool:
    """Tell whether pieces of chunks are rescored: of so many titles seldom two of the best share a chunk."""
    keep = _kept_chunks(k, 0) + (_reached(k) if screened else 0)
    return not coded and k <= PIECED_K and titles >= TITLES_A_PAIR * keep * keep


def _piece(titles: int, queries: int) -> int:
    """Return how many titles a piece has; 0 where chunks have none.

    The smaller pieces are, the less is rescored, and the longer it takes to find the best of a chunk.
    """
    if titles >= SOME_TITLES:
        return 8 if queries > MANY_QUERIES else 0
    return 4 if queries > RANKED_QUERIES else 1


def with_pieces(plan: FusedPlan, piece: int) -> FusedPlan:
    """Return a plan by which only pieces of chunks are rescored: room is for one or two chunks of which all are."""
    keep = plan.keep + plan.keep // 8
    if piece == 1:
        room = power_of_two(keep + 2 * plan.span)
        return replace(plan, piece=1, capacity=room, picks=room)
    capacity = power_of_two(keep + 2 * (2 * plan.span // piece) + 2)
    rescored = min(RESCORED_AT_ONCE, capacity * piece)
    return replace(plan, piece=piece, capacity=capacity, rescore_rows=rescored)


def _kept_chunks(k: int, planes: int) -> int:
    """Return how many chunks to rescore; the wider the bounds of maxima, the more may hold one of the best."""
    return (k + max(2, k // 8), 3 * k + 66, 2 * k + 28)[planes]


def _kept_pieces(k: int, titles: int, *, screened: bool) -> int:
    """Return how many pieces to rescore where codes are multiplied: the more titles, the nearer the best are."""
    steps = sum(titles >= least for least in (SOME_TITLES, MANY_TITLES, MOST_TITLES))
    return (2 * k + 12, 4 * k + 24, 6 * k + 36, 10 * k + 60)[steps] + (CUT_PIECES if screened else 0)


def _coded_piece(titles: int) -> int:
    """Return how many titles a piece has where codes are multiplied: those that share a step, or half of them."""
    return CODED_PIECE if titles >= SOME_TITLES else CODED_PIECE // 2


def _reached(k: int) -> int:
    """Return how many more titles' bounds may reach the k-th score: as many as directions were chosen to leave."""
    return 2 * k + 12 if k <= CODED_K else k // 2 + 76


def repeats(k: int) -> bool:
    """Tell whether more candidates are worth trying: with a large k they cost as much as all titles."""
    return 4 * k <= MOST_KEPT


def bitmap_words(titles: int) -> int:
    """Return the int32 words of a bitmap of the titles, whole tiles of them."""
    return -(-titles // _TITLE_PADDING) * _TITLE_PADDING // 32
