"""The head is killed while an index is open: who asks is told and may go on with the next head, a service ends."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import HANG_SECONDS, until

from semrec_faiss.cluster.publish.building import build_shards
from semrec_faiss.config.reading import config_from_dict
from tests.cluster.lose import lose_the_head
from tests.cluster.worlds import HEAD, World

SOON = """
import sys
from semrec_faiss.cluster import head
head.LOOK_SECONDS, head.LOST_SECONDS = 0.5, 2.0
"""

ASKS = """
import time
from semrec_faiss import Recommender, UnavailableError
from semrec_faiss.cluster.recommender import ClusterRecommender
index, whole, address = sys.argv[1:]
expected = Recommender.open(whole).similar("m00010", 20)
def same(found):
    return bool((found.rows == expected.rows).all() and (found.scores == expected.scores).all())
def told(recommender):
    while True:
        try:
            assert same(recommender.similar("m00010", 20))
        except UnavailableError as error:
            return error
        time.sleep(0.1)
recommender = ClusterRecommender.open(index, address=address, patience_s=1.0)
print(same(recommender.similar("m00010", 20)), flush=True)
input()
print(told(recommender).message, flush=True)
input()
again = ClusterRecommender.open(index, address=address)
print(same(again.similar("m00010", 20)), flush=True)
print(told(recommender).message, flush=True)
recommender.close()
print(same(again.similar("m00010", 20)), flush=True)
again.close()
"""

SERVES = """
from semrec_faiss.cli.start import run
sys.argv[1:] = ["serve", sys.argv[1], "--ray", sys.argv[2], "--port", "0", "--grace-seconds", "6"]
run()
"""


@contextmanager
def _a_head(**more: Any) -> Iterator[Any]:
    """A cluster of one machine beside the one of the other tests, which is not joined by this process."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=HEAD | more)
    try:
        yield made
    finally:
        made.shutdown()


@contextmanager
def _begun(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SOON + script, *map(str, arguments)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _line(process: subprocess.Popen[str], asked: str = "") -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    if asked:
        process.stdin.write(asked)
        process.stdin.flush()
    return process.stdout.readline().strip() or str(process.communicate())


@pytest.fixture(scope="module")
def sharded(cluster: Any, world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("headless") / "index"
    build_shards(config_from_dict(world.config | {"output": str(out)}), 2)
    return out


def test_who_asks_is_told_and_goes_on_with_the_next_head(sharded: Path, world: World) -> None:
    with _a_head() as first:
        address = first.address
        with _begun(ASKS, sharded, world.whole, address) as process:
            assert _line(process) == "True"
            lose_the_head(first)
            told = _line(process, "\n")
            lost = r"the head of the cluster does not answer any more: at [\d.]+:\d+, since \d\d:\d\d:\d\d"
            assert re.fullmatch(lost, told), told
            with _a_head(gcs_server_port=int(address.rpartition(":")[2])) as second:
                assert second.address == address
                assert _line(process, "\n") == "True"
                assert "the head of the cluster " in _line(process), "of the first cluster"
                assert _line(process) == "True", "the actors of the second are not ended with those of the first"
                assert process.wait(HANG_SECONDS) == 0


def test_a_service_ends_with_the_head_and_says_so(sharded: Path) -> None:
    with _a_head() as head, _begun(SERVES, sharded, head.address) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        url = next(found[1] for line in lines if (found := re.search(r"listening at (\S+)", line)))
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        question = {"title": "m00010", "k": 5}
        assert httpx.post(f"{url}/v1/similar", json=question).status_code == 200
        lose_the_head(head)
        refused: list[str] = []

        def is_over() -> bool:
            try:
                reply = httpx.post(f"{url}/v1/similar", json=question, timeout=HANG_SECONDS)
            except httpx.TransportError:
                return process.poll() is not None
            refused.extend([reply.json()["detail"]] if reply.status_code == 503 else [])
            assert reply.status_code in (200, 503), reply.text
            return False

        until(is_over)
        said = process.stderr.read()
    assert process.returncode == 6, said
    assert "error: the head of the cluster does not answer any more: at " in said
    assert any("the head of the cluster does not answer any more" in one for one in refused), refused
