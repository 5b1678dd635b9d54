"""Several processes at one address, with and without an owner of the device: answers, swaps, falls, an end."""

from __future__ import annotations

import contextlib
import errno
import gc
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
from conftest import HANG_SECONDS, is_running, run_python, until
from prometheus_client.parser import text_string_to_metric_families

from semrec_faiss.errors import NotFoundError, UsageError
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.search.batching.asked import Asked
from semrec_faiss.search.batching.batcher import Batcher
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.user_rows import UserRows
from semrec_faiss.search.wish import Wish
from semrec_faiss.serve.settings import read_settings
from semrec_faiss.serve.tallies import Tallies
from semrec_faiss.serve.workers import frames
from semrec_faiss.serve.workers.child import Part
from semrec_faiss.serve.workers.doors import Doors, handed_over
from semrec_faiss.serve.workers.hanging import MOST_LOOKS, Beats, beat_on, beating_at_work
from semrec_faiss.serve.workers.owner import DeviceOwner
from semrec_faiss.serve.workers.remote import RemoteDevice
from semrec_faiss.serve.workers.restarting import FIRST_SECONDS, LONGEST_SECONDS, Restarts
from semrec_faiss.serve.workers.supervising import _Supervisor
from tests.serve.conftest import build
from tests.serve.test_server import Process


def test_processes_count_in_rows_of_their_own_and_tell_the_sum() -> None:
    shared = bytearray(8 * Tallies.places() * 2)
    first, second = (Tallies(shared, 2, number, 2) for number in range(2))
    first.add(first.requests["/v1/similar", 200])
    second.add(second.requests["/v1/similar", 200], 2)
    for tallies, seconds in ((first, 0.0004), (second, 0.5), (second, 99.0)):
        tallies.observe(tallies.seconds["/v1/similar"], seconds)
    assert first.total(first.requests["/v1/similar", 200]) == second.total(second.requests["/v1/similar", 200]) == 3
    assert first.total(first.requests["/v1/similar", 404]) == 0
    buckets, total = first.buckets(first.seconds["/v1/similar"])
    assert dict(buckets) | {"0.0005": 1, "0.2": 1, "0.5": 2, "10.0": 2, "+Inf": 3} == dict(buckets)
    assert total == pytest.approx(99.5004)


@pytest.fixture
def owned(index: Path) -> Any:
    """A device's owner in a thread, and a connection to it."""
    with owning(index) as both:
        yield both


@contextlib.contextmanager
def owning(index: Path) -> Iterator[tuple[DeviceOwner, RemoteDevice]]:
    doors, batcher = Doors(), Batcher()
    owner = DeviceOwner(index, ("device.kind=cpu",), batcher, threads=2)
    connections = handed_over(doors.for_owner())
    threading.Thread(target=owner.serve, args=(connections,), daemon=True).start()
    device = RemoteDevice(doors.for_worker())
    yield owner, device
    device.close()
    doors.close()
    batcher.close()


def test_what_the_owner_finds_is_what_is_found_here(index: Path, owned: Any) -> None:
    owner, device = owned
    here = Recommender.open(index)
    there = device.open("gen-000001")
    rows = [3, 7, 11]
    vectors, exclusions = here.index.vectors(rows), Exclusions.of([[3], [], [11, 12]])
    for wish in (Wish(5), Wish(4, Filter(years=(1960, None)), ("m00010",)), Wish.of(6, max_per={"year": 1})):
        expected = here.searcher.run(vectors, wish, exclusions)
        found = there.submit(Asked(here.searcher, vectors, wish, exclusions)).result(HANG_SECONDS)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.matching, expected.matching)
        assert (found.exact, found.strategy) == (expected.exact, expected.strategy)
    for include_seen in (False, True):
        users = UserRows(here.users, np.array([4, 0, 19]), include_seen)
        expected, found = (
            here.searcher.run(users, Wish(5)),
            there.submit(Asked(here.searcher, users, Wish(5))).result(HANG_SECONDS),
        )
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.matching, expected.matching)
    with pytest.raises(UsageError, match="not understood"):
        there.submit(Asked(here.searcher, vectors, Wish.of(5, where="colour = 1"), None)).result(HANG_SECONDS)
    with pytest.raises(NotFoundError, match="gen-000009"):
        device.open("gen-000009")
    assert set(owner._opened) == {"gen-000001"}


