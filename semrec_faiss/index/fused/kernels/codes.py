# mypy: ignore-errors
"""The Triton kernel of chunk maxima from int8 codes, for batches so small that reading the titles is what takes time.

A title is ``step`` × int8 plus a rest whose length is known. A query is one row of int8 too; or two, 128 × high + low,
where the tensor cores would idle otherwise: eight rows apart, so that one thread holds both products of a title.
Integer products are exact. A chunk's maximum is that of what its titles' scores can be at most: the score of the codes,
the length of the title's rest times the query's, and what the query's codes leave out.
"""

from __future__ import annotations

import triton
import triton.language as tl

from semrec_faiss.index.fused.kernels.scoring import allowed_scores, largest_scores, load_bits, load_tile, tile_of

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
