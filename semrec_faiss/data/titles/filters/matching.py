"""WHERE clauses over the titles' own fields: one boolean SQL expression in, the matching rows out.

The expression is parsed by DuckDB before it runs, and only what can look at one title at a time is let through: no
subquery, no second statement, no function that reads files, tells of the machine or gives another answer next time.
"""

from __future__ import annotations

import json
import re
import secrets
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arguments import is_whole
from semrec_faiss.data.folder.database import quoted_name
from semrec_faiss.data.folder.field_types import ROW
from semrec_faiss.data.titles.catalog import FILTER_BYTES, Catalog
from semrec_faiss.data.titles.filters.json_fields import check_json_fields
from semrec_faiss.data.titles.filters.limits import check_comparisons, check_length, check_work, within_time
from semrec_faiss.errors import UsageError, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "PARAMETER": "a parameter",
    "DEFAULT": "DEFAULT",
    "POSITIONAL_REFERENCE": "a column by its number",
}

# Scalar functions that give another answer next time, tell of the session or the machine, wait, or make values of any
# size; tests/data/titles/filters/test_matching.py holds the first kinds against what DuckDB says of its own functions.
REFUSED_FUNCTIONS = frozenset(
    """
    age ago current_catalog current_connection_id current_database current_date current_localtime current_localtimestamp
    current_query current_query_id current_role current_schema current_schemas current_setting current_transaction_id
    current_user currval error format_type gen_random_uuid get_block_size get_current_time get_current_timestamp getenv
    getvariable in_search_path json_serialize_plan nextval now random session_user setseed setval sleep_ms stats today
    transaction_timestamp txid_current user uuid uuidv4 uuidv7 vector_type write_log
    array_reduce array_resize bitstring format generate_series generate_subscripts list_reduce list_resize lpad printf
    range reduce repeat rpad
    """.split()  # noqa: SIM905 - one name a line would be fifty lines
)
# Without brackets the parser takes these for columns, and DuckDB for functions where there is no such column.
_REFUSED_NAMES = REFUSED_FUNCTIONS | {"current_time", "current_timestamp", "localtime", "localtimestamp"}
_REFUSED_FAMILIES = ("pg_", "has_", "inet_")

LEAD = "SELECT\n"
"""What stands before an expression where it is parsed."""

_ADVICE = re.compile(r"\n\s*Use SET .*|, or SET [^.\n]*|\n\s*Please try installing .*(\n\s*(INSTALL|LOAD) .*)*")
"""What DuckDB says of settings and extensions: no filter has either."""

_EXAMPLE = "for example: year BETWEEN 1990 AND 1999 AND 'Sci-Fi' IN genres"


def matching_rows(catalog: Catalog, *clauses: str) -> NDArray[np.int64]:
    """Return the rows of the titles for which every clause is true: int64 (matches,), ascending; null is no match.

    Args:
        catalog: the titles.
        clauses: SQL boolean expressions over their fields, as DuckDB spells them; each is checked by itself.

    Raises:
        UsageError: one is no single boolean expression, names an unknown field, or uses what is not let through; the
            message shows DuckDB's caret and candidates. It is too long, would take too much memory, or takes too long.
    """
    import duckdb

    cursor = catalog.cursor()
    for clause in clauses:
        check_length(clause)
    row = f"row_{secrets.token_hex(8)}"  # a name that no clause can hold
    columns = ", ".join(f"{quoted_name(field)} AS {quoted_name(name)}" for name, field in catalog.names.items())
    source = f"(SELECT {ROW} AS {row}, {columns} FROM titles) AS titles"
    try:
        found = within_time(cursor, lambda: _answer(cursor, clauses, catalog, row, source))
    except duckdb.OutOfMemoryException as error:
        raise UsageError(
            f"the filter takes more memory than the {FILTER_BYTES >> 30} GiB that are allowed",
            fix="compare with shorter texts",
        ) from error
    except duckdb.Error as error:
        told = str(error)
        of_list = "a list holds a value where 'VALUE' IN FIELD; " if "[]" in told else ""
        raise UsageError(
            f"the filter is not understood: {_pointed(told, row)}", fix=of_list + _known(catalog)
        ) from error
    return np.sort(np.asarray(found, dtype=np.int64))


def _answer(cursor: DuckDBPyConnection, clauses: Sequence[str], catalog: Catalog, row: str, source: str) -> Any:
    conjunction = " AND ".join(f"(\n{_checked(cursor, clause, catalog)}\n)" for clause in clauses)
    _check_types(cursor, clauses, source)
    return cursor.execute(f"SELECT {row} FROM {source} WHERE {conjunction or 'true'}").fetchnumpy()[row]


def _check_types(cursor: DuckDBPyConnection, clauses: Sequence[str], source: str) -> None:
    columns = ", ".join(f"(\n{clause}\n)" for clause in clauses) or "true"
    kinds = cursor.execute(f"DESCRIBE SELECT {columns} FROM {source}").fetchall()
    for clause, kind in zip(clauses, kinds, strict=False):
        if kind[1] != "BOOLEAN":
            raise UsageError(f"the filter {quoted(clause)} gives {kind[1]}, not true or false", fix=_EXAMPLE)


