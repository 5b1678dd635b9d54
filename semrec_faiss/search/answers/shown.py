"""What stands beside the titles of a list: the fields asked for, or genres and what tells equal titles apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from semrec_faiss.arguments import did_you_mean
from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.search.answers.answer import Answer
from semrec_faiss.search.answers.result import Result


def shown_columns(answer: Answer, names: Sequence[str] | None = None) -> list[list[str]]:
    """Return the cells of each result.

    Args:
        answer: the list.
        names: the fields asked for; None: genres, and for a list in which titles are equal, a field that differs.

    Raises:
        UsageError: the titles have no such field.
    """
    results = answer.results
    if names is None:
        apart = _apart(results)
        return [[", ".join(one.genres), *([_text(one.as_dict().get(apart))] if apart else [])] for one in results]
    wanted = [name.strip() for name in names if name.strip()]
    known = {name for one in results for name in one.as_dict()} if results else set(wanted)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        offer = did_you_mean(unknown[0], sorted(known))
        fix = f"{offer}--show one of: {', '.join(sorted(known))}"
        raise UsageError(f"the titles have no field {quoted(unknown[0])}", fix=fix)
    records = [one.as_dict() for one in results]
    return [[_text(record.get(name)) for name in wanted] for record in records]


def _apart(results: Sequence[Result]) -> str | None:
    """Return the first field that differs between results of one title, media_id where no other does."""
    repeated = {title for title, count in Counter(one.title for one in results).items() if count > 1}
    if not repeated:
        return None
    records = [one.as_dict() for one in results if one.title in repeated]
    fields = [name for name in records[0] if name not in ("rank", "score", "title", "media_id", "genres")]
    for name in fields:
        pairs = Counter((record["title"], _text(record.get(name))) for record in records)
        if max(pairs.values()) == 1 and all(text for _, text in pairs):
            return name
    return "media_id"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    return str(value)
