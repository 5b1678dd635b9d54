"""WHERE clauses over the titles' own fields: one boolean SQL expression in, the matching rows out.

The expression is parsed by DuckDB before it runs, and only what can look at one title at a time is let through: no
subquery, no second statement, no function that reads files, tells of the machine or gives another answer next time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.catalog import Catalog
from semrec_faiss.data.field_types import ROW
from semrec_faiss.errors import UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "PARAMETER": "a parameter",
    "DEFAULT": "DEFAULT",
}

# Scalar functions that give another answer next time, tell of the session or the machine, wait, or make values of any
# size; tests/data/test_filters.py holds the first kinds against what DuckDB says of its own functions.
REFUSED_FUNCTIONS = frozenset(
    """
    current_catalog current_connection_id current_database current_date current_query current_query_id current_role
    current_schema current_schemas current_setting current_transaction_id current_user currval error gen_random_uuid
    get_current_time get_current_timestamp getenv getvariable in_search_path nextval now random session_user setseed
    setval sleep_ms stats today transaction_timestamp txid_current user uuid uuidv4 uuidv7 vector_type write_log
    ago pg_sleep
    bitstring generate_series lpad range repeat rpad
    """.split()  # noqa: SIM905 - one name a line would be forty lines
)
_REFUSED_FAMILIES = ("pg_", "has_", "inet_")

_LEAD = "SELECT\n"
_EXAMPLE = "for example: year BETWEEN 1990 AND 1999 AND 'Sci-Fi' IN genres"


def matching_rows(catalog: Catalog, *clauses: str) -> NDArray[np.int64]:
    """Return the rows of the titles for which every clause is true, ascending; null counts as no match.

    Args:
        catalog: the titles.
        clauses: SQL boolean expressions over their fields, as DuckDB spells them; each is checked by itself.

    Raises:
        UsageError: one is no single boolean expression, names an unknown field, or uses what is not let through; the
            message shows DuckDB's caret and candidates.
    """
    import duckdb

    cursor = catalog.cursor()
    for clause in clauses:
        _check(cursor, clause)
    conjunction = " AND ".join(f"(\n{clause}\n)" for clause in clauses)
    try:
        _check_types(cursor, clauses)
        found = cursor.execute(f"SELECT {ROW} FROM titles WHERE {conjunction or 'true'}").fetchnumpy()[ROW]
    except duckdb.Error as error:
        raise UsageError(f"the filter is not understood: {_pointed(str(error))}", fix=_known(catalog)) from error
    return np.sort(np.asarray(found, dtype=np.int64))


def _check_types(cursor: DuckDBPyConnection, clauses: Sequence[str]) -> None:
    columns = ", ".join(f"(\n{clause}\n)" for clause in clauses) or "true"
    for clause, column in zip(
        clauses, cursor.execute(f"DESCRIBE SELECT {columns} FROM titles").fetchall(), strict=False
    ):
        if column[1] != "BOOLEAN":
            raise UsageError(f"the filter {clause!r} gives {column[1]}, not true or false", fix=_EXAMPLE)


def _check(cursor: DuckDBPyConnection, where: str) -> None:
    """Refuse all but one expression of parts that are let through.

    It is parsed as it stands, not in the brackets that it is run in, so that it cannot close them.
    """
    if not where.strip():
        raise UsageError("the filter is empty", fix=_EXAMPLE)
    text = cursor.execute("SELECT json_serialize_sql($sql)", {"sql": f"{_LEAD}{where}\n"}).fetchall()[0][0]
    parsed = json.loads(text)
    if parsed["error"]:
        raise UsageError(f"the filter is not one SQL expression: {_placed(parsed, where)}", fix=_EXAMPLE)
    node = parsed["statements"][0]["node"] if len(parsed["statements"]) == 1 else {}
    expressions = node.get("select_list", [])
    if not (node.get("type") == "SELECT_NODE" and len(expressions) == 1 and _is_bare(node)):
        raise UsageError(f"the filter {where!r} is more than one expression", fix=_EXAMPLE)
    for part in _parts(expressions[0]):
        _check_part(part, where)


def _check_part(part: dict[str, Any], where: str) -> None:
    if part["class"] in _REFUSED:
        raise UsageError(f"the filter {where!r} holds {_REFUSED[part['class']]}, which is not allowed", fix=_EXAMPLE)
    if part["class"] == "FUNCTION":
        name = part["function_name"].lower()
        if name in REFUSED_FUNCTIONS or name.startswith(_REFUSED_FAMILIES):
            raise UsageError(f"the filter {where!r} calls {name}(), which is not allowed", fix=_EXAMPLE)
    if part["class"] == "COLUMN_REF" and ROW in part["column_names"]:
        raise UsageError(f"the filter names {ROW}, which is no field of a title", fix=_EXAMPLE)


def _is_bare(node: dict[str, Any]) -> bool:
    """Whether a SELECT has nothing but its list: no FROM, WHERE, GROUP BY, ORDER BY, WITH …"""
    added = ("modifiers", "where_clause", "group_expressions", "having", "sample", "qualify")
    has_more = any(node.get(name) for name in added) or bool(node["cte_map"]["map"])
    return node["from_table"]["type"] == "EMPTY" and not has_more


def _parts(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every expression inside a parsed one."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for value in tree.values():
            yield from _parts(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _parts(value)


def _pointed(message: str) -> str:
    """Cut DuckDB's message to what it says of the filter: kind, caret and candidates, without our own SQL."""
    lines = [line for line in message.replace(f', "{ROW}"', "").replace(f'"{ROW}", ', "").splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("LINE ")]
    shown = []
    for number, line in enumerate(lines):
        if line.startswith("LINE ") and number + 1 < len(lines):
            lead = line.index(": ") + 2
            shown = [line[lead:], lines[number + 1][lead:]]
            said.remove(lines[number + 1])
    return "\n  ".join([*said, *shown])


def _placed(parsed: dict[str, Any], where: str) -> str:
    """Show where the parser stopped, as DuckDB does for other errors."""
    message = parsed.get("error_message", "")
    position = int(parsed.get("position", 0)) - len(_LEAD)
    if "\n" in where or not 0 <= position <= len(where):
        return f"{message}\n  {where}"
    return f"{message}\n  {where}\n  {' ' * position}^"


def _known(catalog: Catalog) -> str:
    return "fields: " + ", ".join(f"{name} ({kind})" for name, kind in catalog.fields.items())
