"""The titles of all shards: records are fetched from where they lie, names are looked up everywhere at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np

from semrec_faiss.arrays import Rows, rows_within
from semrec_faiss.cluster.shard import Named
from semrec_faiss.cluster.shards import OpenShards
from semrec_faiss.data.titles.catalog import RowsLike
from semrec_faiss.data.titles.finder import Answering, decided, readable, unknown_id
from semrec_faiss.data.titles.near_misses import Called, Near
from semrec_faiss.data.titles.titles import Record, Titles
from semrec_faiss.data.titles.type_ahead import Hit, TypeAhead
from semrec_faiss.errors import UsageError


class ShardedTitles(Titles):
    """Titles by row and by name, like those of one index; there is no database of all of them."""

    def __init__(self, shards: OpenShards, fields: Mapping[str, str]) -> None:
        """Ask ``shards``, whose titles have ``fields``."""
        self._shards = shards
        self.is_partial = shards.partial
        self._columns = None
        self._catalog = None
        self.fields = dict(fields)
        self.count = shards.count

    @property
    def catalog(self) -> NoReturn:
        """Refuse: raises UsageError."""
        raise UsageError("the titles of an index in shards are in no one database", fix="ask with where=…, or by name")

    @property
    def has_columns(self) -> bool:
        """True: they are made of the records that are wanted, as there is no database of all titles."""
        return True

    def lines(self, rows: RowsLike) -> list[bytes]:
        """Return each title's record as JSON, in the order asked; raises DataError for a row that there is not."""
        asked = rows_within(rows, self.count)
        found = [b""] * len(asked)
        if len(asked):
            for at, lines in self._shards.ask_by_row("lines", asked):
                for position, line in zip(at.tolist(), lines, strict=True):
                    found[position] = line
        return found

    def type_ahead(self) -> ShardedTypeAhead:
        """Return what asks the shards, each of which reads its titles when it is first asked."""
        return ShardedTypeAhead(self._shards)

    def find(self, title_or_id: str) -> int:
        """Return the row of the title that a person means, as `Titles.find` of one index does."""
        text = readable(title_or_id)
        quick = list(self._shards.ask_all("looked_up", text).values())
        return self._decided(text, quick if any(one.rows for one in quick) else self._answering(text, ids=True))

    def found(self, title_or_id: str) -> tuple[int, Record]:
        """Return the row that `find` does, and the title's record."""
        row = self.find(title_or_id)
        return row, self.records([row])[0]

    def known(self, title_or_id: str) -> int | None:
        """Return the row that the shards' sorted tables name; None where `find` would ask their databases."""
        found = [one for one in self._shards.ask_all("looked_up", readable(title_or_id)).values() if one.rows]
        rank = min((one.rank for one in found), default=0)
        rows = [row for one in found if one.rank == rank for row in one.rows]
        return rows[0] if len(rows) == 1 else None

    def known_record(self, title_or_id: str) -> tuple[int, Record] | None:
        """Return the row that `known` does, and the title's record."""
        row = self.known(title_or_id)
        return None if row is None else (row, self.records([row])[0])

    def known_by_name(self, texts: Sequence[str]) -> list[Named | None]:
        """Return the title that `known` does for each of several texts, by one call to each shard."""
        found = self._shards.ask_all("by_name", [readable(text) for text in texts]).values()
        return [_only([one for one in named if one.answering.rows]) for named in zip(*found, strict=True)]

    def known_rows(self, media_ids: Sequence[str]) -> Rows:
        """Return the rows of titles by media_id, in the order asked: int64, -1 where there is no such title.

        Raises:
            UnavailableError: an id may be that of a title of a shard that is lost.
        """
        if not media_ids:
            return np.empty(0, np.int64)
        found = list(self._shards.ask_all("known_rows", list(media_ids)).values())
        rows: Rows = np.max(np.stack(found), axis=0)
        if len(found) < len(self._shards) and (rows < 0).any():
            raise self._shards.lost_one()
        return rows

    def media_id_of(self, text: str, kind: str) -> str:
        """Return the media_id of the title whose ``kind``, media_id or title, is ``text``; raises as `Titles`'."""
        text = readable(text)
        if kind == "media_id":
            if int(self.known_rows([text])[0]) < 0:
                first = [record["media_id"] for record in self.records(range(min(3, self.count)))]
                raise unknown_id(text, self.count, [one for one in self._near(text) if one.by_id], first)
            return text
        row = self._decided(text, self._answering(text, ids=False))
        return str(self.records([row])[0]["media_id"])

    def is_title_of_another(self, media_id: str) -> bool:
        """Tell whether another title than the one with this media_id is called like it."""
        return any(self._shards.ask_all("is_title_of_another", media_id).values())

    def _answering(self, text: str, *, ids: bool) -> list[Answering]:
        return list(self._shards.ask_all("answering", text, ids).values())

    def _decided(self, text: str, found: Sequence[Answering]) -> int:
        if len(found) < len(self._shards) and not any(one.rows for one in found):
            raise self._shards.lost_one()  # it may have the title
        return decided(text, found, self._named, lambda: self._near(text))

    def _near(self, text: str) -> list[Near]:
        return [one for near in self._shards.ask_all("near", text).values() for one in near]

    def _named(self, rows: Sequence[int]) -> list[Called]:
        names: dict[int, Called] = {}
        for at, found in self._shards.ask_by_row("named", np.asarray(rows, dtype=np.int64)):
            names |= zip(at.tolist(), found, strict=True)
        return [names[position] for position in range(len(rows))]


def _only(found: Sequence[Named]) -> Named | None:
    """Return the one title that shards have for a name; None where they have none, or several as good."""
    rank = min((one.answering.rank for one in found), default=0)
    best = [one for one in found if one.answering.rank == rank]
    return best[0] if len(best) == 1 and len(best[0].answering.rows) == 1 else None


class ShardedTypeAhead(TypeAhead):
    """Finds titles of all shards as one types; nothing of them is held here."""

    def __init__(self, shards: OpenShards) -> None:
        """Ask ``shards``."""
        self._shards = shards

    def hits(self, typed: str, count: int) -> list[Hit]:
        """Return what `TypeAhead.hits` of all titles would."""
        return self._asked(typed, count)[0]

    def looked_at(self, typed: str, count: int) -> tuple[list[int], float]:
        """Return what `find` does, and the share of all titles that was looked at."""
        hits, seen = self._asked(typed, count)
        return [hit.row for hit in hits], seen

    def _asked(self, typed: str, count: int) -> tuple[list[Hit], float]:
        found = self._shards.ask_all("typed", typed, count)
        return sorted(hit for hits in found.values() for hit in hits)[:count], self._shards.share_of(found)
