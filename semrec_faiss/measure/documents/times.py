"""The times of one piece of work, as results files hold them."""

from __future__ import annotations

from semrec_faiss.measure.documents.fields import Amount, Part


class Times(Part):
    """Milliseconds: their median, 95th percentile and least, and every repeat in the order run."""

    median_ms: Amount
    p95_ms: Amount
    min_ms: Amount
    times_ms: list[Amount]
