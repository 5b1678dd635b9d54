"""What goes wrong inside: nobody else is failed by it, nothing hangs, and it is told."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from conftest import HANG_SECONDS, until

from semrec_faiss import deadline
from semrec_faiss.data.titles.filters import matching
from semrec_faiss.data.titles.filters.limits import FILTER_THREAD
from semrec_faiss.data.titles.finder import TitleFinder
from semrec_faiss.deadline import TooLateError
from semrec_faiss.errors import DamagedIndexError, DeviceError, NotFoundError, SemrecError
from semrec_faiss.index.memory.room import LackingRoom
from semrec_faiss.index.saved.facts import facts_of
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.serve.asking.answering import ask
from semrec_faiss.serve.asking.serving import Serving
from semrec_faiss.serve.server import _Server
from semrec_faiss.serve.wire.messages import ARROW
from tests.serve.conftest import build


@pytest.mark.parametrize("beside", [1, 1000])
def test_what_cannot_be_written_is_nobody_elses_and_the_next_is_answered(
    beside: int, index: Path, new_asker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: all of the batch, and all who came afterwards, waited for ever."""

    def fails(_: Any) -> bytes:
        raise ValueError("a field that no table can hold")

    asker = new_asker(index)
    asker.load().inline_queries = 64
    monkeypatch.setattr("semrec_faiss.serve.asking.together.BESIDE", beside)
    monkeypatch.setattr("semrec_faiss.serve.asking.waiting.arrow_stream", fails)

    async def together() -> list[Any]:
        kinds = ["*/*", ARROW, "*/*", ARROW, "*/*"]
        asked = [
            asker._client.post("/v1/similar", json={"title": f"m{row:05d}", "k": 3}, headers={"accept": kind})
            for row, kind in enumerate(kinds)
        ]
        return list(await asyncio.wait_for(asyncio.gather(*asked), HANG_SECONDS))

    replies = asker.loop.run_until_complete(together())
    assert [reply.status_code for reply in replies] == [200, 500, 200, 500, 200]
    asked = [reply.json()["query"]["media_id"] for reply in replies[::2]]
    assert asked == ["m00000", "m00002", "m00004"]
    assert asker.post("/v1/similar", {"title": "m00001", "k": 3}).status_code == 200


