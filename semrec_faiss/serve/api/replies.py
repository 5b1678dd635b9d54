"""What replies look like, as msgspec types: the OpenAPI document is made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType


class TitleRecord(msgspec.Struct, kw_only=True):
    """A title's metadata: these fields, year and genres where the data has some, and whatever else it has.

    Attributes:
        media_id: its id.
        title: what it is called.
        year: of its making.
        genres: those it has.
    """

    media_id: str
    title: str
    year: int | UnsetType | None = UNSET
    genres: list[str] | UnsetType | None = UNSET


class TitleResult(TitleRecord, kw_only=True):
    """A title of an answer: its place, its score, its metadata.

    Attributes:
        rank: its place, 1 for the best.
        score: its inner product with the query; higher is better.
    """

    rank: Annotated[int, Meta(ge=1)]
    score: float


class OneAnswer(msgspec.Struct):
    """The titles found for one query, best first.

    Attributes:
        query: what was asked: media_id and title, user_id, or the place among several texts or vectors.
        requested: how many titles were asked for.
        matching: how many the filters let through.
        returned: how many there are; fewer than asked for only where fewer match.
        strategy: how they were found.
        exact: whether a scan of all titles finds the same; "proven" where that was proven for this answer.
        elapsed_ms: how long the search took.
        results: the titles.
        titles_seen: the share of all titles that was looked at, where shards are lost.
        notes: where nothing matches, each condition that no title satisfies, and what is near.
    """

    query: dict[str, Any]
    requested: int
    matching: int
    returned: int
    strategy: str
    exact: bool | Literal["proven"]
    elapsed_ms: float
    results: list[TitleResult]
    titles_seen: float | UnsetType = UNSET
    notes: list[str] | UnsetType = UNSET


class SeveralAnswers(msgspec.Struct):
    """The answers to several queries, in their order.

    Attributes:
        answers: one for each.
    """

    answers: list[OneAnswer]


class FoundTitles(msgspec.Struct):
    """Titles that begin as one types, or hold it.

    Attributes:
        titles: their metadata.
        near: true where none does, and these look like it.
        titles_seen: the share of all titles that was looked at, where shards are lost.
    """

    titles: list[TitleRecord]
    near: bool | UnsetType = UNSET
    titles_seen: float | UnsetType = UNSET


class IndexFacts(msgspec.Struct):
    """What the index holds and how it was built.

    Attributes:
        index: its name.
        generation: in use.
        previous: the generation before.
        created: when the generation was built.
        type: of the index.
        titles: how many it holds.
        dim: components of a vector.
        users: how many it holds.
        bytes: on the disk.
        fields: of the titles, with their types; null where an earlier version built the index.
    """

    index: str
    generation: str
    previous: str | None
    created: str
    type: str
    titles: int
    dim: int
    users: int
    bytes: int
    fields: dict[str, str] | None


class Refused(msgspec.Struct):
    """What was published and not taken.

    Attributes:
        generation: its name, as far as it is known.
        reason: why not.
    """

    generation: str
    reason: str


class ShardState(msgspec.Struct):
    """A shard of an index that a cluster serves.

    Attributes:
        shard: its number.
        first: the first of its titles.
        titles: how many it holds.
        replicas: how many hold it.
        answering: how many of these answer.
    """

    shard: int
    first: int
    titles: int
    replicas: int
    answering: int


class Readiness(msgspec.Struct):
    """Whether questions are answered, and from which generation.

    Attributes:
        ready: whether they are.
        draining: whether the service is about to end.
        generation: in use.
        refused: what was published and not taken.
        shards: where a cluster serves the index.
    """

    ready: bool
    draining: bool
    generation: str | None
    refused: Refused | None
    shards: list[ShardState] | UnsetType = UNSET


class Liveness(msgspec.Struct):
    """The process runs.

    Attributes:
        live: always true.
    """

    live: bool


class Taken(msgspec.Struct):
    """The generation in use.

    Attributes:
        generation: its name.
    """

    generation: str
