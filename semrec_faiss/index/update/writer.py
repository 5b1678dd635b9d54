"""A writer that takes arrays and records batch by batch, and makes one update of all of them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arguments import Names, array_of, did_you_mean, names_of, path_of
from semrec_faiss.data.folder.layout import MEDIA_VECTORS, METADATA, SEEN, USER_IDS, USER_VECTORS
from semrec_faiss.data.seen_checks import SEEN_COLUMNS
from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import COMPACT_AT, UpdateSummary, update_index
from semrec_faiss.storage import filling_scratch, scratch_folder


class _Events(Change):
    """A change of which any event may be of users who are not known; what a file names wholly so is of other ids."""

    takes_unknown = True


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
        self._path = path_of(path, "the index")
        self._strict, self._compact_at, self._wait = strict, compact_at, wait
        self._titles: dict[str, tuple[str, NDArray[Any]]] = {}  # a line of metadata and a vector by media_id
        self._users: dict[str, NDArray[Any]] = {}
        self._seen: dict[str, list[Any]] = {}
        self._removed: tuple[list[str], list[str]] = ([], [])
        self.summary: UpdateSummary | None = None

    def put_titles(self, records: Sequence[Mapping[str, Any]], vectors: NDArray[Any]) -> None:
        """Add or replace titles.

        Args:
            records: all of their metadata, as nothing is kept of before; media_id and title are needed. Dates, times,
                decimals and UUIDs are Python's, or the texts and numbers that answers tell; fields of structures take
                an update by a table.
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
        lines = [_line_of(record, number) for number, record in enumerate(_listed(records, "records"))]
        for (media_id, line), vector in zip(lines, _vectors_of(vectors, len(lines), "records"), strict=True):
            self._titles.pop(media_id, None)
            self._titles[media_id] = (line, vector)

    def put_users(self, user_ids: Names, vectors: NDArray[Any]) -> None:
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
        ids = names_of(user_ids, "user_ids")
        for user_id, vector in zip(ids, _vectors_of(vectors, len(ids), "user ids"), strict=True):
            self._users.pop(user_id, None)
            self._users[user_id] = vector

    def append_seen(self, **columns: Sequence[Any]) -> None:
        """Add what users have seen: user_id and media_id, and rating and timestamp as the index has them.

        Rows of unknown users or titles are counted in ``summary.seen_ignored``, also where no row names a known user;
        ``strict`` refuses them.

        Example:
            >>> import shutil
            >>> index = shutil.copytree("indexes/demo", "indexes/own", dirs_exist_ok=True)
            >>> from semrec_faiss import IndexWriter
            >>> with IndexWriter(index) as writer:
            ...     writer.append_seen(user_id=["user_001"], media_id=["film_0534"], timestamp=[1_700_000_000])
            >>> writer.summary.seen
            1
        """
        unknown = next((name for name in columns if name not in SEEN_COLUMNS), None)
        if unknown is not None:
            raise UsageError(
                f"append_seen takes no column {quoted(unknown)}; it takes {', '.join(SEEN_COLUMNS)}",
                fix=f"{did_you_mean(unknown, list(SEEN_COLUMNS))}leave it out",
            )
        given = {name: _listed(values, name) for name, values in columns.items()}
        if len({len(values) for values in given.values()}) > 1:
            lengths = ", ".join(f"{len(values)} of {name}" for name, values in given.items())
            raise UsageError(f"the columns differ in length: {lengths}", fix="give each a value for every title seen")
        if not any(given.values()):  # an empty list tells no type
            return
        if self._seen and self._seen.keys() != columns.keys():
            raise UsageError(f"the columns are {', '.join(columns)}; before they were {', '.join(self._seen)}")
        for name, values in given.items():
            self._seen.setdefault(name, []).extend(values)

    def remove_titles(self, media_ids: Names) -> None:
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
        self._removed[0].extend(names_of(media_ids, "media_ids"))

    def remove_users(self, user_ids: Names) -> None:
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
        self._removed[1].extend(names_of(user_ids, "user_ids"))

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            return
        with scratch_folder() as folder:
            with filling_scratch():
                self._write(folder)
            change = _Events(folder if any(folder.iterdir()) else None, *self._removed)
            self.summary = update_index(
                self._path, change, strict=self._strict, compact_at=self._compact_at, wait=self._wait
            )

    def _write(self, folder: Path) -> None:
        """Write what was collected as a folder of changes."""
        if self._titles:
            (folder / "media").mkdir()
            (folder / METADATA).write_text("".join(line for line, _ in self._titles.values()), encoding="utf-8")
            np.save(folder / MEDIA_VECTORS, np.stack([vector for _, vector in self._titles.values()]))
        if self._users or self._seen:
            (folder / "users").mkdir()
        if self._users:
            (folder / USER_IDS).write_text(json.dumps(list(self._users)), encoding="utf-8")
            np.save(folder / USER_VECTORS, np.stack(list(self._users.values())))
        if self._seen:
            from semrec_faiss.data.tables.memory import arrow_of
            from semrec_faiss.data.tables.staged import staged_rows

            table = arrow_of(self._seen, "what users have seen")
            with staged_rows("what users have seen", folder / SEEN, table.schema) as write:
                for batch in table.to_batches():
                    write(batch)


def _listed(values: Any, what: str) -> list[Any]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise UsageError(f"{what} is {type(values).__name__}; a list is expected", fix=f"{what}=[…]")
    return list(values)


def _line_of(record: Any, number: int) -> tuple[str, str]:
    """Return the media_id of a record and its line of metadata.jsonl."""
    if not isinstance(record, Mapping):
        raise UsageError(f"record {number} is {record!r:.60}; a mapping is expected", fix="frame.to_dict('records')")
    try:
        line = json.dumps(_or_null(dict(record)), ensure_ascii=False, default=_plain)
        line.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"record {number}, media_id {record.get('media_id')!r}, cannot be written: {error}",
            fix="give texts, numbers, lists and mappings of them",
        ) from error
    return str(record.get("media_id")), line + "\n"


def _or_null(value: Any) -> Any:
    """Return None for what frames hold where there is no value, in lists and mappings too: no number, no time, NA."""
    if isinstance(value, Mapping):
        return {name: _or_null(one) for name, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_or_null(one) for one in (value.tolist() if isinstance(value, np.ndarray) else value)]
    is_scalar = isinstance(value, float | np.floating | dt.datetime)
    is_none = type(value).__name__ == "NAType" or (is_scalar and value != value)  # noqa: PLR0124
    return None if is_none else value


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal) and Decimal(repr(float(value))) == value:
        return float(value)
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    raise TypeError(f"it holds {type(value).__name__}, which JSON has not")


def _vectors_of(vectors: Any, count: int, what: str) -> NDArray[Any]:
    """Return vectors (count, dim) of one's own: the caller may use the array again for the next batch."""
    array = array_of(vectors, "vectors")
    if not count and not array.size:
        return np.empty((0, 0))
    if array.ndim != 2 or len(array) != count:
        raise UsageError(f"{count} {what} and vectors of shape {array.shape}; (n, dim) is expected, n of both")
    return np.array(array)
