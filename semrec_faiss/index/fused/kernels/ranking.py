# mypy: ignore-errors
"""Triton kernels of exact top-k, second half: selection, rescoring, ranking, proof.

Final scores are summed in float64 and rounded once, so that they do not depend on how a pass divides the work: the same
titles get the same scores whichever tile, subset, shard or repetition they are found by.
"""

from __future__ import annotations

import triton
import triton.language as tl

from semrec_faiss.index.fused.kernels.scoring import load_factors

# Kernels are not formatted where `fmt: skip` stands: their arguments are in lines by kind, tables, sizes, constants.


@triton.jit
def _ordered16(values):
    """Map float16 to int32 so that the integers compare as the numbers do."""
    bits = values.to(tl.int16, bitcast=True).to(tl.int32)
    return bits ^ ((bits >> 15) & 0x7FFF)


@triton.jit
def _row_of(chunk, member, SPAN: tl.constexpr):
    """Return the title row of a chunk's member, 0 to 2 × SPAN - 1."""
    return (chunk // 4) * (8 * SPAN) + 8 * (member // 2) + 2 * (chunk % 4) + member % 2


@triton.jit(do_not_specialize=["keep"])
def select_largest(
    values, stride, through, count, keep, chosen, dropped, dropped_stride,
    THROUGH: tl.constexpr, WIDTH: tl.constexpr, CAPACITY: tl.constexpr,
):  # fmt: skip
    """List, for each row of values, at least the ``keep`` largest, and the largest value that is not listed.

    The ``keep``-th largest of WIDTH group maxima is a bound that at least ``keep`` values reach; where there are no
    more values than WIDTH it is the ``keep``-th largest itself. It is found bit by bit, whatever ``keep`` is. What
    finds no place among CAPACITY counts as not listed.

    Program (s, q) looks at segment ``s`` of row ``q``: ``count`` values of it. With THROUGH there is one segment, and
    ``through`` lists the ``count`` positions to look at, -1 for none. What is listed are positions within the row.
    """
    query = tl.program_id(1).to(tl.int64)
    segment = query * tl.num_programs(0) + tl.program_id(0)
    first = tl.program_id(0) * count
    base = values + query * stride
    column = tl.arange(0, WIDTH)
    group = tl.full((WIDTH,), float("-inf"), tl.float16)
    for start in range(0, count, WIDTH):
        at = first + start + column
        inside = start + column < count
        if THROUGH:
            at = tl.load(through + query * count + at, mask=inside, other=-1)
        inside = inside & (at >= 0) & (at < stride)
        group = tl.maximum(group, tl.load(base + at, mask=inside, other=float("-inf")))
    keys = _ordered16(group)
    threshold = -32768
    for bit in tl.static_range(15, -1, -1):
        candidate = threshold + (1 << bit)
        threshold = tl.where(tl.sum((keys >= candidate).to(tl.int32), axis=0) >= keep, candidate, threshold)
    found = 0
    left = tl.full((WIDTH,), float("-inf"), tl.float16)
    for start in range(0, count, WIDTH):
        at = first + start + column
        inside = start + column < count
        if THROUGH:
            at = tl.load(through + query * count + at, mask=inside, other=-1)
        inside = inside & (at >= 0) & (at < stride)
        part = tl.load(base + at, mask=inside, other=float("-inf"))
        reaches = (_ordered16(part) >= threshold) & (part > float("-inf"))
        place = found + tl.cumsum(reaches.to(tl.int32), axis=0) - 1
        fits = reaches & (place < CAPACITY)
        tl.store(chosen + segment * CAPACITY + place, at.to(tl.int32), mask=fits)
        left = tl.maximum(left, tl.where(fits, float("-inf"), part).to(tl.float16))
        found += tl.sum(reaches.to(tl.int32), axis=0)
    slot = tl.arange(0, CAPACITY)
    tl.store(chosen + segment * CAPACITY + slot, tl.full((CAPACITY,), -1, tl.int32), mask=slot >= found)
    tl.store(dropped + query * dropped_stride + tl.program_id(0), tl.max(left.to(tl.float32), axis=0))


@triton.jit(do_not_specialize=["allowed_stride"])
def rescore_chunks(
    queries, titles, factors, allowed, chosen, scores, title_count, dim, allowed_stride, scale,
    FACTORED: tl.constexpr, MASKED: tl.constexpr, SPAN: tl.constexpr, CAPACITY: tl.constexpr, ROWS: tl.constexpr,
    BK: tl.constexpr,
):  # fmt: skip
    """Score every title of the chosen chunks from the float16 copies; program (p, q) takes ROWS titles of query q."""
    query = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    out = scores + query * (CAPACITY * 2 * SPAN) + place
    if tl.load(chosen + query * CAPACITY + tl.program_id(0) * ROWS // (2 * SPAN)) < 0:
        tl.store(out, tl.full((ROWS,), float("-inf"), tl.float16))
    else:
        chunk = tl.load(chosen + query * CAPACITY + place // (2 * SPAN))
        row = _row_of(chunk, place % (2 * SPAN), SPAN)
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
    queries, titles, factors, origins, chosen, picked, query, slot, dim, title_scale,
    FACTORED: tl.constexpr, MAPPED: tl.constexpr, ORIGINALS: tl.constexpr, SPAN: tl.constexpr, CAPACITY: tl.constexpr,
    PICKS: tl.constexpr, ROWS: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Score the picked titles at ``slot`` (ROWS,): int64 that sort by score, ties by row, the best ones largest.

    With MAPPED the titles are some of a larger catalogue, and ``origins`` says which rows of it. With FACTORED they are
    halves, of which ``factors`` make the originals: rounded to float32, as those were.
    """
    pick = tl.load(picked + query * PICKS + slot)
    valid = pick >= 0
    pick = tl.where(valid, pick, 0)
    chunk = tl.load(chosen + query * CAPACITY + pick // (2 * SPAN))
    row = tl.where(valid, _row_of(chunk, pick % (2 * SPAN), SPAN), 0)
    source = row
    if MAPPED:
        row = tl.load(origins + row)
        if ORIGINALS:
            source = row
    if FACTORED:
        factor = tl.load(factors + source)
    column = tl.arange(0, BK)
    at = titles + source.to(tl.int64)[:, None] * dim + column[None, :]
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
    queries, titles, factors, origins, chosen, picked, keys, dim, title_scale,
    FACTORED: tl.constexpr, MAPPED: tl.constexpr, ORIGINALS: tl.constexpr, SPAN: tl.constexpr, CAPACITY: tl.constexpr,
    PICKS: tl.constexpr, ROWS: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Score picked titles that are too many for one program; program (p, q) writes the keys of ROWS of query q."""
    query = tl.program_id(1).to(tl.int64)
    slot = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    key = _keys_of(
        queries, titles, factors, origins, chosen, picked, query, slot, dim, title_scale,
        FACTORED, MAPPED, ORIGINALS, SPAN, CAPACITY, PICKS, ROWS, BK,
    )  # fmt: skip
    tl.store(keys + query * PICKS + slot, key)


@triton.jit(do_not_specialize=["k_wanted"])
def rank_rows(
    queries, titles, factors, origins, chosen, picked, bounds, dropped, keys, best_scores, best_rows, needed,
    dim, dropped_count, k_wanted, title_scale, title_unscale,
    SORTED: tl.constexpr, FACTORED: tl.constexpr, MAPPED: tl.constexpr, ORIGINALS: tl.constexpr, SPAN: tl.constexpr,
    CAPACITY: tl.constexpr, PICKS: tl.constexpr, DROPPED: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Score the picked titles from the original vectors, rank them, and tell what would prove the answer.

    It is proven when the k-th score exceeds whatever was dropped on the way by the error that a float16 score can have:
    ``needed`` is -inf then, else the score that has to be exceeded, by k titles of other shards perhaps. ``keys`` has
    room for PICKS int64 a query; with SORTED it holds them, scored and sorted already.
    """
    query = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, PICKS)
    if SORTED:
        key = tl.load(keys + query * PICKS + slot)
    else:
        key = _keys_of(
            queries, titles, factors, origins, chosen, picked, query, slot, dim, title_scale,
            FACTORED, MAPPED, ORIGINALS, SPAN, CAPACITY, PICKS, PICKS, BK,
        )  # fmt: skip
        # Loaded anew: what a sum leaves, many threads holding the same elements, Triton sorts wrongly over several
        # warps.
        tl.store(keys + query * PICKS + slot, key)
        tl.debug_barrier()
        key = tl.sort(tl.load(keys + query * PICKS + slot, cache_modifier=".cg"), descending=True)
    top = (key >> 32).to(tl.int32)
    score = (top ^ ((top >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    best = tl.where(score > float("-inf"), 0x7FFFFFFF - (key & 0x7FFFFFFF), -1)
    bound = tl.load(bounds + 3 * query)
    unscale_first = tl.load(bounds + 3 * query + 1)
    unscale_second = tl.load(bounds + 3 * query + 2)
    wanted = slot < k_wanted
    out = score * unscale_second * title_unscale * unscale_first
    tl.store(best_scores + query * k_wanted + slot, tl.where(best >= 0, out, float("-inf")), mask=wanted)
    tl.store(best_rows + query * k_wanted + slot, best, mask=wanted)
    step = tl.arange(0, DROPPED)
    lost = tl.load(dropped + query * dropped_count + step, mask=step < dropped_count, other=float("-inf"))
    lost = tl.max(lost, axis=0)
    kth = tl.min(tl.where(wanted, score, float("inf")), axis=0)
    rounded = tl.abs(lost) * 4.8828125e-04  # what was dropped had been rounded to float16: 2^-11 of it
    reached = lost + rounded + bound
    is_proven = (kth > reached) | (lost == float("-inf"))
    told = reached * unscale_second * title_unscale  # powers of two: unless it vanishes or overflows, it stays exact
    told = tl.where(tl.abs(told) >= 1.0e-37, told * unscale_first, float("inf"))
    told = tl.where(told >= -3.0e38, told, float("inf"))
    tl.store(needed + query, tl.where(is_proven, float("-inf"), told))
