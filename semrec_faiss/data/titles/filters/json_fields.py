"""Fields that hold values of several types are kept as JSON text, which no comparison sees as a person does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semrec_faiss.data.titles.filters.limits import direct_parts
from semrec_faiss.errors import UsageError

_TOLD = ("IS_NULL", "IS_NOT_NULL")


def check_json_fields(part: dict[str, Any], fields: Mapping[str, str], mixtures: Mapping[str, str]) -> None:
    """Refuse what takes a JSON field for text or a number: ``LIKE 'Ali%'`` would see the quotes and never match.

    Let through are ``->`` and ``->>``, functions of JSON, casts but to VARCHAR, and IS NULL.

    Args:
        part: an expression as DuckDB's ``json_serialize_sql`` tells it.
        fields: the type of each field.
        mixtures: what is known of what JSON fields hold.
    """
    kept = {name.casefold(): name for name, kind in fields.items() if kind.startswith("JSON")}
    inside = [] if _reads_json(part) else [*direct_parts(part)]
    named = [each["column_names"][0] for each in inside if each["class"] == "COLUMN_REF"]
    for name in [*named, part.get("schema") or ""]:  # field.function(…) is told as a function of a schema
        if name.casefold() in kept:
            field = kept[name.casefold()]
            quoted = f'"{field}"' if not field.isidentifier() else field
            mixture = mixtures.get(field) or "values of several types, or objects"
            raise UsageError(
                f"the field {field!r} holds {mixture}, so it is kept as JSON text and cannot be compared as it is",
                fix=f"{quoted}->>'$' is its text: {quoted}->>'$' LIKE 'Ali%'; for numbers,"
                f" TRY_CAST({quoted}->>'$' AS DOUBLE) > 5; for a part of an object, {quoted}->>'$.name' = 'Ali'",
            )


def _reads_json(part: dict[str, Any]) -> bool:
    if part["class"] == "FUNCTION":
        name = part["function_name"].lower()
        return name in ("->", "->>", "typeof") or name.startswith(("json_", "array_to_json", "from_json"))
    if part["class"] == "CAST":
        return str(part.get("type_expr", {}).get("type_name", "")).upper() not in ("VARCHAR", "TEXT", "STRING")
    return part["class"] == "OPERATOR" and str(part["type"]).endswith(_TOLD)
