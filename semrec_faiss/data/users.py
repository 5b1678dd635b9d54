"""Users: their ids, and what each of them has seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arguments import is_whole
from semrec_faiss.arrays import Rows, StoredRows, parts_of, row_type
from semrec_faiss.data.folder.database import first_line
from semrec_faiss.data.folder.layout import rows_partner
from semrec_faiss.data.folder.relation import Relation
from semrec_faiss.data.seen_table import numbered, read_seen_rows
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.errors import DataError, quoted
from semrec_faiss.storage import read_small

_MOST_BYTES = 4 << 30
"""More than the ids of a hundred million users take."""

MISTAKES_SHOWN = 10

_AS_LIST = 'write ["user_1", …] or {"user_ids": ["user_1", …]}'


def read_user_ids(path: Path, *, expect_count: int | None = None) -> list[str]:
    """Read user_ids.json: a list of ids, or an object with the list as "user_ids"; integers become strings.

    Args:
        path: the file.
        expect_count: the number of user vectors, where it is known.

    Raises:
        DataError: malformed JSON, another shape, or ids that are empty, repeated or too many, each with its [position].
    """
    try:
        content = json.loads(read_small(path, _MOST_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot read the user ids: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}", fix=_AS_LIST
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON in UTF-8: {first_line(error)}", fix=_AS_LIST) from error
    listed = content.get("user_ids") if isinstance(content, dict) else content
    if not isinstance(listed, list):
        raise DataError(f"{path} holds no list of user ids", fix=_AS_LIST)
    if not listed:
        raise DataError(f"{path} holds an empty list of user ids", fix="remove the users' files, or add users to them")
    _check_ids(path, listed)
    if expect_count is not None and len(listed) != expect_count:
        raise DataError(
            f"{path} has {len(listed):,} user ids, but there are {expect_count:,} vectors{rows_partner(path)}",
            fix="the two files must have one entry each for the same users, in the same order",
        )
    return [str(user_id) for user_id in listed]


@dataclass(frozen=True)
class History:
    """What users have seen; user i has seen ``rows[offsets[i]:offsets[i + 1]]``, ascending, none twice.

    Attributes:
        offsets: int64 (users + 1,).
        rows: integer (n,), title rows, of the type that `row_type` says.
        ratings: float32 (n,), NaN where a title is seen but not rated; None where nothing is known of ratings, of these
            users nor, where they are some of many, of the others.
        timestamps: int64 (n,), seconds since 1970 in UTC; None where it is not known when.
        ignored: rows that named unknown users or titles, and so are not here.
    """

    offsets: NDArray[np.int64]
    rows: StoredRows
    ratings: NDArray[np.float32] | None = None
    timestamps: NDArray[np.int64] | None = None
    ignored: int = 0

    def take(self, users: NDArray[np.integer[Any]]) -> History:
        """Return what some users, int64 (some,), have seen, in the order asked."""
        offsets, at = parts_of(self.offsets, users)
        return History(
            offsets,
            self.rows[at],
            None if self.ratings is None else self.ratings[at],
            None if self.timestamps is None else self.timestamps[at],
        )


def read_seen(path: Path, user_ids: Sequence[str], catalog: Catalog) -> tuple[Rows, StoredRows]:
    """Read the offsets, int64 (users + 1,), and rows, integer (seen,), of `read_history`; raises what it raises."""
    history = read_history(path, user_ids, catalog, with_ratings=False)
    return history.offsets, history.rows


def read_history(
    path: Path | Relation, user_ids: Sequence[str], catalog: Catalog, *, with_ratings: bool = True, strict: bool = False
) -> History:
    """Read users/seen.parquet, a file or a folder of parts: user_id and media_id, a row for each title seen.

    The columns rating (a number or null) and timestamp (seconds since 1970, or a time) may stand beside them. Where a
    user has seen a title several times, the latest row counts. Rows that name users or titles that are no more are
    counted and ignored.

    Args:
        path: the file, or the rows in memory.
        user_ids: the m users, in order.
        catalog: the titles.
        with_ratings: whether to read the further columns where there are any.
        strict: refuse rows that would be ignored.

    Raises:
        DataError: the file cannot be read, a column is missing or of another type, all rows name unknown users or
            titles, or some rows have no id, no timestamp, or one outside 1970 to 2100.
    """
    media_ids = catalog.all_media_ids()
    ids = np.array(user_ids, dtype=object)
    found = read_seen_rows(path, numbered(ids), numbered(media_ids), with_ratings=with_ratings, strict=strict)
    if found.ratings is None and found.timestamps is None:
        grouped = _grouped(found.users, found.titles, len(user_ids), catalog.count)
        return History(*grouped, ignored=found.ignored)
    history = grouped_history(found.users, found.titles, found.ratings, found.timestamps, len(user_ids), catalog.count)
    return replace(history, ignored=found.ignored)


def grouped_history(
    users: NDArray[Any],
    titles: NDArray[Any],
    ratings: NDArray[np.float32] | None,
    timestamps: NDArray[np.int64] | None,
    user_count: int,
    title_count: int,
) -> History:
    """Sort rows by user and title; of those that repeat both, keep the latest: by time, where it is known, and order.

    Args:
        users: integer (n,), user rows.
        titles: integer (n,), title rows.
        ratings: float32 (n,), or None.
        timestamps: int64 (n,), or None.
        user_count: how many users there are.
        title_count: how many titles.
    """
    pairs = users.astype(np.int64) * title_count + titles
    order = np.argsort(pairs, kind="stable") if timestamps is None else np.lexsort((timestamps, pairs))
    pairs = pairs[order]
    latest = np.ones(len(pairs), dtype=bool)
    np.not_equal(pairs[1:], pairs[:-1], out=latest[:-1])
    order, pairs = order[latest], pairs[latest]
    offsets = np.searchsorted(pairs, np.arange(user_count + 1, dtype=np.int64) * title_count).astype(np.int64)
    return History(
        offsets,
        (pairs % title_count).astype(row_type(title_count)),
        known_ratings(None if ratings is None else ratings[order]),
        None if timestamps is None else timestamps[order],
    )


def known_ratings(ratings: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """Return the ratings of all users, float32 (n,); None where there are none, as in a column of nulls."""
    return None if ratings is None or bool(np.isnan(ratings).all()) else ratings


def _grouped(users: StoredRows, titles: StoredRows, user_count: int, title_count: int) -> tuple[Rows, StoredRows]:
    """Sort pairs by user and title without repeats; one sort of one number a pair does both."""
    pairs = users.astype(np.int64)
    pairs *= title_count
    pairs += titles
    pairs.sort()
    first = np.ones(len(pairs), dtype=bool)
    np.not_equal(pairs[1:], pairs[:-1], out=first[1:])
    pairs = pairs[first]
    starts = np.arange(user_count + 1, dtype=np.int64) * title_count
    offsets = np.searchsorted(pairs, starts).astype(np.int64)
    pairs %= title_count
    return offsets, pairs.astype(row_type(title_count))


def _check_ids(path: Path, ids: list[Any]) -> None:
    mistakes: list[str] = []
    first_position: dict[str, int] = {}
    for position, user_id in enumerate(ids):
        problem = _id_problem(user_id)
        if problem is None:
            first = first_position.setdefault(str(user_id), position)
            if first == position:
                continue
            problem = f"{quoted(user_id)} is also at [{first}]"
        mistakes.append(f"[{position}]: {problem}")
    if not mistakes:
        return
    more = f"\n… and {len(mistakes) - MISTAKES_SHOWN:,} more" if len(mistakes) > MISTAKES_SHOWN else ""
    listed = "\n".join(mistakes[:MISTAKES_SHOWN])
    raise DataError(f"{path}: unusable user ids: {len(mistakes):,}\n{listed}{more}", fix="give every user one id")


def _id_problem(value: Any) -> str | None:
    if type(value) is int:
        return None
    if type(value) is not str or not value.strip():
        return f"{quoted(value)} is no id; a non-empty string or an integer is expected"
    return None if is_whole(value) else f"{quoted(value)} holds half of a surrogate pair, which is no character"
