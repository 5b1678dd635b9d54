"""Limits of what `hybrid` learns with, here so that a command line can name them without loading it."""

from __future__ import annotations

MOST_DIMENSIONS = 4_096
"""Of either part."""

MOST_TEXT_WEIGHT = 1_000_000
"""Far beyond what leaves ratings any say; vectors of much more would not be finite."""

MOST_SEED = 2**31 - 1
"""What scikit-learn takes."""
