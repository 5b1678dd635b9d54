"""What replies look like, as msgspec types: the OpenAPI document is made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType


class TitleRecord(msgspec.Struct, kw_only=True):
    """A title's metadata: these fields, year and genres where the data has some, and whatever else it has."""

    media_id: str
    title: str
    year: int | UnsetType | None = UNSET
    genres: list[str] | UnsetType | None = UNSET


class TitleResult(TitleRecord, kw_only=True):
    """A title of an answer: its place, its score, its metadata."""

    rank: Annotated[int, Meta(ge=1)]
    score: float


class OneAnswer(msgspec.Struct):
    """The titles found for one query, best first; see `Answer` in Python."""

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
    """The answers to several queries, in their order."""

    answers: list[OneAnswer]


class FoundTitles(msgspec.Struct):
    """Titles that begin as one types, or hold it; where ``near`` is true none does, and these look like it."""

    titles: list[TitleRecord]
    near: bool | UnsetType = UNSET
    titles_seen: float | UnsetType = UNSET


class IndexFacts(msgspec.Struct):
    """What the index holds and how it was built."""

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
    """What was published and not taken."""

    generation: str
    reason: str


class ShardState(msgspec.Struct):
    """A shard of an index that a cluster serves: its titles, and how many of its replicas answer."""

    shard: int
    first: int
    titles: int
    replicas: int
    answering: int


class Readiness(msgspec.Struct):
    """Whether questions are answered, from which generation, and what was published and not taken."""

    ready: bool
    draining: bool
    generation: str | None
    refused: Refused | None
    shards: list[ShardState] | UnsetType = UNSET


class Liveness(msgspec.Struct):
    """The process runs."""

    live: bool


class Taken(msgspec.Struct):
    """The generation in use."""

    generation: str
