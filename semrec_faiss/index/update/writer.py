"""A writer that takes arrays and records batch by batch, and makes one update of all of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.folder.layout import MEDIA_VECTORS, METADATA, SEEN, USER_IDS, USER_VECTORS
from semrec_faiss.errors import UsageError
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import COMPACT_AT, UpdateSummary, update_index


class IndexWriter:
    """Collects changes to an index; the end of its block publishes them as one generation, an error none of them.

        with IndexWriter("indexes/demo") as writer:
            writer.put_titles([{"media_id": "m1", "title": "Alien"}], vectors)
            writer.remove_titles(["m2"])

    Of several versions of one title or user the last one counts.

    Attributes:
        summary: what was done; None before the end.

    Example:
        >>> import shutil
        >>> index = shutil.copytree("indexes/demo", "indexes/own", dirs_exist_ok=True)
        >>> from semrec_faiss import IndexWriter
        >>> with IndexWriter(index) as writer:
        ...     writer.remove_titles(["film_0002"])
        >>> writer.summary.titles.removed
        1
    """

    def __init__(
        self, path: str | Path, *, strict: bool = False, compact_at: float | None = COMPACT_AT, wait: float = 0
    ) -> None:
        """Write to the index in ``path``; see `update_index`."""
        self._path = path
        self._strict, self._compact_at, self._wait = strict, compact_at, wait
        self._titles: dict[str, tuple[Mapping[str, Any], NDArray[Any]]] = {}
        self._users: dict[str, NDArray[Any]] = {}
        self._seen: dict[str, list[Any]] = {}
        self._removed: tuple[list[str], list[str]] = ([], [])
        self.summary: UpdateSummary | None = None

    def put_titles(self, records: Sequence[Mapping[str, Any]], vectors: NDArray[Any]) -> None:
        """Add or replace titles.

        Args:
            records: their metadata; media_id and title are needed.
            vectors: float (titles, dim), theirs.

        Example:
            >>> import numpy as np
            >>> import shutil
            >>> index = shutil.copytree("indexes/demo", "indexes/own", dirs_exist_ok=True)
            >>> from semrec_faiss import IndexWriter
            >>> with IndexWriter(index) as writer:
            ...     writer.put_titles([{"media_id": "m1", "title": "Alien Resurrected"}], np.ones((1, 384), "float32"))
            >>> writer.summary.titles.new, writer.summary.title_count
            (1, 1520)
        """
        _check_counts(len(records), vectors, "records")
        for record, vector in zip(records, vectors, strict=True):
            media_id = str(record.get("media_id"))
            self._titles.pop(media_id, None)
            self._titles[media_id] = (record, vector)

    def put_users(self, user_ids: Sequence[str], vectors: NDArray[Any]) -> None:
        """Add or replace users: their ids, and float (users, dim).

        Example:
            >>> import numpy as np
            >>> import shutil
            >>> index = shutil.copytree("indexes/demo", "indexes/own", dirs_exist_ok=True)
            >>> from semrec_faiss import IndexWriter
            >>> with IndexWriter(index) as writer:
            ...     writer.put_users(["eve"], np.ones((1, 384), "float32"))
            >>> writer.summary.users.new, writer.summary.user_count
            (1, 201)
        """
        _check_counts(len(user_ids), vectors, "user ids")
        for user_id, vector in zip(user_ids, vectors, strict=True):
            self._users.pop(str(user_id), None)
            self._users[str(user_id)] = vector

    def append_seen(self, **columns: Sequence[Any]) -> None:
        """Add what users have seen: user_id and media_id, and rating and timestamp as the index has them.

        Example:
            >>> import shutil
            >>> index = shutil.copytree("indexes/demo", "indexes/own", dirs_exist_ok=True)
            >>> from semrec_faiss import IndexWriter
            >>> with IndexWriter(index) as writer:
            ...     writer.append_seen(user_id=["user_001"], media_id=["film_0534"], timestamp=[1_700_000_000])
            >>> writer.summary.seen
            1
        """
        if self._seen and self._seen.keys() != columns.keys():
            raise UsageError(f"the columns are {', '.join(columns)}; before they were {', '.join(self._seen)}")
        for name, values in columns.items():
            self._seen.setdefault(name, []).extend(values)

    def remove_titles(self, media_ids: Iterable[str]) -> None:
        """Remove titles by media_id.

        Example:
            >>> import shutil
            >>> index = shutil.copytree("indexes/demo", "indexes/own", dirs_exist_ok=True)
            >>> from semrec_faiss import IndexWriter
            >>> with IndexWriter(index) as writer:
            ...     writer.remove_titles(["film_0534", "film_9999"])
            >>> writer.summary.titles.removed, writer.summary.titles.unknown
            (1, 1)
        """
        self._removed[0].extend(map(str, media_ids))

    def remove_users(self, user_ids: Iterable[str]) -> None:
        """Remove users by id.

        Example:
            >>> import shutil
            >>> index = shutil.copytree("indexes/demo", "indexes/own", dirs_exist_ok=True)
            >>> from semrec_faiss import IndexWriter
            >>> with IndexWriter(index) as writer:
            ...     writer.remove_users(["user_001"])
            >>> writer.summary.user_count
            199
        """
        self._removed[1].extend(map(str, user_ids))

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            return
        with tempfile.TemporaryDirectory(prefix="semrec-update-") as name:
            folder = Path(name)
            self._write(folder)
            change = Change(folder if any(folder.iterdir()) else None, *self._removed)
            self.summary = update_index(
                self._path, change, strict=self._strict, compact_at=self._compact_at, wait=self._wait
            )

    def _write(self, folder: Path) -> None:
        """Write what was collected as a folder of changes."""
        if self._titles:
            (folder / "media").mkdir()
            lines = [json.dumps(dict(record), ensure_ascii=False) + "\n" for record, _ in self._titles.values()]
            (folder / METADATA).write_text("".join(lines), encoding="utf-8")
            np.save(folder / MEDIA_VECTORS, np.stack([vector for _, vector in self._titles.values()]))
        if self._users or self._seen:
            (folder / "users").mkdir()
        if self._users:
            (folder / USER_IDS).write_text(json.dumps(list(self._users)), encoding="utf-8")
            np.save(folder / USER_VECTORS, np.stack(list(self._users.values())))
        if self._seen:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table(self._seen), folder / SEEN)


def _check_counts(count: int, vectors: NDArray[Any], what: str) -> None:
    if np.ndim(vectors) != 2 or len(vectors) != count:
        raise UsageError(f"{count} {what} and vectors of shape {np.shape(vectors)}; (n, dim) is expected, n of both")