@pytest.fixture
def no_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose only disk is read."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))


@pytest.mark.parametrize("owner", ["never", "always"])
def test_workers_do_without_temporary_files(owner: str, index: Path, no_temporary_files: None) -> None:
    """Once a fault: "this is a mistake in semrec"; and of a disk that was full later, all workers fell by SIGBUS."""
    settings = read_settings(None, {"index": index, "port": 0, "workers": 2, "owner": owner})
    _Supervisor(settings, print)._close()


def test_all_that_is_counted_in_is_there_from_the_start() -> None:
    with Tallies.new_file(3) as file:
        told = os.fstat(file.fileno())
        assert told.st_size == 3 * 8 * Tallies.places() <= 512 * told.st_blocks


@pytest.mark.slow
def test_workers_take_no_port_of_other_workers(index: Path) -> None:
    """Once a fault: a service that was started twice answered some callers by its old settings and keys."""
    process = Process(index, "--workers", "2")
    try:
        with pytest.raises(UsageError, match=f"cannot listen at 127.0.0.1:{process.port}: Address already in use"):
            _Supervisor(read_settings(None, {"index": index, "port": process.port, "workers": 2}), print)
    finally:
        assert process.end() == 0, "".join(process.said)
    _Supervisor(read_settings(None, {"index": index, "port": process.port, "workers": 2}), print)._close()


def ask(port: int, question: dict[str, Any], route: str = "similar") -> tuple[int, Any, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS)
    connection.request("POST", f"/v1/{route}", json.dumps(question))
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read()), reply.headers["semrec-generation"]


@pytest.mark.slow
@pytest.mark.parametrize("owner", ["never", "always"])
def test_workers_answer_swap_fall_and_end(owner: str, tmp_path: Path, data: Path) -> None:
    index = tmp_path / "index"
    build(data, index)
    process = Process(index, "--workers", "2", "--owner", owner, "--watch-seconds", "0.1")
    try:
        expected = Recommender.open(index).similar("m00003", 4, where="runtime < 90").as_dict()["results"]
        question = {"title": "m00003", "k": 4, "where": "runtime < 90"}
        for _ in range(8):  # each over a connection of its own
            status, answer, generation = ask(process.port, question)
            assert (status, answer["results"], generation) == (200, expected, "gen-000001")
        assert ask(process.port, {"user": "user_001"}, "recommend")[0] == 200
        assert ask(process.port, {"title": "nothing such"})[0] == 404
        build(data, index)
        process.until(lambda: {ask(process.port, {"title": "m00003"})[2] for _ in range(8)} == {"gen-000002"})
        workers = _children(process)
        assert len(workers) == 2 + (owner == "always")
        fallen = workers[-1]  # an owner is the first to begin
        fallen.send_signal(signal.SIGKILL)
        others = {worker.pid for worker in workers} - {fallen.pid}
        process.until(lambda: len(_alive(process) - others - {fallen.pid}) == 1)
        process.until(lambda: {_status(process.port) for _ in range(8)} == {200})
        requests = _requests(process.port)
        assert requests["/v1/similar", "200"] >= 16, "counted over all workers, whoever is asked"
        assert requests["/v1/similar", "404"] == 1
    except BaseException:
        process.process.kill()
        raise
    assert process.end() == 0, "".join(process.said)
    assert not any(is_running(worker.pid) for worker in workers)


def _alive(process: Process) -> set[int]:
    return {child.pid for child in psutil.Process(process.process.pid).children()}


def _children(process: Process) -> list[psutil.Process]:
    return sorted(psutil.Process(process.process.pid).children(), key=psutil.Process.create_time)


def _status(port: int) -> int:
    try:
        return ask(port, {"title": "m00003"})[0]
    except OSError:
        return 0


def _told(port: int) -> list[Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS)
    connection.request("GET", "/metrics")
    families = text_string_to_metric_families(connection.getresponse().read().decode())
    return [sample for family in families for sample in family.samples]


def _samples(port: int) -> dict[str, float]:
    return {one.name: one.value for one in _told(port) if not one.labels}


