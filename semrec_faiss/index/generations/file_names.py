"""The names of a generation's files that the base and a segment have alike; a segment's begin with its own name."""

from __future__ import annotations

VECTORS_NAME = "vectors.npy"
BOUNDS_NAME = "bounds.npy"
RECORDS = "records"
USERS_NAME = "users.npy"
USER_LOOKUP = "user_ids"
LIKELESS_NAME = "users_without_likes.npy"
SEEN_NAME = "seen.parquet"
DELISTED_NAME = "seen_delisted.parquet"


def file_of(segment: str, name: str) -> str:
    """Name a segment's file."""
    return f"{segment}.{name}"
