"""What a search returns: the arrays of a whole batch, which become objects, JSON or tables when somebody wants them."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.data.titles.titles import Record, Titles
from semrec_faiss.index.search_result import Exactness
from semrec_faiss.search.answers.result import OURS, KeptTitles, Neighbours, Result, fresh, shown_names
from semrec_faiss.search.restricted.found import Stage, TopK
from semrec_faiss.search.text import TextTimes

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 10
"""Results in the text and the table that an answer shows of itself."""


NEIGHBOURS = 64
"""Answers of a batch whose titles' records are read together."""


class Answer(Sequence[Result]):
    """The titles found for one query: a sequence of results, best first."""

    def __init__(self, batch: Answers, position: int) -> None:
        """Look at one answer of a batch."""
        self._batch = batch
        self._position = position

    @cached_property
    def query(self) -> Record:
        """What was asked: media_id and title, or user_id, or the position in a batch of vectors."""
        return {name: values[self._position] for name, values in self._batch.asked.items()}

    @property
    def requested(self) -> int:
        """How many titles were asked for."""
        return self._batch.requested

    @property
    def strategy(self) -> str:
        """How they were found; see `VectorIndex.search` and `restricted_top_k`."""
        return self._batch.strategy

    @property
    def exact(self) -> Exactness:
        """Whether a brute-force scan would give the same titles, ties aside; ``proven`` by type fused on a GPU."""
        return self._batch.exact

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds that the search took, the whole batch's where there was one."""
        return self._batch.elapsed_ms

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The steps of the search, the whole batch's where there was one."""
        return self._batch.stages

    @property
    def text(self) -> TextTimes | None:
        """For a text query, the model and what it took, the whole batch's where there was one."""
        return self._batch.text

    @property
    def matching(self) -> int:
        """How many titles could have been returned."""
        return int(self._batch.matching[self._position])

    @property
    def returned(self) -> int:
        """How many titles were found."""
        return len(self.rows)

    @cached_property
    def rows(self) -> Rows:
        """The titles' rows, best first: int64 (returned,)."""
        found: Rows = self._batch.rows[self._position]
        return found[found >= 0]

    @cached_property
    def scores(self) -> Scores:
        """The titles' scores: float32 (returned,)."""
        found: Scores = self._batch.scores[self._position]
        kept: Scores = found[self._batch.rows[self._position] >= 0]
        return kept

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """The titles, best first; the metadata of each is read when it is first wanted."""
        return self._batch.results_of(self._position)

    @overload
    def __getitem__(self, position: int) -> Result: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[Result, ...]: ...
    def __getitem__(self, position: int | slice) -> Result | tuple[Result, ...]:
        return self.results[position]

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return self.returned

    def __bool__(self) -> bool:
        return True  # an answer of no titles is one

    def __reduce__(self) -> Any:
        return Answer, (self._alone(), 0)

    def as_dict(self) -> Record:
        """Return the answer as it stands in JSON."""
        return self.head() | {"results": [result.as_dict() for result in self.results]}

    def as_json_bytes(self) -> bytes:
        """Return `as_dict` as one line of JSON in UTF-8, the titles' ready-made records joined without parsing them."""
        from semrec_faiss.search.answers.answer_json import answers_json

        return answers_json(self._alone())[0]

    def table(self) -> list[Record]:
        """Return one dict a title, the query's fields in front as ``query_…``; see `Answers.table`."""
        return self._alone().table()

    def to_arrow(self) -> pa.Table:
        """Return the titles as a pyarrow table; see `Answers.to_arrow`."""
        return self._alone().to_arrow()

    def to_pandas(self) -> Any:
        """Return the titles as a pandas DataFrame; raises MissingPackageError when pandas is not installed."""
        return self._alone().to_pandas()

    def to_polars(self) -> Any:
        """Return the titles as a polars DataFrame; raises MissingPackageError when polars is not installed."""
        return self._alone().to_polars()

    def __repr__(self) -> str:
        facts = f"{self.returned} of {self.requested}, {self.matching} match, {self.strategy}, exact={self.exact}"
        shown = [f"  {result.rank}. {result.title} {result.score:.4f}" for result in self.results[:SHOWN]]
        more = [f"  … and {self.returned - SHOWN} more"] if self.returned > SHOWN else []
        return "\n".join([f"<Answer to {self.query}: {facts}>", *shown, *more])

    def _repr_html_(self) -> str:
        cells = [
            (str(result.rank), result.title, f"{result.score:.4f}", str(result.year or ""), ", ".join(result.genres))
            for result in self.results
        ]
        asked = ", ".join(f"{name} {value}" for name, value in self.query.items())
        caption = f"{asked}: {self.returned} of {self.requested}, {self.matching} match"
        return _html_table(caption, ("", "title", "score", "year", "genres"), cells)

    def head(self) -> Record:
        """Return what stands before the results in JSON."""
        return {
            "query": self.query,
            "requested": self.requested,
            "matching": self.matching,
            "returned": self.returned,
            "strategy": self.strategy,
            "exact": self.exact,
            "elapsed_ms": round(self.elapsed_ms, 4),
            **({} if self.text is None else {"text": self.text.as_dict()}),
        }

    def _alone(self) -> Answers:
        return self._batch.take([self._position])


