"""Rows that single queries must not return, as lists on the GPU, and the bitmaps that are made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from semrec_faiss.index.fused.kernels import ARITHMETIC
from semrec_faiss.index.fused.plan import bitmap_words
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles

BITMAP_WORDS, LISTED_AT_ONCE = 2048, 256
"""Words of a bitmap that one program makes, and rows of a list that it looks at together."""


@dataclass(frozen=True)
class Lists:
    """Rows to leave out, on the GPU: list ``i`` is ``rows[offsets[i]:offsets[i + 1]]``, q.s ``which[q]``, or q."""

    offsets: Any
    rows: Any
    which: Any = None


def leave_out(titles: GpuTitles, table: Any, shared: Any, lists: Lists) -> None:
    """Make each query's bitmap of allowed rows: the shared one without what is on the query's list.

    Args:
        titles: whose positions the bitmaps have; where they are some of a catalogue, lists name rows of that.
        table: int32 (queries, `bitmap_words`) on the GPU, to be filled.
        shared: int32 (`bitmap_words`,).
        lists: the rows to leave out.
    """
    from semrec_faiss.index.fused.kernels import queries

    words = bitmap_words(titles.count)
    origins = titles.origins
    queries.leave_out_rows[(-(-words // BITMAP_WORDS), len(table))](
        table,
        shared,
        lists.offsets,
        lists.rows,
        lists.offsets if lists.which is None else lists.which,
        lists.rows if origins is None else origins,
        words // 8,
        titles.count,
        titles.count.bit_length(),
        LISTED=lists.which is not None,
        MAPPED=origins is not None,
        WORDS=BITMAP_WORDS,
        BLOCK=LISTED_AT_ONCE,
        num_warps=4,
        **ARITHMETIC,
    )
