"""What a search returns for one query: a look at the arrays of its batch, a sequence of titles when it is wanted."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.data.titles.titles import Record
from semrec_faiss.index.search_result import Exactness
from semrec_faiss.search.answers.result import Result
from semrec_faiss.search.restricted.found import Stage
from semrec_faiss.search.text import TextTimes

if TYPE_CHECKING:
    import pyarrow as pa

    from semrec_faiss.search.answers.batch import Answers

SHOWN = 10
"""Results in the text and the table that an answer shows of itself."""


class Answer(Sequence[Result]):
    """The titles found for one query: a sequence of results, best first.

    Example:
        >>> from semrec_faiss import Recommender
        >>> Recommender.open("indexes/demo").similar("Toy Story", k=2)
        <Answer to {'media_id': 'film_0534', 'title': 'Toy Story (1995)'}: 2 of 2, 1518 match, index, exact=True>
          1. Toy Story 3 (2010) 0.7159
          2. Toy Story 4 (2019) 0.7150
    """

    def __init__(self, batch: Answers, position: int) -> None:
        """Look at one answer of a batch."""
        self._batch = batch
        self._position = position
        self._results: tuple[Result, ...] | None = None

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
        """How the titles were found; see `VectorIndex.search` and `restricted_top_k`."""
        return self._batch.strategy

    @property
    def exact(self) -> Exactness:
        """Whether a brute-force scan would give the same titles, ties aside; ``proven`` where the search shows it."""
        return self._batch.exact

    @property
    def titles_seen(self) -> float:
        """The share of all titles that was looked at; 1 but for partial answers of an index in shards."""
        return self._batch.titles_seen

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds that the search took; that of the whole batch where there was one."""
        return self._batch.elapsed_ms

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The steps of the search; those of the whole batch where there was one."""
        return self._batch.stages

    @property
    def text(self) -> TextTimes | None:
        """For a text query, the model and the time it took; that of the whole batch where there was one."""
        return self._batch.text

    @property
    def notes(self) -> tuple[str, ...]:
        """Why nothing matches: the conditions of the filter that no title satisfies; those of the whole batch.

        Example:
            >>> from semrec_faiss import Filter, Recommender
            >>> demo = Recommender.open("indexes/demo")
            >>> demo.similar("Alien", where=Filter(any_of={"franchise": "Alein"})).notes
            ("no title has the franchise 'Alein'; did you mean 'Alien'?",)
        """
        return self._batch.notes

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

    @property
    def results(self) -> tuple[Result, ...]:
        """The titles, best first; the metadata of each is read when it is first wanted."""
        kept = self._results  # up to Python 3.11 a cached_property has one lock for the answers of all threads
        if kept is None:
            kept = self._results = self._batch.results_of(self._position)
        return kept

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
        """Return the answer as it stands in JSON.

        Example:
            >>> from semrec_faiss import Recommender
            >>> found = Recommender.open("indexes/demo").similar("Toy Story", k=1).as_dict()
            >>> found["query"]["title"], found["results"][0]["rank"], found["results"][0]["title"]
            ('Toy Story (1995)', 1, 'Toy Story 3 (2010)')
        """
        return self.head() | {"results": [result.as_dict() for result in self.results]}

    def as_json_bytes(self) -> bytes:
        """Return `as_dict` as one line of JSON in UTF-8, the titles' ready-made records joined without parsing them.

        Example:
            >>> import json
            >>> from semrec_faiss import Recommender
            >>> found = Recommender.open("indexes/demo").similar("Toy Story", k=1)
            >>> json.loads(found.as_json_bytes()) == found.as_dict()
            True
        """
        from semrec_faiss.search.answers.answer_json import answers_json

        return answers_json(self._alone())[0]

    def table(self) -> list[Record]:
        """Return one dict per title, the query's fields in front as ``query_…``; see `Answers.table`.

        Example:
            >>> from semrec_faiss import Recommender
            >>> found = Recommender.open("indexes/demo").similar("Toy Story", k=2).table()
            >>> [(film["query_title"], film["rank"], film["title"]) for film in found]
            [('Toy Story (1995)', 1, 'Toy Story 3 (2010)'), ('Toy Story (1995)', 2, 'Toy Story 4 (2019)')]
        """
        return self._alone().table()

    def to_arrow(self) -> pa.Table:
        """Return the titles as a pyarrow table; see `Answers.to_arrow`.

        Example:
            >>> from semrec_faiss import Recommender
            >>> found = Recommender.open("indexes/demo").similar("Toy Story", k=2).to_arrow()
            >>> found.column("title").to_pylist()
            ['Toy Story 3 (2010)', 'Toy Story 4 (2019)']
        """
        return self._alone().to_arrow()

    def to_pandas(self) -> Any:
        """Return the titles as a pandas DataFrame; raises MissingPackageError when pandas is not installed.

        Example:
            >>> from semrec_faiss import Recommender
            >>> found = Recommender.open("indexes/demo").similar("Toy Story", k=2).to_pandas()
            >>> found["year"].tolist()
            [2010, 2019]
        """
        return self._alone().to_pandas()

    def to_polars(self) -> Any:
        """Return the titles as a polars DataFrame; raises MissingPackageError when polars is not installed.

        Example:
            >>> from semrec_faiss import Recommender
            >>> found = Recommender.open("indexes/demo").similar("Toy Story", k=2).to_polars()
            >>> found.shape, found["year"].to_list()
            ((2, 10), [2010, 2019])
        """
        return self._alone().to_polars()

    def __repr__(self) -> str:
        facts = f"{self.returned} of {self.requested}, {self.matching} match, {self.strategy}, exact={self.exact}"
        shown = [f"  {result.rank}. {result.title} {result.score:.4f}" for result in self.results[:SHOWN]]
        more = [f"  … and {self.returned - SHOWN} more"] if self.returned > SHOWN else []
        notes = [f"  note: {note}" for note in self.notes]
        return "\n".join([f"<Answer to {self.query}: {facts}>", *shown, *more, *notes])

    def _repr_html_(self) -> str:
        cells = [
            (str(result.rank), result.title, f"{result.score:.4f}", str(result.year or ""), ", ".join(result.genres))
            for result in self.results
        ]
        asked = ", ".join(f"{name} {value}" for name, value in self.query.items())
        caption = f"{asked}: {self.returned} of {self.requested}, {self.matching} match"
        return html_table(caption, ("", "title", "score", "year", "genres"), cells)

    @property
    def facts(self) -> Record:
        """How the titles were found, as it stands in JSON; that of the whole batch where there was one."""
        return self._batch.facts

    def head(self) -> Record:
        """Return what comes before the results in JSON.

        Example:
            >>> from semrec_faiss import Recommender
            >>> found = Recommender.open("indexes/demo").similar("Toy Story", k=1).head()
            >>> found["requested"], found["matching"], found["exact"]
            (1, 1518, True)
        """
        return {
            "query": self.query,
            "requested": self.requested,
            "matching": self.matching,
            "returned": self.returned,
            **self.facts,
        }

    def _alone(self) -> Answers:
        return self._batch.take([self._position])


def html_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as notebooks show it."""
    first = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{html.escape(caption)}</caption><tr>{first}</tr>{body}</table>"
