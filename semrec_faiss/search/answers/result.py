"""One title of an answer, and the names that its fields stand under."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.data.titles.columns import columns_of
from semrec_faiss.data.titles.titles import Record

if TYPE_CHECKING:
    import pyarrow as pa

    from semrec_faiss.data.titles.titles import Titles

_DECODER = json.JSONDecoder()

OURS = ("rank", "score")
"""What a result says beside the title's own fields."""


class Lines(Protocol):
    """Where titles' records are read."""

    @property
    def fields(self) -> Mapping[str, str]:
        """The DuckDB type of every field."""
        ...

    def lines(self, rows: Any) -> list[bytes]:
        """Return each title's record as JSON."""
        ...


class Result:
    """One title of an answer; its record is read, and decoded, when a field of it is first wanted.

    Attributes:
        rank: 1 for the best.
        score: inner product with the query; the cosine where the index normalises.
    """

    __slots__ = ("_kept", "_near", "_row", "rank", "score")

    def __init__(self, rank: int, score: float, row: int, near: Neighbours) -> None:
        """Stand for the title in ``row``, whose record ``near`` gives."""
        self.rank = rank
        self.score = score
        self._row = row
        self._near = near
        self._kept: tuple[str, str, Record] | None = None

    def _record(self) -> tuple[str, str, Record]:
        """Return media_id, title and the other fields, decoded once."""
        kept = self._kept
        if kept is None:
            fields = record_of(self._near.line(self._row))
            kept = self._kept = (fields.pop("media_id"), fields.pop("title"), fields)
        return kept

    @property
    def media_id(self) -> str:
        """The title's id."""
        return self._record()[0]

    @property
    def title(self) -> str:
        """The title as the metadata spells it."""
        return self._record()[1]

    @property
    def fields(self) -> Record:
        """The title's other metadata, under its own names."""
        return self._record()[2]

    @property
    def year(self) -> int | None:
        """The year of first release, where the metadata has one."""
        return self.fields.get("year")

    @property
    def genres(self) -> list[str]:
        """The genres, empty where the metadata has none."""
        return list(self.fields.get("genres") or ())

    def as_dict(self) -> Record:
        """Return one flat dict: rank, score, media_id, title, then the other metadata, the order of its JSON anywhere.

        A field called rank or score stands as ``field_rank`` or ``field_score``.
        """
        own = {"rank": self.rank, "score": self.score, "media_id": self.media_id, "title": self.title}
        names = shown_names(self.fields, OURS)
        return own | {names[name]: fresh(value) for name, value in self.fields.items()}

    def _told(self) -> tuple[Any, ...]:
        return (self.rank, self.score, *self._record())

    def __eq__(self, other: object) -> bool:
        return self._told() == other._told() if isinstance(other, Result) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # fields are dicts

    def __repr__(self) -> str:
        rank, score, media_id, title, fields = self._told()
        return f"Result({rank=}, {media_id=}, {title=}, {score=}, {fields=})"

    def __reduce__(self) -> Any:
        return Result, (self.rank, self.score, self._row, self._near.of([self._row]))


class Neighbours:
    """The titles of a few answers of a batch; their records are read together when the first is wanted."""

    def __init__(self, titles: Lines, rows: Rows, scores: Scores) -> None:
        """Hold ``rows`` int64 and ``scores`` float32 (answers, k), -1 where there is no title."""
        self._titles = titles
        self._rows: list[list[int]] = rows.tolist()
        self._scores: list[list[float]] = scores.tolist()
        self._lines: dict[int, bytes] | None = None

    def results(self, answer: int) -> tuple[Result, ...]:
        """Return the titles of one of the answers, best first."""
        rows = self._rows[answer]
        if rows and rows[-1] < 0:
            rows = [row for row in rows if row >= 0]
        return tuple(map(Result, range(1, len(rows) + 1), self._scores[answer], rows, repeat(self)))

    def line(self, row: int) -> bytes:
        """Return the record of one of the titles as JSON."""
        if self._lines is None:
            self._lines = _lines_by_row(self._titles, {row for rows in self._rows for row in rows if row >= 0})
        return self._lines[row]

    def of(self, rows: Sequence[int]) -> Neighbours:
        """Return some of the titles apart from their index, as one answer."""
        kept = KeptTitles(dict(self._titles.fields), {row: self.line(row) for row in rows})
        return Neighbours(kept, np.array([rows], np.int64), np.zeros((1, len(rows)), np.float32))


@dataclass(frozen=True)
class KeptTitles:
    """The records of a few titles, apart from their index."""

    fields: Mapping[str, str]
    by_row: Mapping[int, bytes]
    is_partial: bool = False

    @classmethod
    def of(cls, titles: Titles | KeptTitles, rows: Rows) -> KeptTitles:
        """Take the records of ``rows``, int64, along; -1 stands for none."""
        return cls(dict(titles.fields), _lines_by_row(titles, set(rows[rows >= 0].tolist())), titles.is_partial)

    def lines(self, rows: Any) -> list[bytes]:
        """Return each title's record as JSON."""
        return [self.by_row[row] for row in np.asarray(rows).tolist()]

    def columns(self, rows: Rows) -> pa.RecordBatch:
        """Return a column a field; see `Titles.columns`."""
        return columns_of(map(record_of, self.lines(rows)), self.fields)


def _lines_by_row(titles: Lines, rows: Collection[int]) -> dict[int, bytes]:
    ordered = sorted(rows)
    return dict(zip(ordered, titles.lines(ordered), strict=True))


def shown_names(fields: Mapping[str, Any], taken: Sequence[str]) -> dict[str, str]:
    """Return the name that each field stands under beside ours: its own, or ``field_NAME`` where that is taken."""
    used = {*taken, *fields}
    names = {}
    for name in fields:
        shown = name
        if name in taken:
            while shown in used:
                shown = f"field_{shown}"
            used.add(shown)
        names[name] = shown
    return names


def record_of(line: bytes) -> Record:
    """Read a title's JSON record; ``json.loads`` would look for its encoding each time."""
    record: Record = _DECODER.decode(line.decode())
    return record


def fresh(value: Any) -> Any:
    """Copy what a caller could change; values are what JSON holds."""
    if isinstance(value, list):
        return [fresh(one) for one in value]
    return {name: fresh(one) for name, one in value.items()} if isinstance(value, dict) else value
