"""Builds an index again and again, kills each build, and looks at what is left; run by test_kill.py.

    python kill_builds.py random|operations INDEX FOLDER_A FOLDER_B COUNT

Each build is a fork of this process, which has imported everything but computed nothing, so that one costs a tenth of a
second. ``random`` kills COUNT builds at instants spread over an unbroken build, a third of them over its last step;
``operations`` kills one build before each change that it makes to the disk. Prints one JSON document.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401 - so that a fork need not import it
import faiss
import numpy.ma  # noqa: F401 - DuckDB imports it when it first gives an array

import semrec_faiss.search.recommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.saved.verifying import verify

CHANGES = frozenset(("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "os.truncate"))


def run(work: Callable[[], Any]) -> Any:
    """Run ``work`` in a fork and return its result."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            result = work()
            os.write(writer, json.dumps(result).encode())
            os._exit(0)
        except BaseException as error:
            os.write(writer, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        result = json.loads(pipe.read() or '{"error": "it died"}')
    os.waitpid(pid, 0)
    if isinstance(result, dict) and "error" in result:
        raise SystemExit(f"a fork failed: {result['error']}")
    return result


def build(index: Path, folder: Path, before_publishing: Callable[[], None] = lambda: None) -> None:
    """Build ``folder`` into ``index``, with vectors.npy, users and what they have seen."""
    faiss.omp_set_num_threads(1)
    values = {
        "dataset": str(folder),
        "output": str(index),
        "index": {"type": "ivf_pq", "build": {"nlist": 4, "nbits": 4}},
    }

    def progress(what: str, done: int, total: int, /) -> None:
        if what == "publishing" and done == 0:
            before_publishing()

    build_index(config_from_dict(values), progress)


def look(index: Path) -> str:
    """Verify the index and its previous generation, ask it, and return the first word of its titles."""
    faiss.omp_set_num_threads(1)
    generation = verify(index)
    if generation.manifest.previous is not None:
        Generation(index, generation.manifest.previous).check_all()
    recommender = semrec_faiss.search.recommender.Recommender.open(index)
    similar = recommender.similar("m00007", 5)
    recommended = recommender.recommend("user_002", 5)
    words = {result.title.split()[0] for answer in (similar, recommended) for result in answer}
    if len(words) != 1 or similar.returned != 5 or recommended.returned != 5:
        raise AssertionError(f"answers mix {words}")
    return words.pop()


def unbroken(index: Path, folder: Path) -> tuple[float, float]:
    """Build to the end: seconds to the beginning of the last step, and in all."""
    started = time.monotonic()
    at: list[float] = []

    def work() -> float:
        build(index, folder, lambda: at.append(time.monotonic()))
        return at[0]

    publishing = run(work)
    return publishing - started, time.monotonic() - started


def kill_at_random(index: Path, folders: dict[str, Path], count: int) -> dict[str, Any]:
    """Kill ``count`` builds after delays spread over an unbroken one."""
    words = list(folders)
    run(lambda: build(index, folders[words[0]]))
    measured = sorted(unbroken(index, folders[words[turn % 2]]) for turn in range(5))
    publishing, whole = measured[2][0], sorted(total for _, total in measured)[2]
    rng = random.Random(20)
    spread = count - count // 3
    delays = [whole * (step + rng.random()) / spread for step in range(spread)]
    last = whole * 1.05 - publishing * 0.95
    delays += [publishing * 0.95 + last * (step + rng.random()) / (count // 3) for step in range(count // 3)]
    rng.shuffle(delays)
    current, outcomes = run(lambda: look(index)), []
    for planned in delays:
        delay, killed = planned, False
        while not killed:  # a build that ended before its kill is no kill: once more, and sooner
            wanted = next(word for word in words if word != current)
            killed = build_and_kill(index, folders[wanted], delay)
            found = run(lambda: look(index))
            if not killed and found != wanted:
                raise SystemExit(f"a build of {wanted} that was not killed left {found}")
            outcomes.append({"delay": delay, "killed": killed, "before": current, "wanted": wanted, "found": found})
            current, delay = found, delay * 0.8
    return {"publishing": publishing, "whole": whole, "outcomes": outcomes}


def build_and_kill(index: Path, folder: Path, delay: float) -> bool:
    """Build in a fork and kill it after ``delay`` seconds: whether it was still at work."""
    pid = os.fork()
    if pid == 0:
        try:
            build(index, folder)
        finally:
            os._exit(0)
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)  # not waited for yet, so the process id is still its own
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def kill_at_operations(index: Path, folders: dict[str, Path]) -> dict[str, Any]:
    """Kill builds over the same index before their first, second, third… change to the disk, until one gets through."""
    before, wanted = folders
    pristine = index.with_name("pristine")
    run(lambda: build(pristine, folders[wanted]))
    run(lambda: build(pristine, folders[before]))
    outcomes = []
    for number in range(1, 500):
        shutil.rmtree(index, ignore_errors=True)
        shutil.copytree(pristine, index)
        event = build_and_die(index, folders[wanted], number)
        outcomes.append({"event": event, "before": before, "wanted": wanted, "found": run(lambda: look(index))})
        if event is None:
            break
    return {"outcomes": outcomes}


def build_and_die(index: Path, folder: Path, number: int) -> str | None:
    """Build in a fork that kills itself before its ``number``-th change: what that was, None if it got through."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        count = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            writes = (
                event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
            )
            if not (event in CHANGES or writes):
                return
            path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
            if path.startswith(f"{index}/") or not path.startswith("/"):  # rmtree names files relative to their folder
                count += 1
                if count == number:
                    os.write(writer, f"{event} {Path(path).name}".encode())
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            build(index, folder)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        event = pipe.read().decode()
    os.waitpid(pid, 0)
    return event or None


def main() -> None:
    """Read the arguments, kill, print."""
    how, index, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[5])
    folders = {Path(path).name: Path(path) for path in sys.argv[3:5]}
    result = kill_at_random(index, folders, count) if how == "random" else kill_at_operations(index, folders)
    remains = sorted(entry.name for entry in index.iterdir())
    wanted = next(word for word in folders if word != run(lambda: look(index)))
    run(lambda: build(index, folders[wanted]))
    result |= {"remains": remains, "wanted": wanted, "afterwards": run(lambda: look(index))}
    result["left"] = sorted(entry.name for entry in index.iterdir())
    print(json.dumps(result))


if __name__ == "__main__":
    main()
