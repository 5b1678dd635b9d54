"""Wish: how many titles are wanted, which, and how varied; made once, from what every question takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, TypedDict, get_args

from typing_extensions import Unpack

from semrec_faiss.arguments import Names, mapping_of, names_of, number_of
from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.index.queries import checked_count
from semrec_faiss.search.diversity import Variety
from semrec_faiss.search.filters.filter import EVERYTHING, Filter
from semrec_faiss.search.restricted.topk import Strategy


class WishArguments(TypedDict, total=False):
    """What every question takes besides k; see `Recommender`."""

    where: str | Filter | None
    exclude: Names
    diversity: float
    max_per: Mapping[str, int] | None
    strategy: Strategy


@dataclass(frozen=True)
class Wish:
    """How many titles are wanted, which, and how varied.

    Attributes:
        k: how many.
        filter: what titles must satisfy.
        exclude: titles or media_ids never to return.
        variety: how the list is kept from repeating itself.
        strategy: how a restricted search runs; ``auto`` chooses.
    """

    k: int = 10
    filter: Filter = field(default_factory=Filter)
    exclude: tuple[str, ...] = ()
    variety: Variety = field(default_factory=Variety)
    strategy: Strategy = "auto"

    @classmethod
    def of(cls, k: int = 10, **arguments: Unpack[WishArguments]) -> Wish:
        """Check and collect the arguments of a question.

        Raises:
            UsageError: an argument is of another type, or out of range.
            TypeError: there is no such argument.
        """
        if not arguments:
            return plain(checked_count(k))
        for name in arguments:
            if name not in WishArguments.__annotations__:
                raise TypeError(_unknown(name))
        return cls._checked(k, **arguments)

    @classmethod
    def _checked(
        cls,
        k: int = 10,
        *,
        where: str | Filter | None = None,
        exclude: Names = (),
        diversity: float = 0.0,
        max_per: Mapping[str, int] | None = None,
        strategy: Strategy = "auto",
    ) -> Wish:
        if strategy not in _strategies(strategy):
            raise UsageError(f"unknown strategy {quoted(strategy)}; known: {', '.join(get_args(Strategy))}")
        return cls(
            checked_count(k),
            where if isinstance(where, Filter) else EVERYTHING if where is None else Filter(where=where),
            names_of(exclude, "exclude"),
            Variety(number_of(diversity, "diversity"), mapping_of(max_per, "max_per")),
            strategy,
        )


@lru_cache(maxsize=256)
def plain(k: int) -> Wish:
    """Return the wish for ``k`` of all titles."""
    return Wish(k)


_ELSEWHERE = dict.fromkeys(("top", "n", "limit", "count", "size", "topk", "top_k"), "k") | {"filter": "where"}
"""What other libraries call our arguments."""


def _unknown(name: str) -> str:
    told = f"there is no argument {quoted(name)}; a question takes k, {', '.join(WishArguments.__annotations__)}"
    filters = [part for part in Filter.__dataclass_fields__ if part != "where"]
    near = get_close_matches(name, [*WishArguments.__annotations__, *filters], n=1)
    meant = _ELSEWHERE.get(name) or next(iter(near), None)
    if meant is None:
        return told
    return f"{told}, and {meant} as where=Filter({meant}=…)" if meant in filters else f"{told}; did you mean {meant}?"


def _strategies(strategy: Any) -> tuple[str, ...]:
    """What a text may be; nothing for what is no text, which may not even be comparable."""
    return get_args(Strategy) if isinstance(strategy, str) else ()
