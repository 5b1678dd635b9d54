# mypy: ignore-errors
"""Triton kernels of chunk maxima from int8 codes: half the bytes to read, and products twice as fast as float16's.

A title is ``step`` × int8 plus a rest whose length is known. A query is one row of int8 too; or two, 128 × high + low,
where the tensor cores would idle otherwise: eight rows apart, so that one thread holds both products of a title.
Integer products are exact. A chunk's maximum is that of what its titles' scores can be at most: the score of the codes,
the length of the title's rest times the query's, and what the query's codes leave out.
"""

from __future__ import annotations

import triton
import triton.language as tl

from semrec_faiss.index.fused.kernels.scoring import (
    allowed_scores,
    largest_scores,
    load_bits,
    load_tile,
    marked,
    only_allowed,
    tile_of,
    write_pieces,
)

NOT_ALLOWED = tl.constexpr(-(1 << 30))
"""In the place of a product of a title that may not be returned: less than any product of as many as 65,536 codes."""

NO_BOUND = tl.constexpr(-1.0e30)
"""Of a piece without titles, or less: a number still when a piece is in its last bits."""

# Kernels are not formatted where `fmt: skip` stands: their arguments are in lines by kind, tables, sizes, constants.


@triton.jit(do_not_specialize=["query_count", "title_count", "allowed_stride"])
def coded_chunk_maxima(
    queries, titles, steps, rests, factors, allowed, maxima,
    query_count, title_count, width, maxima_stride, allowed_stride,
    PLANES: tl.constexpr, MASKED: tl.constexpr, SHARED: tl.constexpr, SPAN: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, POINTERS: tl.constexpr,
):  # fmt: skip
    """Multiply a tile of queries with a tile of titles and keep the largest bound on a score of each chunk.

    ``queries`` and ``titles`` are tensor descriptors of int8 with blocks of (BM, BK) and (BN, BK), or with POINTERS the
    codes themselves, ``width`` to a row; a tile has BM / PLANES queries. ``steps`` and ``rests`` are the titles',
    ``factors`` the queries' units, norms and slacks.
    """
    QUERIES: tl.constexpr = BM // PLANES
    tile_m, tile_n = tile_of(tl.cdiv(query_count, QUERIES), tl.cdiv(title_count, BN), GROUP)
    m = (tile_m * QUERIES + tl.arange(0, QUERIES)).to(tl.int64)
    n = tile_n * BN + tl.arange(0, BN)
    exists = n < title_count
    step = tl.load(steps + n, mask=exists, other=0.0).to(tl.float32)
    rest = tl.load(rests + n, mask=exists, other=0.0).to(tl.float32)
    unit = tl.load(factors + 3 * m, mask=m < query_count, other=0.0)
    norm = tl.load(factors + 3 * m + 1, mask=m < query_count, other=0.0)
    slack = tl.load(factors + 3 * m + 2, mask=m < query_count, other=0.0)
    bits = 0
    if MASKED:
        bits = load_bits(allowed, m, tile_n, query_count, allowed_stride, SHARED, BN)
    code_rows = query_count
    if PLANES == 2:
        code_rows = 16 * tl.cdiv(query_count, 8)
    products = tl.zeros((BM, BN), tl.int32)
    for k in range(0, width, BK):
        query_tile = load_tile(queries, tile_m * BM, k, code_rows, width, BM, BK, POINTERS)
        title_tile = load_tile(titles, tile_n * BN, k, title_count, width, BN, BK, POINTERS)
        products = tl.dot(query_tile, title_tile.T, products, out_dtype=tl.int32)
    scores = products.to(tl.float32)
    if PLANES == 2:
        both = tl.reshape(scores, (BM // 16, 2, 8, BN))
        weight = tl.reshape(tl.where(tl.arange(0, 2) == 0, 128.0, 1.0), (1, 2, 1, 1))
        scores = tl.reshape(tl.sum(both * weight, axis=1), (QUERIES, BN))
    scores = scores * (unit[:, None] * step[None, :]) + (norm[:, None] * rest[None, :] + slack[:, None])
    scores = allowed_scores(scores, bits, tile_n * BN, title_count, float("-inf"), MASKED, SHARED, QUERIES, BN)
    CHUNKS: tl.constexpr = BN // (2 * SPAN)
    at = m[:, None] * maxima_stride + (tile_n * CHUNKS + tl.arange(0, CHUNKS))[None, :]
    tl.store(maxima + at, largest_scores(scores, SPAN, QUERIES, BN).to(tl.float16), mask=(m < query_count)[:, None])


@triton.jit
def _best_pieces(
    products, step, rest, scale, first, MASKED: tl.constexpr, SPAN: tl.constexpr, PIECE: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """Return each chunk's largest bound in the query's units, its piece, ``first`` and on, and its other pieces'.

    The titles of a piece share a ``step`` and a ``rest``, so that the largest product is the largest bound. The last
    title's piece may have missing ones, whose products are 0: its bound may be more than it needs to be.
    """
    TILES: tl.constexpr = BN // (8 * SPAN)
    PIECES: tl.constexpr = 2 * SPAN // PIECE
    apart = tl.reshape(products, (BM, TILES, PIECES, PIECE // 2, 4, 2))
    most = tl.max(tl.max(apart, axis=5), axis=3)
    bounds = most.to(tl.float32) * step + rest * scale
    if MASKED:
        bounds = tl.where(most == NOT_ALLOWED, NO_BOUND, bounds)
    high = marked(bounds, first + tl.reshape(tl.arange(0, PIECES), (1, 1, PIECES, 1)))
    best = tl.max(high, axis=2)
    is_best = high.to(tl.int32, bitcast=True) == best.to(tl.int32, bitcast=True)[:, :, None, :]
    other = tl.max(tl.where(is_best, -3.0e38, high), axis=2)
    return tl.reshape(best, (BM, BN // (2 * SPAN))), tl.reshape(other, (BM, BN // (2 * SPAN)))


@triton.jit
def _in_units(bounds, unit, slack):
    """Return bounds as scores, with what a query's codes leave out, and what the mark in their last bits may hide."""
    scores = bounds * unit[:, None]
    return tl.where(bounds <= 0.5 * NO_BOUND, -3.0e38, scores + tl.abs(scores) * 1.6e-5 + slack[:, None])


@triton.jit(do_not_specialize=["query_count", "title_count", "allowed_stride"])
def coded_piece_maxima(
    queries, titles, steps, rests, factors, allowed, maxima, others,
    query_count, title_count, width, maxima_stride, allowed_stride,
    MASKED: tl.constexpr, SHARED: tl.constexpr, SPAN: tl.constexpr, PIECE: tl.constexpr, PARTS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, POINTERS: tl.constexpr,
):  # fmt: skip
    """As `coded_chunk_maxima`, of many queries with one row of codes each, and as `scoring.chunk_maxima` does it.

    PARTS tiles of titles one after the other, and which piece of a chunk has its largest bound. The PIECE titles of
    one share a step and a rest: bounds are reckoned of the largest product of each alone.
    """
    SPANNED: tl.constexpr = SPAN // PARTS
    CHUNKS: tl.constexpr = BN // (2 * SPANNED)
    TILES: tl.constexpr = BN // (8 * SPANNED)
    PIECES: tl.constexpr = 2 * SPANNED // PIECE
    tile_m, group_n = tile_of(tl.cdiv(query_count, BM), tl.cdiv(title_count, PARTS * BN), GROUP)
    m = (tile_m * BM + tl.arange(0, BM)).to(tl.int64)
    unit = tl.load(factors + 3 * m, mask=m < query_count, other=1.0)
    norm = tl.load(factors + 3 * m + 1, mask=m < query_count, other=0.0)
    slack = tl.load(factors + 3 * m + 2, mask=m < query_count, other=0.0)
    scale = tl.reshape(tl.maximum(norm / unit, 1.0), (BM, 1, 1, 1))  # 1 at least: of a missing piece `NO_BOUND` is left
    window = tl.reshape(tl.arange(0, TILES * PIECES), (1, TILES, PIECES, 1))
    piece_row = window * (4 * PIECE) + tl.reshape(2 * tl.arange(0, 4), (1, 1, 1, 4))
    best = tl.full((BM, CHUNKS), -3.0e38, tl.float32)
    other = tl.full((BM, CHUNKS), -3.0e38, tl.float32)
    for part in range(0, PARTS):
        tile_n = group_n * PARTS + part
        bits = 0
        if MASKED:  # asked for before the product, which hides how long it takes to come
            bits = load_bits(allowed, m, tile_n, query_count, allowed_stride, SHARED, BN)
        products = tl.zeros((BM, BN), tl.int32)
        for k in range(0, width, BK):
            query_tile = load_tile(queries, tile_m * BM, k, query_count, width, BM, BK, POINTERS)
            title_tile = load_tile(titles, tile_n * BN, k, title_count, width, BN, BK, POINTERS)
            products = tl.dot(query_tile, title_tile.T, products, out_dtype=tl.int32)
        if MASKED:
            products = only_allowed(products, bits, NOT_ALLOWED, SHARED, BM, BN)
        row = tile_n * BN + piece_row
        step = tl.load(steps + row, mask=row < title_count, other=0.0).to(tl.float32)
        rest = tl.load(rests + row, mask=row < title_count, other=float("-inf")).to(tl.float32)
        rest = tl.maximum(rest, NO_BOUND)
        its_best, its_other = _best_pieces(products, step, rest, scale, part * PIECES, MASKED, SPANNED, PIECE, BM, BN)
        other = tl.maximum(tl.maximum(other, its_other), tl.minimum(best, its_best))
        best = tl.maximum(best, its_best)
    at = m[:, None] * maxima_stride + (group_n * CHUNKS + tl.arange(0, CHUNKS))[None, :]
    scores = marked(_in_units(best, unit, slack), best.to(tl.int32, bitcast=True) & 63)
    write_pieces(scores, _in_units(other, unit, slack), maxima, others, at, (m < query_count)[:, None])
