"""The GPU memory that titles take, and a block of queries besides, and how many queries fit it."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from semrec_faiss.index.fused.listing import power_of_two
from semrec_faiss.index.fused.plan import (
    LARGEST_TILE,
    SORTED_APART,
    TWO_PLANES,
    FusedPlan,
    Masking,
    bitmap_words,
    keeps_codes,
    plan_search,
    through_codes,
)

Kept = Literal["gpu", "host", "halves", "bounded", "uncoded", "none"]
"""Where the originals are that answers are proven by: float32 beside the float16 copies or bounds, or on the host; of
titles that came as float16 in the copies themselves, or beside bounds, with codes or without; or nowhere."""

FACTOR_BYTES = 8
"""Of a title that came as float16, what makes the original of it."""

WORK_BYTES = 1 << 30
"""GPU memory that one block of queries may take besides the vectors; of very many titles `WORK_SHARE` of theirs."""

WORK_SHARE = 0.085
"""So that a block of a thousand queries fits, however many titles there are."""

LEAST_COPY = 32
"""The narrowest copy: tiles of a product are 64 components deep, however few there are."""

MOST_QUERIES = 16_384
"""The largest block: more would not be faster."""

MOST_REPEATED = 1024
"""Queries that are searched for more candidates at once."""

ROUNDED_UP = 128
"""Batches of up to so many queries are searched by a recording for the next power of two."""

RECORDED_AGAIN = 1024
"""The most queries that recordings are made for of those that a first pass has left."""


def repeat_queries(plan: FusedPlan, titles: int) -> int:
    """Return how many queries are repeated at once at most: a power of two, from 1 to `MOST_REPEATED`."""
    return min(MOST_REPEATED, 1 << max(0, (WORK_BYTES // 8 // repeated_bytes(plan, titles)).bit_length() - 1))


def repeated_bytes(plan: FusedPlan, titles: int) -> int:
    """Return the GPU memory that each query takes that is repeated."""
    maxima = (2 if plan.piece else 1) * plan.chunks(titles)
    return 2 * maxima + plan.capacity * (4 + 2 * plan.listed) + 2 * plan.groups


def work_bytes(titles: int, dim: int) -> int:
    """Return the GPU memory that one block of queries may take besides so many titles."""
    return max(WORK_BYTES, int(WORK_SHARE * 2 * titles * copy_width(dim)))


@lru_cache(maxsize=1024)
def block_queries(titles: int, dim: int, k: int, masking: Masking = "none", *, screened: bool = False) -> int:
    """Return how many queries may be searched at once within `work_bytes`."""
    queries, work = MOST_QUERIES, work_bytes(titles, dim)
    coded = through_codes(titles, queries, k, screened=screened)

    def bytes_each() -> int:
        asked = (titles, dim, queries, k, masking)
        return max(query_bytes(*asked, coded=read, screened=screened) for read in {False, coded})

    while (fitting := max(1, work // bytes_each())) < queries:
        queries = min(fitting // 128 * 128 or fitting, queries - 1)
    return queries


def even_block(queries: int, most: int) -> int:
    """Return the size of the blocks of a batch, in whole tiles: the last one is about as large."""
    blocks = -(-queries // most)
    return min(queries, most, -(-queries // (blocks * LARGEST_TILE)) * LARGEST_TILE)


def query_bytes(
    titles: int,
    dim: int,
    queries: int,
    k: int,
    masking: Masking,
    *,
    coded: bool = False,
    screened: bool = False,
    pieces: bool | None = None,
) -> int:
    """Return the GPU memory that each query of a block of so many takes besides the vectors; see `plan_search`."""
    plan = plan_search(titles, dim, queries, k, coded=coded, screened=screened, pieces=pieces)
    members = plan.capacity * plan.listed
    sorting = 4 * 8 if plan.picks > SORTED_APART else 8
    candidates = plan.capacity * 4 + 2 * plan.groups + 2 * members + plan.picks * (4 + sorting)
    bitmap = 4 * bitmap_words(titles) if masking == "own" else 0
    codes = plan.planes * code_width(dim) + 12 if coded else 0
    projected = 8 * dim if screened else 0
    pieced = 2 * plan.chunks(titles) + 4 * plan.columns if plan.piece else 0
    return 2 * plan.chunks(titles) + pieced + candidates + bitmap + codes + 10 * dim + projected + 16 * k + 64


def title_bytes(titles: int, dim: int, kept: Kept, *, width: int | None = None) -> int:
    """Return the GPU memory of title vectors: float16 copies, or bounds of a ``width``, and what proves answers."""
    copied = copy_width(dim)
    came = 2 * copied + FACTOR_BYTES
    beside = {"gpu": 4 * dim, "host": 0, "halves": FACTOR_BYTES, "bounded": came, "uncoded": came, "none": 0}[kept]
    coded = kept not in ("uncoded", "none") and keeps_codes(titles, "float32")
    return titles * (2 * (width or copied) + beside) + (code_bytes(titles, width or copied) if coded else 0)


def copy_width(dim: int) -> int:
    """Return how wide float16 copies of vectors are: rows have to begin at multiples of 16 bytes."""
    return max(LEAST_COPY, -(-dim // 8) * 8)


def code_width(dim: int) -> int:
    """Return the bytes of a title's codes: rows have to begin at multiples of 16."""
    return -(-dim // 16) * 16


def code_bytes(titles: int, dim: int) -> int:
    """Return the GPU memory of the codes of all titles, with a step and a rest in float16 each."""
    return titles * (code_width(dim) + 2 + 2)


def code_rows(queries: int, planes: int) -> int:
    """Return the rows of codes of a batch; where a query has two, eights of queries lie together."""
    return queries if planes < TWO_PLANES else TWO_PLANES * (-(-queries // 8) * 8)


def recorded_queries(queries: int) -> int:
    """Return how many queries a recording is made for that searches so many: of small batches only a few sizes."""
    return power_of_two(queries) if queries <= ROUNDED_UP else queries


def recorded_again(queries: int) -> int:
    """Return the same for what a first pass has left, which comes in any size: whole tiles, and 0 where it is much."""
    if queries > RECORDED_AGAIN:
        return 0
    return recorded_queries(-(-queries // LARGEST_TILE) * LARGEST_TILE if queries > LARGEST_TILE else queries)
