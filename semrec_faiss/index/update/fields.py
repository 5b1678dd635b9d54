"""Metadata fields that a change brings, or whose types it widens."""

from __future__ import annotations

from collections.abc import Mapping

from semrec_faiss.data.folder.database import quoted_name
from semrec_faiss.data.folder.field_types import EXACT_IN_DOUBLE
from semrec_faiss.index.saved.saved_index import SavedIndex


def held_exactly(saved: SavedIndex, known: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, str]:
    """Return the types of fields after a change; where whole numbers become decimal ones that do not hold them, JSON.

    Args:
        saved: the index before.
        known: the types of its fields.
        fields: the types of those and of the change's, as far as the change tells.
    """
    widened = dict(fields)
    for name, kind in fields.items():
        if kind.startswith("DOUBLE") and known.get(name, kind) != kind and len(saved.matching(_too_large(name, kind))):
            widened[name] = "JSON"
    return widened


def _too_large(name: str, kind: str) -> str:
    """Return the SQL that tells whether a whole number of a title, or one in a list, is more than a double holds."""
    field = quoted_name(name)
    least, most = (f"list_min({field})", f"list_max({field})") if kind.endswith("[]") else (field, field)
    return f"{least} < -{EXACT_IN_DOUBLE} OR {most} > {EXACT_IN_DOUBLE}"
