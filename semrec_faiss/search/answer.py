"""What a search returns: small typed objects that become dicts, rows of a table or a DataFrame."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.errors import DeviceError
from semrec_faiss.index.search_result import Exactness
from semrec_faiss.search.text import TextTimes
from semrec_faiss.search.topk import Stage

Record = dict[str, Any]
RecordsOf = Callable[[NDArray[np.int64]], Sequence[Record]]


@dataclass(frozen=True)
class Result:
    """One title of an answer.

    Attributes:
        rank: 1 for the best.
        media_id: the title's id.
        title: as the metadata spells it.
        score: inner product with the query; the cosine where the index normalises.
        fields: the title's other metadata.
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
        """Return one flat dict: rank, media_id, title, score, then the other metadata."""
        own = {"rank": self.rank, "media_id": self.media_id, "title": self.title, "score": self.score}
        return own | {name: copy.deepcopy(value) for name, value in self.fields.items() if name not in own}


@dataclass(frozen=True)
class Answer:
    """The titles found for one query.

    Attributes:
        query: what was asked: media_id and title, or user_id, or the position in a batch of vectors.
        requested: how many titles were asked for.
        matching: how many titles could have been returned.
        returned: how many were.
        strategy: how they were found; see `VectorIndex.search` and `restricted_top_k`.
        exact: whether a brute-force scan would give the same titles, ties aside; ``proven`` by type fused on a GPU.
        elapsed_ms: milliseconds that the search took, the whole batch's where there was one.
        stages: the steps of the search, the whole batch's where there was one.
        rows: int64 (returned,), title rows, best first.
        scores: float32 (returned,).
        text: for a text query, the model and what it took, the whole batch's where there was one.
    """

    query: Record
    requested: int
    matching: int
    strategy: str
    exact: Exactness
    elapsed_ms: float
    stages: tuple[Stage, ...]
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    _records_of: RecordsOf = field(repr=False)
    text: TextTimes | None = None

    @property
    def returned(self) -> int:
        """How many titles were found."""
        return len(self.rows)

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """The titles, best first; their metadata is read when this is first used."""
        records = self._records_of(self.rows)
        return tuple(
            Result(rank, record["media_id"], record["title"], score, _others(record))
            for rank, (record, score) in enumerate(zip(records, self.scores.tolist(), strict=True), start=1)
        )

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return self.returned

    def as_dict(self) -> Record:
        """Return the answer as it stands in JSON."""
        return {
            "query": dict(self.query),
            "requested": self.requested,
            "matching": self.matching,
            "returned": self.returned,
            "strategy": self.strategy,
            "exact": self.exact,
            "elapsed_ms": round(self.elapsed_ms, 4),
            **({} if self.text is None else {"text": self.text.as_dict()}),
            "results": [result.as_dict() for result in self.results],
        }

    def table(self) -> list[Record]:
        """Return one dict a title, the query's fields in front as ``query_…``."""
        asked = {f"query_{name}": value for name, value in self.query.items()}
        return [asked | result.as_dict() for result in self.results]

    def to_pandas(self) -> Any:
        """Return `table` as a pandas DataFrame; raises DeviceError when pandas is not installed."""
        return _frame("pandas", self.table())

    def to_polars(self) -> Any:
        """Return `table` as a polars DataFrame; raises DeviceError when polars is not installed."""
        return _frame("polars", self.table())


class Answers(Sequence[Answer]):
    """The answers to a batch of queries, in their order; each is made when it is looked at."""

    def __init__(self, make: Callable[[int], Answer], count: int) -> None:
        self._make = make
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, position: int) -> Answer: ...
    @overload
    def __getitem__(self, position: slice) -> list[Answer]: ...
    def __getitem__(self, position: int | slice) -> Answer | list[Answer]:
        if isinstance(position, slice):
            return [self._make(i) for i in range(*position.indices(self._count))]
        if not -self._count <= position < self._count:
            raise IndexError(f"answer {position} of {self._count}")
        return self._make(position % self._count)

    def as_dict(self) -> Record:
        """Return all answers as they stand in JSON."""
        return {"answers": [answer.as_dict() for answer in self]}

    def table(self) -> list[Record]:
        """Return one dict a query and title."""
        return [row for answer in self for row in answer.table()]

    def to_pandas(self) -> Any:
        """Return `table` as a pandas DataFrame; raises DeviceError when pandas is not installed."""
        return _frame("pandas", self.table())

    def to_polars(self) -> Any:
        """Return `table` as a polars DataFrame; raises DeviceError when polars is not installed."""
        return _frame("polars", self.table())


def _others(record: Record) -> Record:
    """Copy a record without what a Result has by itself: the record is kept for later answers."""
    return {name: copy.deepcopy(value) for name, value in record.items() if name not in ("media_id", "title")}


def _frame(library: str, table: list[Record]) -> Any:
    from importlib import import_module

    try:
        return import_module(library).DataFrame(table)
    except ImportError as error:
        raise DeviceError(f"{library} is not installed", fix=f"pip install {library}") from error
