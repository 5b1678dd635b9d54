"""What may be asked, as msgspec types: they decode a request's JSON, and the OpenAPI document is made of them."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from semrec_faiss.errors import quoted
from semrec_faiss.search.filters.field_filters import any_of_from, ranges_from
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.wish import WishArguments
from semrec_faiss.serve.wire.messages import Request
from semrec_faiss.serve.wire.problems import Refused, unknown

Name = Annotated[str, Meta(max_length=1000)] | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Year = Annotated[int, Meta(ge=-(10**6), le=10**6)] | None
Bound = Name | float | None
Stars = Annotated[float, Meta(ge=0.5, le=5)]
Text = Annotated[str, Meta(min_length=1, max_length=100_000)]

MOST_NAMES = 100_000
"""Titles, or values of a field, that one question names: a million took a second to read, and half a minute to find."""

MOST_FIELDS = 1000
"""Fields, genres or settings that one question names."""

Genres = Annotated[tuple[str, ...], Meta(max_length=MOST_FIELDS)]  # no list, of which each question would make its own
Titles = Annotated[tuple[Name, ...], Meta(max_length=MOST_NAMES)]
Values = Annotated[list[Name | float | bool], Meta(min_length=1, max_length=MOST_NAMES)]


class Wanted(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How many titles are wanted, which, and how varied: what every question takes.

    Attributes:
        k: how many titles.
        where: a SQL expression over the titles' fields, as DuckDB spells it.
        genres: genres that a title must all have.
        any_genres: genres of which a title must have one.
        not_genres: genres that a title must not have.
        years: the first and the last year, either null for open.
        any_of: field → values of which a title must have one.
        ranges: field → the first and the last value, either null for open.
        exclude: titles or media_ids never to return.
        diversity: 0 ranks by score alone, 1 by difference.
        max_per: field → the most titles that may share a value of it.
        strategy: how a restricted search runs.
    """

    k: Annotated[int, Meta(ge=1)] = 10
    where: Text | None = None
    genres: Genres = ()
    any_genres: Genres = ()
    not_genres: Genres = ()
    years: tuple[Year, Year] | None = None
    any_of: Annotated[dict[str, Values], Meta(max_length=MOST_FIELDS)] = {}
    ranges: Annotated[dict[str, tuple[Bound, Bound]], Meta(max_length=MOST_FIELDS)] = {}
    exclude: Titles = ()
    diversity: Annotated[float, Meta(ge=0, le=1)] = 0.0
    max_per: Annotated[dict[str, Annotated[int, Meta(ge=1, le=2**31)]], Meta(max_length=MOST_FIELDS)] = {}
    strategy: Literal["auto", "overfetch", "subset", "selector", "masked"] = "auto"

    @property
    def is_plain(self) -> bool:
        """Whether nothing but k is said."""
        return not (
            self.where
            or self.genres
            or self.any_genres
            or self.not_genres
            or self.years
            or self.any_of
            or self.ranges
            or self.exclude
            or self.diversity
            or self.max_per
            or self.strategy != "auto"
        )

    def wish(self) -> WishArguments:
        """Return it as a Recommender's questions take it; raises UsageError for an empty span of years."""
        if self.is_plain:
            return {}
        filters = Filter(
            self.where,
            self.genres,
            self.any_genres,
            self.not_genres,
            self.years,
            any_of_from(self.any_of),
            ranges_from(self.ranges),
        )
        return {
            "where": filters if filters.says_something else None,
            "exclude": self.exclude,
            "diversity": self.diversity,
            "max_per": self.max_per,
            "strategy": self.strategy,
        }


class Similar(Wanted, kw_only=True):
    """Titles like a title, or like each of several.

    Attributes:
        title: a title or media_id.
        titles: several, answered in their order.
        by: alike by the whole vector or, where it was learned, by what people did or what texts say.
    """

    title: Name | UnsetType = UNSET
    titles: Annotated[list[Name], Meta(min_length=1)] | UnsetType = UNSET
    by: Literal["whole", "people", "text"] = "whole"


class Recommend(Wanted, kw_only=True):
    """Titles for a user, for several, or for somebody who says what they like.

    Attributes:
        user: a user id.
        users: several, answered in their order.
        likes: instead of users: titles that are liked.
        dislikes: titles that are disliked.
        ratings: title or media_id → 0.5 to 5 stars.
        include_seen: keep titles that the user has seen.
        profile: settings of the profile that differ from those that the index serves.
    """

    user: Name | UnsetType = UNSET
    users: Annotated[list[Name], Meta(min_length=1)] | UnsetType = UNSET
    likes: Titles = ()
    dislikes: Titles = ()
    ratings: Annotated[dict[str, Stars], Meta(max_length=MOST_NAMES)] = {}
    include_seen: bool = False
    profile: Annotated[dict[str, Any], Meta(max_length=MOST_FIELDS)] = {}


class Search(Wanted, kw_only=True):
    """Titles near to what a text says, or to vectors.

    Attributes:
        text: a text, where the index's vectors were made of texts.
        texts: several, answered in their order.
        vectors: vectors of the index's dimension.
        vectors_base64: the same as little-endian float32, one after the other, in base64.
    """

    text: Text | UnsetType = UNSET
    texts: Annotated[list[Text], Meta(min_length=1)] | UnsetType = UNSET
    vectors: Annotated[list[list[float]], Meta(min_length=1)] | UnsetType = UNSET
    vectors_base64: Annotated[str, Meta(min_length=4)] | UnsetType = UNSET


