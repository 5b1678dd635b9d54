"""Updates, compacts and rolls back an index at random, killing itself before a random change to the disk, and looks at
what is left; run by test_kill_updates.py, and by hand for as many operations as one likes.

    python kill_updates.py FOLDER OPERATIONS SEED

Each operation is a fork that is killed before its n-th write, rename, sync or removal, where n is drawn. Afterwards the
index must be what it was or what the operation makes of it, as a model of dicts and numpy has it: no title lost, none
back from the dead, none twice, and the best titles of a query those of brute force. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401 - so that a fork need not import it
import faiss
import numpy as np
import pyarrow.parquet  # noqa: F401
from living_worlds import Draws, Model, begun, write_folder

from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.saved.saved_index import SavedIndex, verify
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import compact_index, update_index

CHANGES = frozenset(("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.rmtree", "os.truncate"))
MOST_CHANGES = 300
"""About twice what an update makes, so that half of them end."""


def killed(work: Any, number: int) -> bool:
    """Run ``work`` in a fork that kills itself before its ``number``-th change; whether it came to that."""
    pid = os.fork()
    if pid == 0:
        count, plain = 0, os.fsync

        def step() -> None:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if event in CHANGES or writes:
                step()

        def sync(descriptor: int) -> None:
            step()
            plain(descriptor)

        os.fsync = sync  # type: ignore[assignment]
        sys.addaudithook(hook)
        faiss.omp_set_num_threads(1)
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(3)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("an operation failed")
    return os.WIFSIGNALED(status)


def is_as(index: Path, model: Model) -> bool:
    """Tell whether an index holds what a model does, and answers as it does."""
    saved = SavedIndex(index, ["device.kind=cpu"])
    ids = [json.loads(line)["media_id"] for line in saved.titles.lines(range(saved.titles.count))]
    if ids != list(model.titles):
        return False
    vectors = np.stack([vector for _, vector in model.titles.values()]).astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = saved.vectors.search(unit[:3].astype(np.float32), 5)
    scores = unit[:3] @ unit.T
    assert np.allclose(found.scores, -np.sort(-scores, axis=1)[:, :5], atol=1e-5), "scores"
    assert np.allclose(np.take_along_axis(scores, found.rows, axis=1), found.scores, atol=1e-5), "titles"
    users = saved.users
    assert users is not None
    if users.ids != list(model.users):
        return False
    history, seen = users.history, {(user, title) for user, title, *_ in model.seen}
    pairs = [
        (users.ids[user], ids[row])
        for user in range(users.count)
        for row in history.rows[history.offsets[user] : history.offsets[user + 1]]
    ]
    return len(pairs) == len(set(pairs)) and set(pairs) == seen


def operation(draws: Draws, model: Model, index: Path, folder: Path) -> tuple[str, Any, Model]:
    """Draw something to do: its name, what does it, and what the model is afterwards."""
    after, chance = deepcopy(model), draws.random.random()
    if chance < 0.1:
        return "compact", lambda: compact_index(index), after
    titles = draws.titles(int(draws.random.integers(1, 4))) | draws.titles(0, draws.some(list(model.titles), 3))
    users = {f"u{draws.random.integers(30)}": draws.vector()}
    gone = [each for each in draws.some(list(model.titles)[20:], 4) if each not in titles]
    rows = draws.rows(list(users), list(titles), 2)
    write_folder(folder, titles, users, rows)
    after.remove(gone, [])
    after.put_titles(titles)
    after.put_users(users)
    after.see(rows)
    return "update", lambda: update_index(index, Change(folder, gone)), after


def main() -> None:
    """Do as many operations as wanted."""
    root, operations, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    model, draws = begun(seed)
    index = model.build(root / "first", {"type": "flat"})
    counts: Counter[str] = Counter()
    before: Model | None = None
    for number in range(operations):
        if before is not None and draws.random.random() < 0.3 and IndexDirectory(index).current().manifest.previous:
            name, work, after = "rollback", lambda: IndexDirectory(index).rollback(), before
        else:
            name, work, after = operation(draws, model, index, root / "change")
        was_killed = killed(work, int(draws.random.integers(1, MOST_CHANGES)))
        is_old, is_new = is_as(index, model), is_as(index, after)
        assert is_old or is_new, f"operation {number}, {name}: the index is neither as before nor as after"
        assert was_killed or is_new, f"operation {number}, {name}: it ended and is not there"
        counts[f"{name} {'killed' if was_killed else 'ended'}"] += 1
        previous = IndexDirectory(index).current().manifest.previous
        if is_new and name == "update" and not (is_old and is_new):
            before, model = model, after
        elif is_new:
            before, model = None, after
        if previous is None:
            before = None
        if IndexDirectory(index).current().manifest.segments is None:
            before = None  # an update that compacted has two generations; the one before holds the same
    verify(index)
    print(json.dumps({"operations": operations, "titles": len(model.titles), **counts}))


if __name__ == "__main__":
    main()