def _requests(port: int) -> dict[tuple[str, str], float]:
    own = [one for one in _told(port) if one.name == "semrec_requests_total"]
    return {(one.labels["route"], one.labels["status"]): one.value for one in own}


@pytest.mark.slow
def test_an_end_before_a_fallen_one_is_started_again_is_an_end_like_any(index: Path) -> None:
    """Once a fault: it ended with 6, as if the worker had fallen at the end."""
    process = Process(index, "--workers", "2", "--owner", "never")
    _children(process)[-1].send_signal(signal.SIGKILL)
    process.until(lambda: any("has fallen" in line for line in process.said))
    assert process.end() == 0, "".join(process.said)


def test_an_end_while_workers_are_started_is_an_end(index: Path) -> None:
    """Once a fault: who ended first was waited for once more, for ever."""
    supervisor = _Supervisor(read_settings(None, {"index": index, "port": 0, "workers": 2}), print)
    started = threading.Event()

    def runs() -> None:
        started.set()
        supervisor._wait_for({0, 1})
        supervisor._watch()

    running = threading.Thread(target=runs, daemon=True)
    running.start()
    started.wait(HANG_SECONDS)
    time.sleep(0.05)  # it waits for who listens
    supervisor._is_ending = True
    for worker in range(2):
        supervisor._events.put((worker, None))
    running.join(HANG_SECONDS)
    supervisor._close()
    assert not running.is_alive()


@pytest.mark.slow
def test_who_is_started_while_the_end_comes_is_told_of_it(index: Path) -> None:
    """Once a fault: SIGTERM while a fallen worker was started anew went to the others alone, and it was killed."""
    supervisor = _Supervisor(read_settings(None, {"index": index, "port": 0, "workers": 2}), print)
    supervisor._is_ending = True
    try:
        supervisor._begin(0)
        assert supervisor._children[0].wait(HANG_SECONDS) in (0, -signal.SIGTERM)
    finally:
        supervisor._close()


def test_a_generation_left_late_stays_where_it_is_in_use_again(data: Path, tmp_path: Path) -> None:
    """Once a fault: a swap there and back under load, and the owner let go of what was asked."""
    index = tmp_path / "index"
    build(data, index)
    build(data, index)
    here = Recommender.open(index)
    asked = Asked(here.searcher, here.index.vectors([3]), Wish(2), None)
    with owning(index) as (owner, device):
        before = device.open("gen-000001")
        between = device.open("gen-000002")
        again = device.open("gen-000001")
        del before
        gc.collect()
        until(lambda: [held["gen-000001"] for held in owner._held.values()] == [1])  # nobody waits for the leaving
        assert set(owner._opened) == {"gen-000001", "gen-000002"}
        for batcher in (again, between):
            np.testing.assert_array_equal(batcher.run(asked).rows, here.searcher.run(asked.queries, Wish(2)).rows)
        del again, batcher
        gc.collect()
        until(lambda: set(owner._opened) == {"gen-000002"})


