# mypy: ignore-errors
"""Triton kernels of exact top-k, first half: queries made ready, bitmaps, chunk maxima on the tensor cores.

A chunk is 2 × SPAN titles whose scores one thread of a tensor-core accumulator holds, so that their maximum needs no
exchange between threads: chunk ``c`` has the rows ``(c // 4) · 8 · SPAN + 8 · i + 2 · (c % 4) + {0, 1}`` for ``i`` from
0 to SPAN - 1. Any partition of the titles would do.

The kernels run in Triton's interpreter too (``TRITON_INTERPRET=1``), which is how they are tested without a GPU.
Arguments are GPU pointers, counts and strides; names in capitals are compiled in.
"""

from __future__ import annotations

import triton
import triton.language as tl

NO_OTHERS = tl.constexpr(1023)
"""Of a chunk that has no titles but those of its best piece: so many steps below its maximum are the others'."""

# Kernels are not formatted where `fmt: skip` stands: their arguments are in lines by kind, tables, sizes, constants.


@triton.jit
def prepare_queries(
    given, rounded, scaled, bounds, codes, code_factors, dim, code_width, title_norm, title_error, code_norm, rounding,
    PLANES: tl.constexpr, D_BLOCK: tl.constexpr,
):  # fmt: skip
    """Scale each query by a power of two to a norm of at most 1, round it to float16, and bound its scores' errors.

    |q·x - q16·x16| ≤ |q|·|x - x16| + |q - q16|·|x16| (Cauchy-Schwarz), and ``rounding`` × |q|·|x16| for the sums.
    Writes per query: the bound, and the two factors that undo its scaling.

    With PLANES also the query's int8 codes as `kernels.codes` wants them, in one row or as 128 × high + low in two
    that lie eight apart; and what one of them is worth, the query's norm, and the most that a title's score can gain by
    what the codes leave out of the query.
    """
    query = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, D_BLOCK)
    largest = 0.0
    for start in range(0, dim, D_BLOCK):
        part = tl.load(given + query * dim + start + column, mask=start + column < dim, other=0.0)
        largest = tl.maximum(largest, tl.max(tl.abs(part), axis=0))
    # Two steps of at most 2^126 each: the square of a float32 may be larger than a float32 can hold.
    first = tl.exp2(-tl.minimum(tl.maximum(tl.ceil(tl.log2(largest)), -126.0), 126.0))
    square = tl.zeros((D_BLOCK,), tl.float32)
    for start in range(0, dim, D_BLOCK):
        part = tl.load(given + query * dim + start + column, mask=start + column < dim, other=0.0) * first
        square += part * part
    norm = tl.sqrt(tl.sum(square, axis=0))
    second = tl.exp2(-tl.minimum(tl.maximum(tl.ceil(tl.log2(norm)), -126.0), 126.0))
    lost = tl.zeros((D_BLOCK,), tl.float32)
    code_lost = tl.zeros((D_BLOCK,), tl.float32)
    unit = tl.maximum(largest * first * second, 1e-30) / (16000.0 if PLANES == 2 else 127.0)  # high is at most 125
    code_row = (query // 8) * 16 + query % 8 if PLANES == 2 else query
    for start in range(0, dim, D_BLOCK):
        inside = start + column < dim
        part = tl.load(given + query * dim + start + column, mask=inside, other=0.0) * first * second
        half = part.to(tl.float16)
        tl.store(rounded + query * dim + start + column, half, mask=inside)
        tl.store(scaled + query * dim + start + column, part, mask=inside)
        difference = part - half.to(tl.float32)
        lost += difference * difference
        if PLANES > 0:
            code = codes + code_row * code_width + start + column
            value = tl.floor(part / unit + 0.5)
            high = value
            if PLANES == 2:
                high = tl.floor(value * 0.0078125 + 0.5)
                tl.store(code + 8 * code_width, (value - 128.0 * high).to(tl.int8), mask=inside)
            tl.store(code, high.to(tl.int8), mask=inside)
            difference = part - unit * value
            code_lost += difference * difference
    query_norm = norm * second
    query_error = tl.sqrt(tl.sum(lost, axis=0))
    bound = query_norm * title_error + query_error * title_norm + rounding * query_norm * title_norm
    if PLANES > 0:
        tl.store(code_factors + 3 * query, unit)
        tl.store(code_factors + 3 * query + 1, 1.000001 * query_norm)
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


@triton.jit
def tile_of(tiles_m, tiles_n, GROUP: tl.constexpr):
    """Return which tile of queries and which tile of titles this program multiplies.

    GROUP tiles of queries take turns over the titles: a tile of titles is read from memory once for all of them.
    """
    in_group = GROUP * tiles_n
    tile = tl.program_id(0)
    first_m = (tile // in_group) * GROUP
    group = tl.minimum(tiles_m - first_m, GROUP)
    return first_m + (tile % in_group) % group, (tile % in_group) // group


@triton.jit
def load_bits(allowed, m, tile_n, query_count, stride, SHARED: tl.constexpr, BN: tl.constexpr):
    """Load the bitmaps of a tile of titles: (1, BN // 32) where queries share one, else a line for each of ``m``."""
    word = allowed + tile_n * (BN // 32) + tl.arange(0, BN // 32)
    if SHARED:
        bits = tl.load(word)[None, :]
    else:
        bits = tl.load(word[None, :] + tl.minimum(m, query_count - 1)[:, None] * stride)
    return bits


@triton.jit
def write_maxima(
    scores,
    bits,
    maxima,
    others,
    m,
    tile_n,
    query_count,
    title_count,
    maxima_stride,
    MASKED: tl.constexpr,
    SHARED: tl.constexpr,
    SPAN: tl.constexpr,
    PIECE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """Write the largest of a tile's ``scores`` (BM, BN) in each chunk, among titles that exist and may be returned.

    With PIECE, titles to a piece of a chunk, also which piece has it, and how far the other pieces stay below: int16
    ``others`` holds 64 × the difference in steps of 1/1024, rounded down, plus the piece; `NO_OTHERS` where there are
    none.
    """
    LEAST: tl.constexpr = float("-inf") if PIECE == 0 else -3.0e38  # which stays a number with a piece in its last bits
    if (tile_n + 1) * BN > title_count:
        n = tile_n * BN + tl.arange(0, BN)
        scores = tl.where(n[None, :] < title_count, scores, LEAST)
    if MASKED:
        bits = tl.reshape(bits, (1 if SHARED else BM, BN // 32, 1, 1, 1))
        place = (
            8 * tl.reshape(tl.arange(0, 4), (1, 1, 4, 1, 1))
            + 2 * tl.reshape(tl.arange(0, 4), (1, 1, 1, 4, 1))
            + tl.reshape(tl.arange(0, 2), (1, 1, 1, 1, 2))
        )
        apart = tl.reshape(scores, (BM, BN // 32, 4, 4, 2))
        scores = tl.reshape(tl.where(((bits >> place) & 1) != 0, apart, LEAST), (BM, BN))
    chunk = tile_n * (BN // (2 * SPAN)) + tl.arange(0, BN // (2 * SPAN))
    at = m[:, None] * maxima_stride + chunk[None, :]
    if PIECE == 0:
        apart = tl.reshape(scores, (BM, BN // (8 * SPAN), SPAN, 4, 2))
        best = tl.reshape(tl.max(tl.max(apart, axis=4), axis=2), (BM, BN // (2 * SPAN)))
        tl.store(maxima + at, best.to(tl.float16), mask=(m < query_count)[:, None])
    else:
        best, other = _best_pieces(scores, SPAN, PIECE, BM, BN)
        rounded = tl.where(best < -1.0e38, float("-inf"), best).to(tl.float16)
        apart = tl.minimum(tl.maximum(rounded.to(tl.float32) - other, 0.0), 0.9985) * 1023.999
        steps = tl.where(other < -1.0e38, NO_OTHERS, apart.to(tl.int32))
        piece = best.to(tl.int32, bitcast=True) & 63
        tl.store(maxima + at, rounded, mask=(m < query_count)[:, None])
        tl.store(others + at, (steps * 64 + piece).to(tl.int16), mask=(m < query_count)[:, None])


@triton.jit
def _best_pieces(scores, SPAN: tl.constexpr, PIECE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Return each chunk's largest score, its piece in the last six bits, and that of its other pieces."""
    TILES: tl.constexpr = BN // (8 * SPAN)
    PIECES: tl.constexpr = 2 * SPAN // PIECE
    if PIECE == 1:
        place = 2 * tl.reshape(tl.arange(0, SPAN), (1, 1, SPAN, 1, 1)) + tl.reshape(tl.arange(0, 2), (1, 1, 1, 1, 2))
        first, second = tl.split(_marked(tl.reshape(scores, (BM, TILES, SPAN, 4, 2)), place))
        high, low = tl.maximum(first, second), tl.minimum(first, second)
    else:
        apart = tl.reshape(scores, (BM, TILES, PIECES, PIECE // 2, 4, 2))
        most = tl.max(tl.max(apart, axis=5), axis=3)
        high = _marked(most, tl.reshape(tl.arange(0, PIECES), (1, 1, PIECES, 1)))
        low = tl.full((1, 1, 1, 1), -3.0e38, tl.float32)
    best = tl.max(high, axis=2)
    is_best = high.to(tl.int32, bitcast=True) == best.to(tl.int32, bitcast=True)[:, :, None, :]
    other = tl.max(tl.where(is_best, low, high), axis=2)
    return tl.reshape(best, (BM, BN // (2 * SPAN))), tl.reshape(other, (BM, BN // (2 * SPAN)))


@triton.jit
def _marked(scores, place):
    """Put a number below 64 into the last bits of float32 scores, which changes them by 2^-17 at most."""
    return ((scores.to(tl.int32, bitcast=True) & -64) | place).to(tl.float32, bitcast=True)


@triton.jit
def load_factors(factors, row, count, scale):
    """Load what the halves of titles are worth, times ``scale``, in float32."""
    return (tl.load(factors + row, mask=row < count, other=0.0) * scale).to(tl.float32)


@triton.jit
def load_tile(vectors, first, column, count, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, POINTERS: tl.constexpr):
    """Load a tile (ROWS, COLUMNS) of ``vectors`` (count, width), zero outside, from a tensor descriptor.

    With POINTERS from plain memory: descriptors are the copy engine's, which cards have from Hopper on.
    """
    if POINTERS:
        row = first + tl.arange(0, ROWS)
        at = column + tl.arange(0, COLUMNS)
        inside = (row < count)[:, None] & (at < width)[None, :]
        tile = tl.load(vectors + row.to(tl.int64)[:, None] * width + at[None, :], mask=inside, other=0)
    else:
        tile = vectors.load([first, column])
    return tile


@triton.jit(do_not_specialize=["query_count", "allowed_stride"])
def chunk_maxima(
    queries, titles, factors, allowed, maxima, others,
    query_count, title_count, dim, maxima_stride, allowed_stride, scale,
    FACTORED: tl.constexpr, MASKED: tl.constexpr, SHARED: tl.constexpr, SPAN: tl.constexpr, PIECE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, POINTERS: tl.constexpr,
):  # fmt: skip
    """Multiply a tile of queries with a tile of titles and keep the largest score of each chunk.

    ``queries`` and ``titles`` are tensor descriptors with blocks of (BM, BK) and (BN, BK), or with POINTERS the
    matrices themselves. With FACTORED a title is its row times its number of ``factors``, times ``scale``. With SHARED
    all queries have the same bitmap.
    """
    tile_m, tile_n = tile_of(tl.cdiv(query_count, BM), tl.cdiv(title_count, BN), GROUP)
    m = (tile_m * BM + tl.arange(0, BM)).to(tl.int64)
    bits = 0
    if MASKED:  # asked for before the product, which hides how long it takes to come
        bits = load_bits(allowed, m, tile_n, query_count, allowed_stride, SHARED, BN)
    scores = tl.zeros((BM, BN), tl.float32)
    for k in range(0, dim, BK):
        query_tile = load_tile(queries, tile_m * BM, k, query_count, dim, BM, BK, POINTERS)
        title_tile = load_tile(titles, tile_n * BN, k, title_count, dim, BN, BK, POINTERS)
        scores = tl.dot(query_tile, title_tile.T, scores)
    if FACTORED:
        scores = scores * load_factors(factors, tile_n * BN + tl.arange(0, BN), title_count, scale)[None, :]
    write_maxima(
        scores,
        bits,
        maxima,
        others,
        m,
        tile_n,
        query_count,
        title_count,
        maxima_stride,
        MASKED,
        SHARED,
        SPAN,
        PIECE,
        BM,
        BN,
    )
