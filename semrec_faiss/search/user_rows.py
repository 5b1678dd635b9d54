"""Users as queries: rows of vectors that are stored, each without what it has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.saved.users import SavedUsers


@dataclass(frozen=True)
class UserRows:
    """Users as queries.

    Attributes:
        users: whose.
        rows: int64 (queries,), which of them.
        include_seen: keep titles that a user has seen; where it is not known what they have seen, all are kept.
    """

    users: SavedUsers
    rows: Rows
    include_seen: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def kind(self) -> tuple[int, bool]:
        """What must be the same for two to be searched together."""
        return id(self.users), self.include_seen

    @property
    def vectors(self) -> Vectors:
        """Their vectors: float32 (queries, dim), contiguous."""
        return np.ascontiguousarray(self.users.vectors[self.rows])

    @property
    def exclusions(self) -> Exclusions | None:
        """What they have seen, as rows not to return; None where nothing is to be left out."""
        if self.include_seen or not self.users.has_seen:
            return None
        return Exclusions(*self.users.seen).take(self.rows)

    @property
    def excluded_counts(self) -> Rows:
        """How many titles each leaves out: int64 (queries,)."""
        if self.include_seen or not self.users.has_seen:
            return np.zeros(len(self.rows), np.int64)
        offsets, _ = self.users.seen
        return offsets[self.rows + 1] - offsets[self.rows]

    @classmethod
    def joined(cls, several: Sequence[UserRows]) -> UserRows:
        """Put users of one kind together."""
        return cls(several[0].users, np.concatenate([one.rows for one in several]), several[0].include_seen)