class Answers(Sequence[Answer]):
    """The answers to a batch of queries, in their order; arrays until somebody looks at one.

    Attributes:
        rows: int64 (queries, k), title rows, best first; -1 where fewer than k match.
        scores: float32 (queries, k); -inf where there is no title.
        matching: int64 (queries,), how many titles each query might have returned.
        asked: what was asked, by name: a value a query each.
        requested: how many titles were asked for.
        titles: where the titles' metadata is read.
        strategy, exact, elapsed_ms, stages, text: see `Answer`.
    """

    def __init__(
        self,
        found: TopK,
        requested: int,
        asked: Mapping[str, Sequence[Any]],
        titles: Titles | KeptTitles,
        elapsed_ms: float,
        text: TextTimes | None = None,
    ) -> None:
        """Hold what a search has found for ``asked``."""
        self.rows: Rows = found.rows
        self.scores: Scores = found.scores
        self.matching: Rows = found.matching
        self.strategy: str = found.strategy
        self.exact: Exactness = found.exact
        self.stages: tuple[Stage, ...] = tuple(found.stages)
        self.requested = requested
        self.asked = asked
        self.titles = titles
        self.elapsed_ms = elapsed_ms
        self.text = text
        self._near: tuple[int, Neighbours] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, position: int) -> Answer: ...
    @overload
    def __getitem__(self, position: slice) -> list[Answer]: ...
    def __getitem__(self, position: int | slice) -> Answer | list[Answer]:
        if isinstance(position, slice):
            return [Answer(self, at) for at in range(*position.indices(len(self)))]
        if not -len(self) <= position < len(self):
            raise IndexError(f"answer {position} of {len(self)}")
        return Answer(self, position % len(self))

    def results_of(self, position: int) -> tuple[Result, ...]:
        """Return the titles of one answer, best first; records of its neighbours' titles are read with theirs."""
        first = position - position % NEIGHBOURS
        kept = self._near
        if kept is None or kept[0] != first:
            part = slice(first, first + NEIGHBOURS)
            kept = self._near = (first, Neighbours(self.titles, self.rows[part], self.scores[part]))
        return kept[1].results(position - first)

    def take(self, positions: Sequence[int]) -> Answers:
        """Return some of the answers, in the order asked, as a batch."""
        at = np.asarray(positions, dtype=np.int64)
        found = TopK(
            self.rows[at], self.scores[at], self.matching[at], self.exact, self.strategy, stages=list(self.stages)
        )
        asked = {name: [values[position] for position in positions] for name, values in self.asked.items()}
        return Answers(found, self.requested, asked, self.titles, self.elapsed_ms, self.text)

    def __getstate__(self) -> dict[str, Any]:
        """Take the records of the titles found along, and nothing of the index."""
        asked = {name: list(values) for name, values in self.asked.items()}
        return self.__dict__ | {"titles": KeptTitles.of(self.titles, self.rows), "asked": asked, "_near": None}

    def as_dict(self) -> Record:
        """Return all answers as they stand in JSON."""
        return {"answers": [answer.as_dict() for answer in self]}

    def as_json_bytes(self) -> bytes:
        """Return `as_dict` as one line of JSON in UTF-8, the titles' ready-made records joined without parsing them."""
        from semrec_faiss.search.answers.answer_json import answers_json

        return b'{"answers":[' + b",".join(answers_json(self)) + b"]}"

    def table(self) -> list[Record]:
        """Return one dict a query and title: the query's fields as ``query_…``, then as `Result.as_dict`.

        A field of the titles that has the name of another column stands as ``field_NAME``.
        """
        asked = [f"query_{name}" for name in self.asked]
        names = shown_names(self.titles.fields, (*asked, *OURS))
        return [
            dict(zip(asked, answer.query.values(), strict=True))
            | {"rank": one.rank, "media_id": one.media_id, "title": one.title, "score": one.score}
            | {names.get(name, name): fresh(value) for name, value in one.fields.items()}
            for answer in self
            for one in answer
        ]

    def to_arrow(self) -> pa.Table:
        """Return a row a query and title as a pyarrow table, with the columns of `table` and the catalogue's types.

        Titles are dictionary-encoded; a field that holds values of several types, or objects, is JSON text. An answer
        of no titles has the same columns.
        """
        from semrec_faiss.search.answers.frames import arrow_table

        return arrow_table(self)

    def to_pandas(self) -> Any:
        """Return `to_arrow` as a pandas DataFrame; integers and truth values stay what they are where some are missing.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        from semrec_faiss.search.answers.frames import pandas_frame

        return pandas_frame(self.to_arrow())

    def to_polars(self) -> Any:
        """Return `to_arrow` as a polars DataFrame.

        Raises:
            MissingPackageError: polars is not installed.
        """
        from semrec_faiss.search.answers.frames import polars_frame

        return polars_frame(self.to_arrow())

    def __repr__(self) -> str:
        queries = "1 query" if len(self) == 1 else f"{len(self)} queries"
        return f"<Answers to {queries}: {self.requested} requested, {self.strategy}, exact={self.exact}>"

    def _repr_html_(self) -> str:
        cells = [
            (*(str(value) for value in answer.query.values()), str(one.rank), one.title, f"{one.score:.4f}")
            for answer in self[:SHOWN]
            for one in answer
        ]
        more = f", the first {SHOWN} shown" if len(self) > SHOWN else ""
        return _html_table(f"{len(self)} queries{more}", (*self.asked, "rank", "title", "score"), cells)


def _html_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{html.escape(caption)}</caption><tr>{first}</tr>{body}</table>"
