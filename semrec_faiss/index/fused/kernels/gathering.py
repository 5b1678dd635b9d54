# mypy: ignore-errors
"""A Triton kernel that gathers vectors, from a GPU's memory or over the bus from page-locked memory of the host."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gather_vectors(vectors, which, into, dim, D_BLOCK: tl.constexpr):
    """Copy vector ``which[q]``, float16 or float32, to row ``q`` of ``into``, float32; program q."""
    query = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, D_BLOCK)
    row = tl.load(which + query)
    given = tl.load(vectors + row * dim + column, mask=column < dim, other=0.0)
    tl.store(into + query * dim + column, given.to(tl.float32), mask=column < dim)