class Explain(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Why a title is, or is not, recommended to a user.

    Attributes:
        user: a user id.
        title: a title or media_id.
        k: how many of the titles seen to name.
    """

    user: Name
    title: Name
    k: Annotated[int, Meta(ge=1)] = 5


ONE_OF: dict[type[msgspec.Struct], tuple[str, ...]] = {
    Similar: ("title", "titles"),
    Recommend: ("user", "users", "likes", "ratings", "dislikes"),
    Search: ("text", "texts", "vectors", "vectors_base64"),
}
"""Of which fields a question needs one: exactly one, but that likes, dislikes and ratings go together."""

TASTE = ("likes", "ratings", "dislikes")

WHOLE = ("k", "years", "max_per")
"""Fields of whole numbers, which some languages write as 10.0: JSON has one kind of number. Ids are as written."""

Question = TypeVar("Question", bound=msgspec.Struct)

_DECODERS = {kind: msgspec.json.Decoder(kind) for kind in (Similar, Recommend, Search, Explain)}
_KEYS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_FIELD = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_VALUE = re.compile(r"Invalid enum value '(.*)' - at `\$\.(\w+)`", re.DOTALL)
_SURROGATES = re.compile(
    rb"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(\\ud[89a-f][0-9a-f]{2})",  # pairs, or a half
    re.IGNORECASE,
)


def question_in(request: Request, kind: type[Question]) -> Question:
    """Decode a request's question; raises Refused for no JSON, a key given twice (400), and another shape (422)."""
    if request.query:
        detail = f"{request.path} takes no parameters behind a question mark: {quoted(request.query.decode('latin-1'))}"
        raise Refused(422, detail, fix="send what is asked in the body, as JSON")
    try:
        question = _decoded(request.body, kind)
        if request.body.count(b":") > len(_KEYS.decode(request.body)):  # each key has one
            json.loads(request.body, object_pairs_hook=_no_key_twice)
    except msgspec.ValidationError as error:
        raise misfit(request, kind, "the request is", "see /openapi.json", error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(
            400, f"the body is not JSON: {_why(request.body, error)}", fix='send JSON such as {"title": "Alien (1979)"}'
        ) from error
    except RecursionError as error:
        raise Refused(400, "the body is nested too deep", fix="see /openapi.json") from error
    check_one_of(question)
    return question


def _decoded(body: bytes, kind: type[Question]) -> Question:
    try:
        question: Question = _DECODERS[kind].decode(body)  # type: ignore[index, assignment]
    except msgspec.ValidationError as error:
        asked = msgspec.json.decode(body) if "got `float`" in str(error) else None
        if not isinstance(asked, dict):
            raise
        question = msgspec.convert(asked | {name: whole(asked[name]) for name in WHOLE if name in asked}, kind)
    return question


def whole(value: Any) -> Any:
    """Return a number without its .0, and so those that a list or an object holds; anything else as it is."""
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return {name: _whole(one) for name, one in value.items()} if isinstance(value, dict) else _whole(value)


def _whole(value: Any) -> Any:
    is_sure = isinstance(value, float) and value.is_integer() and abs(value) <= 2**53  # over which a float is not
    return int(value) if is_sure else value


def misfit(
    request: Request, kind: type[msgspec.Struct], what: str, fix: str, error: msgspec.ValidationError
) -> Refused:
    """Return what is said of a question of another shape; of a name that there is not, which is near and which are."""
    said = str(error)
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    if (field := _FIELD.fullmatch(said)) is not None:
        return unknown(f"{request.path} has no field", field[1], f"fields: {', '.join(fields)}", list(fields))
    if (value := _VALUE.fullmatch(said)) is not None and (known := get_args(fields.get(value[2]))):
        return unknown(f"{value[2]} is none of its values:", value[1], f"values: {', '.join(known)}", known)
    return Refused(422, f"{what} not as it should be: {said}", fix=fix)


def _no_key_twice(pairs: list[tuple[str, Any]]) -> None:
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            raise Refused(400, f"the key {quoted(name)} occurs twice", fix="send it once")
        names.add(name)


def _why(body: bytes, error: Exception) -> str:
    """Say what is wrong with a body; of none and of half a surrogate pair msgspec says that it was truncated."""
    if not body:
        return "it is empty"
    halves = (found[1] for found in _SURROGATES.finditer(body.replace(rb"\\", b"")) if found[1])
    half = next(halves, None)
    return str(error) if half is None else f"{half.decode()} is half of a surrogate pair, and no character"


def check_one_of(question: msgspec.Struct) -> None:
    """Refuse a question that says nothing of what it needs one of, or says it twice; raises Refused (422)."""
    names = ONE_OF.get(type(question), ())
    said = [name for name in names if (value := getattr(question, name)) is not UNSET and _says(value)]
    if len(said) == 1:
        return
    kinds = {"a taste" if name in TASTE else name for name in said}
    if names and len(kinds) != 1:
        given = f"both {' and '.join(said)}" if said else "none of them"
        raise Refused(422, f"the request needs one of {', '.join(names)}; it has {given}", fix="see /openapi.json")


def _says(value: Any) -> bool:
    return bool(value) or not isinstance(value, (list, tuple, dict))
