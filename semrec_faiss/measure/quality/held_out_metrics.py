"""How well lists bring back titles that were left out, and how the lists are as a whole; one value per user."""

from __future__ import annotations

import numpy as np

from semrec_faiss.arrays import Mask, Rows, Values

PER_USER = ("hit_rate", "recall", "ndcg", "mrr")


def found_at(rows: Rows, held_out: Rows) -> Mask:
    """Tell which places of each list hold a title that was left out: bool (users, k).

    Args:
        rows: int64 (users, k), lists, best first, no title twice; -1 where there is none.
        held_out: int64 (users, most), the titles left out; -1 where there is none.
    """
    return np.asarray((rows[:, :, None] == held_out[:, None, :]).any(axis=2) & (rows >= 0))


def per_user(rows: Rows, held_out: Rows) -> dict[str, Values]:
    """Return each user's hit rate, recall, ndcg and mrr at k, the length of the lists: float64 (users,) each.

    hit_rate is 1 where at least one title is found. recall is the share found of all that could stand in k places.
    ndcg discounts a title at rank r by log2(r + 1), in proportion to the best list possible (Järvelin and Kekäläinen
    2002, gains of 0 and 1). mrr is one over the rank of the first title found, 0 where none is.

    Args:
        rows: int64 (users, k), as `found_at` takes them.
        held_out: int64 (users, most); at least one per user.
    """
    found = found_at(rows, held_out)
    k = rows.shape[1]
    most = np.minimum((held_out >= 0).sum(axis=1), k)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    first = np.argmax(found, axis=1)
    some = found.any(axis=1)
    return {
        "hit_rate": some.astype(np.float64),
        "recall": found.sum(axis=1) / most,
        "ndcg": (found * discount).sum(axis=1) / np.cumsum(discount)[most - 1],
        "mrr": np.where(some, 1.0 / (first + 1.0), 0.0),
    }


def novelty(rows: Rows, seen_by: Rows, users: int) -> Values:
    """Return the mean self-information of each list in bits: float64 (users,); NaN for an empty list.

    A title that n of all users have seen tells -log2((n + 1) / (users + 1)) bits (Castells, Vargas and Wang 2011,
    smoothed so that a title nobody has seen is finite).

    Args:
        rows: int64 (lists, k); -1 where there is none.
        seen_by: int64 (titles,), how many users have seen each.
        users: how many users there are.
    """
    bits = -np.log2((seen_by + 1.0) / (users + 1.0))
    there = rows >= 0
    total = np.where(there, bits[np.maximum(rows, 0)], 0.0).sum(axis=1)
    counts = there.sum(axis=1)
    return np.asarray(np.where(counts > 0, total / np.maximum(counts, 1), np.nan), dtype=np.float64)
