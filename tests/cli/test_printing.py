"""Scores as a person reads them."""

from __future__ import annotations

import pytest

from semrec_faiss.cli.printing import as_similarity


@pytest.mark.parametrize(
    ("score", "normalized", "told"),
    [
        (0.94, True, "94.0% similar"),
        (-0.03124, True, "cosine -0.0312"),
        (0.37768, False, "0.3777"),
        (0.32, False, "0.3200"),
        (0.0031399, False, "0.003140"),
        (12.0, False, "12.00"),
    ],
)
def test_scores(score: float, normalized: bool, told: str) -> None:
    """Once a fault: 0.32 stood right below 0.3777, aligned at its right."""
    assert as_similarity(score, normalized=normalized) == told
