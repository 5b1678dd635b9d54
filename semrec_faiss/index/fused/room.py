"""The GPU memory that a block of queries takes besides the titles, and how many queries fit it."""

from __future__ import annotations

from functools import lru_cache

from semrec_faiss.index.fused.plan import (
    LARGEST_TILE,
    SORTED_APART,
    FusedPlan,
    Masking,
    bitmap_words,
    code_width,
    plan_search,
)

WORK_BYTES = 1 << 30
"""GPU memory that one block of queries may take besides the vectors; of very many titles `WORK_SHARE` of theirs."""

WORK_SHARE = 0.045
"""So that a block of a thousand queries fits, however many titles there are."""

MOST_QUERIES = 16_384
"""The largest block: more would not be faster."""

MOST_REPEATED = 1024
"""Queries that are searched for more candidates at once."""


def repeat_queries(plan: FusedPlan, titles: int) -> int:
    """Return how many queries are repeated at once at most: a power of two, from 1 to `MOST_REPEATED`."""
    return min(MOST_REPEATED, 1 << max(0, (WORK_BYTES // 8 // repeated_bytes(plan, titles)).bit_length() - 1))


def repeated_bytes(plan: FusedPlan, titles: int) -> int:
    """Return the GPU memory that each query takes that is repeated."""
    return 2 * plan.chunks(titles) + plan.capacity * (4 + 4 * plan.span) + 2 * plan.groups


def work_bytes(titles: int, dim: int) -> int:
    """Return the GPU memory that one block of queries may take besides so many titles."""
    return max(WORK_BYTES, int(WORK_SHARE * 2 * titles * dim))


@lru_cache(maxsize=1024)
def block_queries(titles: int, dim: int, k: int, masking: Masking = "none", *, screened: bool = False) -> int:
    """Return how many queries may be searched at once within `work_bytes`."""
    queries, work = MOST_QUERIES, work_bytes(titles, dim)
    while (fitting := max(1, work // query_bytes(titles, dim, queries, k, masking, screened=screened))) < queries:
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
