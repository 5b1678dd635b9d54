"""How long a question waits for a shard, by its own time and by what is known of the shard; no cluster is needed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from semrec_faiss.cluster import connection, starting
from semrec_faiss.cluster import head as watching
from semrec_faiss.cluster import shards as asking
from semrec_faiss.cluster.head import LOOK_SECONDS
from semrec_faiss.cluster.shards import OpenShards
from semrec_faiss.deadline import TooLateError, due_at
from semrec_faiss.errors import MissingPackageError, UnavailableError, UsageError
from semrec_faiss.index.generations.generation import GenerationRef
from semrec_faiss.index.generations.shards import Place, Shard, ShardList

ray = pytest.importorskip("ray")

SLOW = 1
"""The shard that does not answer."""


def _shards(
    monkeypatch: pytest.MonkeyPatch, fails: Callable[[float], None], *, partial: bool, count: int = 2
) -> OpenShards:
    """Make shards, of which the first answers at once and the others as ``fails`` does within so many seconds.

    A ping, by which is seen whether a shard is back, is there at once where ``fails`` does not need any time for it.
    """

    def get(shard: int, timeout: float = 0.0) -> int:
        if shard >= SLOW:
            fails(timeout)
        return shard

    def wait(pings: list[int], timeout: float, num_returns: int = 1) -> tuple[list[int], list[int]]:
        try:
            return [get(ping, timeout) for ping in pings], []
        except ray.exceptions.GetTimeoutError:
            return [], pings
        except ray.exceptions.RayError:
            return pings, []

    def actor(shard: int) -> Any:
        method = SimpleNamespace(remote=lambda: shard)
        return SimpleNamespace(ping=method, about=method)

    monkeypatch.setattr(
        asking,
        "load_ray",
        lambda: SimpleNamespace(get=get, wait=wait, exceptions=ray.exceptions, is_initialized=lambda: True),
    )
    there = Place(node=None, generation=GenerationRef(name="gen-000001", manifest_sha256="0" * 64))
    listed = ShardList(
        shards=tuple(Shard(folder=f"{at}", first=10 * at, titles=10, places=(there,)) for at in range(count))
    )
    return OpenShards(Path("index"), listed, [[actor(at)] for at in range(count)], patience_s=0.2, partial=partial)


def _is_slow(seconds: float) -> None:
    time.sleep(seconds)
    raise ray.exceptions.GetTimeoutError("it still works on it")


def _is_dead(seconds: float) -> None:
    raise ray.exceptions.ActorDiedError


def test_a_caller_in_a_hurry_is_told_of_the_time_and_no_shard_is_taken_for_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once a fault: who waited for 50 ms was told that the shard is lost, and others were answered without it."""
    shards = _shards(monkeypatch, _is_slow, partial=False)
    with due_at(time.monotonic() + 0.05), pytest.raises(TooLateError, match=r"shard 1 of 2 .* within \S+ s$") as told:
        shards.ask_all("ping")
    assert float(told.value.message.split()[-2]) < 0.05
    assert not shards._lost
    with due_at(time.monotonic() + 60), pytest.raises(UnavailableError, match=r"shard 1 of 2 .* within 0\.2 s"):
        shards.ask_all("ping")
    assert set(shards._lost) == {SLOW}


def test_a_lost_shard_is_told_of_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shards = _shards(monkeypatch, _is_dead, partial=False)
    due = time.monotonic() + 0.1
    with due_at(due), pytest.raises(UnavailableError, match="shard 1 of 2"):
        shards.ask_all("ping")
    shards = _shards(monkeypatch, _is_slow, partial=False)
    shards.lose(SLOW)  # and is being started anew
    with due_at(time.monotonic() + 0.1), pytest.raises(UnavailableError, match="shard 1 of 2"):
        shards.ask_all("ping")


def test_who_opens_an_index_is_told_of_a_head_that_dies_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a fault: the wait for the shards, three minutes, was waited for first."""
    shards, looks = _shards(monkeypatch, _is_slow, partial=False), []
    died = UnavailableError("the head of the cluster does not answer any more")
    monkeypatch.setattr(asking, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(asking, "OPEN_SECONDS", 1e9)  # of which this test would never see the end

    def check() -> None:
        looks.append(1)
        if len(looks) > 3:
            raise died

    shards.head = SimpleNamespace(check=check, error=lambda _: died)
    with pytest.raises(UnavailableError, match="head of the cluster does not answer any more"):
        shards.opened()


def test_who_waits_for_gpus_is_told_of_a_head_that_dies_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a fault: a dead head was asked for places for three minutes."""
    waits: list[float] = []
    group = SimpleNamespace(wait=waits.append)
    util = SimpleNamespace(placement_group=lambda *_, **__: group, remove_placement_group=lambda _: None)

    def check() -> None:
        if len(waits) > 3:
            raise UnavailableError("the head of the cluster does not answer any more")

    monkeypatch.setattr(starting, "load_ray", lambda: SimpleNamespace(util=util))
    monkeypatch.setattr(starting, "watched", lambda _: SimpleNamespace(check=check))
    with pytest.raises(UnavailableError, match="head of the cluster does not answer any more"):
        starting._gpu_group([{"GPU": 1.0}])
    assert waits == [LOOK_SECONDS] * 4
    monkeypatch.setattr(starting, "watched", lambda _: None)
    monkeypatch.setattr(starting, "OPEN_SECONDS", 0.0)
    with pytest.raises(UnavailableError, match="1 actors with a GPU each found no place within 0 s"):
        starting._gpu_group([{"GPU": 1.0}])


