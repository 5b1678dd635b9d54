"""The arrays that pass from room to room, each kind named once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Vectors of titles, users or queries: (n, d), or (d,) for one."""

Scores = NDArray[np.float32]
"""Inner products: (queries, k) or (titles,); higher is better."""

Rows = NDArray[np.int64]
"""Positions of titles or users, from 0; never shown to a person."""

Mask = NDArray[np.bool_]
"""(titles,): True for a title that may be answered."""

Values = NDArray[np.float64]
"""Measured values, one a query, a user or a repeat."""
