"""Updates, compacts and rolls back an index at random and is killed while it does, with a reader asking all the while;
run by test_soak.py for 20,000 operations, and by hand for as many as one likes:

    python tests/index/update/soak.py FOLDER OPERATIONS SEED

An operation is a title put or removed, a user put, a row of what was seen, a compaction or a rollback; about a hundred
go into one publication, some of which are rows alone. Each is made by a fork that, one time in two, kills itself before
its n-th change to the disk: a file opened for writing, a link, a rename, a removal or a sync; n goes through all of
them. Afterwards the index must be what it was or what the publication makes of it, as a model of dicts and numpy has
it: no title lost, none back from the dead, none twice, and the best titles of three queries those of brute force. The
reader follows the index and asks the same queries; whatever it was answered must be what the model says of the
generation that answered. Prints one JSON object. Ctrl-C ends it after the publication at hand, and what was done is
told. Several at a time, each with a folder and a seed of its own, share the cores. On /dev/shm the disk costs nothing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401 - so that a fork need not import it
import faiss
import numpy as np
import pyarrow.parquet  # noqa: F401
from living_worlds import DIM, Draws, Model, begun, write_folder, write_seen

from semrec_faiss import Recommender
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.generations.manifest import GenerationRef
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.verifying import verify
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import compact_index, update_index

CHANGES = frozenset(("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.rmtree", "os.truncate"))
QUERIES = np.random.default_rng(5).normal(size=(3, DIM)).astype(np.float32)
K = 5
TITLES = 300
SEEN = 20
"""Generations that the reader is to have answered from."""

Answers = tuple[list[list[str]], list[list[float]]]
"""Ids and scores, a list a query."""


@dataclass
class Killer:
    """Runs work in forks and kills them, each time before another change to the disk.

    Attributes:
        changes: how many changes each kind of work makes, as far as that is known.
        killed: what the killed ones were about to do.
    """

    changes: Counter[str] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)
    turn: int = 0

    def run(self, name: str, work: Callable[[], Any]) -> bool:
        """Run ``work`` in a fork; whether it was killed."""
        self.turn += 1
        known = self.changes[name] or 100
        number = 1 + (self.turn * 89) % max(2, 2 * known)  # half of them end
        only = {0: "os.rename", 1: "fsync"}.get(self.turn % 5)  # these are few: in turns, each of them
        if only is not None:
            number = 1 + self.turn // 5 % (2 if only == "os.rename" else 12)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            _killed_before(number, only, work, write)
        os.close(write)
        with os.fdopen(read) as told:
            last = told.read()
        status = os.waitpid(pid, 0)[1]
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                raise SystemExit(f"{name} failed: {last}")
            self.changes[name] = int(last)
            return False
        self.killed[last] += 1
        if only is None:
            self.changes[name] = max(self.changes[name], number)  # it would have made as many at least
        return True


def _killed_before(number: int, only: str | None, work: Callable[[], Any], told: int) -> None:
    """Run ``work`` in this process, which ends with it or before its ``number``-th change, ``only`` of a kind."""
    counts, plain = Counter[str | None](), os.fsync

    def step(what: str) -> None:
        counts[None] += 1
        counts[what] += 1
        if counts[only] == number and only in (None, what):
            os.write(told, what.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or writes:
            step(event)

    def sync(descriptor: int) -> None:
        step("fsync")
        plain(descriptor)

    os.fsync = sync
    sys.addaudithook(hook)
    faiss.omp_set_num_threads(1)
    try:
        work()
    except BaseException as error:
        os.write(told, f"{type(error).__name__}: {error}".encode())
        os._exit(3)
    os.write(told, str(counts[None]).encode())
    os._exit(0)


State = tuple[list[str], list[str], set[tuple[str, str]]]
"""Titles and users in order, and who has seen what."""


def state_of(index: Path) -> tuple[State, Answers]:
    """Read all that an index holds, and ask it."""
    saved = SavedIndex(index, ["device.kind=cpu"])
    ids = [json.loads(line)["media_id"] for line in saved.titles.lines(range(saved.titles.count))]
    users = saved.users
    assert users is not None
    names, history = users.ids, users.history
    of = np.repeat(np.arange(users.count), np.diff(history.offsets))
    pairs = [(names[user], ids[row]) for user, row in zip(of.tolist(), history.rows.tolist(), strict=True)]
    assert len(pairs) == len(set(pairs)), "seen twice"
    found = saved.vectors.search(QUERIES, K)
    return (ids, names, set(pairs)), ([[ids[row] for row in rows] for rows in found.rows], found.scores.tolist())


def state_by(model: Model) -> State:
    seen = {(user, title) for user, title, *_ in model.seen if title in model.titles}
    return list(model.titles), list(model.users), seen


@dataclass
class Truth:
    """What a model says of the titles of one generation: their ids, and float64 (queries, titles) scores."""

    ids: dict[str, int]
    scores: Any

    @classmethod
    def of(cls, model: Model) -> Truth:
        vectors = np.stack([vector for _, vector in model.titles.values()]).astype(np.float64)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        queries = QUERIES.astype(np.float64)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        return cls({media_id: row for row, media_id in enumerate(model.titles)}, queries @ unit.T)

    def check(self, answers: Answers) -> None:
        """Hold what was answered against the best titles by brute force."""
        for ids, scores, truth in zip(*answers, self.scores, strict=True):
            assert len(set(ids)) == K, f"a title twice: {ids}"
            assert not set(ids) - self.ids.keys(), f"titles that are none: {set(ids) - self.ids.keys()}"
            assert np.allclose(scores, -np.sort(-truth)[:K], atol=1e-5), "other scores"
            assert np.allclose(truth[[self.ids[media_id] for media_id in ids]], scores, atol=1e-5), "other titles"


def read_on(index: Path, told: Path, ending: Path, parent: int) -> None:
    """Ask a Recommender that follows the index, until the end or that of the process which started this one.

    Notes what each generation answered, which is one thing. Runs in a process of its own.
    """
    faiss.omp_set_num_threads(1)
    noted: dict[str, Answers] = {}
    asked = 0
    with Recommender.open(index, ["device.kind=cpu"], follow=True) as recommender, told.open("w", buffering=1) as file:
        while not ending.exists() and os.getppid() == parent:
            one = recommender.pinned()
            found = one.search(QUERIES, K)
            answers = [[title.media_id for title in each] for each in found], found.scores.tolist()
            generation = one.saved.generation.ref.manifest_sha256
            asked += 1
            if generation not in noted:
                noted[generation] = answers
                file.write(json.dumps([generation, answers]) + "\n")
            assert noted[generation] == answers, "one generation gave two answers"
            time.sleep(0.03)
        file.write(json.dumps(["asked", asked]) + "\n")


def _reader(index: Path, root: Path) -> int:
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        try:
            read_on(index, root / "answers.jsonl", root / "ending", parent)
        except BaseException as error:
            print(f"the reader: {type(error).__name__}: {error}", file=sys.stderr)
            os._exit(3)
        os._exit(0)
    return pid


def _has_seen_enough(reader: int, root: Path) -> bool:
    """Whether the reader has answered from many generations, however little it came to on a busy machine, or fallen."""
    told = root / "answers.jsonl"
    seen = told.read_bytes().count(b"\n") if told.exists() else 0
    return seen >= SEEN or os.waitid(os.P_PID, reader, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def drawn(draws: Draws, model: Model, index: Path, folder: Path) -> tuple[str, int, Callable[[], Any], Model]:
    """Draw a publication: its name, how many operations, what makes it, and what the model is afterwards."""
    after = Model(dict(model.titles), dict(model.users), list(model.seen))
    if draws.random.random() < 0.05:
        return "compact", 1, lambda: compact_index(index), after
    here = list(model.titles)
    if draws.random.random() < 0.1:
        rows = draws.rows(list(model.users), here, 40)
        write_seen(folder.with_suffix(".parquet"), rows)
        after.see(rows)
        after.seen = list({row[:2]: row for row in after.seen}.values())
        change = Change(seen=folder.with_suffix(".parquet"))
        return "append", len(rows), lambda: update_index(index, change, compact_at=None), after
    many = max(1, 20 + (TITLES - len(here)) // 5)
    many, absent = int(draws.random.integers(many, many + 4)), draws.absent(model)
    back = [] if draws.made < 2 * TITLES else absent[:: max(1, len(absent) // many)]
    titles = draws.titles(0 if back else many, back) | draws.titles(0, draws.some(here, 70))
    users = {f"u{draws.random.integers(60)}": draws.vector() for _ in range(15)}
    gone = [each for each in draws.some(here, 50) if each not in titles]
    rows = draws.rows(list(users), [*titles, *draws.some(absent, 20)], 40)
    write_folder(folder, titles, users, rows)
    after.remove(gone, [])
    after.put_titles(titles)
    after.put_users(users)
    after.see(rows)
    after.seen = list({row[:2]: row for row in after.seen}.values())
    share = 0.1 if draws.random.random() < 0.1 else None
    count = len(titles) + len(users) + len(gone) + len(rows)
    return "update", count, lambda: update_index(index, Change(folder, gone), compact_at=share), after


def publications(
    index: Path, root: Path, model: Model, draws: Draws, killer: Killer
) -> Iterator[tuple[str, int, Model]]:
    """Publish at random for ever; yield what was done, how many operations that were, and the model afterwards."""
    before: Model | None = None  # what a rollback would go to, where that is known
    way_back: GenerationRef | None = None  # the generation before the latest update, where that was not taken back
    state = state_of(index)[0]
    while True:
        if before is not None and draws.random.random() < 0.3:
            name, count, after = "rollback", 1, before
            was_killed = killer.run(name, lambda: IndexDirectory(index).rollback())
        else:
            name, count, work, after = drawn(draws, model, index, root / "change")
            was_killed = killer.run(name, work)
        (state, answers), old, new = state_of(index), state_by(model), state_by(after)
        assert state in (old, new), f"{name}: the index is neither as before nor as after"
        assert was_killed or state == new, f"{name}: it ended and is not there"
        is_done = state == new and new != old
        manifest = IndexDirectory(index).current().manifest
        if is_done and name in ("update", "rollback"):
            way_back = manifest.previous if name == "update" else None
        if way_back is not None:  # whatever was appended and compacted since, and whatever of it was killed
            Generation(index, way_back).check_all()
        # Where an update has compacted, too, the generation before holds the same.
        before = model if is_done and name == "update" and manifest.segments is not None else None
        model = after if is_done else model
        Truth.of(model).check(answers)
        yield f"{name} {'killed' if was_killed else 'ended'}", count, model


def register(index: Path, truths: dict[str, Truth], before: Truth, after: Truth) -> None:
    """Tell the truth of the generations that a publication made, of which the reader may have seen any.

    An update that compacts publishes twice, or three times: what it compacts first holds what was there before, and
    what it compacts last comes after a generation that holds the same.
    """
    directory = IndexDirectory(index)
    truths.setdefault(directory.current().ref.manifest_sha256, after)
    for generation in directory.generations().values():
        if not isinstance(generation, Generation):
            continue  # killed while it was removed
        if generation.ref.manifest_sha256 not in truths:
            titles = SavedIndex.of(generation, ["device.kind=cpu"]).titles
            ids = [json.loads(line)["media_id"] for line in titles.lines(range(titles.count))]
            truths[generation.ref.manifest_sha256] = before if ids == list(before.ids) else after
        previous = generation.manifest.previous
        if previous is not None and not (index / previous.name).is_dir():  # two before the one in use
            truths.setdefault(previous.manifest_sha256, before)


def main() -> None:
    """Do as many operations as wanted."""
    root, operations, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    root.mkdir(parents=True, exist_ok=True)
    model, draws = begun(seed, titles=TITLES, users=40)
    index = model.build(root / "first", {"type": "flat"})
    truth = Truth.of(model)
    truths = {IndexDirectory(index).current().ref.manifest_sha256: truth}
    reader, killer, counts, done, publication = _reader(index, root), Killer(), Counter[str](), 0, 0
    started, interrupted = time.monotonic(), list[int]()
    signal.signal(signal.SIGINT, lambda number, _: interrupted.append(number))
    for name, count, known in publications(index, root, model, draws, killer):
        before, truth = truth, Truth.of(known)
        register(index, truths, before, truth)
        counts[name] += 1
        done, publication = done + count, publication + 1
        if publication % 500 == 0:
            print(f"{done:,} operations, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        if interrupted or (done >= operations and _has_seen_enough(reader, root)):
            break
    (root / "ending").touch()
    status = os.waitpid(reader, 0)[1]
    assert os.WIFEXITED(status) and not os.WEXITSTATUS(status), "the reader failed"
    *noted, (_, asked) = [json.loads(line) for line in (root / "answers.jsonl").read_text().splitlines()]
    for generation, answers in noted:
        truths[generation].check(answers)
    verify(index)
    told: dict[str, Any] = {"operations": done, "publications": publication, **counts}
    told |= {"killed_before": dict(killer.killed), "reader_asked": asked, "reader_generations": len(noted)}
    print(json.dumps(told | {"seconds": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    main()
