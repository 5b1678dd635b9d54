"""The metadata of titles that were asked for lately, kept so that a frequent title costs no query."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from semrec_faiss.data.titles.catalog import Catalog

Record = dict[str, Any]

REMEMBERED = 100_000


class RecordCache:
    """Reads records through a bounded least-recently-used cache; safe from many threads."""

    def __init__(self, catalog: Catalog, size: int = REMEMBERED) -> None:
        """Read from ``catalog`` and keep at most ``size`` records."""
        self._catalog = catalog
        self._size = size
        self._kept: OrderedDict[int, Record] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, rows: Iterable[int]) -> Sequence[Record]:
        """Return the records of title rows, in the order asked; treat them as read-only."""
        wanted = [int(row) for row in rows]
        with self._lock:
            found = {row: self._kept[row] for row in wanted if row in self._kept}
            for row in found:
                self._kept.move_to_end(row)
        missing = [row for row in dict.fromkeys(wanted) if row not in found]
        if missing:
            found.update(zip(missing, self._catalog.records(missing), strict=True))
            self._keep({row: found[row] for row in missing})
        return [found[row] for row in wanted]

    def _keep(self, records: dict[int, Record]) -> None:
        with self._lock:
            self._kept.update(records)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
