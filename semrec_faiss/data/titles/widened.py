"""Records that were written before there were further fields, or wider types, read as if they had been there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from semrec_faiss.arrays import Rows
from semrec_faiss.data.titles.stored import Texts
from semrec_faiss.data.titles.titles import line_of


class WidenedTexts:
    """Records as an index built anew would have them: all fields, in their order; see `Texts`."""

    def __init__(self, texts: Texts, fields: Mapping[str, str]) -> None:
        """Read ``texts``, of titles that have ``fields`` by now, with their DuckDB types."""
        self._texts = texts
        self._fields = dict(fields)
        self.count = texts.count

    def lines(self, rows: Any) -> list[bytes]:
        """Return the lines of ``rows``, in the order asked; raises as `StoredTexts.lines`."""
        return [line_of(self._widened(json.loads(line))) for line in self._texts.lines(rows)]

    def rows_of(self, key: str) -> list[int]:
        """Return the rows whose keys may hold ``key``."""
        return self._texts.rows_of(key)

    def first_rows(self, keys: Sequence[str]) -> Rows:
        """Return the first of `rows_of` each key, int64 (keys,), -1 where there is none."""
        return self._texts.first_rows(keys)

    def _widened(self, record: dict[str, Any]) -> dict[str, Any]:
        return {name: _as_type(record.get(name), kind) for name, kind in self._fields.items()}


def _as_type(value: Any, kind: str) -> Any:
    """Return a value as one of a DuckDB type: whole numbers of decimal fields have a point; all others stay."""
    if kind == "DOUBLE" and isinstance(value, int):
        return float(value)
    if kind == "DOUBLE[]" and isinstance(value, list):
        return [_as_type(each, "DOUBLE") for each in value]
    return value