def _checked(cursor: DuckDBPyConnection, where: str, catalog: Catalog) -> str:
    """Refuse all but one expression of parts that are let through; return it in a form that is answered soon.

    It is parsed as it stands, not in the brackets that it is run in, so that it cannot close them.
    """
    import duckdb

    if not where.strip():
        raise UsageError("the filter is empty", fix=_EXAMPLE)
    if not where.isprintable() and not is_whole(where):
        raise UsageError(f"the filter {quoted(where)} holds half a character", fix=_EXAMPLE)
    parsed = syntax_of(cursor, where)
    if parsed["error"] and parsed["error_message"].startswith("failed to allocate"):  # told here, not raised
        raise duckdb.OutOfMemoryException(parsed["error_message"])
    if parsed["error"]:
        raise UsageError(f"the filter is not one SQL expression: {_placed(parsed, where)}", fix=_EXAMPLE)
    node = parsed["statements"][0]["node"] if len(parsed["statements"]) == 1 else {}
    expressions = node.get("select_list", [])
    if not (node.get("type") == "SELECT_NODE" and len(expressions) == 1 and _is_bare(node)):
        raise UsageError(f"the filter {quoted(where)} is more than one expression", fix=_EXAMPLE)
    parts = list(expressions_in(expressions[0]))
    check_work(expressions[0], parts)
    names = catalog.names
    types = {name: catalog.fields[field] for name, field in names.items()}
    fields = {name.casefold() for name in names}
    for part in parts:
        _check_part(part, where, fields)
        check_comparisons(cursor, part, names)
        check_json_fields(part, types, catalog.mixtures)
    return where


def syntax_of(cursor: DuckDBPyConnection, where: str) -> dict[str, Any]:
    """Return what DuckDB reads in an expression, or why it cannot; raises UsageError where it is nested too deep."""
    text = cursor.execute("SELECT json_serialize_sql($sql)", {"sql": f"{LEAD}{where}\n"}).fetchall()[0][0]
    try:
        tree: dict[str, Any] = json.loads(text)
    except RecursionError as error:
        raise UsageError("the filter is nested too deep to be checked", fix="take fewer levels of brackets") from error
    return tree


def _check_part(part: dict[str, Any], where: str, fields: set[str]) -> None:
    kind = part["class"]
    if kind in _REFUSED:
        raise UsageError(f"the filter {quoted(where)} holds {_REFUSED[kind]}, which is not allowed", fix=_EXAMPLE)
    if kind == "FUNCTION":
        name = part["function_name"].lower()
        if name in REFUSED_FUNCTIONS or name.startswith(_REFUSED_FAMILIES):
            raise UsageError(f"the filter {quoted(where)} calls {name}(), which is not allowed", fix=_EXAMPLE)
    if kind == "COLUMN_REF":
        names = [name.casefold() for name in part["column_names"]]
        if ROW in names:
            raise UsageError(f"the filter names {ROW}, which is not a field of a title", fix=_EXAMPLE)
        if len(names) == 1 and names[0] not in fields and (names[0] in _REFUSED_NAMES or names[0] == "titles"):
            raise UsageError(f"the filter names {names[0]}, which is not a field of a title", fix=_EXAMPLE)


def _is_bare(node: dict[str, Any]) -> bool:
    """Whether a SELECT has nothing but its list: no FROM, WHERE, GROUP BY, ORDER BY, WITH …"""
    added = ("modifiers", "where_clause", "group_expressions", "having", "sample", "qualify")
    has_more = any(node.get(name) for name in added) or bool(node["cte_map"]["map"])
    return node["from_table"]["type"] == "EMPTY" and not has_more


def expressions_in(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every expression inside a parsed one."""
    waiting: list[Any] = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "class" in part:
                yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _pointed(message: str, row: str) -> str:
    """Cut DuckDB's message to what it says of the filter: kind, caret and candidates, without our own SQL."""
    told, line, own = _without(row, message).partition("\nLINE ")
    lines = [line for line in (_ADVICE.sub("", told) + line + own).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("LINE ")]
    shown = []
    for number, line in enumerate(lines):
        if line.startswith("LINE ") and number + 1 < len(lines):
            lead = line.index(": ") + 2
            shown = [line[lead:], lines[number + 1][lead:]]
            said.remove(lines[number + 1])
    return "\n  ".join([*said, *shown])


def _without(row: str, message: str) -> str:
    """Leave our own column out of the candidates, and the line of candidates out where there is no other."""
    for form in (f', "titles.{row}"', f'"titles.{row}", ', f', "{row}"', f'"{row}", '):
        message = message.replace(form, "")
    return "\n".join(line for line in message.splitlines() if row not in line)


def _placed(parsed: dict[str, Any], where: str) -> str:
    """Show where the parser stopped, as DuckDB does for other errors."""
    message = parsed.get("error_message", "")
    if message.startswith("Max expression depth"):
        return "it is nested deeper than 1,000 levels, which is the limit"
    position = int(parsed.get("position", 0)) - len(LEAD)
    written = where.encode()
    if "\n" in where or not 0 <= position <= len(written):
        return f"{message}\n  {where}"
    return f"{message}\n  {where}\n  {' ' * _columns(written[:position].decode(errors='ignore'))}^"


def _columns(text: str) -> int:
    """Columns that a text takes in a terminal."""
    wide = {"W": 2, "F": 2}
    return sum(0 if unicodedata.combining(c) else wide.get(unicodedata.east_asian_width(c), 1) for c in text)


def _known(catalog: Catalog) -> str:
    return "fields: " + ", ".join(f"{name} ({catalog.fields[field]})" for name, field in catalog.names.items())
