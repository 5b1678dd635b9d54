"""Opens an index, asks it, forks and asks again; run by test_forking.py in a process of its own, with a time limit.

    python ask_after_fork.py HOW INDEX [SETTING …]

Prints what the test looks at as one JSON document; ends with 0 when every child did.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from semrec_faiss import Recommender
from semrec_faiss.errors import SemrecError
from semrec_faiss.index.saved.saved_index import SavedIndex

QUERIES = np.random.default_rng(0).normal(size=(300, 32)).astype(np.float32)


def ask(recommender: Recommender) -> Any:
    """One query, a batch, a filtered batch, users and a title, as JSON has them."""
    one = [answer.rows.tolist() for answer in recommender.search(QUERIES[:1], 10)]
    batch = [answer.rows.tolist() for answer in recommender.search(QUERIES, 10)]
    filtered = [answer.rows.tolist() for answer in recommender.search(QUERIES[:40], 10, where="year > 1990")]
    named = [recommender.similar("m00007"), *recommender.recommend(["user_001", "user_002"], 5)]
    return [one, batch, filtered, [result.media_id for answer in named for result in answer.results]]


def in_fork(work: Callable[[], Any]) -> Any:
    """Run ``work`` in a fork that ends as a whole interpreter does; return its result and its exit code."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        with os.fdopen(writer, "w") as pipe:
            json.dump(work(), pipe)
        gc.collect()
        sys.exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return [json.loads(text) if text else None, code]


def inherited(path: str, settings: list[str]) -> Any:
    """Ask what the parent opened in a child, in a thread of it, and in a grandchild."""
    recommender = Recommender.open(path, settings)
    want = ask(recommender)

    def child() -> Any:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(ask(recommender) == want))
        thread.start()
        thread.join()
        found.append(ask(recommender) == want)
        return [*found, in_fork(lambda: ask(recommender) == want)]

    return [in_fork(child), in_fork(lambda: ask(recommender) == want), ask(recommender) == want]


def dropped(path: str, settings: list[str]) -> Any:
    """Open anew in a child whose parent has let go of what it asked."""
    recommender: Any = Recommender.open(path, settings)
    want = ask(recommender)
    recommender = None
    return in_fork(lambda: ask(Recommender.open(path, settings)) == want)


def unasked(path: str, settings: list[str]) -> Any:
    """Let a child end that has no use for what its parent opened."""
    recommender = Recommender.open(path, settings)
    ask(recommender)
    return in_fork(lambda: type(recommender).__name__)


def said(work: Callable[[], Any]) -> str:
    """The error that a piece of work ends with."""
    try:
        work()
    except SemrecError as error:
        return f"{type(error).__name__}: {error.message}"
    return "nothing"


def parts(path: str, settings: list[str]) -> Any:
    """Ask parts that cannot open themselves anew."""
    saved = SavedIndex(path, settings)
    vectors, catalog = saved.vectors, saved.catalog
    vectors.search(QUERIES, 5)

    return in_fork(lambda: [said(lambda: vectors.search(QUERIES, 5)), said(lambda: catalog.records([0]))])


def refused(path: str, settings: list[str]) -> Any:
    """Ask in a child what the parent, and then what the child itself, opened; and in a process of its own."""
    recommender = Recommender.open(path, settings)
    want = ask(recommender)

    child = in_fork(lambda: [said(lambda: ask(recommender)), said(lambda: ask(Recommender.open(path, settings)))])
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=_asked, args=(recommender, want, answers))
    process.start()
    process.join(250)
    return [child, process.exitcode, answers.get() if process.exitcode == 0 else None, ask(recommender) == want]


def busy(path: str, settings: list[str]) -> Any:
    """Fork again and again while other threads of the parent ask, and hold its locks."""
    recommender = Recommender.open(path, settings)
    want = ask(recommender)
    ending = threading.Event()

    def keep_asking() -> None:
        while not ending.is_set():
            ask(recommender)

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        return [in_fork(lambda: ask(recommender) == want) for _ in range(8)]
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def _asked(recommender: Recommender, want: Any, answers: Any) -> None:
    answers.put(ask(recommender) == want)


def methods(path: str, settings: list[str]) -> Any:
    """Hand the recommender to a process of each of multiprocessing's kinds."""
    recommender = Recommender.open(path, settings)
    want = ask(recommender)
    found = []
    for kind in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(kind)
        answers = context.SimpleQueue()
        process: Any = context.Process(target=_asked, args=(recommender, want, answers))
        process.start()
        process.join(250)
        found.append([kind, process.exitcode, answers.get() if process.exitcode == 0 else None])
    return found


class _Lists:
    """A map-style data set of torch: a user's list each."""

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender

    def __len__(self) -> int:
        return 12

    def __getitem__(self, number: int) -> list[str]:
        answer = self.recommender.recommend(f"user_{number:03d}", 5)
        return [result.media_id for result in answer.results]


def loader(path: str, settings: list[str]) -> Any:
    """Ask in the workers of a torch DataLoader, which are forks."""
    from torch.utils.data import DataLoader

    lists: Any = _Lists(Recommender.open(path, settings))
    want = [lists[number] for number in range(len(lists))]
    loaded = DataLoader(lists, batch_size=None, num_workers=2, multiprocessing_context="fork")
    return list(loaded) == want


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](sys.argv[2], sys.argv[3:])))
