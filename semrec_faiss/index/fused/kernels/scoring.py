# mypy: ignore-errors
"""Triton kernels of exact top-k, first half: chunk maxima on the tensor cores, or for one query without them.

A chunk is 2 × SPAN titles whose scores one thread of a tensor-core accumulator holds, so that their maximum needs no
exchange between threads: chunk ``c`` has the rows ``(c // 4) · 8 · SPAN + 8 · i + 2 · (c % 4) + {0, 1}`` for ``i`` from
0 to SPAN - 1. Any partition of the titles would do.

The kernels run in Triton's interpreter too (``TRITON_INTERPRET=1``), which is how they are tested without a GPU.
Arguments are GPU pointers, counts and strides; names in capitals are compiled in.
"""

from __future__ import annotations

import triton
import triton.language as tl

from semrec_faiss.index.fused.kernels.queries import scale_of

NO_OTHERS = tl.constexpr(1023)
"""Of a chunk that has no titles but those of its best piece: so many steps below its maximum are the others'."""

# Kernels are not formatted where `fmt: skip` stands: their arguments are in lines by kind, tables, sizes, constants.


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
def only_allowed(scores, bits, LEAST: tl.constexpr, SHARED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Return a tile's ``scores`` (BM, BN): LEAST where the bitmap that `load_bits` has loaded says no."""
    bits = tl.reshape(bits, (1 if SHARED else BM, BN // 32, 1, 1, 1))
    place = (
        8 * tl.reshape(tl.arange(0, 4), (1, 1, 4, 1, 1))
        + 2 * tl.reshape(tl.arange(0, 4), (1, 1, 1, 4, 1))
        + tl.reshape(tl.arange(0, 2), (1, 1, 1, 1, 2))
    )
    apart = tl.reshape(scores, (BM, BN // 32, 4, 4, 2))
    return tl.reshape(tl.where(((bits >> place) & 1) != 0, apart, LEAST), (BM, BN))


@triton.jit
def allowed_scores(
    scores, bits, first, title_count, LEAST: tl.constexpr, MASKED: tl.constexpr, SHARED: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """Return a tile's ``scores`` (BM, BN), of titles from ``first`` on: LEAST where one may not be returned."""
    if first + BN > title_count:
        n = first + tl.arange(0, BN)
        scores = tl.where(n[None, :] < title_count, scores, LEAST)
    if MASKED:
        scores = only_allowed(scores, bits, LEAST, SHARED, BM, BN)
    return scores


@triton.jit
def largest_scores(scores, SPAN: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Return the largest of a tile's scores (BM, BN) in each chunk of 2 × SPAN titles: (BM, BN / 2 / SPAN)."""
    apart = tl.reshape(scores, (BM, BN // (8 * SPAN), SPAN, 4, 2))
    return tl.reshape(tl.max(tl.max(apart, axis=4), axis=2), (BM, BN // (2 * SPAN)))


@triton.jit
def write_pieces(best, other, maxima, others, at, exists):
    """Write chunks' largest scores, in float16, which piece has each, and how far the other pieces stay below.

    Int16 ``others`` holds 64 × the difference in steps of 1/1024, rounded down, plus the piece; `NO_OTHERS` where there
    are none.
    """
    rounded = tl.where(best < -1.0e38, float("-inf"), best).to(tl.float16)
    apart = tl.minimum(tl.maximum(rounded.to(tl.float32) - other, 0.0), 0.9985) * 1023.999
    steps = tl.where(other < -1.0e38, NO_OTHERS, apart.to(tl.int32))
    piece = best.to(tl.int32, bitcast=True) & 63
    tl.store(maxima + at, rounded, mask=exists)
    tl.store(others + at, (steps * 64 + piece).to(tl.int16), mask=exists)


@triton.jit
def _best_pieces(scores, first, SPAN: tl.constexpr, PIECE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Return each chunk's largest score, its piece, ``first`` and on, in the last six bits, and its other pieces'."""
    TILES: tl.constexpr = BN // (8 * SPAN)
    PIECES: tl.constexpr = 2 * SPAN // PIECE
    if PIECE == 1:
        place = 2 * tl.reshape(tl.arange(0, SPAN), (1, 1, SPAN, 1, 1)) + tl.reshape(tl.arange(0, 2), (1, 1, 1, 1, 2))
        one, two = tl.split(marked(tl.reshape(scores, (BM, TILES, SPAN, 4, 2)), first + place))
        high, low = tl.maximum(one, two), tl.minimum(one, two)
    else:
        apart = tl.reshape(scores, (BM, TILES, PIECES, PIECE // 2, 4, 2))
        most = tl.max(tl.max(apart, axis=5), axis=3)
        high = marked(most, first + tl.reshape(tl.arange(0, PIECES), (1, 1, PIECES, 1)))
        low = tl.full((1, 1, 1, 1), -3.0e38, tl.float32)
    best = tl.max(high, axis=2)
    is_best = high.to(tl.int32, bitcast=True) == best.to(tl.int32, bitcast=True)[:, :, None, :]
    other = tl.max(tl.where(is_best, low, high), axis=2)
    return tl.reshape(best, (BM, BN // (2 * SPAN))), tl.reshape(other, (BM, BN // (2 * SPAN)))


@triton.jit
def marked(scores, place):
    """Put a number below 64 into the last bits of float32 scores, which changes them by 2^-17 at most."""
    return ((scores.to(tl.int32, bitcast=True) & -64) | place).to(tl.float32, bitcast=True)


@triton.jit
def load_factors(factors, row, count, scale):
    """Load what the halves of titles are worth, times ``scale``, in float32."""
    return (tl.load(factors + row, mask=row < count, other=0.0) * scale).to(tl.float32)


@triton.jit
def load_tile(
    vectors, first, column, count, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, POINTERS: tl.constexpr,
    EIGHTS: tl.constexpr = False,
):  # fmt: skip
    """Load a tile (ROWS, COLUMNS) of ``vectors`` (count, width), zero outside, from a tensor descriptor.

    With POINTERS from plain memory: descriptors are the copy engine's, which cards have from Hopper on. EIGHTS tells
    the compiler of a ``width`` that is no multiple of 16 that it is one of 8: threads load as much at once then.
    """
    if POINTERS:
        if EIGHTS:
            width = width // 8 * 8
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
    PARTS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
    POINTERS: tl.constexpr, EIGHTS: tl.constexpr, SKIPPING: tl.constexpr,
):  # fmt: skip
    """Multiply a tile of queries with PARTS tiles of titles, one after the other, and keep each chunk's largest score.

    ``queries`` and ``titles`` are tensor descriptors with blocks of (BM, BK) and (BN, BK), or with POINTERS the
    matrices themselves. With FACTORED a title is its row times its number of ``factors``, times ``scale``. With SHARED
    all queries have the same bitmap. A chunk has as many titles in each of the tiles; see `write_pieces` for PIECE,
    titles to a piece of a chunk, 0 for none. With SKIPPING, of a shared bitmap, tiles are left out of which no query
    may return any title: a shelf's beyond the filter's.
    """
    LEAST: tl.constexpr = float("-inf") if PIECE == 0 else -3.0e38  # which stays a number with a piece in its last bits
    SPANNED: tl.constexpr = SPAN // PARTS
    CHUNKS: tl.constexpr = BN // (2 * SPANNED)
    tile_m, group_n = tile_of(tl.cdiv(query_count, BM), tl.cdiv(title_count, PARTS * BN), GROUP)
    m = (tile_m * BM + tl.arange(0, BM)).to(tl.int64)
    best = tl.full((BM, CHUNKS), LEAST, tl.float32)
    other = tl.full((BM, CHUNKS), LEAST, tl.float32)
    for part in range(0, PARTS):
        tile_n = group_n * PARTS + part
        bits = 0
        if MASKED:  # asked for before the product, which hides how long it takes to come
            bits = load_bits(allowed, m, tile_n, query_count, allowed_stride, SHARED, BN)
        any_allowed = True
        if SKIPPING:
            any_allowed = tl.max(tl.max((bits != 0).to(tl.int32), axis=1), axis=0) > 0
        if any_allowed:
            scores = tl.zeros((BM, BN), tl.float32)
            for k in range(0, dim, BK):
                query_tile = load_tile(queries, tile_m * BM, k, query_count, dim, BM, BK, POINTERS, EIGHTS)
                title_tile = load_tile(titles, tile_n * BN, k, title_count, dim, BN, BK, POINTERS, EIGHTS)
                scores = tl.dot(query_tile, title_tile.T, scores)
            if FACTORED:
                scores = scores * load_factors(factors, tile_n * BN + tl.arange(0, BN), title_count, scale)[None, :]
            scores = allowed_scores(scores, bits, tile_n * BN, title_count, LEAST, MASKED, SHARED, BM, BN)
            if PIECE == 0:
                best = tl.maximum(best, largest_scores(scores, SPANNED, BM, BN))
            else:
                its_best, its_other = _best_pieces(scores, part * (2 * SPANNED // PIECE), SPANNED, PIECE, BM, BN)
                other = tl.maximum(tl.maximum(other, its_other), tl.minimum(best, its_best))
                best = tl.maximum(best, its_best)
    at = m[:, None] * maxima_stride + (group_n * CHUNKS + tl.arange(0, CHUNKS))[None, :]
    exists = (m < query_count)[:, None]
    if PIECE == 0:
        tl.store(maxima + at, best.to(tl.float16), mask=exists)
    else:
        write_pieces(best, other, maxima, others, at, exists)


chunk_maxima_of_some = triton.jit(chunk_maxima.fn, do_not_specialize=["query_count", "title_count", "allowed_stride"])
"""`chunk_maxima` of titles that a filter leaves: none is compiled for how many those are. Of a whole catalogue one is,
which, with factors, takes 166 registers on Hopper instead of 241."""


@triton.jit
def _first_columns(titles, tile, title_count, DIM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """Load the first BK columns of a tile of BN titles; 0 where there is none."""
    n = tile * BN + tl.arange(0, BN)
    column = tl.arange(0, BK)
    at = titles + n.to(tl.int64)[:, None] * DIM + column[None, :]
    return tl.load(at, mask=(n < title_count)[:, None] & (column < DIM)[None, :], other=0.0)


@triton.jit(do_not_specialize=["title_count", "tiles"])
def query_maxima(
    given, titles, factors, allowed, rounded, scaled, bounds, maxima, others,
    title_count, tiles, scale, title_norm, title_error, rounding,
    FACTORED: tl.constexpr, MASKED: tl.constexpr, SPAN: tl.constexpr, PIECE: tl.constexpr, DIM: tl.constexpr,
    VECTOR_DIM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Make a single query ready, as `prepare_queries` does, and write its `chunk_maxima`: in one launch, not in two.

    Every program does so for itself; the first one writes it down. Without tensor cores, which would idle: the query is
    multiplied in float32, unrounded. A program takes every so-manieth of ``tiles`` of BN titles, and what it multiplies
    first of the next is on its way meanwhile: of the first while the query is made ready.
    """
    LEAST: tl.constexpr = float("-inf") if PIECE == 0 else -3.0e38  # which stays a number with a piece in its last bits
    ahead = _first_columns(titles, tl.program_id(0), title_count, DIM, BN, BK)
    first, second, norm = scale_of(given, VECTOR_DIM, BK)
    if tl.program_id(0) == 0:
        column = tl.arange(0, BK)
        lost = tl.zeros((BK,), tl.float32)
        for start in range(0, DIM, BK):
            inside = start + column < VECTOR_DIM
            part = tl.load(given + start + column, mask=inside, other=0.0) * first * second
            half = part.to(tl.float16)
            tl.store(rounded + start + column, half, mask=start + column < DIM)
            tl.store(scaled + start + column, part, mask=inside)
            lost += (part - half.to(tl.float32)) * (part - half.to(tl.float32))
        query_norm = norm * second
        query_error = tl.sqrt(tl.sum(lost, axis=0))
        bound = query_norm * title_error + query_error * title_norm + rounding * query_norm * title_norm
        tl.store(bounds, 1.001 * bound + 1e-7)
        tl.store(bounds + 1, 1.0 / first)
        tl.store(bounds + 2, 1.0 / second)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        n = tile * BN + tl.arange(0, BN)
        products = tl.zeros((BN, BK), tl.float32)
        for start in tl.static_range(0, DIM, BK):
            column = start + tl.arange(0, BK)
            x = ahead
            if start > 0:
                at = titles + n.to(tl.int64)[:, None] * DIM + column[None, :]
                x = tl.load(at, mask=(n < title_count)[:, None] & (column < DIM)[None, :], other=0.0)
            q = tl.load(given + column, mask=column < VECTOR_DIM, other=0.0) * first * second
            products += x.to(tl.float32) * q[None, :]
        ahead = _first_columns(titles, tile + tl.num_programs(0), title_count, DIM, BN, BK)
        scores = tl.sum(products, axis=1)[None, :]
        if FACTORED:
            scores = scores * load_factors(factors, n, title_count, scale)[None, :]
        bits = 0
        if MASKED:
            bits = tl.load(allowed + tile * (BN // 32) + tl.arange(0, BN // 32))[None, :]
        scores = allowed_scores(scores, bits, tile * BN, title_count, LEAST, MASKED, True, 1, BN)
        CHUNKS: tl.constexpr = BN // (2 * SPAN)
        at = tile * CHUNKS + tl.arange(0, CHUNKS)[None, :]
        if PIECE == 0:
            tl.store(maxima + at, largest_scores(scores, SPAN, 1, BN).to(tl.float16))
        else:
            best, other = _best_pieces(scores, 0, SPAN, PIECE, 1, BN)
            write_pieces(best, other, maxima, others, at, at >= 0)
