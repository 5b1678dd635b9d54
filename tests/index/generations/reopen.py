"""Opens an index again and again and counts what is left; run by test_readers.py.

    python reopen.py again INDEX EARLY LATE
    python reopen.py published INDEX EARLY LATE FOLDER_A FOLDER_B

Prints the process's memory, threads and open files after EARLY and after LATE times. ``published`` has another process
build the two folders in turn meanwhile, and counts answers that mix them.
"""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

from semrec_faiss import Recommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import NotFoundError
from semrec_faiss.index.build.run import build_index


def counts() -> dict[str, int]:
    """Memory, threads and open files of this process."""
    status = Path("/proc/self/status").read_text()
    return {
        "megabytes": int(status.split("VmRSS:")[1].split()[0]) // 1024,
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "files": len(list(Path("/proc/self/fd").iterdir())),
    }


def open_and_ask(index: str) -> tuple[str, set[str]]:
    """Open the index, use every part of it, and return its generation and the first words of its titles."""
    recommender = Recommender.open(index)
    answers = [
        recommender.similar("m00007", 5),
        recommender.recommend("user_001", 5, where="year > 1900"),
        *recommender.search(recommender.index.vectors([1, 2, 3]), 5),
    ]
    recommender.users.history  # noqa: B018 - reads the file
    with contextlib.suppress(NotFoundError):
        recommender.similar("nothing of this name")
    words = {result.title.split()[0] for answer in answers for result in answer.results}
    return recommender.saved.generation.name, words


def keep_publishing(index: str, folders: list[str], ending: Any) -> None:
    """Build the folders in turn until told to end."""
    while not ending.is_set():
        for folder in folders:
            build_index(config_from_dict({"dataset": folder, "output": index}))


def measured(index: str, early: int, late: int, least: int = 1) -> list[dict[str, int]]:
    """Open ``late`` times without the garbage collector, or more often until ``least`` generations were seen."""
    gc.disable()
    found, generations, mixed = [], set(), 0
    number = 0
    while number < late or len(generations) < least:
        number += 1
        generation, words = open_and_ask(index)
        generations.add(generation)
        mixed += len(words) > 1
        if number in (early, late):
            found.append(counts())
    return [one | {"generations": len(generations), "mixed": mixed} for one in found]


def main() -> None:
    """Read the arguments, open, print."""
    how, index, early, late, *folders = sys.argv[1:]
    if how == "again":
        print(json.dumps(measured(index, int(early), int(late))))
        return
    context = multiprocessing.get_context("spawn")
    ending = context.Event()
    process = context.Process(target=keep_publishing, args=(index, folders, ending))
    process.start()
    try:
        found = measured(index, int(early), int(late), least=3)
    finally:
        ending.set()
        process.join()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
