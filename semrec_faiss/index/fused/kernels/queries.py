# mypy: ignore-errors
"""Triton kernels that make queries ready for the score pass: scaled, rounded, projected, coded; and their bitmaps."""

from __future__ import annotations

import triton
import triton.language as tl

# Kernels are not formatted where `fmt: skip` stands: their arguments are in lines by kind, tables, sizes, constants.


@triton.jit
def bring_to_unit_length(given, odd, dim, least, tolerance, NORMALIZE: tl.constexpr, D_BLOCK: tl.constexpr):
    """Divide query p, float32, by its length unless that is 1; set ``odd`` where its square is under ``least``."""
    column = tl.arange(0, D_BLOCK)
    at = given + tl.program_id(0).to(tl.int64) * dim + column
    loaded = tl.load(at, mask=column < dim, other=0.0).to(tl.float64)
    square = tl.sum(loaded * loaded, axis=0)
    square = tl.where(square < float("inf"), square, -2.0)  # which NaN is not, either
    tl.store(odd, 1, mask=square < least)
    if NORMALIZE:
        length = tl.sqrt(tl.where(square < least, 1.0, square))
        divided = tl.where(tl.abs(square - 1.0) > tolerance, loaded / length, loaded)
        tl.store(at, divided.to(tl.float32), mask=column < dim)


@triton.jit
def project_queries(given, directions, along, dim, kept, ROWS: tl.constexpr, BK: tl.constexpr):
    """Write coordinates of queries along directions, float64; program (p, q) takes ROWS directions of query q."""
    query = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BK)
    total = tl.zeros((ROWS, BK), tl.float64)
    for start in range(0, dim, BK):
        inside = start + column < dim
        q = tl.load(given + query * dim + start + column, mask=inside, other=0.0).to(tl.float64)
        at = directions + row[:, None] * dim + start + column[None, :]
        total += tl.load(at, mask=(row < kept)[:, None] & inside[None, :], other=0.0) * q[None, :]
    tl.store(along + query * kept + row, tl.sum(total, axis=1), mask=row < kept)


@triton.jit
def _rest_of(given, along, query, vector_dim, kept, D_BLOCK: tl.constexpr):
    """Return at least the length of what directions leave of a query, float64."""
    column = tl.arange(0, D_BLOCK)
    whole = tl.zeros((D_BLOCK,), tl.float64)
    for start in range(0, vector_dim, D_BLOCK):
        at = given + query * vector_dim + start + column
        part = tl.load(at, mask=start + column < vector_dim, other=0.0).to(tl.float64)
        whole += part * part
    held = tl.zeros((D_BLOCK,), tl.float64)
    for start in range(0, kept, D_BLOCK):
        part = tl.load(along + query * kept + start + column, mask=start + column < kept, other=0.0)
        held += part * part
    square = tl.sum(whole, axis=0)
    rest = tl.sqrt(tl.maximum(square * (1.0 + 1e-12) - tl.sum(held, axis=0), 0.0))
    return rest * 1.000001 + tl.sqrt(square) * 1e-6


@triton.jit
def _coordinates(given, along, rest, query, at, vector_dim, kept, SCREENED: tl.constexpr):
    """Load what titles' copies are multiplied with of a query, float32: itself, or its side of bounds; 0 beyond."""
    if SCREENED:
        loaded = tl.load(along + query * kept + at, mask=at < kept, other=0.0)
        part = tl.where(at == kept, rest, loaded).to(tl.float32)
    else:
        part = tl.load(given + query * vector_dim + at, mask=at < vector_dim, other=0.0)
    return part