def test_what_a_record_says_no_more_fails_one_question_alone(
    index: Path, new_asker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = new_asker(index)
    served = asker.load()
    monkeypatch.setattr(served.recommender.titles, "lines", _damaged)
    reply = asker.post("/v1/similar", {"title": "m00001", "k": 3})
    assert (reply.status_code, reply.json()["detail"]) == (503, "records.jsonl is damaged")
    monkeypatch.undo()
    assert asker.post("/v1/similar", {"title": "m00001", "k": 3}).status_code == 200


def test_nobody_who_asks_is_told_where_on_the_disk_the_index_lies(
    data: Path, tmp_path: Path, new_asker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(data, tmp_path / "index")
    asker = new_asker(tmp_path / "index")
    served = asker.load()

    def damaged(_: Any) -> list[bytes]:
        raise DamagedIndexError(f"{tmp_path}/index/gen-000001/records.jsonl is damaged", fix=f"build {tmp_path}/index")

    monkeypatch.setattr(served.recommender.titles, "lines", damaged)
    problem = asker.post("/v1/similar", {"title": "m00001", "k": 3}).json()
    told = ("INDEX/gen-000001/records.jsonl is damaged", "for whoever runs the service: build INDEX")
    assert (problem["detail"], problem["fix"]) == told
    monkeypatch.undo()
    (tmp_path / "index" / "CURRENT").write_text("gen-000007\n")
    with pytest.raises(SemrecError, match=str(tmp_path)):
        asker.load()
    assert "INDEX" in asker.get("/readyz").json()["refused"]["reason"]
    replies = [asker.get(path).text for path in ("/readyz", "/v1/index", "/metrics", "/", "/openapi.json")]
    assert str(tmp_path) not in "".join(replies)


def test_an_index_without_users_does_not_tell_its_path(
    tmp_path: Path, new_asker: Any, make_folder: Callable[..., Any]
) -> None:
    make_folder(tmp_path / "data")
    build(tmp_path / "data", tmp_path / "index")
    asker = new_asker(tmp_path / "index")
    asker.load()
    for path, question in (("recommend", {"user": "u"}), ("explain", {"user": "u", "title": "m00001"})):
        reply = asker.post(f"/v1/{path}", question)
        assert (reply.status_code, reply.json()["detail"]) == (404, "the index holds no users")
        assert str(tmp_path) not in reply.text


def _damaged(_: Any) -> list[bytes]:
    raise DamagedIndexError("records.jsonl is damaged")


def test_a_generation_that_fails_as_nobody_foresaw_is_refused_once(
    index: Path, new_asker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: it was opened, hashed and failed again every second."""
    asker = new_asker(index)

    def odd(_: Serving) -> Any:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(Serving, "_opened", odd)
    with pytest.raises(RuntimeError):
        asker.load()
    serving = asker.service.serving
    assert not serving.has_news()
    refused = asker.get("/readyz").json()["refused"]
    assert refused == {"generation": "gen-000001", "reason": "RuntimeError: out of luck"}
    assert 'semrec_generation_loads_total{result="refused"} 1.0' in asker.get("/metrics").text
    monkeypatch.undo()
    asker.load()  # by hand it is tried again
    assert asker.get("/readyz").json()["refused"] is None


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory", "gen-000002/index.faiss"),
        NotFoundError("the index has no generation gen-000002"),
        DamagedIndexError("index.faiss cannot be read: Input/output error"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_generation_whose_files_could_not_be_read_is_tried_again(
    error: Exception, data: Path, tmp_path: Path, new_asker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: moved away while it was opened, it was refused for good, as a mistake of ours, with a traceback."""
    build(data, tmp_path / "index")
    asker = new_asker(tmp_path / "index")
    asker.load()
    build(data, tmp_path / "index")

    def is_away(_: Serving) -> Any:
        raise error from (OSError(5, "Input/output error") if isinstance(error, DamagedIndexError) else None)

    with monkeypatch.context() as patch:
        patch.setattr(Serving, "_opened", is_away)
        with pytest.raises(SemrecError):
            asker.load()
    assert asker.get("/readyz").json()["refused"]["generation"] == "gen-000002"
    assert not asker.service.serving.has_news(), "it is not tried every second"
    monkeypatch.setattr("semrec_faiss.serve.asking.serving.AGAIN_SECONDS", 0.0)
    assert asker.service.serving.has_news()
    asker.load()
    ready = asker.get("/readyz").json()
    assert (ready["generation"], ready["refused"]) == ("gen-000002", None)


def test_what_was_away_and_is_back_is_refused_no_more(data: Path, tmp_path: Path, new_asker: Any) -> None:
    """Once a fault: /readyz and /metrics told of a refusal until the next build."""
    build(data, tmp_path / "index")
    asker = new_asker(tmp_path / "index")
    asker.load()
    (tmp_path / "index").rename(tmp_path / "away")
    with pytest.raises(SemrecError, match="does not exist"):
        asker.load()
    assert "does not exist" in asker.get("/readyz").json()["refused"]["reason"]
    assert not asker.service.serving.has_news()
    assert asker.get("/readyz").json()["refused"]
    (tmp_path / "away").rename(tmp_path / "index")
    assert not asker.service.serving.has_news()  # as is looked for every second
    assert asker.get("/readyz").json()["refused"] is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_in_the_place_of_what_is_published_is_refused(data: Path, tmp_path: Path, new_asker: Any) -> None:
    """Once a fault: it was waited for, and no generation was ever taken again."""
    build(data, tmp_path / "index")
    asker = new_asker(tmp_path / "index")
    asker.load()
    current = tmp_path / "index" / "CURRENT"
    told = current.read_bytes()
    current.unlink()
    os.mkfifo(current)
    looked = ThreadPoolExecutor(1).submit(asker.service.serving.has_news)
    try:
        assert looked.result(HANG_SECONDS) is False
    finally:
        os.close(os.open(current, os.O_RDWR | os.O_NONBLOCK))  # or who waits for it waits for ever
    with pytest.raises(SemrecError, match="CURRENT cannot be read: it is not a regular file"):
        asker.load()
    current.unlink()
    current.write_bytes(told)
    assert not asker.service.serving.has_news()
    assert asker.get("/readyz").json()["refused"] is None


def test_titles_as_one_types_wait_in_the_same_queue(index: Path, new_asker: Any) -> None:
    asker = new_asker(index, limits={"max_waiting": 2})
    asker.load()
    handlers = asker.service.handlers
    assert asker.get("/v1/titles?q=film").status_code == 200
    assert handlers.in_flight == 0
    handlers.in_flight = 2
    reply = asker.get("/v1/titles?q=film")
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
    handlers.in_flight = 0


def test_a_signal_before_the_loop_runs_ends_it(index: Path, new_asker: Any) -> None:
    """Once a fault: an AttributeError and its traceback."""
    service = new_asker(index).service
    server = _Server(uvicorn.Config(service.asgi), service, print)
    server.handle_exit(signal.SIGTERM, None)
    assert server.should_exit
    assert not service.handlers.is_draining


def test_what_waits_for_a_thread_until_its_time_is_up_is_not_done(
    index: Path, new_asker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = new_asker(index, threads=1)
    asker.load()
    begun: list[int] = []
    late = threading.Event()

    def slow(served: Any, question: Any, vectors: Any) -> Any:
        begun.append(question.k)
        assert late.wait(HANG_SECONDS)
        return ask(served, question, vectors)

    monkeypatch.setattr("semrec_faiss.serve.api.handlers.ask", slow)

    async def together() -> list[int]:
        def asked(k: int, **headers: str) -> Any:
            return asker._client.post(
                "/v1/similar", json={"title": "m00001", "k": k, "genres": ["Crime"]}, headers=headers
            )

        first = asyncio.create_task(asked(3))
        while not begun:
            await asyncio.sleep(0.001)
        second = await asked(4, **{"deadline-ms": "20"})
        late.set()
        return [(await first).status_code, second.status_code]

    assert asker.loop.run_until_complete(together()) == [200, 504]
    asker.service.handlers.close()
    assert begun == [3]


def test_what_was_found_too_late_is_not_written(index: Path, new_asker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a fault: a million titles were written, for seconds and by gigabytes, after their 504."""
    asker = new_asker(index, threads=1)
    asker.load()
    told, written = threading.Event(), []

    def slow(*asked: Any) -> Any:
        assert told.wait(HANG_SECONDS)
        return ask(*asked)

    monkeypatch.setattr("semrec_faiss.serve.api.handlers.ask", slow)
    monkeypatch.setattr("semrec_faiss.serve.api.handlers.rendered", lambda *_, **__: written.append(1))
    question = {"title": "m00001", "genres": ["Crime"]}
    assert asker.post("/v1/similar", question, headers={"deadline-ms": "20"}).status_code == 504
    told.set()
    asker.service.handlers.close()
    assert written == []


@pytest.mark.parametrize(
    ("waits", "path", "question"),
    [(ask, "/v1/similar", {"title": "m00001", "genres": ["Crime"]}), (facts_of, "/v1/index", None)],
    ids=["every thread is busy", "the disk of a shard does not answer"],
)
def test_how_it_goes_is_told_while(
    waits: Any, path: str, question: Any, index: Path, new_asker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: a load balancer's look waited behind all questions with filters, and took the service for dead.

    And what `/v1/index` tells of shards is read from their files; a look waited behind that.
    """
    asker = new_asker(index, threads=1)
    asker.load()
    begun, told = threading.Event(), threading.Event()

    def slow(*asked: Any) -> Any:
        begun.set()
        assert told.wait(HANG_SECONDS)
        return waits(*asked)

    monkeypatch.setattr(f"semrec_faiss.serve.api.handlers.{waits.__name__}", slow)

    async def together() -> list[int]:
        method = "GET" if question is None else "POST"
        first = asyncio.create_task(asker._client.request(method, path, json=question))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        looks = [(await asyncio.wait_for(asker._client.get(look), HANG_SECONDS)) for look in ("/readyz", "/metrics")]
        told.set()
        return [*(look.status_code for look in looks), (await first).status_code]

    assert asker.loop.run_until_complete(together()) == [200, 200, 200]


@pytest.mark.parametrize("searched_by", ["the batcher", "the thread beside", "a filter's thread"])
def test_it_is_not_live_while_a_search_hangs(
    searched_by: str, index: Path, new_asker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: nobody was answered any more, and whoever looked was told that all was well."""
    asker = new_asker(index, limits={"deadline_ms": 100})
    served = asker.load()
    served.inline_queries = 64 if searched_by == "the thread beside" else 0
    monkeypatch.setattr("semrec_faiss.serve.asking.together.BESIDE", 1)
    monkeypatch.setattr("semrec_faiss.serve.api.handlers.HUNG_SECONDS", 0.1)
    served.loop_queries = 0
    run, ends = Searcher.run, threading.Event()

    def hangs(*asked: Any) -> Any:
        assert ends.wait(HANG_SECONDS)
        return run(*asked)

    question = {"title": "m00001"} | ({"genres": ["Crime"]} if searched_by == "a filter's thread" else {})
    with monkeypatch.context() as patched:
        patched.setattr(Searcher, "run", hangs)
        assert asker.post("/v1/similar", question).status_code == 504
        until(lambda: asker.get("/livez").status_code == 503)
        assert "a search hangs: it has gone on for" in asker.get("/livez").json()["detail"]
        ends.set()
    until(lambda: asker.get("/livez").status_code == 200)
    assert asker.post("/v1/similar", question, headers={"deadline-ms": "100"}).status_code in (200, 504)


def test_titles_are_looked_up_for_nobody_who_has_gone(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a fault: a question that left out 100,000 misspelt titles kept its thread for an hour after its 504."""
    looked_up: list[str] = []
    exactly = TitleFinder._exactly

    def noted(finder: TitleFinder, text: str, ids: bool) -> Any:
        looked_up.append(text)
        if text == "the film 5 1955":
            deadline._due.set(0.0)
        return exactly(finder, text, ids)

    monkeypatch.setattr(TitleFinder, "_exactly", noted)
    names = [f"the film {number} {1950 + number}" for number in range(3, 30)]  # as nobody calls them
    with Recommender.open(index) as asked, deadline.due_at(math.inf), pytest.raises(TooLateError):
        asked.similar("m00001", 3, exclude=names)
    assert looked_up == names[:3]


def test_a_filter_ends_with_the_question_that_asks_by_it_and_with_no_other(
    index: Path, new_asker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: a filter that had begun ran on for 10 s after its 504."""
    answer, endless = (
        matching._answer,
        "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range > b.range",
    )

    def slow(cursor: Any, clauses: Any, *rest: Any) -> Any:
        return cursor.execute(endless) if "1900" in clauses[0] else answer(cursor, clauses, *rest)

    monkeypatch.setattr(matching, "_answer", slow)
    asker = new_asker(index)
    asker.load()
    assert asker.post("/v1/similar", {"title": "m00001", "where": "year > 0"}).status_code == 200  # the titles are read

    async def together() -> list[int]:
        def asked(year: int, **headers: str) -> Any:
            question = {"title": "m00001", "where": f"year > {year}"}
            return asker._client.post("/v1/similar", json=question, headers=headers)

        late, fine = asked(1900, **{"deadline-ms": "50"}), asked(1960)
        return [reply.status_code for reply in await asyncio.gather(late, fine)]

    assert asker.loop.run_until_complete(together()) == [504, 200]
    until(lambda: not any(thread.name == FILTER_THREAD for thread in threading.enumerate()))
    monkeypatch.undo()
    found = asker.post("/v1/similar", {"title": "m00001", "where": "year > 1900"}).json()
    assert found["matching"] == len(Recommender.open(index).similar("m00001", 300, where="year > 1900"))


def test_a_generation_without_room_beside_the_one_in_use_is_refused_and_told(
    data: Path, tmp_path: Path, new_asker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(data, tmp_path / "index")
    asker = new_asker(tmp_path / "index")
    asker.load()
    build(data, tmp_path / "index")
    room = LackingRoom("memory", 2 << 30, 1 << 30)
    monkeypatch.setattr("semrec_faiss.serve.asking.serving.lacking_room", lambda *_: room)
    with pytest.raises(DeviceError, match="beside the generation in use"):
        asker.load()
    ready = asker.get("/readyz")
    assert (ready.status_code, ready.json()["generation"]) == (200, "gen-000001")
    assert ready.json()["refused"]["generation"] == "gen-000002"
    assert str(room) in ready.json()["refused"]["reason"]
    assert asker.post("/v1/similar", {"title": "m00001"}).headers["semrec-generation"] == "gen-000001"
    monkeypatch.undo()
    asker.load()
    assert asker.post("/v1/similar", {"title": "m00001"}).headers["semrec-generation"] == "gen-000002"


def test_what_the_index_holds_is_told_in_time_or_not_at_all(
    index: Path, new_asker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: while the disk of a shard did not answer, whoever asked waited for ever, whatever the deadline."""
    asker, answers = new_asker(index), threading.Event()
    asker.load()
    with monkeypatch.context() as patched:
        patched.setattr("semrec_faiss.serve.api.handlers.facts_of", lambda *_: answers.wait(HANG_SECONDS))
        replies = [asker.get("/v1/index", headers={"deadline-ms": "30"}) for _ in range(2)]
        answers.set()
    assert [reply.status_code for reply in replies] == [504, 504]
    assert asker.get("/v1/index").json()["titles"] == 300
