"""What a filter may cost: its length, its parts, how much longer it may make texts, and the time that it may take."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, TimeoutError, wait
from typing import TYPE_CHECKING, Any, TypeVar

from semrec_faiss.data.folder.database import quoted_name
from semrec_faiss.deadline import TooLateError, time_left
from semrec_faiss.errors import UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Done = TypeVar("Done")

FILTER_THREAD = "filter-of-titles"
"""The name of threads in which filters run."""

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

MOST_MATCHED = 2_000_000
"""Characters of a text times those of a pattern that must match in one piece: what a comparison costs at worst."""

INTERRUPTED_EVERY_S = 0.05

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

_LIKES = ("~~", "!~~", "~~*", "!~~*", "like_escape", "ilike_escape", "not_like_escape", "not_ilike_escape")
_REGEXPS = ("matches", "full_match", "replace", "extract", "extract_all", "split_to_array")
_PATTERNS = dict.fromkeys(_LIKES, "%") | {"~~~": "*"} | {f"regexp_{name}": "" for name in _REGEXPS}
"""What takes the place of any text in a pattern of each of these functions; LIKE, ILIKE and GLOB are the first."""

_REPEATS = re.compile(r"\{(?:\d*,)?(\d+)")
_PLAIN = re.compile(r"%?[^%_*?\[]*%?")

_TIMES = {"bin": 8, "to_binary": 8, "url_encode": 3} | dict.fromkeys(
    ("hex", "to_hex", "base64", "to_base64", "regexp_escape", "to_json", "json_quote", "json"), 2
)
"""How many times longer these functions make a text."""

_LISTED_FIX = "ask for fewer at once, or give the titles a field that says the same and ask for that"


MOST_OPEN = 500
"""Brackets that may stay open before the parser is asked: its time grows with their square, 10,000 took 50 s."""


def check_length(where: str) -> None:
    """Refuse, by UsageError, a text that is too long, or of too many open brackets, to be parsed soon."""
    if len(where) > MOST_CHARACTERS:
        raise UsageError(
            f"the filter has {len(where):,} characters; at most {MOST_CHARACTERS:,} are allowed", fix=_LISTED_FIX
        )
    words = sum(1 for _ in _WORD.finditer(where))
    if words > MOST_WORDS:
        raise UsageError(
            f"the filter holds {words:,} names and values; at most {MOST_WORDS:,} are allowed", fix=_LISTED_FIX
        )
    for opening, closing in ("()", "[]", "{}"):
        open_ones = where.count(opening) - where.count(closing)
        if open_ones > MOST_OPEN:
            raise UsageError(
                f"the filter leaves {open_ones:,} of its {where.count(opening):,} {opening!r} open", fix="close each"
            )


def check_work(expression: dict[str, Any], parts: Sequence[dict[str, Any]]) -> None:
    """Refuse, by UsageError, an expression of too many steps, or one that makes texts much longer than they are."""
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


def check_comparisons(cursor: DuckDBPyConnection, part: dict[str, Any], names: Mapping[str, str]) -> None:
    """Refuse the edit distance of long texts, and patterns that long texts could be held against for minutes.

    Args:
        cursor: of the titles.
        part: one of a parsed expression's parts.
        names: the field that each name stands for.

    Raises:
        UsageError: it is one of these.
    """
    name = part["function_name"].lower() if part["class"] == "FUNCTION" else ""
    if name not in _DISTANCES and name not in _PATTERNS:
        return
    known = {name.casefold(): field for name, field in names.items()}
    longest = {field: _longest(cursor, known[field]) for field in set(_whole_fields(part)) if field in known}
    inner = list(direct_parts(part))
    if name in _DISTANCES:
        length = max(longest.values(), default=0) * max(map(_growth, inner), default=1)
        if length > MOST_COMPARED:
            raise UsageError(
                f"{name}() would compare texts of up to {length:,} characters; the limit is {MOST_COMPARED:,}",
                fix=f"compare their beginnings: left({max(longest, key=lambda field: longest[field])}, 200)",
            )
    elif len(inner) > 1:
        text, piece = _length_of(inner[0], longest), _piece(inner[1], longest, _PATTERNS[name])
        if text * piece > MOST_MATCHED and not (name in _LIKES and _is_beginning(cursor, inner[1], known)):
            raise UsageError(
                f"the filter would hold texts of up to {text:,} characters against a pattern with a piece of {piece:,};"
                f" the limit is {MOST_MATCHED:,} for the two multiplied",
                fix="look for a shorter text, or for one without _ by contains(FIELD, 'text')",
            )


def _longest(cursor: DuckDBPyConnection, field: str) -> int:
    """Return how many characters the longest value of a field has."""
    return int(cursor.execute(f"SELECT max(length({quoted_name(field)}::VARCHAR)) FROM titles").fetchall()[0][0] or 0)


def _length_of(part: dict[str, Any], longest: Mapping[str, int]) -> int:
    """Return how many characters the value of ``part`` may have."""
    if part["class"] == "CONSTANT":
        return _length(part)
    return max([1, *(longest.get(field, 1) for field in _whole_fields(part))]) * _growth(part)


def _piece(pattern: dict[str, Any], longest: Mapping[str, int], anything: str) -> int:
    """Return the length of a pattern's longest piece between what stands for any text."""
    if pattern["class"] != "CONSTANT":
        return _length_of(pattern, longest)
    text = _text_of(pattern)
    if not anything:
        return len(text) + sum(min(int(count[-9:]), 1_000_000) for count in _REPEATS.findall(text))
    return 1 if anything == "%" and _PLAIN.fullmatch(text) else max(map(len, text.split(anything)))


