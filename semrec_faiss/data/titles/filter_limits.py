"""What a filter may cost: its length, its parts, how much longer it may make texts, and the time that it may take."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from semrec_faiss.data.folder.database import quoted_name
from semrec_faiss.errors import UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MOST_CHARACTERS = 1_000_000
MOST_WORDS = 25_000
"""Names, numbers and texts: a list of 10,000 ids is legitimate, and DuckDB takes seconds and gigabytes for 300,000."""

MOST_STEPS = 1_000
"""Comparisons, calls and the like; DuckDB cannot be interrupted while it works through tens of thousands."""

MOST_GROWTH = 100
"""How many times longer than a field a text may become; ten nested calls of replace() would take all memory."""

UNKNOWN_LENGTH = 64
"""Taken for the length of what a field puts in the place of another text."""

MOST_COMPARED = 1_000
"""Characters of texts whose distance is asked for: it takes the square of them, and cannot be interrupted."""

SECONDS = 10.0
"""A filter of every field over 62,423 titles takes a tenth of a second."""

_WORD = re.compile(r"'(?:[^']|'')*'|\w+")
_PUTS_IN = frozenset(
    {"replace", "regexp_replace", "array_to_string", "list_aggregate", "list_aggr", "array_aggregate", "array_aggr"}
    | {"aggregate", "list_string_agg", "concat_ws"}
)
"""Functions that put one argument into another, as often as it has characters."""

_DISTANCES = frozenset(
    {"levenshtein", "editdist3", "damerau_levenshtein", "jaro_similarity", "jaro_winkler_similarity"}
)

_TIMES = {"bin": 8, "to_binary": 8, "url_encode": 3} | dict.fromkeys(
    ("hex", "to_hex", "base64", "to_base64", "regexp_escape", "to_json", "json_quote", "json"), 2
)
"""How many times longer these functions make a text."""

_LISTED_FIX = "ask for fewer at once, or give the titles a field that says the same and ask for that"


def check_length(where: str) -> None:
    """Refuse a text that is too long to be parsed soon."""
    if len(where) > MOST_CHARACTERS:
        raise UsageError(
            f"the filter has {len(where):,} characters; at most {MOST_CHARACTERS:,} are allowed", fix=_LISTED_FIX
        )
    words = sum(1 for _ in _WORD.finditer(where))
    if words > MOST_WORDS:
        raise UsageError(
            f"the filter holds {words:,} names and values; at most {MOST_WORDS:,} are allowed", fix=_LISTED_FIX
        )


def check_work(expression: dict[str, Any], parts: Sequence[dict[str, Any]]) -> None:
    """Refuse an expression of too many steps, or one that makes texts much longer than they are."""
    steps = sum(part["class"] not in ("CONSTANT", "COLUMN_REF") for part in parts)
    if steps > MOST_STEPS:
        raise UsageError(
            f"the filter has {steps:,} comparisons and calls; at most {MOST_STEPS:,} are allowed",
            fix="write `year IN (1990, 1991)` for `year = 1990 OR year = 1991`",
        )
    growth = _growth(expression)
    if growth > MOST_GROWTH:
        raise UsageError(
            f"the filter may make texts {growth:,} times as long as they are; at most {MOST_GROWTH:,} times is allowed",
            fix="nest fewer replace(), || and list functions in one another",
        )


def check_distances(cursor: DuckDBPyConnection, part: dict[str, Any], fields: Mapping[str, str]) -> None:
    """Refuse the edit distance of long texts."""
    if part["class"] != "FUNCTION" or part["function_name"].lower() not in _DISTANCES:
        return
    known = {name.casefold(): name for name in fields}
    names = {known[name] for name in _whole_fields(part) if name in known}
    for name in sorted(names):
        column = quoted_name(name)
        (longest,) = cursor.execute(f"SELECT max(length({column}::VARCHAR)) FROM titles").fetchall()[0]
        length = (longest or 0) * max(map(_growth, direct_parts(part)))
        if length > MOST_COMPARED:
            raise UsageError(
                f"{part['function_name']}() would compare texts of up to {length:,} characters; the limit is"
                f" {MOST_COMPARED:,}",
                fix=f"compare their beginnings: left({name}, 200)",
            )


def _whole_fields(part: dict[str, Any]) -> Iterator[str]:
    """Yield the fields inside ``part``, in lower case, of which more than the beginning is taken."""
    if part["class"] == "COLUMN_REF":
        yield part["column_names"][-1].casefold()
    elif part.get("function_name", "").lower() != "left":
        for inner in direct_parts(part):
            yield from _whole_fields(inner)


def _growth(part: dict[str, Any]) -> int:
    """Return how many times longer than a field the value of ``part`` may be, at most."""
    if part["class"] == "CONSTANT":
        return _length(part) // UNKNOWN_LENGTH
    inner = list(direct_parts(part))
    grown = [_growth(each) for each in inner]
    if part["class"] != "FUNCTION":
        return max([1, *grown]) * (2 if part["class"] == "CAST" else 1)
    name = part["function_name"].lower()
    if name in _PUTS_IN:
        return math.prod([1, *grown[:1]]) * max([1, *(_put_in(each) for each in inner[1:])])
    if any(each["class"] == "LAMBDA" for each in inner):  # it is done to each of a list's values
        return math.prod(max(1, each) for each in grown)
    grows = name == "||" or name.replace("_", "").isalnum()
    return max([1, sum(grown) if grows else max(grown, default=1)]) * _TIMES.get(name, 1)


def _put_in(part: dict[str, Any]) -> int:
    return _length(part) if part["class"] == "CONSTANT" else _growth(part) * UNKNOWN_LENGTH


def _length(constant: dict[str, Any]) -> int:
    return len(str(constant.get("literal", {}).get("text", "")))


def direct_parts(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the expressions right inside a parsed one, in the order in which they are written."""
    waiting: list[Any] = list(reversed(part.values()))
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class" in value:
                yield value
            else:
                waiting += reversed(value.values())
        elif isinstance(value, list):
            waiting += reversed(value)


@contextmanager
def time_limit(cursor: DuckDBPyConnection, seconds: float = SECONDS) -> Iterator[None]:
    """Interrupt what ``cursor`` does when it takes longer.

    Raises:
        UsageError: it did.
    """
    import duckdb

    timer = threading.Timer(seconds, cursor.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise UsageError(
            f"the filter took longer than {seconds:g} s, which is the limit",
            fix="compare with shorter texts, or write into a field of the titles what it computes",
        ) from error
    except RuntimeError as error:
        if str(error) == "Query interrupted":  # how DuckDB tells of Ctrl-C
            raise KeyboardInterrupt from error
        raise
    finally:
        timer.cancel()
