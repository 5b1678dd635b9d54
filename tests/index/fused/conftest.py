"""Fixtures of the tests of type fused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from semrec_faiss.index.fused.plan import plan_search
from semrec_faiss.index.fused.room import block_queries
from tests.index.fused.worlds import PLACE


@pytest.fixture(scope="module", autouse=True)
def _quick_in_the_interpreter() -> Iterator[None]:
    """Few programs with much to do each: of the interpreter's time hardly any is work, and none of it a GPU's.

    Each call of a function by a kernel patches the language again, though patched it is: most of the time goes there.
    """
    if PLACE != "cpu":
        yield
        return
    from triton.language import core
    from triton.runtime import interpreter

    patch_lang, untouched = interpreter._patch_lang, core.full

    def called(self: Any, *args: Any, **options: Any) -> Any:
        if core.full is untouched:
            patch_lang(self.fn)
        return self.rewrite()(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semrec_faiss.index.fused.repeating.FEWEST_REPEATED", 2)
        for module in ("plan", "repeating"):
            patch.setattr(f"semrec_faiss.index.fused.{module}.RESCORED_AT_ONCE", 1024)
        patch.setattr(interpreter.InterpretedFunction, "__call__", called)
        plan_search.cache_clear()
        yield
    plan_search.cache_clear()


@pytest.fixture(params=["vectors", "codes"])
def read(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Search small batches as those of a small catalogue, and through int8 codes as those of a large one."""
    if request.param == "codes":
        monkeypatch.setattr("semrec_faiss.index.fused.plan.CODED_TITLES", 1)
    return str(request.param)


@pytest.fixture
def coded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Search more than four queries as more than 256 of a large catalogue are, and fewer through codes as well."""
    for least in ("CODED_TITLES", "MULTIPLIED_TITLES", "MULTIPLIED_SCORES"):
        monkeypatch.setattr(f"semrec_faiss.index.fused.plan.{least}", 1)
    monkeypatch.setattr("semrec_faiss.index.fused.plan.TITLES_A_PAIR", 0)
    monkeypatch.setattr("semrec_faiss.index.fused.plan.MANY_QUERIES", 4)
    for cached in (plan_search, block_queries):
        cached.cache_clear()
    yield
    for cached in (plan_search, block_queries):
        cached.cache_clear()
