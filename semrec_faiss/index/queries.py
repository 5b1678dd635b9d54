"""Query vectors that a plain float32 norm would not do justice to: huge, tiny, or not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.errors import DataError

LEAST_SQUARE = 1e-30
"""Below this sum of squares, small components may have vanished in float32."""

UNIT_SQUARE_TOLERANCE = 1e-6
"""Vectors whose square is this near one are of unit length already: dividing would only cost a copy."""


def scaled_to_sane_range(queries: NDArray[Any], first: int, *, normalize: bool) -> NDArray[np.float64]:
    """Bring rows whose squares overflow or vanish near length 1, or say which row is at fault.

    Args:
        queries: float (queries, dim).
        first: the number of the first row, for messages.
        normalize: whether only their direction counts; where it does not, they stay as they are.

    Raises:
        DataError: a NaN, an infinite value, what float32 cannot hold, or an all-zero row that has to be normalised.
    """
    wide = queries.astype(np.float64)
    finite = np.isfinite(wide).all(axis=1)
    if not finite.all():
        raise DataError(f"query {first + int(np.flatnonzero(~finite)[0])} holds a NaN or an infinite value")
    largest = np.abs(wide).max(axis=1)
    if not normalize:
        if (largest > np.finfo(np.float32).max).any():
            row = int(np.argmax(largest))
            raise DataError(f"query {first + row} holds {largest[row]:.3g}, more than a float32 can")
        return wide
    if (largest == 0).any():
        row = first + int(np.flatnonzero(largest == 0)[0])
        raise DataError(f"query {row} is all zeros: it has no direction to compare")
    scaled: NDArray[np.float64] = wide / largest[:, None]
    return scaled
