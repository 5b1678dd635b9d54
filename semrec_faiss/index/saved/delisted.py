"""What users have seen of titles that the index does not hold, by media_id: it counts as soon as one comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from semrec_faiss.data.seen_table import DelistedRows, joined_ratings_and_times
from semrec_faiss.data.users import grouped_history
from semrec_faiss.index.generations.file_names import DELISTED_NAME
from semrec_faiss.index.generations.generation import Generation, NewGeneration
from semrec_faiss.index.generations.manifest import unreadable


def write_delisted(new: NewGeneration, rows: DelistedRows, user_count: int, name: str = DELISTED_NAME) -> None:
    """Write the latest of each user's rows about a title, sorted by both; no file where there are none."""
    import pyarrow as pa

    if not len(rows.users):
        return
    coded = pa.array(rows.media_ids, pa.string()).dictionary_encode()  # numpy's texts end before NUL characters
    ids = np.array(coded.dictionary.to_pylist(), dtype=object)
    order = np.argsort(ids)
    numbers = np.argsort(order)[coded.indices.to_numpy()]
    latest = grouped_history(rows.users, numbers, rows.ratings, rows.timestamps, user_count, len(ids))
    users = np.repeat(np.arange(user_count, dtype=np.int64), np.diff(latest.offsets))
    columns: dict[str, Any] = {"user_row": users, "media_id": pa.array(ids[order][latest.rows], pa.string())}
    more = {"rating": latest.ratings, "timestamp": latest.timestamps}
    columns |= {column: values for column, values in more.items() if values is not None}
    new.write_table(name, pa.table(columns))


def read_delisted(generation: Generation, name: str, media_ids: Sequence[str] | None = None) -> DelistedRows | None:
    """Read what `write_delisted` wrote of these titles, or of all.

    Returns:
        None where there is no such file.

    Raises:
        DamagedIndexError: it is not as it was written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not generation.has(name):
        return None
    try:
        table = pq.read_table(
            generation.file(name), filters=None if media_ids is None else [("media_id", "in", list(media_ids))]
        )
        users, media_ids = (table[column].to_numpy() for column in ("user_row", "media_id"))
        ratings, timestamps = (
            table[column].to_numpy() if column in table.column_names else None for column in ("rating", "timestamp")
        )
    except (OSError, KeyError, pa.ArrowException) as error:
        raise unreadable(generation.folder / name, error) from error
    return DelistedRows(users, np.asarray(media_ids, dtype=object), ratings, timestamps)


def joined_rows(parts: Sequence[DelistedRows]) -> DelistedRows | None:
    """Put rows one after the other, ratings NaN where a part has none; None where there is no part."""
    if not parts:
        return None
    return DelistedRows(
        np.concatenate([one.users for one in parts]),
        np.concatenate([one.media_ids for one in parts]),
        *joined_ratings_and_times(parts),
    )
