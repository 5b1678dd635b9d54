"""What a search returns: the arrays of a whole batch, which become objects, JSON or tables when somebody wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.data.titles.titles import Record, Titles
from semrec_faiss.index.search_result import Exactness
from semrec_faiss.search.answers.answer import SHOWN, Answer, html_table
from semrec_faiss.search.answers.result import OURS, KeptTitles, Neighbours, Result, fresh, shown_names
from semrec_faiss.search.restricted.found import Stage, TopK
from semrec_faiss.search.text import TextTimes

if TYPE_CHECKING:
    import pyarrow as pa

NEIGHBOURS = 64
"""Answers of a batch whose titles' records are read together."""


class Answers(Sequence[Answer]):
    """The answers to a batch of queries, in their order; arrays until one is looked at.

    Attributes:
        rows: int64 (queries, k), title rows, best first; -1 where fewer than k match.
        scores: float32 (queries, k); -inf where there is no title.
        asked: what was asked, by name: one value per query.
        requested: how many titles were asked for.
        titles_seen: the share of all titles that was looked at; 1 but for partial answers of an index in shards.
        titles: where the titles' metadata is read.
        strategy, exact, elapsed_ms, stages, text, notes: see `Answer`.

    Example:
        >>> from semrec_faiss import Recommender
        >>> answers = Recommender.open("indexes/demo").recommend(["user_001", "user_002"], k=2)
        >>> answers
        <Answers to 2 queries: 2 requested, overfetch, exact=True>
        >>> answers.rows.shape, answers[0][0].title
        ((2, 2), 'Cinema Paradiso (1988)')
    """

    def __init__(
        self,
        found: TopK,
        requested: int,
        asked: Mapping[str, Sequence[Any]],
        titles: Titles | KeptTitles,
        elapsed_ms: float,
        text: TextTimes | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Hold what a search has found for ``asked``."""
        self.rows: Rows = found.rows
        self.scores: Scores = found.scores
        self._found = found
        self.strategy: str = found.strategy
        self.exact: Exactness = found.exact
        self.titles_seen = found.titles_seen
        self.stages: tuple[Stage, ...] = tuple(found.stages)
        self.requested = requested
        self.asked = asked
        self.titles = titles
        self.elapsed_ms = elapsed_ms
        self.text = text
        self.notes = notes
        self._near: tuple[int, Neighbours] | None = None

    @cached_property
    def matching(self) -> Rows:
        """How many titles each query might have returned: int64 (queries,)."""
        return self._found.matching

    @property
    def facts(self) -> Record:
        """What each answer says that is the same for all of them, as it stands in JSON."""
        return {
            "strategy": self.strategy,
            "exact": self.exact,
            **({"titles_seen": round(self.titles_seen, 4)} if self.titles.is_partial else {}),
            "elapsed_ms": round(self.elapsed_ms, 4),
            **({} if self.text is None else {"text": self.text.as_dict()}),
            **({"notes": list(self.notes)} if self.notes else {}),
        }

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, position: int) -> Answer: ...
    @overload
    def __getitem__(self, position: slice) -> list[Answer]: ...
    def __getitem__(self, position: int | slice) -> Answer | list[Answer]:
        if isinstance(position, slice):
            return [Answer(self, at) for at in range(*position.indices(len(self)))]
        count = len(self.rows)
        if not -count <= position < count:
            raise IndexError(f"answer {position} of {count}")
        return Answer(self, position % count)

    def results_of(self, position: int) -> tuple[Result, ...]:
        """Return the titles of one answer, best first; records of its neighbours' titles are read with theirs.

        Example:
            >>> from semrec_faiss import Recommender
            >>> answers = Recommender.open("indexes/demo").recommend(["user_001", "user_002"], k=2)
            >>> answers.results_of(1) == answers[1].results
            True
        """
        first = position - position % NEIGHBOURS
        kept = self._near
        if kept is None or kept[0] != first:
            part = slice(first, first + NEIGHBOURS)
            kept = self._near = (first, Neighbours(self.titles, self.rows[part], self.scores[part]))
        return kept[1].results(position - first)

    def take(self, positions: Sequence[int]) -> Answers:
        """Return some of the answers, in the order asked, as a batch.

        Example:
            >>> from semrec_faiss import Recommender
            >>> answers = Recommender.open("indexes/demo").recommend(["user_001", "user_002"], k=2)
            >>> answers.take([1])[0].query
            {'user_id': 'user_002'}
        """
        at = np.asarray(positions, dtype=np.int64)
        lists = (self.rows[at], self.scores[at], self.matching[at])
        found = TopK(*lists, self.exact, self.strategy, list(self.stages), self.titles_seen)
        asked = {name: [values[position] for position in positions] for name, values in self.asked.items()}
        return Answers(found, self.requested, asked, self.titles, self.elapsed_ms, self.text, self.notes)

    def __getstate__(self) -> dict[str, Any]:
        """Take the records of the titles found along, and nothing of the index."""
        asked = {name: list(values) for name, values in self.asked.items()}
        own = {"titles": KeptTitles.of(self.titles, self.rows), "asked": asked, "matching": self.matching}
        return self.__dict__ | own | {"_near": None, "_found": None}

    def as_dict(self) -> Record:
        """Return all answers as they stand in JSON.

        Example:
            >>> from semrec_faiss import Recommender
            >>> answers = Recommender.open("indexes/demo").recommend(["user_001", "user_002"], k=2)
            >>> [answer["query"]["user_id"] for answer in answers.as_dict()["answers"]]
            ['user_001', 'user_002']
        """
        return {"answers": [answer.as_dict() for answer in self]}

    def as_json_bytes(self) -> bytes:
        """Return `as_dict` as one line of JSON in UTF-8, the titles' ready-made records joined without parsing them.

        Example:
            >>> from semrec_faiss import Recommender
            >>> answers = Recommender.open("indexes/demo").recommend(["user_001", "user_002"], k=2)
            >>> answers.as_json_bytes()[:37]
            b'{"answers":[{"query":{"user_id": "use'
        """
        from semrec_faiss.search.answers.answer_json import answers_json

        return b'{"answers":[' + b",".join(answers_json(self)) + b"]}"

    def table(self) -> list[Record]:
        """Return one dict per query and title: the query's fields as ``query_…``, then what `Result.as_dict` holds.

        A title's begins with rank, media_id, title and score. A field of the titles with the name of another column is
        called ``field_NAME``.

        Example:
            >>> from semrec_faiss import Recommender
            >>> answers = Recommender.open("indexes/demo").recommend(["user_001", "user_002"], k=2)
            >>> [(row["query_user_id"], row["rank"]) for row in answers.table()]
            [('user_001', 1), ('user_001', 2), ('user_002', 1), ('user_002', 2)]
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
        """Return a pyarrow table with one row per query and title, the columns of `table` and the catalogue's types.

        Titles are dictionary-encoded; dates are texts, and a field that holds values of several types, or objects, is
        JSON text. An answer without titles has the same columns.

        Example:
            >>> from semrec_faiss import Recommender
            >>> answers = Recommender.open("indexes/demo").recommend(["user_001", "user_002"], k=2)
            >>> answers.to_arrow().shape
            (4, 9)
        """
        from semrec_faiss.search.answers.frames import arrow_table

        return arrow_table(self)

    def to_pandas(self) -> Any:
        """Return `to_arrow` as a pandas DataFrame; integers and truth values stay what they are where some are missing.

        Raises:
            MissingPackageError: pandas is not installed.

        Example:
            >>> from semrec_faiss import Recommender
            >>> answers = Recommender.open("indexes/demo").recommend(["user_001", "user_002"], k=2)
            >>> answers.to_pandas()["query_user_id"].tolist()
            ['user_001', 'user_001', 'user_002', 'user_002']
        """
        from semrec_faiss.search.answers.frames import pandas_frame

        return pandas_frame(self.to_arrow())

    def to_polars(self) -> Any:
        """Return `to_arrow` as a polars DataFrame.

        Raises:
            MissingPackageError: polars is not installed.

        Example:
            >>> from semrec_faiss import Recommender
            >>> answers = Recommender.open("indexes/demo").recommend(["user_001", "user_002"], k=2)
            >>> answers.to_polars().columns[:3]
            ['query_user_id', 'rank', 'media_id']
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
        return html_table(f"{len(self)} queries{more}", (*self.asked, "rank", "title", "score"), cells)
