"""What the tests of queries on their way share."""

from __future__ import annotations

from typing import Any

import pytest

from semrec_faiss.index.fused.queries.sending import Sending


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Send few queries in parts, too; where each part that was sent begins."""
    begun: list[int] = []
    send = Sending.copy

    def noted(self: Sending, locked: Any, part: slice) -> None:
        begun.append(part.start)
        send(self, locked, part)

    monkeypatch.setattr(Sending, "copy", noted)
    names = ("batches.COPIED_AT_ONCE", "feeds.SENT_APART", "sending.COPIED_AT_ONCE", "sending.SENT_IN_PART")
    for name in (*names, "batches.SENT_IN_PART"):
        monkeypatch.setattr(f"semrec_faiss.index.fused.queries.{name}", 1000)
    return begun
