"""Fixtures of the tests of type fused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fused_worlds import PLACE


@pytest.fixture(scope="module", autouse=True)
def _no_padding_in_the_interpreter() -> Iterator[None]:
    """A repetition is padded to a few sizes, which costs a GPU nothing and the interpreter seconds."""
    with pytest.MonkeyPatch.context() as patch:
        if PLACE == "cpu":
            patch.setattr("semrec_faiss.index.fused.batch.FEWEST_REPEATED", 2)
        yield


@pytest.fixture(params=["vectors", "codes"])
def read(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Search small batches as those of a small catalogue, and through int8 codes as those of a large one."""
    if request.param == "codes":
        monkeypatch.setattr("semrec_faiss.index.fused.plan.CODED_TITLES", 1)
    return str(request.param)
