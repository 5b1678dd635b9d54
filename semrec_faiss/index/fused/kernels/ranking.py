# mypy: ignore-errors
"""Triton kernels of exact top-k, last part: rescoring, ranking, proof.

Final scores are summed in float64 and rounded once, so that they do not depend on how a pass divides the work: the same
titles get the same scores whichever tile, subset, shard or repetition they are found by.
"""

from __future__ import annotations

import triton
import triton.language as tl

from semrec_faiss.index.fused.kernels.scoring import load_factors
from semrec_faiss.index.fused.kernels.selecting import list_pieces, row_of

# Kernels are not formatted where `fmt: skip` stands: their arguments are in lines by kind, tables, sizes, constants.


@triton.jit(do_not_specialize=["title_count", "allowed_stride"])
def rescore_chunks(
    queries, titles, factors, allowed, chosen, scores, number, title_count, dim, allowed_stride, scale,
    LIMITED: tl.constexpr, FACTORED: tl.constexpr, MASKED: tl.constexpr, SPAN: tl.constexpr, CAPACITY: tl.constexpr,
    ROWS: tl.constexpr, BK: tl.constexpr, EIGHTS: tl.constexpr,
):  # fmt: skip
    """Score every title of the chosen chunks from the float16 copies; program (p, q) takes ROWS titles of query q.

    EIGHTS as for `scoring.load_tile`.
    """
    query = tl.program_id(1).to(tl.int64)
    if LIMITED:
        if query >= tl.load(number):
            return
    if EIGHTS:
        dim = dim // 8 * 8
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    out = scores + query * (CAPACITY * 2 * SPAN) + place
    if tl.load(chosen + query * CAPACITY + tl.program_id(0) * ROWS // (2 * SPAN)) < 0:
        tl.store(out, tl.full((ROWS,), float("-inf"), tl.float16))
    else:
        chunk = tl.load(chosen + query * CAPACITY + place // (2 * SPAN))
        row = row_of(chunk, place % (2 * SPAN), SPAN)
        valid = (chunk >= 0) & (row < title_count)
        row = tl.where(valid, row, 0)
        if MASKED:
            bits = tl.load(allowed + query * allowed_stride + row // 32)
            valid = valid & (((bits >> (row % 32)) & 1) != 0)
        column = tl.arange(0, BK)
        at = titles + row.to(tl.int64)[:, None] * dim + column[None, :]
        total = tl.zeros((ROWS,), tl.float32)
        for start in range(0, dim, BK):
            inside = start + column < dim
            q = tl.load(queries + query * dim + start + column, mask=inside, other=0.0)
            x = tl.load(at + start, mask=valid[:, None] & inside[None, :], other=0.0)
            total += tl.sum(x.to(tl.float32) * q.to(tl.float32)[None, :], axis=1)
        if FACTORED:
            total = total * load_factors(factors, row, title_count, scale)
        tl.store(out, tl.where(valid, total, float("-inf")).to(tl.float16))


@triton.jit
def _keys_of(
    queries, titles, factors, origins, chosen, picked, query, slot, dim, title_stride, title_scale,
    FACTORED: tl.constexpr, MAPPED: tl.constexpr, ORIGINALS: tl.constexpr, SPAN: tl.constexpr, CAPACITY: tl.constexpr,
    PICKS: tl.constexpr, ROWS: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Score the picked titles at ``slot`` (ROWS,): int64 that sort by score, ties by row, the best ones largest.

    With MAPPED the titles are some of a larger catalogue, and ``origins`` says which rows of it. With FACTORED they are
    halves, of which ``factors`` make the originals: rounded to float32, as those were. With SPAN 0 what is picked are
    titles' rows. Their vectors are ``title_stride`` apart.
    """
    pick = tl.load(picked + query * PICKS + slot)
    valid = pick >= 0
    pick = tl.where(valid, pick, 0)
    if SPAN == 0:
        row = pick
    else:
        chunk = tl.load(chosen + query * CAPACITY + pick // (2 * SPAN))
        row = tl.where(valid, row_of(chunk, pick % (2 * SPAN), SPAN), 0)
    source = row
    if MAPPED:
        row = tl.load(origins + row)
        if ORIGINALS:
            source = row
    if FACTORED:
        factor = tl.load(factors + source)
    column = tl.arange(0, BK)
    at = titles + source.to(tl.int64)[:, None] * title_stride + column[None, :]
    sums = tl.zeros((ROWS, BK), tl.float64)
    for start in range(0, dim, BK):
        inside = start + column < dim
        q = tl.load(queries + query * dim + start + column, mask=inside, other=0.0)
        x = tl.load(at + start, mask=valid[:, None] & inside[None, :], other=0.0)
        if FACTORED:
            x = (x.to(tl.float64) * factor[:, None]).to(tl.float32)
        sums += (x.to(tl.float64) * title_scale) * q.to(tl.float64)[None, :]
    total = tl.sum(sums, axis=1).to(tl.float32)
    total = tl.where(valid, tl.where(total == 0.0, 0.0, total), float("-inf"))  # -0.0 would rank below 0.0
    bits = total.to(tl.int32, bitcast=True)
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)
    return (ordered << 32) | (0x7FFFFFFF - row).to(tl.int64)


@triton.jit
def score_rows(
    queries, titles, factors, origins, chosen, picked, keys, number, dim, title_stride, title_scale,
    LIMITED: tl.constexpr, FACTORED: tl.constexpr, MAPPED: tl.constexpr, ORIGINALS: tl.constexpr, SPAN: tl.constexpr,
    CAPACITY: tl.constexpr, PICKS: tl.constexpr, ROWS: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Score picked titles that are too many for one program; program (p, q) writes the keys of ROWS of query q."""
    query = tl.program_id(1).to(tl.int64)
    if LIMITED:
        if query >= tl.load(number):
            return
    slot = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    key = _keys_of(
        queries,
        titles,
        factors,
        origins,
        chosen,
        picked,
        query,
        slot,
        dim,
        title_stride,
        title_scale,
        FACTORED,
        MAPPED,
        ORIGINALS,
        SPAN,
        CAPACITY,
        PICKS,
        ROWS,
        BK,
    )
    tl.store(keys + query * PICKS + slot, key)


@triton.jit
def _place_of(key, PICKS: tl.constexpr):
    """Return how many keys are larger than each; of equal ones the first comes first."""
    slot = tl.arange(0, PICKS)
    larger = key[None, :] > key[:, None]
    earlier = (key[None, :] == key[:, None]) & (slot[None, :] < slot[:, None])
    return tl.sum((larger | earlier).to(tl.int32), axis=1)


@triton.jit
def _write_ranked(
    query, key, place, lost, bounds, best_scores, best_rows, needed, k_wanted, title_unscale
):  # fmt: skip
    """Write the answers of a query, whose keys have these places, and what would prove them.

    They are proven when the k-th score exceeds whatever was dropped on the way, ``lost``, by the error that a float16
    score can have: ``needed`` is -inf then, else the score to be exceeded, by k titles of other shards perhaps.
    """
    top = (key >> 32).to(tl.int32)
    score = (top ^ ((top >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    best = tl.where(score > float("-inf"), 0x7FFFFFFF - (key & 0x7FFFFFFF), -1)
    bound = tl.load(bounds + 3 * query)
    unscale_first = tl.load(bounds + 3 * query + 1)
    unscale_second = tl.load(bounds + 3 * query + 2)
    wanted = place < k_wanted
    out = score * unscale_second * title_unscale * unscale_first
    tl.store(best_scores + query * k_wanted + place, tl.where(best >= 0, out, float("-inf")), mask=wanted)
    tl.store(best_rows + query * k_wanted + place, best, mask=wanted)
    kth = tl.min(tl.where(wanted, score, float("inf")), axis=0)
    # What was dropped had been rounded to float16, by 2^-11 of it, and had lost its last bits, 2^-17.
    rounded = tl.abs(lost) * 4.97e-04
    reached = lost + rounded + bound
    is_proven = (kth > reached) | (lost == float("-inf"))
    told = reached * unscale_second * title_unscale  # powers of two: unless it vanishes or overflows, it stays exact
    told = tl.where(tl.abs(told) >= 1.0e-37, told * unscale_first, float("inf"))
    told = tl.where(told >= -3.0e38, told, float("inf"))
    tl.store(needed + query, tl.where(is_proven, float("-inf"), told))


@triton.jit(do_not_specialize=["keep", "allowed_stride", "title_count", "k_wanted"])
def find_rows(
    values, others, stride, count, keep, allowed, allowed_stride, title_count, columns, chosen,
    queries, titles, factors, origins, bounds, best_scores, best_rows, needed, number, dim, title_stride, k_wanted,
    title_scale, title_unscale,
    LIMITED: tl.constexpr, MASKED: tl.constexpr, FACTORED: tl.constexpr, MAPPED: tl.constexpr, ORIGINALS: tl.constexpr,
    SPAN: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, STEPS: tl.constexpr, AT_ONCE: tl.constexpr,
    PICKS: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Go from a query's chunk maxima to its answers at once: where pieces are titles, those are what to rank."""
    query = tl.program_id(0).to(tl.int64)
    if LIMITED:
        if query >= tl.load(number):
            return
    lost = list_pieces(
        query,
        values,
        others,
        stride,
        count,
        keep,
        allowed,
        allowed_stride,
        title_count,
        columns,
        chosen,
        MASKED,
        SPAN,
        1,
        WIDTH,
        COLUMNS,
        STEPS,
        AT_ONCE,
        PICKS,
    )
    tl.debug_barrier()
    key = _keys_of(
        queries,
        titles,
        factors,
        origins,
        chosen,
        chosen,
        query,
        tl.arange(0, PICKS),
        dim,
        title_stride,
        title_scale,
        FACTORED,
        MAPPED,
        ORIGINALS,
        0,
        PICKS,
        PICKS,
        PICKS,
        BK,
    )
    place = _place_of(key, PICKS)
    _write_ranked(query, key, place, lost, bounds, best_scores, best_rows, needed, k_wanted, title_unscale)


@triton.jit(do_not_specialize=["dropped_count", "k_wanted"])
def rank_rows(
    queries, titles, factors, origins, chosen, picked, bounds, dropped, keys, best_scores, best_rows, needed, number,
    dim, title_stride, dropped_count, k_wanted, title_scale, title_unscale,
    LIMITED: tl.constexpr, SORTED: tl.constexpr, FACTORED: tl.constexpr, MAPPED: tl.constexpr, ORIGINALS: tl.constexpr,
    SPAN: tl.constexpr, CAPACITY: tl.constexpr, PICKS: tl.constexpr, DROPPED: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Score the picked titles from the original vectors, rank them, and tell what would prove the answer.

    ``keys`` has room for PICKS int64 a query; with SORTED it holds them, scored and sorted already.
    """
    query = tl.program_id(0).to(tl.int64)
    if LIMITED:
        if query >= tl.load(number):
            return
    slot = tl.arange(0, PICKS)
    place = slot
    if SORTED:
        key = tl.load(keys + query * PICKS + slot)
    else:
        key = _keys_of(
            queries,
            titles,
            factors,
            origins,
            chosen,
            picked,
            query,
            slot,
            dim,
            title_stride,
            title_scale,
            FACTORED,
            MAPPED,
            ORIGINALS,
            SPAN,
            CAPACITY,
            PICKS,
            PICKS,
            BK,
        )
        if PICKS <= 64:
            place = _place_of(key, PICKS)
        else:
            # Loaded anew: what a sum leaves, many threads holding the same elements, Triton sorts wrongly over several
            # warps.
            tl.store(keys + query * PICKS + slot, key)
            tl.debug_barrier()
            key = tl.sort(tl.load(keys + query * PICKS + slot, cache_modifier=".cg"), descending=True)
    step = tl.arange(0, DROPPED)
    lost = tl.load(dropped + query * dropped_count + step, mask=step < dropped_count, other=float("-inf"))
    lost = tl.max(lost, axis=0)
    _write_ranked(query, key, place, lost, bounds, best_scores, best_rows, needed, k_wanted, title_unscale)