def test_a_proxy_is_not_looked_for_without_rays_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a fault: it was "no cluster answers", with the fix to start one."""
    monkeypatch.setattr(connection, "load_ray", lambda: SimpleNamespace(is_initialized=lambda: False))
    monkeypatch.setattr(connection, "watched", lambda _: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match="Ray's client, which joins ray://host:10001") as told:
        connection.connect("ray://host:10001")
    without = "on a machine of the cluster ray://auto/INDEX, and --ray auto, do without"
    assert told.value.fix == f"pip install 'ray[client]'; {without}"


def test_who_asks_through_a_proxy_is_told_that_it_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a fault: Ray's own ConnectionError came up, and then errors of what it had left."""

    def is_gone(_: float) -> None:
        raise ConnectionError("Failed to reconnect within the reconnection grace period (30s)")

    shards, told = _shards(monkeypatch, is_gone, partial=False), "cluster, or its proxy, does not answer any more"
    with pytest.raises(UnavailableError, match=told):
        shards.ask_all("ping")
    monkeypatch.setattr(asking, "load_ray", lambda: SimpleNamespace(is_initialized=lambda: False))
    with pytest.raises(UnavailableError, match=told) as after:
        shards.ask_all("ping")
    assert after.value.fix


@pytest.mark.parametrize("own", [None, "9"], ids=["nothing is set", "the user has set it"])
def test_a_cluster_that_is_not_there_is_looked_for_once(own: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a fault: Ray looked 20 times, 40 seconds each."""
    name, read = "RAY_gcs_server_port_wait_time_s", []
    if own is None:
        monkeypatch.delenv(name, raising=False)
    else:
        monkeypatch.setenv(name, own)

    def init(**_: Any) -> None:
        read.append(os.environ[name])
        raise ConnectionError("nobody there")

    monkeypatch.setattr(connection, "load_ray", lambda: SimpleNamespace(init=init, is_initialized=lambda: False))
    monkeypatch.setattr(connection, "watched", lambda _: None)
    with pytest.raises(UnavailableError, match="no cluster answers at host:6379: nobody there") as told:
        connection.connect("host:6379")
    assert told.value.fix
    assert read == [own or "1"]
    assert os.environ.get(name) == own
    seconds = iter([100.0, 131.4])
    monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    with pytest.raises(UnavailableError, match="no cluster answers at host:6379 within 31 s: nobody there"):
        connection.connect("host:6379")


def test_a_partial_answer_in_a_hurry_costs_later_ones_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shards = _shards(monkeypatch, _is_slow, partial=True)
    with due_at(time.monotonic() + 0.05):
        assert shards.ask_all("ping") == {0: 0}
        assert not shards._lost
        with pytest.raises(TooLateError):
            shards.ask_each("ping", {SLOW: ()})
    assert shards.ask_all("ping") == {0: 0}
    assert set(shards._lost) == {SLOW}, "it had all the time that is given"


@pytest.mark.parametrize("count", [2, 4])
def test_several_lost_shards_are_waited_for_together_once_and_then_not_at_all(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: each cost the first question a second of its own, and every later one a tenth of a second."""
    waited: list[float] = []

    def fails(seconds: float) -> None:
        waited.append(seconds)
        raise ray.exceptions.GetTimeoutError("it is started anew")

    shards = _shards(monkeypatch, fails, partial=True, count=count)
    now = [0.0]

    def later() -> float:
        now[0] += 0.05
        return now[0]

    # Of this module alone: other threads, such as those of Ray, have clocks of their own.
    monkeypatch.setattr(asking, "time", SimpleNamespace(monotonic=later, sleep=lambda _: None))
    assert shards.ask_all("ping") == {0: 0}
    assert set(shards._lost) == set(range(1, count))
    assert max(waited) > 0.1
    assert now[0] <= 0.2 + (count - 2) * asking.RETRY_SECONDS + count * 4 * 0.05
    waited.clear()
    assert shards.ask_all("ping") == {0: 0}
    assert set(waited) == {0.0}
    waited.clear()
    with pytest.raises(UnavailableError, match="shard 1 of"):
        shards.ask(SLOW, "ping")
    assert 0 < max(waited) <= asking.RETRY_SECONDS, "nobody else is waited for"


def test_the_actor_that_is_asked_next_is_another_also_where_none_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    shards = _shards(monkeypatch, _is_dead, partial=True)
    shards.replicas[SLOW] = [*shards.replicas[SLOW], *shards.replicas[0]]  # which answers
    shards.patience_s = 0.0
    assert shards.ask_all("ping") == {0: 0}
    assert shards.ask_all("ping") == {0: 0, SLOW: 0}


def test_a_look_at_the_shards_waits_once_for_an_actor_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a fault: each `/readyz` took a second while a shard was started anew, as long as a probe waits."""
    waited: list[float] = []
    now: list[Callable[[float], None]] = []

    def fails(seconds: float) -> None:
        waited.append(seconds)
        if not now:
            raise ray.exceptions.GetTimeoutError("it is started anew")

    shards = _shards(monkeypatch, fails, partial=True)

    def answering() -> list[int]:
        waited.clear()
        return [state["answering"] for state in shards.states(0.3)]

    assert answering() == [1, 0]
    assert max(waited) == 0.3
    assert answering() == [1, 0]
    assert max(waited) == 0
    now.append(_is_slow)
    assert answering() == [1, 1]
    assert not shards._late


def _takes(seconds: float) -> Callable[[float], None]:
    """Return how a shard fails whose answers take so long."""

    def fails(given: float) -> None:
        if given < seconds:
            _is_slow(given)

    return fails


def test_what_takes_long_at_first_is_waited_for_inside_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a fault: where a service's first filter took a second, it found all shards lost and did not start."""
    shards = _shards(monkeypatch, _takes(0.3), partial=True)
    with shards.patient():
        assert shards.ask_all("ping") == {0: 0, SLOW: SLOW}
    assert not shards._lost
    assert shards.ask_all("ping") == {0: 0}, "as long as it was told to"


def test_a_shard_that_was_late_once_is_waited_for_again_once_it_answers_a_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a fault: whoever was late once was given a tenth of a second from then on, and stayed left out."""
    now: list[Callable[[float], None]] = [_is_slow]

    def fails(given: float) -> None:
        now[0](given)

    shards = _shards(monkeypatch, fails, partial=True)
    assert shards.ask_all("ping") == {0: 0}
    assert set(shards._lost) == {SLOW}
    given: list[float] = []
    now[0] = _is_dead
    assert shards.ask_all("ping") == {0: 0}
    assert set(shards._lost) == {SLOW}, "its ping failed"
    now[0], shards.patience_s = given.append, 60
    assert shards.ask_all("ping") == {0: 0, SLOW: SLOW}
    assert not shards._lost
    assert given[-1] > 1, "all the time that is given, not that of a lost shard"


def test_questions_of_a_slow_shard_do_not_keep_overtaking_its_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a fault: each late answer had a ping of its own, so that none was there when it was looked for."""
    shards = _shards(monkeypatch, _is_slow, partial=True)
    is_there: list[bool] = []

    def wait(pings: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return [ping for ping in pings if is_there and ping == "first"], []

    def get(asked: Any, timeout: float = 0.0) -> Any:
        if asked == SLOW:
            _is_slow(timeout)
        return asked

    told = SimpleNamespace(get=get, wait=wait, exceptions=ray.exceptions, is_initialized=lambda: True)
    monkeypatch.setattr(asking, "load_ray", lambda: told)
    call = shards._call
    pings = iter(["first", "second", "third", "fourth"])
    monkeypatch.setattr(
        shards, "_call", lambda shard, method, given: next(pings) if method == "ping" else call(shard, "ping", given)
    )
    assert shards.ask_all("best") == shards.ask_all("best") == {0: 0}
    assert shards._lost == {SLOW: "first"}, "it is still on its way"
    is_there.append(True)
    assert not shards._is_lost(told, SLOW)
    assert not shards._lost


def test_how_long_a_head_is_silent_does_not_depend_on_the_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a fault: a clock put forward, as when a machine wakes, took a head for lost; put back, for there."""

    def silence(*_: object, **__: object) -> None:
        raise OSError("no answer")

    client = SimpleNamespace(internal_kv_get=silence)
    stand_in = SimpleNamespace(
        get_runtime_context=lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"),
        _private=SimpleNamespace(worker=SimpleNamespace(global_worker=SimpleNamespace(gcs_client=client))),
        exceptions=ray.exceptions,
        is_initialized=lambda: False,  # so that no thread looks beside this test
    )
    passed, of_day = [0.0], [1e9]
    clocks = SimpleNamespace(monotonic=lambda: 50 + passed[0], time=lambda: of_day[0])
    monkeypatch.setattr(watching, "time", clocks)
    head = watching.HeadWatch(stand_in)
    assert not head.look()
    of_day[0] += 3600
    assert head.error() is None
    passed[0], of_day[0] = watching.LOST_SECONDS, 0.0
    assert not head.look()
    error = head.error()
    assert error is not None
    assert "at 10.0.0.1:6379, since " in error.message


@pytest.mark.parametrize("address", ["127.0.0.1", "", "head:", "http://head:6379", "ray://head", "ray:// head:1"])
def test_what_is_no_address_is_not_joined(address: str) -> None:
    """Once a fault: it was told as a cluster that does not answer, to be started."""
    with pytest.raises(UsageError, match="is no address of a cluster") as told:
        connection.connect(address)
    assert "HOST:PORT" in str(told.value.fix)