@triton.jit
def scale_of(given, dim, D_BLOCK: tl.constexpr):
    """Return the two powers of two that bring a vector's length to 1 at most, and its length after the first."""
    column = tl.arange(0, D_BLOCK)
    largest = 0.0
    for start in range(0, dim, D_BLOCK):
        part = tl.load(given + start + column, mask=start + column < dim, other=0.0)
        largest = tl.maximum(largest, tl.max(tl.abs(part), axis=0))
    # Two steps of at most 2^126 each: the square of a float32 may be larger than a float32 can hold.
    first = tl.exp2(-tl.minimum(tl.maximum(tl.ceil(tl.log2(largest)), -126.0), 126.0))
    square = tl.zeros((D_BLOCK,), tl.float32)
    for start in range(0, dim, D_BLOCK):
        part = tl.load(given + start + column, mask=start + column < dim, other=0.0) * first
        square += part * part
    norm = tl.sqrt(tl.sum(square, axis=0))
    return first, tl.exp2(-tl.minimum(tl.maximum(tl.ceil(tl.log2(norm)), -126.0), 126.0)), norm


@triton.jit
def prepare_queries(
    given, along, rounded, scaled, bounds, codes, code_factors, dim, vector_dim, kept, code_width, coded, title_norm,
    title_error, code_norm, rounding,
    SCREENED: tl.constexpr, PLANES: tl.constexpr, CUT: tl.constexpr, D_BLOCK: tl.constexpr,
):  # fmt: skip
    """Scale each query by a power of two to a norm of at most 1, round it to float16, and bound its scores' errors.

    |q·x - q16·x16| ≤ |q|·|x - x16| + |q - q16|·|x16| (Cauchy-Schwarz), and ``rounding`` × |q|·|x16| for the sums.
    Writes per query: the bound, and the two factors that undo its scaling. What is rounded is ``dim`` wide, as titles'
    copies are: zeros fill it up.

    With SCREENED it is the query's side of bounds: coordinates ``along`` so many directions as are
    ``kept``, and the length of the rest; ``scaled`` is the query itself all the same, by the same powers of two.

    With PLANES also the query's int8 codes as `kernels.codes` wants them, in one row or as 128 × high + low in two
    that lie eight apart; and what one of them is worth, the query's norm, and the most that a title's score can gain by
    what the codes leave out of the query. With CUT they are of the first ``coded`` components and the length of the
    others.
    """
    query = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, D_BLOCK)
    rest = 0.0
    if SCREENED:
        rest = _rest_of(given, along, query, vector_dim, kept, D_BLOCK)
    largest = 0.0
    for start in range(0, dim, D_BLOCK):
        part = _coordinates(given, along, rest, query, start + column, vector_dim, kept, SCREENED)
        largest = tl.maximum(largest, tl.max(tl.abs(part), axis=0))
    # Two steps of at most 2^126 each: the square of a float32 may be larger than a float32 can hold.
    first = tl.exp2(-tl.minimum(tl.maximum(tl.ceil(tl.log2(largest)), -126.0), 126.0))
    square = tl.zeros((D_BLOCK,), tl.float32)
    for start in range(0, dim, D_BLOCK):
        part = _coordinates(given, along, rest, query, start + column, vector_dim, kept, SCREENED) * first
        square += part * part
    norm = tl.sqrt(tl.sum(square, axis=0))
    second = tl.exp2(-tl.minimum(tl.maximum(tl.ceil(tl.log2(norm)), -126.0), 126.0))
    lost = tl.zeros((D_BLOCK,), tl.float32)
    code_lost = tl.zeros((D_BLOCK,), tl.float32)
    of_most = largest * first * second
    tail = 0.0
    if CUT:
        cut = tl.zeros((D_BLOCK,), tl.float32)
        for start in range(0, dim, D_BLOCK):
            part = _coordinates(given, along, rest, query, start + column, vector_dim, kept, SCREENED) * first * second
            cut += tl.where(start + column >= coded, part * part, 0.0)
        tail = 1.00001 * tl.sqrt(tl.sum(cut, axis=0))
        of_most = tl.maximum(of_most, tail)
    unit = tl.maximum(of_most, 1e-30) / (16000.0 if PLANES == 2 else 127.0)  # high is at most 125
    code_row = (query // 8) * 16 + query % 8 if PLANES == 2 else query
    for start in range(0, dim, D_BLOCK):
        inside = start + column < dim
        part = _coordinates(given, along, rest, query, start + column, vector_dim, kept, SCREENED) * first * second
        half = part.to(tl.float16)
        tl.store(rounded + query * dim + start + column, half, mask=inside)
        if not SCREENED:
            own = start + column < vector_dim
            tl.store(scaled + query * vector_dim + start + column, part, mask=own)
        difference = part - half.to(tl.float32)
        lost += difference * difference
        if PLANES > 0:
            code = codes + code_row * code_width + start + column
            if CUT:
                inside = start + column < code_width
                part = tl.where(start + column < coded, part, tl.where(start + column == coded, tail, 0.0))
            value = tl.floor(part / unit + 0.5)
            high = value
            if PLANES == 2:
                high = tl.floor(value * 0.0078125 + 0.5)
                tl.store(code + 8 * code_width, (value - 128.0 * high).to(tl.int8), mask=inside)
            tl.store(code, high.to(tl.int8), mask=inside)
            difference = part - unit * value
            code_lost += difference * difference
    if SCREENED:
        for start in range(0, vector_dim, D_BLOCK):
            inside = start + column < vector_dim
            part = tl.load(given + query * vector_dim + start + column, mask=inside, other=0.0)
            tl.store(scaled + query * vector_dim + start + column, part * first * second, mask=inside)
    query_norm = norm * second
    query_error = tl.sqrt(tl.sum(lost, axis=0))
    bound = query_norm * title_error + query_error * title_norm + rounding * query_norm * title_norm
    if PLANES > 0:
        tl.store(code_factors + 3 * query, unit)
        tl.store(code_factors + 3 * query + 1, 1.00001 * query_norm)
        tl.store(code_factors + 3 * query + 2, 1.000001 * tl.sqrt(tl.sum(code_lost, axis=0)) * code_norm)
    tl.store(bounds + 3 * query, 1.001 * bound + 1e-7)
    tl.store(bounds + 3 * query + 1, 1.0 / first)
    tl.store(bounds + 3 * query + 2, 1.0 / second)


@triton.jit(do_not_specialize=["eights", "title_count", "halvings"])
def leave_out_rows(
    allowed,
    shared,
    offsets,
    rows,
    which,
    origins,
    eights,
    title_count,
    halvings,
    LISTED: tl.constexpr,
    MAPPED: tl.constexpr,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Copy the shared bitmap of allowed rows for each query, and clear the bits of the rows that it leaves out.

    Program (p, q) makes WORDS words of the bitmap of query ``q``, which has 8 × ``eights`` words. The query's rows are
    list ``q`` of ``offsets`` and ``rows``, with LISTED the list that ``which`` names. With MAPPED the titles are some
    of a larger catalogue, ``origins`` says which, ascending, and the rows are the catalogue's: ``halvings`` steps of a
    binary search find their positions.
    """
    query = tl.program_id(1).to(tl.int64)
    words = eights * 8
    first = tl.program_id(0) * WORDS
    column = first + tl.arange(0, WORDS)
    tl.store(allowed + query * words + column, tl.load(shared + column, mask=column < words), mask=column < words)
    tl.debug_barrier()
    listed = query
    if LISTED:
        listed = tl.load(which + query)
    start = tl.load(offsets + listed)
    count = (tl.load(offsets + listed + 1) - start).to(tl.int32)
    for place in range(0, count, BLOCK):
        at = place + tl.arange(0, BLOCK)
        row = tl.load(rows + start + at, mask=at < count, other=-1)
        inside = row >= 0
        if MAPPED:
            low = tl.zeros((BLOCK,), tl.int32)
            high = low + title_count
            for _ in range(0, halvings):
                middle = (low + high) // 2
                is_less = tl.load(origins + middle, mask=middle < title_count, other=0x7FFFFFFF) < row
                low = tl.where(is_less, middle + 1, low)
                high = tl.where(is_less, high, middle)
            inside = inside & (tl.load(origins + low, mask=low < title_count, other=-1) == row)
            row = low
        word = row // 32
        inside = inside & (word >= first) & (word < first + WORDS)
        bit = tl.full((BLOCK,), 1, tl.int32) << (row % 32)
        tl.atomic_and(allowed + query * words + word, ~bit, mask=inside)
