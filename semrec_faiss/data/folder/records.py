"""A title's record as JSON text, from DuckDB's columns and back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from semrec_faiss.data.folder.database import quoted_name


def json_text(fields: Iterable[str]) -> str:
    """Return the SQL for one title as a JSON object, its fields in order."""
    packed = ", ".join(f"{quoted_name(name)} := {quoted_name(name)}" for name in fields)
    return f"to_json(struct_pack({packed}))::VARCHAR"


def read_record(text: str) -> dict[str, Any]:
    """Read what `json_text` gives; a number inside a list or a structure that is none becomes null, as in JSON."""
    record: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
    return record
