"""What a FAISS index that keeps codes instead of vectors loses of them: tried on some titles before it is filled."""

from __future__ import annotations

import contextlib
import math
import warnings
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.index.hardware.device import load_faiss

TRIED_TITLES, ASKED, BEST = 4096, 64, 10
"""Titles among which codes are tried, the queries that are asked, and how many of each one's best they should find."""

LOOKED_AT = 100
"""Coarse codes should find them among so many, which are what `refine` chooses from."""

FINE_BITS = 8
"""From so many bits a component on, a scalar quantiser should find the best themselves."""

SOUND_FINE, SOUND_COARSE = 0.9, 0.8
"""Shares of the best that are found where nothing is wrong: of vectors as long as one another, 0.95 and more.

Where FAISS's codes fail it is far less: RaBitQ's of lists find 0.05 of titles 0.001 long, and 0.99 of those of length
one."""


def warn_of_losses(index: Any, titles: Vectors) -> None:
    """Warn where codes keep so little of vectors that other titles are found than the best, whatever is visited.

    8 bits a component divide the range of the longest vectors; two bytes hold nothing above 65,504, and little below
    0.00006; RaBitQ supposes lists' centres about as long as titles, PCA queries as long as titles, and L2norm forgets
    lengths. Nothing here knows of that: titles are found, or they are not.

    Args:
        index: trained and empty; stays so.
        titles: float32 (titles, dim), some of the vectors, at most `TRIED_TITLES`; fewer than `2 · LOOKED_AT` tell
            nothing.
    """
    lengths = np.linalg.norm(titles.astype(np.float64), axis=1)
    asked = np.flatnonzero(lengths)[:: max(1, len(titles) // ASKED)]
    if len(titles) < 2 * LOOKED_AT or not len(asked):  # of zeros all are as good as one another
        return
    is_fine = _scalar_bits(index) >= FINE_BITS
    looked_at, least = (BEST, SOUND_FINE) if is_fine else (LOOKED_AT, SOUND_COARSE)
    filled = _filled(index, titles)
    if filled is None:
        return
    unit = (titles[asked] / lengths[asked, None]).astype(np.float32)
    kept = min(_kept(filled, titles, queries, looked_at) for queries in (titles[asked], unit))
    if kept >= least:
        return
    middle, longest = float(np.median(lengths)), float(lengths.max())
    is_unit = math.isclose(middle, 1, rel_tol=1e-3) and math.isclose(longest, 1, rel_tol=1e-3)
    among = "" if is_fine else f" among the {LOOKED_AT} that they take for the best"
    warnings.warn(
        f"the codes of this index find {kept:.0%} of the {BEST} best of {len(titles):,} titles tried{among}, whose"
        f" vectors are {middle:.3g} long, the longest {longest:.3g}; they should find {least:.0%}; take "
        + ("" if is_unit else "index.normalize: true where lengths mean nothing, or ")
        + "another index.build.storage or factory, or type ivf_flat",
        RuntimeWarning,
        stacklevel=4,
    )


def _scalar_bits(index: Any) -> int:
    """Return how many bits a component has in the scalar quantiser of lists or a graph; 0 where there is none."""
    faiss = load_faiss()
    inner = (faiss.try_extract_index_ivf(index), getattr(index, "storage", None))
    parts = [faiss.downcast_index(part) for part in (index, *inner) if part is not None]
    return max((int(part.sq.bits) for part in parts if hasattr(part, "sq")), default=0)


def _filled(index: Any, titles: Vectors) -> Any:
    """Return a copy of an index with titles in it, which visits everything; None where it takes none, as told later."""
    faiss = load_faiss()
    copy = faiss.deserialize_index(faiss.serialize_index(index))
    try:
        copy.add(titles)
    except RuntimeError:
        return None
    ivf = faiss.try_extract_index_ivf(copy)
    everything = {"efSearch": len(titles)} | ({} if ivf is None else {"nprobe": int(ivf.nlist)})
    for name, value in everything.items():
        with contextlib.suppress(RuntimeError):  # FAISS's way to say that an index has no such setting
            faiss.ParameterSpace().set_index_parameter(copy, name, value)
    return copy


def _kept(filled: Any, titles: Vectors, queries: Vectors, looked_at: int) -> float:
    """Return how large a share of each query's best is found among the first ``looked_at``; ties are as good."""
    scores = queries.astype(np.float64) @ titles.astype(np.float64).T
    worst = np.partition(scores, -BEST, axis=1)[:, -BEST, None]
    found: Rows = filled.search(queries, looked_at)[1]
    is_best = np.take_along_axis(scores, np.maximum(found, 0), axis=1) >= worst
    return float(np.minimum((is_best & (found >= 0)).sum(axis=1), BEST).mean() / BEST)