def _is_beginning(cursor: DuckDBPyConnection, pattern: dict[str, Any], known: Mapping[str, str]) -> bool:
    """Whether a pattern is fields and texts one after another, with % nowhere but at its end: one look tells."""
    parts = list(_joined(pattern))
    texts = [_text_of(part) for part in parts if part["class"] == "CONSTANT"]
    if parts and parts[-1]["class"] == "CONSTANT":
        texts[-1] = texts[-1].rstrip("%")
    fields = [known.get(part["column_names"][-1].casefold()) for part in parts if part["class"] == "COLUMN_REF"]
    if len(texts) + len(fields) < len(parts) or None in fields or any(re.search("[%_]", text) for text in texts):
        return False
    columns = [f"contains({quoted_name(name)}::VARCHAR, {sign})" for name in fields if name for sign in ("'%'", "'_'")]
    holds = " OR ".join(f"coalesce({column}, false)" for column in columns) or "false"
    return not cursor.execute(f"SELECT coalesce(bool_or({holds}), false) FROM titles").fetchall()[0][0]


def _joined(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what || puts one after another."""
    if part["class"] == "FUNCTION" and part["function_name"] == "||":
        for inner in direct_parts(part):
            yield from _joined(inner)
    else:
        yield part


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
    return len(_text_of(constant))


def _text_of(constant: dict[str, Any]) -> str:
    return str(constant.get("literal", {}).get("text", ""))


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


def within_time(cursor: DuckDBPyConnection, work: Callable[[], Done], seconds: float | None = None) -> Done:
    """Return what ``work`` does with ``cursor``, or interrupt it after ``seconds``, `SECONDS` where none are given.

    It is interrupted sooner where `due_at` has set a moment that comes before. Other cursors are not interrupted.

    It runs in a thread of its own: DuckDB notices Ctrl-C and interruptions only between blocks of titles, and this
    thread does not wait for that.

    Raises:
        UsageError: it took longer.
        TooLateError: it took longer than anybody waits for it.
    """
    seconds, left = SECONDS if seconds is None else seconds, time_left()
    if left is not None and left <= 0:
        raise TooLateError("the filter had not begun when its time was up")
    found: Future[Done] = Future()
    threading.Thread(target=_run, args=(work, found), name=FILTER_THREAD).start()
    try:
        return found.result(seconds if left is None else min(left, seconds))
    except TimeoutError as error:
        _end(cursor, found)
        if left is not None and left < seconds:
            raise TooLateError("the filter had not ended when its time was up") from error
        raise UsageError(
            f"the filter took longer than {seconds:g} s, which is the limit",
            fix="compare with shorter texts, or write into a field of the titles what it computes",
        ) from error
    except KeyboardInterrupt:
        _end(cursor, found)
        raise


def _end(cursor: DuckDBPyConnection, found: Future[Done]) -> None:
    """Interrupt ``cursor`` until its work has ended: between two statements there is nothing to interrupt."""

    def interrupt() -> None:
        while not wait([found], INTERRUPTED_EVERY_S).done:
            cursor.interrupt()

    cursor.interrupt()
    threading.Thread(target=interrupt, name=FILTER_THREAD).start()


def _run(work: Callable[[], Done], found: Future[Done] | None) -> None:
    assert found is not None
    try:
        found.set_result(work())
    except BaseException as error:
        found.set_exception(error)
        found = None  # it holds the error, whose traceback holds this frame
