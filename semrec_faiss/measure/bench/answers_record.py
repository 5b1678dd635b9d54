"""What ``semrec bench answers`` writes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semrec_faiss.arrays import Values
from semrec_faiss.measure.bench.record import BenchResults
from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Count, Part
from semrec_faiss.measure.documents.gaps import WithGaps


class Spread(Part):
    """Milliseconds: the median, and what 95 and 99 % stay under."""

    p50_ms: Amount
    p95_ms: Amount
    p99_ms: Amount

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Sum up times in seconds."""
        ms: Values = np.asarray(seconds) * 1e3
        return cls.model_validate({f"p{share}_ms": round(float(np.percentile(ms, share)), 4) for share in (50, 95, 99)})


class SingleQuestions(Part):
    """Questions of one kind: in all, the bare search of the same vector, and in parts; ``beside`` is not search."""

    asked: AtLeastOne
    whole: Spread
    bare_search: Spread
    search: Spread
    results: Spread
    beside: Spread
    beside_limit_ms: Amount
    met: bool


class FormCosts(Part):
    """Microseconds a title, for each form that answers may be wanted in."""

    to_arrow: Amount
    as_json_bytes: Amount
    results: Amount
    titles: Amount


class BatchOfUsers(Part):
    """Many users at once: the bare search, rows and scores, of one genre too, and each form of answers.

    ``as_table`` is the question and `to_arrow` together. ``titles`` reads the title of every result, which ``results``
    leaves to whoever wants it. ``first_ms`` holds the rounds before those that are counted: what is compiled, recorded,
    uploaded or mapped once is in them.
    """

    users: AtLeastOne
    genre: str | None
    bare_search: Spread
    rows_and_scores: Spread
    one_genre: Spread | None
    to_arrow: Spread
    as_table: Spread | None = None
    as_json_bytes: Spread
    results: Spread
    titles: Spread
    us_a_title: FormCosts
    first_ms: dict[str, list[Amount]]


class BatchOfVectors(Spread):
    """``queries`` vectors that were not asked before, by `Recommender.search`, from numpy to rows and scores.

    ``first_ms`` is as of `BatchOfUsers`.
    """

    queries: AtLeastOne
    rounds: AtLeastOne
    first_ms: list[Amount]


class Threads(Spread):
    """Several threads that ask for one user after the other, ``asked`` in all."""

    threads: AtLeastOne
    asked: AtLeastOne | None = None
    users_per_second: Amount


class CommandRun(Part):
    """``semrec recommend INDEX --all-users`` as a process, seconds in all and by parts, which add up to it.

    ``starting_s`` is Python and what it imports, ``opening_s`` the index, ``lists_s`` is what `export_all_users` takes,
    and ``ending_s`` the summary and the interpreter's end.
    """

    whole_s: Amount
    starting_s: Amount
    opening_s: Amount
    lists_s: Amount
    ending_s: Amount

    @classmethod
    def of(cls, moments: Sequence[float]) -> CommandRun:
        """Take the moments that `time_all_users` tells."""
        opening, opened, begun, written, ended = moments
        parts = {"starting_s": opening, "opening_s": opened - opening, "lists_s": written - begun}
        parts["ending_s"] = begun - opened + ended - written
        return cls.model_validate({name: round(seconds, 4) for name, seconds in {"whole_s": ended, **parts}.items()})


class EveryUser(WithGaps):
    """Every user's list to a Parquet file, what they have seen left out; and the bare search of all, seconds.

    ``export_s`` is in the process that measures, ``command`` whole processes of their own.
    """

    bare_search_s: Amount
    export_s: list[Amount]
    command: list[CommandRun] | None = None


class HeldMemory(Part):
    """Memory of the process: its own, and pages of mapped files, which the system takes back where it needs them."""

    own_bytes: Count
    mapped_bytes: Count


class AskedIndex(Part):
    """The index that is asked."""

    type: str
    titles: AtLeastOne
    users: Count


class AnswersSettings(Part):
    """What is asked."""

    questions: AtLeastOne
    k: AtLeastOne
    seed: Count
    batch: AtLeastOne


class AnswersResults(BenchResults):
    """A whole results file; ``threads`` ask through a `Batcher`, ``threads_alone`` each for itself.

    ``threads_on_two_cores`` ask through a `Batcher`, too.

    ``memory`` is what the process holds when the index is opened, and when ``questions`` are asked; before anything is
    asked in batches.
    """

    load_average_at_start: Amount | None
    device: str
    index: AskedIndex
    settings: AnswersSettings
    questions: dict[str, SingleQuestions]
    memory: dict[str, HeldMemory] | None = None
    batches: BatchOfUsers
    vectors: BatchOfVectors | None = None
    threads: Threads
    threads_on_two_cores: Threads | None = None
    threads_alone: Threads
    every_user: EveryUser
    not_measured: dict[str, str]

    @property
    def file_name(self) -> str:
        """``bench-answers-h200-fused.json``."""
        return f"bench-answers-{self.device}-{self.index.type}.json"
