"""One generation, ready to be asked, and what answers say of its titles, kept once it is made."""

from __future__ import annotations

from functools import lru_cache, partial

from semrec_faiss.arrays import Rows
from semrec_faiss.data.titles.titles import Titles
from semrec_faiss.search.answers.answer_json import members_json, shown_records
from semrec_faiss.search.recommender import Recommender

NAMES_REMEMBERED = 65_536
"""Titles whose row is kept by the name that they were asked by, and whose record is."""


class RememberedTitles:
    """What answers say of titles, as JSON, kept once it is made."""

    def __init__(self, titles: Titles) -> None:
        self._titles = titles
        self._held: dict[int, bytes] = {}

    def records(self, rows: Rows) -> list[bytes]:
        """Return what `shown_records` does."""
        asked = rows.tolist()
        held = self._held
        try:
            return list(map(held.__getitem__, asked))
        except KeyError:
            return list(map(self._remembering(set(asked)).__getitem__, asked))

    def _remembering(self, rows: set[int]) -> dict[int, bytes]:
        held = self._held
        missing = [row for row in rows if row not in held]
        if len(held) + len(missing) > NAMES_REMEMBERED:
            held, missing = {}, list(rows)  # another thread may look into the one before
        held.update(zip(missing, shown_records(self._titles, missing), strict=True))
        self._held = held
        return held


class Served:
    """One generation, ready to be asked.

    Attributes:
        name: of the generation.
        normalizes: whether its index compares directions alone.
        recommender: asks it; its searches are made by the service's one batcher.
        type_ahead: its titles as one types.
        known: a title's row, and `members_json` of a question about it, by a name that needs no database; else None.
        titles: what answers say of them, for the event loop's thread.
        inline_queries: the most that are searched together on one core; 0: none, a thread waits for the device.
        loop_queries: the most of those that the event loop's thread searches for, where k is small.
        joined_from: from how many that wait on the batcher searches all of them, though that is more; 0: never.
        in_cluster: whether shards elsewhere answer, so that no title is looked up between two requests.
    """

    def __init__(
        self,
        recommender: Recommender,
        inline_queries: int,
        loop_queries: int = 0,
        joined_from: int = 0,
        *,
        in_cluster: bool = False,
    ) -> None:
        self.recommender = recommender
        self.in_cluster = in_cluster
        self.inline_queries = inline_queries
        self.loop_queries = loop_queries
        self.joined_from = joined_from
        self.name = recommender.saved.generation.name
        self.normalizes = recommender.index.config.normalize
        titles = recommender.titles
        self.titles = RememberedTitles(titles)
        self.type_ahead = titles.type_ahead()
        self.known = lru_cache(NAMES_REMEMBERED)(partial(_known, titles))  # and no method, which would hold this


def _known(titles: Titles, name: str) -> tuple[int, bytes] | None:
    found = titles.known_record(name)
    return None if found is None else (found[0], members_json({of: found[1][of] for of in ("media_id", "title")}))
