"""Plain questions of an index in shards, asked of one in a piece as if it lay elsewhere: no cluster is needed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG_SECONDS

from semrec_faiss.errors import DamagedIndexError
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.serve.asking.afar import Afar
from semrec_faiss.serve.asking.plain import Plain
from semrec_faiss.serve.asking.served import Served


@pytest.fixture
def served(index: Path) -> Served:
    return Served(Recommender.open(index), 0, in_cluster=True)


@pytest.fixture
def afar() -> Iterator[Afar]:
    afar = Afar(lambda *_: None)
    yield afar
    afar.close()


def asked(served: Served, afar: Afar, rows: list[int]) -> list[Any]:
    """What questions for the title nearest to each of ``rows`` are told, all asked in one moment."""

    async def every() -> list[Any]:
        vectors = [served.recommender.index.vectors([row]) for row in rows]
        plains = [Plain(served, 1, {"position": range(1)}, False, vector) for vector in vectors]
        due = time.monotonic() + HANG_SECONDS
        waiting = [afar.ask(plain, due, as_arrow=False) for plain in plains]
        return await asyncio.gather(*waiting, return_exceptions=True)

    return asyncio.run(every())


def test_a_title_that_cannot_be_read_is_the_mistake_of_who_asks_for_it(
    served: Served, afar: Afar, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = served.titles.records

    def damaged(rows: Any) -> list[bytes]:
        if 7 in rows:
            raise DamagedIndexError("the record of row 7 is not as it was written")
        return records(rows)

    monkeypatch.setattr(served.titles, "records", damaged)
    first, second, third = asked(served, afar, [3, 7, 5])
    assert isinstance(second, DamagedIndexError)
    assert (b'"m00003"' in first.body, b'"m00005"' in third.body) == (True, True)


def test_a_thread_that_cannot_be_started_fails_those_who_wait_and_nobody_later(
    served: Served, afar: Afar, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, errors = afar._threads.submit, iter([RuntimeError("can't start new thread")])

    def refuses_once(*given: Any) -> Any:
        for error in errors:
            raise error
        return submit(*given)

    monkeypatch.setattr(afar._threads, "submit", refuses_once)
    assert [str(error) for error in asked(served, afar, [3, 5])] == ["can't start new thread"] * 2
    assert b'"m00003"' in asked(served, afar, [3])[0].body
    assert len(afar) == 0