def test_the_owner_searches_while_it_opens_a_generation(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: nobody was answered before a new generation was ready, and after a minute workers were killed."""
    index = tmp_path / "index"
    for _ in range(2):
        build(data, index)
    here = Recommender.open(index)
    asked = Asked(here.searcher, here.index.vectors([3]), Wish(2), None)
    begun, may_go_on = threading.Event(), threading.Event()

    def slowly(*_: Any, **__: Any) -> None:
        begun.set()
        assert may_go_on.wait(HANG_SECONDS)

    with owning(index) as (owner, device):
        current = device.open("gen-000001")
        monkeypatch.setattr("semrec_faiss.serve.workers.owner.warm_and_log", slowly)
        opening = ThreadPoolExecutor(1).submit(device.open, "gen-000002")
        assert begun.wait(HANG_SECONDS)
        try:
            assert current.submit(asked).result(HANG_SECONDS).rows.shape == (1, 2)
        finally:
            may_go_on.set()
        opening.result(HANG_SECONDS)
        assert set(owner._opened) == {"gen-000001", "gen-000002"}


def test_a_worker_that_does_not_read_holds_up_no_other(index: Path, owned: Any) -> None:
    """Once a fault: who searches for all waited until it was read what it had found, or the worker was killed."""
    owner, device = owned
    here = Recommender.open(index)
    asked = Asked(here.searcher, here.index.vectors(list(range(300))), Wish(300), None)
    other, owners = socket.socketpair()
    with other:
        threading.Thread(target=owner.serve, args=([owners],), daemon=True).start()
        frames.send(other, frames.Open(0, "gen-000001"))
        assert frames.message_for_worker(other) == frames.Done(0)
        for number in range(1, 4):  # each answer is larger than what lies between the two
            frames.send(other, frames.Asked.of(number, "gen-000001", asked))
        one = Asked(here.searcher, here.index.vectors([3]), Wish(2), None)
        until(lambda: owner._batcher.waiting == 0)
        found = device.open("gen-000001").submit(one).result(HANG_SECONDS)
        np.testing.assert_array_equal(found.rows, here.searcher.run(one.queries, Wish(2)).rows)
        expected = here.searcher.run(asked.queries, Wish(300)).rows
        for number in range(1, 4):
            told = frames.message_for_worker(other)
            assert isinstance(told, frames.Found) and told.number == number
            np.testing.assert_array_equal(told.top_k().rows, expected)


def test_a_slow_filter_holds_up_no_other_question_of_its_worker(
    index: Path, owned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: until it had ended, nothing else that the worker asked was looked at."""
    _, device = owned
    here = Recommender.open(index)
    there = device.open("gen-000001")
    begun, may_go_on, check = threading.Event(), threading.Event(), Searcher.check

    def slowly(searcher: Searcher, wish: Wish) -> None:
        begun.set()
        assert may_go_on.wait(HANG_SECONDS)
        check(searcher, wish)

    monkeypatch.setattr(Searcher, "check", slowly)
    vectors, wish = here.index.vectors([3]), Wish(2, Filter(years=(1960, None)))
    filtered = there.submit(Asked(here.searcher, vectors, wish, None))
    try:
        assert begun.wait(HANG_SECONDS)
        assert there.submit(Asked(here.searcher, vectors, Wish(2), None)).result(HANG_SECONDS).rows.shape == (1, 2)
    finally:
        may_go_on.set()
    np.testing.assert_array_equal(filtered.result(HANG_SECONDS).rows, here.searcher.run(vectors, wish).rows)


@pytest.mark.parametrize("in_a_cycle", [False, True])
def test_what_the_owner_lets_go_is_gone(data: Path, tmp_path: Path, in_a_cycle: bool) -> None:
    """Once a fault: what a cycle of objects held stayed for good, as no cycles were looked for among older objects."""
    index = tmp_path / "index"
    build(data, index)
    build(data, index)
    gc.disable()
    try:
        with owning(index) as (owner, device):
            before = device.open("gen-000001")
            held = owner._opened["gen-000001"].index
            if in_a_cycle:
                held.itself = held
            gone = weakref.ref(held)
            del held
            after = device.open("gen-000002")
            del before
            until(lambda: gone() is None)
            assert set(owner._opened) == {"gen-000002"}
            del after
    finally:
        gc.enable()
        gc.unfreeze()


class _Child:
    """A process that keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def poll(self) -> None:
        return None

    def send_signal(self, number: int) -> None:
        self.sent.append(number)


def test_sighup_waits_for_a_worker_that_does_not_listen_yet(index: Path) -> None:
    """Once a fault: it ended workers that were opening the index, and with them the service."""
    supervisor = _Supervisor(read_settings(None, {"index": index, "port": 0, "workers": 2}), print)
    ready, starting = _Child(), _Child()
    supervisor._children = {0: ready, 1: starting}
    try:
        supervisor._listens(0)
        supervisor._reload()
        assert (ready.sent, starting.sent) == ([signal.SIGHUP], [])
        supervisor._listens(1)
        assert (ready.sent, starting.sent) == ([signal.SIGHUP], [signal.SIGHUP])
    finally:
        supervisor._children = {}
        supervisor._close()


def test_who_hangs_is_known_by_looks_that_saw_no_beat() -> None:
    """Not by time: a machine that was suspended would count it, and so would who looks late."""
    shared = bytearray(8 * Tallies.places() * 3)
    looks, *workers = (Tallies(shared, 3, number, 2) for number in (0, 0, 1))
    beats = Beats(looks)
    for _ in range(3 * MOST_LOOKS):
        workers[0].add(looks.beats)
        assert beats.look({0}) == [], "1 is being started, and opens an index for as long as it takes"
    for _ in range(MOST_LOOKS - 1):
        workers[0].add(looks.beats)
        assert beats.look({0, 1}) == []
    workers[1].add(looks.beats)
    for look in range(1, MOST_LOOKS + 2):
        workers[0].add(looks.beats)
        assert beats.look({0, 1}) == ([1] if look > MOST_LOOKS else []), look


LOOKS = "import semrec_faiss.serve.workers.hanging as one; one.MOST_LOOKS = 5; import semrec_faiss.__main__"


@pytest.mark.slow
def test_an_owner_that_hangs_ends_the_service(index: Path) -> None:
    """Once a fault: nobody noticed, and all questions came too late for ever."""
    process = Process(index, "--workers", "2", "--owner", "always", program=LOOKS)
    owner, *_ = processes = _children(process)
    try:
        owner.send_signal(signal.SIGSTOP)
        assert process.process.wait(HANG_SECONDS) == 6
        process._reader.join(HANG_SECONDS)
        assert "error: the owner of the device hangs: for 5 s" in "".join(process.said)
        until(lambda: not any(is_running(one.pid) for one in processes))
    finally:
        process.process.kill()


def test_who_searches_for_too_long_beats_no_more(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ends = threading.Event(), threading.Event()
    here = Recommender.open(index)
    run = Searcher.run

    def slowly(*asked: Any) -> Any:
        begun.set()
        assert ends.wait(HANG_SECONDS)
        return run(*asked)

    monkeypatch.setattr(Searcher, "run", slowly)
    monkeypatch.setattr("semrec_faiss.serve.workers.hanging.LOOK_SECONDS", 0.01)
    tallies, asked = Tallies(), Asked(here.searcher, here.index.vectors([3]), Wish(2), None)
    beats = lambda: tallies.total(tallies.beats)  # noqa: E731 - at once
    with Batcher() as batcher:
        threading.Thread(target=beat_on, args=(tallies, lambda: batcher.seconds_searching > 0.1), daemon=True).start()
        for search in (batcher.submit, batcher.run):
            begun.clear()
            ends.clear()
            searching = ThreadPoolExecutor(1).submit(search, asked)
            assert begun.wait(HANG_SECONDS)
            until(lambda: batcher.seconds_searching > 0.1)
            time.sleep(0.05)
            before = beats()
            time.sleep(0.1)
            assert beats() == before
            ends.set()
            searching.result(HANG_SECONDS)
            until(lambda: beats() > before)  # noqa: B023 - at once
            until(lambda: batcher.seconds_searching == 0)


@pytest.mark.slow
@pytest.mark.parametrize("owner", ["never", "always"])
def test_a_worker_that_hangs_is_replaced(owner: str, index: Path) -> None:
    """Once a fault: nobody noticed, and whose connection it held waited for ever."""
    process = Process(index, "--workers", "2", "--owner", owner, program=LOOKS)
    hung = _children(process)[-1]
    others = _alive(process) - {hung.pid}
    try:
        hung.send_signal(signal.SIGSTOP)
        process.until(lambda: len(_alive(process) - others - {hung.pid}) == 1)
        process.until(lambda: {_status(process.port) for _ in range(8)} == {200})
        assert others < _alive(process), "nobody else was killed"
        assert any("hangs: for 5 s its event loop has not run" in line for line in process.said)
        samples = _samples(process.port)
        assert (samples["semrec_workers_fallen_total"], samples["semrec_workers_hung_total"]) == (1, 1)
    except BaseException:
        process.process.kill()
        raise
    assert process.end() == 0, "".join(process.said)


HANGS = """
import sys, threading
from pathlib import Path
if sys.argv[0] == "-m" and Path({told!r}).exists():
    from semrec_faiss.serve.asking.serving import Serving
    Serving.load = lambda _: threading.Event().wait()
"""


@pytest.mark.slow
def test_a_worker_that_hangs_while_it_opens_the_index_is_replaced(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: nobody noticed, and the service went on with one worker less."""
    told = tmp_path / "hang"
    (tmp_path / "sitecustomize.py").write_text(HANGS.format(told=str(told)))
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    process = Process(index, "--workers", "2", "--owner", "never", program=LOOKS)
    try:
        told.touch()
        _children(process)[-1].kill()
        process.until(lambda: any("hangs: for 5 s it has computed nothing" in line for line in process.said))
        told.unlink()
        process.until(lambda: len(_alive(process)) == 2 and _samples(process.port)["semrec_workers_fallen_total"] >= 2)
        assert _samples(process.port)["semrec_workers_hung_total"] >= 1
    except BaseException:
        process.process.kill()
        raise
    assert process.end() == 0, "".join(process.said)


def test_who_opens_the_index_beats_while_it_computes_or_waits_for_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.serve.workers.hanging.LOOK_SECONDS", 0.02)
    tallies, waits = Tallies(), threading.Event()
    beats = lambda: tallies.total(tallies.beats)  # noqa: E731 - at once
    with beating_at_work(tallies, waits.is_set):
        until(lambda: beats() > 0)
        until(lambda: beats() > 5 or not sum(range(10_000)))  # which computes
        time.sleep(0.1)
        before = beats()
        time.sleep(0.3)
        assert beats() < before + 5
        waits.set()
        until(lambda: beats() > before + 3)
    before = beats()
    time.sleep(0.1)
    assert beats() == before


PRINTS = """
import os
from semrec_faiss.serve.workers import child
def work(part, config, say):
    print("loading", part.number)
    os.write(1, b"a library\\n")
    say({"listening": "here"})
child._work = work
child.main()
"""


@pytest.mark.slow
def test_what_a_package_prints_in_a_worker_is_not_told_to_the_supervisor(index: Path) -> None:
    """Once a fault: the supervisor read it as its own, and heard no more of that worker, not even of its end."""
    config = read_settings(None, {"index": index}).model_dump(mode="json")
    part = msgspec.json.encode(Part(config, 0, 1, 0, None, False)) + b"\n"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", PRINTS], **pipes) as worker:
        assert worker.stdin and worker.stdout and worker.stderr
        worker.stdin.write(part)
        worker.stdin.flush()  # and is not closed, which would be the supervisor's end
        told, printed = worker.stdout.read(), worker.stderr.read()
    assert told == b'{"listening": "here"}\n'
    assert sorted(printed.split(b"\n")) == [b"", b"a library", b"loading 0"]


def test_who_falls_before_it_answers_is_started_again_ever_later() -> None:
    restarts = Restarts()
    waits = []
    for fall in range(12):
        assert restarts.fell(1, "the disk is away") == (fall > 0)
        waits.append(restarts.seconds_left() or 0)
    rises = [FIRST_SECONDS * 2**fall for fall in range(12)]
    assert waits == pytest.approx([min(LONGEST_SECONDS, wait) for wait in rises], abs=FIRST_SECONDS / 2)
    assert not restarts.fell(1, "no memory"), "which is told"
    assert restarts.take_due() == []
    restarts.all_now()
    assert (restarts.take_due(), restarts.seconds_left()) == ([1], None)
    restarts.fell(1, "no memory")
    restarts.answers(1)
    assert not restarts.fell(1, "no memory"), "as it was back"
    assert restarts.seconds_left() == pytest.approx(FIRST_SECONDS, abs=FIRST_SECONDS / 2)
    assert (restarts.take_all(), restarts.take_all()) == ([1], [])


@pytest.mark.slow
def test_who_begins_while_the_supervisor_falls_ends_without_a_traceback(index: Path) -> None:
    doors = Doors()
    with tempfile.TemporaryFile() as told, Tallies.new_file(2) as counts, doors.for_owner() as door:
        config = read_settings(None, {"index": index}).model_dump(mode="json")
        told.write(msgspec.json.encode(Part(config, 1, 2, counts.fileno(), door.fileno(), True)) + b"\n")
        told.seek(0)
        reads, writes = os.pipe()
        os.close(reads)  # and nobody hears what it says
        command = [sys.executable, "-m", "semrec_faiss.serve.workers.child"]
        pipes = {"stdin": told, "stdout": writes, "stderr": subprocess.PIPE}
        ended = subprocess.run(command, **pipes, timeout=HANG_SECONDS, pass_fds=[counts.fileno(), door.fileno()])
        os.close(writes)
    assert b"Traceback" not in ended.stderr, ended.stderr.decode()


def test_a_worker_that_cannot_be_started_again_is_tried_again(
    index: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once a fault: where the system had no memory for a process at that moment, the whole service ended."""
    monkeypatch.setattr("semrec_faiss.serve.workers.restarting.FIRST_SECONDS", 0.0)
    supervisor = _Supervisor(read_settings(None, {"index": index, "port": 0, "workers": 2}), print)
    lacks = [BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))] * 2

    def begin(number: int) -> None:
        if lacks:
            raise lacks.pop()
        supervisor._children[number] = _Child()  # type: ignore[assignment]

    monkeypatch.setattr(supervisor, "_begin", begin)
    supervisor._start_later(1, "has fallen (SIGKILL)")
    for _ in range(3):
        supervisor._begin_again()
    assert set(supervisor._children) == {1}
    assert caplog.text.count("worker 1 cannot be started: Resource temporarily unavailable") == 1
    assert supervisor._restarts.seconds_left() is None
    supervisor._children = {}
    supervisor._close()


SOON = "import semrec_faiss.serve.workers.restarting as one; one.{} = {}; import semrec_faiss.__main__"


@pytest.mark.slow
def test_a_worker_that_cannot_open_the_index_is_told_of_once(tmp_path: Path, data: Path) -> None:
    """Once a fault: it was started each second for ever, and two lines were written each time."""
    index = tmp_path / "index"
    build(data, index)
    process = Process(index, "--workers", "2", "--owner", "never", program=SOON.format("LONGEST_SECONDS", 0.1))
    try:
        users, away = index / "gen-000001" / "users.npy", tmp_path / "users.npy"
        users.rename(away)  # the other holds it open
        users.write_bytes(b"damaged")
        _children(process)[-1].kill()
        process.until(lambda: any("has fallen" in line for line in process.said))
        process.until(lambda: _samples(process.port)["semrec_workers_fallen_total"] >= 4)
        told = [line for line in process.said if "takes its place" in line]
        assert len(told) == 2, told
        assert "has fallen (SIGKILL)" in told[0] and "users.npy" in told[1]
        assert "Traceback" not in "".join(process.said)
        assert _status(process.port) == 200
        away.replace(users)
        process.until(lambda: "".join(process.said).count("serving gen-000001") == 3)
    except BaseException:
        process.process.kill()
        raise
    assert process.end() == 0, "".join(process.said)


@pytest.mark.slow
@pytest.mark.parametrize("then", [signal.SIGHUP, signal.SIGTERM])
def test_who_waits_to_be_started_again_is_started_by_sighup_and_not_waited_for_at_the_end(
    then: int, index: Path
) -> None:
    process = Process(index, "--workers", "2", "--owner", "never", program=SOON.format("FIRST_SECONDS", 1e6))
    try:
        for worker in _children(process):
            worker.kill()
        process.until(lambda: sum("has fallen" in line for line in process.said) == 2)
        process.process.send_signal(then)
        if then == signal.SIGHUP:
            process.until(lambda: _status(process.port) == 200)
        else:
            assert process.process.wait(HANG_SECONDS) == 0
    finally:
        process.end()


@pytest.mark.slow
def test_workers_that_can_never_open_the_index_end_the_service(tmp_path: Path, data: Path) -> None:
    index = tmp_path / "index"
    build(data, index)
    (index / "gen-000001" / "users.npy").write_bytes(b"damaged")
    ended = run_python("-m", "semrec_faiss", "serve", index, "--port", "0", "--workers", "2")
    assert ended.returncode == 5
    assert "users.npy" in ended.stderr and "fix: " in ended.stderr


def _worker_alone(program: str, index: Path) -> tuple[int, bytes, bytes]:
    """Run a program as a worker whose supervisor goes on; return how it ended, what it told it, and what it printed."""
    part = msgspec.json.encode(
        Part(read_settings(None, {"index": index}).model_dump(mode="json"), 0, 1, 0, None, False)
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as worker:
        assert worker.stdin and worker.stdout and worker.stderr
        worker.stdin.write(part + b"\n")
        worker.stdin.flush()
        told, printed = worker.stdout.read(), worker.stderr.read()
    return worker.returncode, told, printed


TOLD_TO_END = """
import os, signal
from semrec_faiss.serve.workers import child
def work(*_):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        pass
    print("goes on")
child._work = work
child.main()
"""


@pytest.mark.slow
def test_a_worker_that_opens_the_index_ends_whatever_is_made_of_the_signal(index: Path) -> None:
    """DuckDB made another error of it: what was published was refused, and the worker served on."""
    assert _worker_alone(TOLD_TO_END, index) == (0, b"", b"")


NO_MEMORY = """
from semrec_faiss.serve.workers import child
def work(*_):
    raise MemoryError("no room for users.npy")
child._work = work
child.main()
"""


@pytest.mark.slow
def test_a_worker_says_in_one_line_what_keeps_it_from_beginning(index: Path) -> None:
    """Once a fault: a traceback each time that it was tried."""
    _, told, printed = _worker_alone(NO_MEMORY, index)
    assert (json.loads(told)["message"], printed) == ("MemoryError: no room for users.npy", b"")


@pytest.mark.slow
def test_the_owners_end_ends_the_service(tmp_path: Path, index: Path) -> None:
    process = Process(index, "--workers", "2", "--owner", "always")
    owner = _children(process)[0]
    owner.send_signal(signal.SIGKILL)
    assert process.process.wait(HANG_SECONDS) == 6
    process._reader.join(HANG_SECONDS)
    assert "the owner of the device has fallen (SIGKILL)" in "".join(process.said)
    assert not any("draining" in line for line in process.said), "once for half of the grace, answering 503"


@pytest.mark.slow
def test_workers_end_with_their_supervisor(index: Path) -> None:
    process = Process(index, "--workers", "2")
    workers = _children(process)
    os.kill(process.process.pid, signal.SIGKILL)
    assert len(workers) == 2
    until(lambda: not any(is_running(worker.pid) for worker in workers))


@pytest.mark.slow
def test_an_end_before_a_fallen_worker_is_replaced_is_no_failure(index: Path) -> None:
    process = Process(index, "--workers", "2")
    try:
        psutil.Process(process.process.pid).children()[0].send_signal(signal.SIGKILL)
        process.until(lambda: any("has fallen" in line for line in process.said))
        assert process.end() == 0, "".join(process.said)
    finally:
        process.process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("owner", ["never", "always"])
def test_a_fallen_worker_is_replaced_also_while_what_is_published_is_refused(
    owner: str, tmp_path: Path, data: Path
) -> None:
    """Once a fault: the new one would open nothing but what is published, and fell again every second."""
    index = tmp_path / "index"
    for _ in range(2):
        build(data, index)
    directory = IndexDirectory(index)
    damaged = (index / "CURRENT").read_bytes()
    directory.rollback("gen-000001")
    process = Process(index, "--workers", "2", "--owner", owner, "--watch-seconds", "0.1")
    try:
        records = index / "gen-000002" / "records.jsonl"
        records.write_bytes(records.read_bytes().replace(b"a", b"b", 1))
        (index / "CURRENT").write_bytes(damaged)
        process.until(lambda: process.ask("GET", "/readyz")[1]["refused"] is not None)
        fallen = _children(process)[-1]
        others = _alive(process) - {fallen.pid}
        fallen.kill()
        process.until(lambda: any("this worker serves gen-000001" in line for line in process.said))
        (new,) = _alive(process) - others - {fallen.pid}
        process.until(lambda: psutil.Process(new).net_connections())  # it listens
        for _ in range(8):
            assert ask(process.port, {"title": "m00003"})[::2] == (200, "gen-000001")
            ready = process.ask("GET", "/readyz")[1]
            assert (ready["ready"], ready["refused"]["generation"]) == (True, "gen-000002")
        directory.rollback("gen-000001")
        process.until(lambda: [process.ask("GET", "/readyz")[1]["refused"] for _ in range(8)] == [None] * 8)
        assert new in _alive(process)
    except BaseException:
        process.process.kill()
        raise
    assert process.end() == 0, "".join(process.said)
