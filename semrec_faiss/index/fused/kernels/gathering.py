# mypy: ignore-errors
"""Triton kernels that gather: which rows a filter allows, and vectors, from a GPU or the host's page-locked memory."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gather_vectors(vectors, which, into, there, dim, D_BLOCK: tl.constexpr):
    """Copy vector ``which[q]``, float16 or float32, to row ``q`` of ``into``, float32, and its number; program q."""
    query = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, D_BLOCK)
    row = tl.load(which + query)
    tl.store(there + query, row)
    given = tl.load(vectors + row * dim + column, mask=column < dim, other=0.0)
    tl.store(into + query * dim + column, given.to(tl.float32), mask=column < dim)


@triton.jit
def _ones_in(words):
    """Return how many bits of int32 words are set."""
    pairs = words - ((words >> 1) & 0x55555555)
    fours = (pairs & 0x33333333) + ((pairs >> 2) & 0x33333333)
    eights = (fours + (fours >> 4)) & 0x0F0F0F0F
    both = eights + (eights >> 8)
    return (both + (both >> 16)) & 0x3F


@triton.jit(do_not_specialize=["word_count"])
def count_rows(bitmap, counts, word_count, WORDS: tl.constexpr):
    """Count the rows that a bitmap allows; program p those of WORDS words."""
    at = tl.program_id(0) * WORDS + tl.arange(0, WORDS)
    ones = _ones_in(tl.load(bitmap + at, mask=at < word_count, other=0))
    tl.store(counts + tl.program_id(0), tl.sum(ones, axis=0))


@triton.jit(do_not_specialize=["word_count"])
def list_rows(bitmap, counts, rows, word_count, WORDS: tl.constexpr, BLOCK: tl.constexpr):
    """List the rows that a bitmap allows, ascending, int32; program p those of WORDS words, `count_rows` done."""
    before = 0
    for start in range(0, tl.program_id(0), BLOCK):
        place = start + tl.arange(0, BLOCK)
        before += tl.sum(tl.load(counts + place, mask=place < tl.program_id(0), other=0), axis=0)
    at = tl.program_id(0) * WORDS + tl.arange(0, WORDS)
    words = tl.load(bitmap + at, mask=at < word_count, other=0)
    ones = _ones_in(words)
    into = before + tl.cumsum(ones, axis=0) - ones
    for bit in range(0, 32):
        is_set = (words >> bit) & 1
        tl.store(rows + into, at * 32 + bit, mask=is_set != 0)
        into += is_set
