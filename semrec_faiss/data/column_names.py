"""The names by which columns of people's tables are known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from semrec_faiss.errors import DataError, quoted

GUESSES: dict[str, tuple[str, ...]] = {
    "media_id": (
        *("media_id", "id", "item_id", "sku", "product_id", "asin", "isbn", "uuid", "uid"),
        *("movie_id", "film_id", "track_id", "song_id", "book_id", "article_id", "video_id"),
        *("show_id", "doc_id", "document_id", "key"),
    ),
    "title": (
        *("title", "name", "product_name", "product_title", "item_name", "track_name", "song_name", "movie_title"),
        *("headline", "label", "display_name"),
    ),
    "year": ("year",),
    "genres": ("genres",),
    "franchise": ("franchise",),
    "user": ("user_id", "user", "customer_id", "customer", "member_id", "account_id"),
    "item": (
        *("media_id", "item_id", "item", "sku", "product_id", "asin", "movie_id", "track_id", "song_id", "book_id"),
        *("article_id", "video_id", "isbn"),
    ),
    "rating": ("rating", "stars", "score", "overall"),
    "time": ("timestamp", "time", "ts", "unix_review_time", "datetime", "date", "created_at", "event_time", "when"),
    "vector": ("embedding", "embeddings", "vector", "vectors", "emb", "content_vector", "features", "dense_vector"),
}
"""The names by which each part is known, without case and what stands between words, the likeliest first."""


def guessed(part: str, names: Sequence[str], likely: str | None = None) -> str | None:
    """Return the column whose name, as `GUESSES` compares them, is the likeliest for a part; None: none is known."""
    folded = {_folded(name): name for name in reversed(names)}
    known = GUESSES[part] if likely is None else (likely, *GUESSES[part])
    return next((folded[_folded(one)] for one in known if _folded(one) in folded), None)


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def refuse_same_names(table: Path | str, names: Sequence[str]) -> None:
    """Refuse two columns of one name, of which one would be passed over; raises DataError."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{table}: two columns are called {quoted(twice)}", fix="rename one, or leave it out")
