"""Fixtures of the tests of filters."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _small_shelves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few titles fill a shelf."""
    monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.LEAST_SHELVED", 6)
