"""What losing the head or a shard of a cluster costs, in seconds: measured on this machine, and written as JSON.

Everything takes place on this machine, by processes that are killed with SIGKILL; it ends by itself within minutes:

    PYTHONPATH=.:tests python -m tests.cluster.lose results/cluster-faults-cpu.json
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import make_data_folder

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index
from semrec_faiss.measure.instruments.environment import load_average, stamp_of_this_run

TITLES, DIM, USERS = 3000, 64, 200

WORK = """
import json, sys, time
from tests.cluster import worlds
from semrec_faiss import SemrecError
from semrec_faiss.cluster.publish import building
from semrec_faiss.cluster.workers import lists
from semrec_faiss.config.reading import config_from_dict
lists.BLOCK_USERS = 4
work, address, slow, arguments = sys.argv[1], sys.argv[2], sys.argv[3] == "slow", json.loads(sys.argv[4])
if slow:
    building._build_one, lists.ListMaker = worlds.build_one_slowly, worlds.SlowListMaker
started = time.monotonic()
try:
    if work == "lists":
        told = {"resumed_users": lists.recommend_all(*arguments, 10, address=address, workers=2).resumed_users}
    else:
        told = {"shards_kept": building.build_shards(config_from_dict(arguments), 2, address=address).kept}
    print(json.dumps(told | {"seconds": round(time.monotonic() - started, 2)}))
except SemrecError as error:
    print(json.dumps({"error": error.message}))
    sys.exit(error.exit_code)
"""

QUESTIONS = """
import json, os, signal, sys, time
from semrec_faiss import Recommender, SemrecError
from semrec_faiss.cluster.recommender import ClusterRecommender
index, whole, address, replicas, kills = *sys.argv[1:4], int(sys.argv[4]), sys.argv[5] == "kills"
expected = Recommender.open(whole).similar("m00010", 20)
with ClusterRecommender.open(index, address=address, replicas=replicas) as sharded:
    def ask():
        started = time.monotonic()
        found = sharded.similar("m00010", 20)
        assert (found.rows == expected.rows).all() and (found.scores == expected.scores).all()
        return time.monotonic() - started
    time.sleep(5)  # other replicas open meanwhile
    usual = min(ask() for _ in range(20))
    if kills:
        os.kill(sharded.shards.opened()[1].pid, signal.SIGKILL)
        print(json.dumps({"usual_ms": round(usual * 1e3, 2), "after_the_kill_ms": round(ask() * 1e3, 1)}))
        sys.exit()
    try:
        while True:
            ask()
            print(time.time(), flush=True)
            time.sleep(0.25)
    except SemrecError as error:
        print(json.dumps({"error": error.message}))
        sys.exit(error.exit_code)
"""


@contextmanager
def a_cluster() -> Iterator[Any]:
    """Two nodes of their own, which this process does not join."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        made.add_node(**node)
        yield made
    finally:
        made.shutdown()


def lose_the_head(cluster: Any) -> float:
    """Kill the head's processes, and return when."""
    for process in (one for kind in ("gcs_server", "raylet") for one in cluster.head_node.all_processes[kind]):
        os.kill(process.process.pid, signal.SIGKILL)
    return time.time()


def without_address(told: str) -> str:
    """Return a message without the address of this machine."""
    return told.partition(": at ")[0]


def begun(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a driver."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")


def read(driver: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what a driver says at its end."""
    told: dict[str, Any] = json.loads(driver.communicate(timeout=300)[0].splitlines()[-1])
    return told


def until(holds: Any, *drivers: subprocess.Popen[str]) -> None:
    """Wait for something that drivers do."""
    ends = time.monotonic() + 180
    while not holds():
        assert time.monotonic() < ends
        assert all(driver.poll() is None for driver in drivers), [driver.communicate() for driver in drivers]
        time.sleep(0.02)


def ended(driver: subprocess.Popen[str], killed: float) -> dict[str, Any]:
    """Wait for the end of a driver whose head is lost."""
    driver.wait(300)
    seconds = round(time.time() - killed, 1)
    told = driver.communicate()[0].strip().splitlines()[-1:]
    return {
        "ended_after_s": seconds,
        "exit_code": driver.returncode,
        "told": without_address(json.loads(told[0])["error"]),
    }


def builds_and_lists(root: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Lose the head during a build and lists, and give both to the next one."""
    fresh = root / "fresh"
    build, lists = settings | {"output": str(fresh)}, [str(root / "whole"), str(root / "lists")]
    with a_cluster() as cluster:
        drivers = [begun(WORK, "build", cluster.address, "slow", json.dumps(build))]
        drivers.append(begun(WORK, "lists", cluster.address, "slow", json.dumps(lists)))
        until(lambda: list(fresh.rglob("slow-*")) and len(list(root.glob(".lists*/*.parquet"))) >= 2, *drivers)
        killed = lose_the_head(cluster)
        ends = [ended(driver, killed) for driver in drivers]
    with a_cluster() as cluster:
        again = [
            read(begun(WORK, work, cluster.address, "fast", json.dumps(given)))
            for work, given in (("build", build), ("lists", lists))
        ]
    return {"build": ends[0], "lists": ends[1], "build_again": again[0], "lists_again": again[1]}


def questions(root: Path) -> dict[str, Any]:
    """Lose a shard, with and without a replica of it, and then the head, while questions are asked."""
    index, whole = root / "index", root / "whole"
    with a_cluster() as cluster:
        told = {
            f"shard_lost_of_{replicas}": read(begun(QUESTIONS, index, whole, cluster.address, replicas, "kills"))
            for replicas in (1, 2)
        }
        asking = begun(QUESTIONS, index, whole, cluster.address, 1, "")
        assert asking.stdout is not None
        for _ in range(8):
            asking.stdout.readline()
        killed = lose_the_head(cluster)
        *answers, said = asking.stdout.read().splitlines()
        asking.wait(300)
        ended_after = time.time() - killed
    answered = [float(line) for line in answers]
    after = [at - killed for at in answered if at > killed]
    told["head_lost"] = {
        "answered_after": len(after),
        "longest_wait_s": round(max(b - a for a, b in zip([0.0, *after], after, strict=False)), 2),
        "last_answer_after_s": round(after[-1], 1),
        "ended_after_s": round(ended_after, 1),
        "exit_code": asking.returncode,
        "told": without_address(json.loads(said)["error"]),
    }
    return told


def main(out: Path) -> None:
    """Measure all, and write it to ``out``."""
    load = load_average()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        made = make_data_folder(root / "data", titles=TITLES, dim=DIM, users=USERS)
        settings = {"dataset": str(made.root), "index": {"type": "flat"}, "device": {"kind": "cpu"}}
        build_index(config_from_dict(settings | {"output": str(root / "whole")}))
        with a_cluster() as cluster:
            read(begun(WORK, "build", cluster.address, "fast", json.dumps(settings | {"output": str(root / "index")})))
        document = {
            "environment": stamp_of_this_run().as_json(),
            "load_average_at_start": load,
            "data": {"titles": TITLES, "dim": DIM, "users": USERS, "shards": 2},
            "work": builds_and_lists(root, settings),
            "questions": questions(root),
        }
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps({name: document[name] for name in ("work", "questions")}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
