"""Ids that somebody may have meant who mistyped one: few enough to be looked up, so that no list of all is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from string import ascii_letters, digits

from semrec_faiss.arguments import is_whole
from semrec_faiss.errors import NotFoundError, quoted

TYPED = 64
"""Characters of an id that a person may have typed: from twice as many on all that is near takes too long."""

_NAMED, _NEAREST = 5, 5
_NUMBERED = re.compile(r"(.*?)([0-9]+)", re.DOTALL)
_KEYS = f"{ascii_letters}{digits}_-"


def one_slip_away(text: str) -> list[str]:
    """Return what somebody may have meant whose ``text`` is no id: what differs in case, or by one character.

    The likeliest slips come first: case, two characters that changed places, one too many, another one, one too few. Of
    a number there is nothing, as every other is near to it, nor of what is too long to have been typed.

    Example:
        >>> from semrec_faiss.index.saved.near_ids import one_slip_away
        >>> one_slip_away("User_001")[:2], "user_010" in one_slip_away("user_001"), one_slip_away("17")
        (['user_001', 'USER_001'], True, [])
    """
    if len(text) > TYPED or (text.isascii() and text.isdigit()) or not is_whole(text):
        return []
    return [near for near in dict.fromkeys(_slips(text)) if near and near != text]


def of_the_same_number(text: str, known: Sequence[str]) -> list[str]:
    """Return ids that look like the ``known`` ones and have the number of ``text``, which may be the number alone.

    Example:
        >>> from semrec_faiss.index.saved.near_ids import of_the_same_number
        >>> of_the_same_number("17", ["user_001", "user_002"]), of_the_same_number("User_17", ["user_001"])
        (['user_017'], ['user_017'])
    """
    typed = _numbered(text)
    if typed is None:
        return []
    models = [model for model in map(_numbered, known) if model and typed[1].lower() in ("", model[1].lower())]
    made = (model[1] + (typed[2].lstrip("0") or "0").zfill(len(model[2])) for model in models)
    return [one for one in dict.fromkeys(made) if one != text]


def near_to(text: str, known: Sequence[str]) -> list[str]:
    """Return what somebody may have meant whose ``text`` is no id, the likeliest first; ``known`` are some that are."""
    return list(dict.fromkeys([*of_the_same_number(text, known), *one_slip_away(text)]))


def unknown_users(user_ids: Sequence[str], users: int, near: Sequence[str], known: Sequence[str]) -> NotFoundError:
    """Make the error about ids that none of so many users has; ``known`` are some that users have.

    Example:
        >>> from semrec_faiss.index.saved.near_ids import unknown_users
        >>> unknown_users(["bop"], 3, ["bob"], ["ann", "bob", "eve"]).fix
        "did you mean 'bob'? ids look like 'ann', 'bob', 'eve'"
    """
    more = ", …" if len(user_ids) > _NAMED else ""
    offer = f"did you mean {quoted(near[0])}? " if near else ""
    return NotFoundError(
        f"no user {', '.join(map(quoted, user_ids[:_NAMED]))}{more} among the index's {users} users",
        fix=f"{offer}ids look like {', '.join(map(quoted, known))}",
        candidates=tuple(near[:_NEAREST]),
    )


def _numbered(text: str) -> re.Match[str] | None:
    return _NUMBERED.fullmatch(text) if len(text) <= TYPED else None


def _slips(text: str) -> Iterator[str]:
    yield from (text.strip(), text.lower(), text.upper())
    halves = [(text[:at], text[at:]) for at in range(len(text) + 1)]
    keys = dict.fromkeys(_KEYS + text)
    yield from (before + after[1] + after[0] + after[2:] for before, after in halves if len(after) > 1)
    yield from (before + after[1:] for before, after in halves if after)
    yield from (before + key + after[1:] for before, after in halves if after for key in keys)
    yield from (before + key + after for before, after in halves for key in keys)
