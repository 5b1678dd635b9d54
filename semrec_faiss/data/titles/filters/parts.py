"""What a WHERE clause is made of: the conditions that AND joins, each in the words that it was written in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.filters.matching import LEAD, expressions_in, syntax_of

_EQUALS = {"COMPARE_EQUAL", "COMPARE_IN"}
_HOLDS = {"contains", "list_contains", "list_has", "array_contains", "array_has"}


MOST_WRITTEN = 200
"""Characters of a condition that are shown: it may be a list of ten thousand ids."""


@dataclass(frozen=True)
class Part:
    """One of the conditions that AND joins.

    Attributes:
        written: in the words of whoever wrote it.
        clause: as DuckDB writes it, by itself.
        fields: those of the titles that it names.
        text: where it asks whether a field is, or holds, one text: that text.
    """

    written: str
    clause: str
    fields: tuple[str, ...]
    text: str | None


def parts_of(catalog: Catalog, where: str) -> Iterator[Part]:
    """Yield the conditions that AND joins in a clause which `matching_rows` has let through.

    Example:
        >>> from semrec_faiss import Recommender
        >>> from semrec_faiss.data.titles.filters.parts import parts_of
        >>> demo = Recommender.open("indexes/demo")
        >>> [part.written for part in parts_of(demo.catalog, "year<1980 and 'Crime' IN genres")]
        ['year<1980', "'Crime' IN genres"]
    """
    cursor = catalog.cursor()
    tree = syntax_of(cursor, where)
    node = tree["statements"][0]["node"]
    source = f"{LEAD}{where}".encode()
    for expression in list(_joined(node["select_list"][0])):
        node["select_list"] = [expression]
        sql = cursor.execute("SELECT json_deserialize_sql($tree::JSON)", {"tree": json.dumps(tree)}).fetchall()[0][0]
        clause = str(sql).removeprefix("SELECT ")
        yield Part(_written(expression, source), clause, _fields(expression, catalog), _text(expression))


def _joined(expression: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if expression["type"] != "CONJUNCTION_AND":
        yield expression
        return
    for child in expression["children"]:
        yield from _joined(child)


def _written(expression: dict[str, Any], source: bytes) -> str:
    """Return what stands between the first and the last of an expression's own parts."""
    spans = [
        (part.get("query_location", len(source)), part["query_location_length"]) for part in expressions_in(expression)
    ]
    known = [(start, start + length) for start, length in spans if start < len(source)]
    first, last = min(start for start, _ in known), max(end for _, end in known)
    written = " ".join(source[first:last].decode(errors="ignore").split())
    return written if len(written) <= MOST_WRITTEN else f"{written[:MOST_WRITTEN]}…"


def _fields(expression: dict[str, Any], catalog: Catalog) -> tuple[str, ...]:
    names = (part["column_names"] for part in expressions_in(expression) if part["class"] == "COLUMN_REF")
    found = (catalog.field_of(name[-1]) for name in names if len(name) == 1 or name[0] == "titles")
    return tuple(dict.fromkeys(field for field in found if field is not None))


def _text(expression: dict[str, Any]) -> str | None:
    if expression["type"] not in _EQUALS and expression.get("function_name") not in _HOLDS:
        return None
    literals = (part["literal"] for part in expressions_in(expression) if part["class"] == "CONSTANT")
    texts = [literal["text"] for literal in literals if literal["kind"] == "STRING"]
    return texts[0] if len(texts) == 1 else None
