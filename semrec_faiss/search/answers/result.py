"""One title of an answer, and the names that its fields stand under."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from semrec_faiss.arrays import Rows
from semrec_faiss.data.titles.titles import Record

_DECODER = json.JSONDecoder()

OURS = ("rank", "score")
"""What a result says beside the title's own fields."""


@dataclass(frozen=True)
class Result:
    """One title of an answer.

    Attributes:
        rank: 1 for the best.
        media_id: the title's id.
        title: as the metadata spells it.
        score: inner product with the query; the cosine where the index normalises.
        fields: the title's other metadata, under its own names.
    """

    rank: int
    media_id: str
    title: str
    score: float
    fields: Record = field(default_factory=dict)

    @property
    def year(self) -> int | None:
        """The year of first release, where the metadata has one."""
        return self.fields.get("year")

    @property
    def genres(self) -> list[str]:
        """The genres, empty where the metadata has none."""
        return list(self.fields.get("genres") or ())

    def as_dict(self) -> Record:
        """Return one flat dict: rank, media_id, title, score, then the other metadata.

        A field called rank or score stands as ``field_rank`` or ``field_score``.
        """
        own = {"rank": self.rank, "media_id": self.media_id, "title": self.title, "score": self.score}
        names = shown_names(self.fields, OURS)
        return own | {names[name]: fresh(value) for name, value in self.fields.items()}


@dataclass(frozen=True)
class KeptTitles:
    """The records of a few titles, apart from their index."""

    fields: Mapping[str, str]
    by_row: Mapping[int, bytes]

    def lines(self, rows: Rows) -> list[bytes]:
        """Return each title's record as JSON."""
        return [self.by_row[row] for row in rows.tolist()]


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


def result_of(rank: int, line: bytes, score: float) -> Result:
    """Make the result of a title's JSON record."""
    record = record_of(line)
    return Result(rank, record.pop("media_id"), record.pop("title"), score, record)


def record_of(line: bytes) -> Record:
    """Read a title's JSON record; ``json.loads`` would look for its encoding each time."""
    record: Record = _DECODER.decode(line.decode())
    return record


def fresh(value: Any) -> Any:
    """Copy what a caller could change; values are what JSON holds."""
    if isinstance(value, list):
        return [fresh(one) for one in value]
    return {name: fresh(one) for name, one in value.items()} if isinstance(value, dict) else value
