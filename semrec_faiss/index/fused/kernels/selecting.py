# mypy: ignore-errors
"""Triton kernels of exact top-k, between scoring and ranking: the largest chunk maxima are listed, or their pieces.

A piece is a part of a chunk, or a single title. Where the score pass has told which piece of a chunk has its maximum,
and how far below it the others stay, only that piece has to be looked at, unless the others may be among the best too.
"""

from __future__ import annotations

import triton
import triton.language as tl

from semrec_faiss.index.fused.kernels.scoring import NO_OTHERS

# Kernels are not formatted where `fmt: skip` stands: their arguments are in lines by kind, tables, sizes, constants.


@triton.jit
def _ordered16(values):
    """Map float16 to int32 so that the integers compare as the numbers do."""
    bits = values.to(tl.int16, bitcast=True).to(tl.int32)
    return bits ^ ((bits >> 15) & 0x7FFF)


@triton.jit
def row_of(chunk, member, SPAN: tl.constexpr):
    """Return the title row of a chunk's member, 0 to 2 × SPAN - 1."""
    return (chunk // 4) * (8 * SPAN) + 8 * (member // 2) + 2 * (chunk % 4) + member % 2


@triton.jit
def _piece_of(chunk, place, SPAN: tl.constexpr, PIECE: tl.constexpr):
    """Return a piece of a chunk: a title, or a chunk of fewer titles, 2 × SPAN of `row_of` being PIECE."""
    return row_of(chunk, place, SPAN) if PIECE == 1 else ((chunk // 4) * (2 * SPAN // PIECE) + place) * 4 + chunk % 4


@triton.jit
def _reached_by(keys, keep, AT_ONCE: tl.constexpr):
    """Return the largest number that at least ``keep`` of the ordered ``keys`` reach, found bit by bit.

    Or two bits AT_ONCE, with three counts in one sum: half as often several warps wait for one another. No loop is
    unrolled: after a long score pass a kernel's code is in no cache, and reading it takes as long as running it.
    """
    threshold = tl.full((), -32768, tl.int32)
    if AT_ONCE == 1:
        for bit in range(16):
            candidate = threshold + (32768 >> bit)
            threshold = tl.where(tl.sum((keys >= candidate).to(tl.int32), axis=0) >= keep, candidate, threshold)
    else:
        for bits in range(8):
            step = 16384 >> (2 * bits)
            first = (keys >= threshold + step).to(tl.int64)
            both = first + ((keys >= threshold + 2 * step).to(tl.int64) << 16)
            counts = tl.sum(both + ((keys >= threshold + 3 * step).to(tl.int64) << 32), axis=0)
            reached = ((counts & 0xFFFF) >= keep).to(tl.int32) + (((counts >> 16) & 0xFFFF) >= keep).to(tl.int32)
            threshold += step * (reached + ((counts >> 32) >= keep).to(tl.int32))
    return threshold


@triton.jit(do_not_specialize=["keep", "dropped_stride"])
def select_largest(
    values, stride, count, keep, chosen, dropped, dropped_stride, number,
    LIMITED: tl.constexpr, WIDTH: tl.constexpr, CAPACITY: tl.constexpr,
):  # fmt: skip
    """List, for each row of ``count`` values, at least the ``keep`` largest, and the largest that is not listed.

    The ``keep``-th largest of WIDTH group maxima is a bound that at least ``keep`` values reach; where there are no
    more values than WIDTH it is the ``keep``-th largest itself. It is found bit by bit, whatever ``keep`` is. What
    finds no place among CAPACITY counts as not listed. What is listed are positions within the row, program q's.

    With LIMITED only so many rows as ``number`` says, on the GPU, are looked at, here and in the other kernels.
    """
    query = tl.program_id(0).to(tl.int64)
    if LIMITED:
        if query >= tl.load(number):
            return
    base = values + query * stride
    column = tl.arange(0, WIDTH)
    group = tl.full((WIDTH,), float("-inf"), tl.float16)
    for start in range(0, count, WIDTH):
        at = start + column
        group = tl.maximum(group, tl.load(base + at, mask=at < count, other=float("-inf")))
    threshold = _reached_by(_ordered16(group), keep, 1)
    found = 0
    left = tl.full((WIDTH,), float("-inf"), tl.float16)
    for start in range(0, count, WIDTH):
        at = start + column
        part = tl.load(base + at, mask=at < count, other=float("-inf"))
        reaches = (_ordered16(part) >= threshold) & (part > float("-inf"))
        place = found + tl.cumsum(reaches.to(tl.int32), axis=0) - 1
        fits = reaches & (place < CAPACITY)
        tl.store(chosen + query * CAPACITY + place, at.to(tl.int32), mask=fits)
        left = tl.maximum(left, tl.where(fits, float("-inf"), part).to(tl.float16))
        found += tl.sum(reaches.to(tl.int32), axis=0)
    slot = tl.arange(0, CAPACITY)
    tl.store(chosen + query * CAPACITY + slot, tl.full((CAPACITY,), -1, tl.int32), mask=slot >= found)
    tl.store(dropped + query * dropped_stride, tl.max(left.to(tl.float32), axis=0))


@triton.jit
def find_groups(
    values, stride, count, groups, chosen, found,
    BLOCK: tl.constexpr, GROUPS: tl.constexpr, CAPACITY: tl.constexpr,
):  # fmt: skip
    """First half of `select_largest` for few rows of many values: program (s, q) writes GROUPS maxima of BLOCK values.

    GROUPS values lie together, then come those of the other programs: where the best values do, as those of titles that
    are alike and were added together, they are of many programs and groups. The kernel also makes room for what
    `list_reaching` lists: ``chosen`` -1, ``found`` 0.
    """
    query = tl.program_id(1).to(tl.int64)
    turn = tl.arange(0, BLOCK // GROUPS)[:, None] * tl.num_programs(0) + tl.program_id(0)
    at = turn * GROUPS + tl.arange(0, GROUPS)[None, :]
    part = tl.load(values + query * stride + at, mask=at < count, other=float("-inf"))
    into = groups + (query * tl.num_programs(0) + tl.program_id(0)) * GROUPS + tl.arange(0, GROUPS)
    tl.store(into, tl.max(part, axis=0).to(tl.float16))
    for start in range(tl.program_id(0) * GROUPS, CAPACITY, tl.num_programs(0) * GROUPS):
        slot = start + tl.arange(0, GROUPS)
        tl.store(chosen + query * CAPACITY + slot, tl.full((GROUPS,), -1, tl.int32), mask=slot < CAPACITY)
    if tl.program_id(0) == 0:
        tl.store(found + query, 0)


@triton.jit(do_not_specialize=["keep", "group_count", "dropped_stride"])
def list_reaching(
    values, stride, count, keep, groups, group_count, chosen, found, dropped, dropped_stride,
    BLOCK: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, CAPACITY: tl.constexpr,
):  # fmt: skip
    """Second half: program (s, q) lists, in any order, which of its BLOCK values reach what ``keep`` groups do."""
    query = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, WIDTH)
    its = groups + query * group_count
    group = tl.load(its + column, mask=column < group_count, other=float("-inf"))
    for start in range(WIDTH, group_count, WIDTH):
        group = tl.maximum(group, tl.load(its + start + column, mask=start + column < group_count, other=float("-inf")))
    place = tl.arange(0, BLOCK)
    at = (place // GROUPS * tl.num_programs(0) + tl.program_id(0)) * GROUPS + place % GROUPS
    part = tl.load(values + query * stride + at, mask=at < count, other=float("-inf"))
    threshold = _reached_by(_ordered16(group), keep, 2)
    reaches = (_ordered16(part) >= threshold) & (part > float("-inf"))
    number = tl.sum(reaches.to(tl.int32), axis=0)
    if number > keep:  # more than this block's groups can tell apart: its own best are enough
        threshold = _reached_by(_ordered16(part), keep, 2)
        reaches = (_ordered16(part) >= threshold) & (part > float("-inf"))
        number = tl.sum(reaches.to(tl.int32), axis=0)
    left = part
    if number > 0:
        place = tl.atomic_add(found + query, number) + tl.cumsum(reaches.to(tl.int32), axis=0) - 1
        fits = reaches & (place < CAPACITY)
        tl.store(chosen + query * CAPACITY + place, at.to(tl.int32), mask=fits)
        left = tl.where(fits, float("-inf"), part).to(tl.float16)
    tl.store(dropped + query * dropped_stride + tl.program_id(0), tl.max(left.to(tl.float32), axis=0))


@triton.jit
def list_pieces(
    query, values, others, stride, count, keep, allowed, allowed_stride, title_count, columns, chosen,
    MASKED: tl.constexpr, SPAN: tl.constexpr, PIECE: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr,
    STEPS: tl.constexpr, AT_ONCE: tl.constexpr, CAPACITY: tl.constexpr,
):  # fmt: skip
    """List the best pieces of a query's best chunks, as `select_largest` would find those; return what is not listed.

    Where the other pieces of a chunk may reach the ``keep``-th largest maximum, all of them are listed. Looked through
    a second time are only those of WIDTH columns whose largest reaches it; ``columns`` has room for COLUMNS of them.
    """
    base = values + query * stride
    column = tl.arange(0, WIDTH)
    group = tl.full((WIDTH,), float("-inf"), tl.float16)
    for start in range(0, count, WIDTH):
        values_of = tl.load(base + start + column, mask=start + column < count, other=float("-inf"))
        group = tl.maximum(group, values_of)
    keys = _ordered16(group)
    threshold = _reached_by(keys, keep, AT_ONCE)
    reaches = (keys >= threshold) & (group > float("-inf"))
    column_at = tl.cumsum(reaches.to(tl.int32), axis=0) - 1
    is_kept = reaches & (column_at < COLUMNS)
    tl.store(columns + query * COLUMNS + column_at, column, mask=is_kept)
    lost = tl.max(tl.where(is_kept, float("-inf"), group).to(tl.float32), axis=0)
    filled = tl.minimum(tl.sum(reaches.to(tl.int32), axis=0), COLUMNS)
    slot = tl.arange(0, CAPACITY)
    tl.store(chosen + query * CAPACITY + slot, tl.full((CAPACITY,), -1, tl.int32))
    tl.debug_barrier()
    entry = tl.arange(0, COLUMNS * STEPS)
    at_column = tl.load(columns + query * COLUMNS + entry // STEPS, mask=entry // STEPS < filled, other=count)
    limit = (threshold ^ ((threshold >> 15) & 0x7FFF)).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    found = 0
    for start in range(0, count, WIDTH * STEPS):
        at = start + (entry % STEPS) * WIDTH + at_column
        part = tl.load(base + at, mask=at < count, other=float("-inf"))
        reached = (_ordered16(part) >= threshold) & (part > float("-inf"))
        code = tl.load(others + query * stride + at, mask=reached, other=0).to(tl.int32) & 0xFFFF
        steps = code // 64
        other = tl.where(steps == NO_OTHERS, float("-inf"), part.to(tl.float32) - steps.to(tl.float32) * 0.0009765625)
        whole = reached & (other >= limit) & (steps < NO_OTHERS)
        number = tl.where(whole, 2 * SPAN // PIECE, reached.to(tl.int32))
        place = found + tl.cumsum(number, axis=0) - number
        fits = reached & (place + number <= CAPACITY)
        into = chosen + query * CAPACITY + place
        tl.store(into, _piece_of(at, code % 64, SPAN, PIECE), mask=fits & (number == 1))
        if tl.sum(whole.to(tl.int32), axis=0) > 0:
            for piece in range(0, 2 * SPAN // PIECE):
                listed = _piece_of(at, piece, SPAN, PIECE)
                if PIECE == 1:
                    exists = fits & whole & (listed < title_count)
                    if MASKED:
                        bits = tl.load(allowed + query * allowed_stride + listed // 32, mask=exists, other=0)
                        exists = exists & (((bits >> (listed % 32)) & 1) != 0)
                    listed = tl.where(exists, listed, -1)
                tl.store(into + piece, listed, mask=fits & whole)
        unlisted = tl.where(fits, tl.where(whole, float("-inf"), other), part.to(tl.float32))
        lost = tl.maximum(lost, tl.max(unlisted, axis=0))
        found += tl.sum(number, axis=0)
    return lost


@triton.jit(do_not_specialize=["keep", "allowed_stride", "title_count", "dropped_stride"])
def select_pieces(
    values, others, stride, count, keep, allowed, allowed_stride, title_count, columns, chosen, dropped, dropped_stride,
    number,
    LIMITED: tl.constexpr, MASKED: tl.constexpr, SPAN: tl.constexpr, PIECE: tl.constexpr, WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr, STEPS: tl.constexpr, AT_ONCE: tl.constexpr, CAPACITY: tl.constexpr,
):  # fmt: skip
    """List the best pieces of each query's best chunks, and the most that a title can score that is not listed."""
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
        PIECE,
        WIDTH,
        COLUMNS,
        STEPS,
        AT_ONCE,
        CAPACITY,
    )
    tl.store(dropped + query * dropped_stride, lost)


@triton.jit(do_not_specialize=["count", "room"])
def list_unproven(needed, which, number, count, room, BLOCK: tl.constexpr):
    """List which of ``count`` queries are not proven, int64, the first ``room`` of them, and how many those are.

    ``needed`` tells of each, see `ranking.rank_rows`. The rest of the list is query 0. One program does it all.
    """
    found = 0
    for start in range(0, count, BLOCK):
        query = start + tl.arange(0, BLOCK)
        left = (tl.load(needed + query, mask=query < count, other=float("-inf")) != float("-inf")).to(tl.int32)
        place = found + tl.cumsum(left, axis=0) - 1
        tl.store(which + place, query.to(tl.int64), mask=(left != 0) & (place < room))
        found += tl.sum(left, axis=0)
    for start in range(0, room, BLOCK):
        place = start + tl.arange(0, BLOCK)
        tl.store(which + place, tl.zeros((BLOCK,), tl.int64), mask=(place >= found) & (place < room))
    tl.store(number, tl.minimum(found, room))


@triton.jit(do_not_specialize=["k"])
def put_again(which, number, its_rows, its_scores, its_needed, rows, scores, needed, k, K: tl.constexpr):
    """Put what a listed query has found when it was searched again in the place of what it had; NaN: now proven."""
    place = tl.program_id(0)
    if place < tl.load(number):
        query = tl.load(which + place)
        column = tl.arange(0, K)
        inside = column < k
        tl.store(rows + query * k + column, tl.load(its_rows + place * k + column, mask=inside), mask=inside)
        tl.store(scores + query * k + column, tl.load(its_scores + place * k + column, mask=inside), mask=inside)
        left = tl.load(its_needed + place)
        tl.store(needed + query, tl.where(left == float("-inf"), float("nan"), left))
