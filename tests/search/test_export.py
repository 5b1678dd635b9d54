"""Every user's list in one file: equal to recommend(), whole after any kill, there only when it is finished."""

from __future__ import annotations

import json
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_python

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.folder.database import session
from semrec_faiss.errors import NotFoundError, SemrecError, StorageError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.search import export, lists_file
from semrec_faiss.search.export import export_all_users
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.lists_file import ListsFile
from semrec_faiss.search.recommender import Recommender

Row = tuple[str, int, str, str, float]

USERS = 200
BLOCK = 25
PARTS = 8  # blocks of 25 users


@pytest.fixture(scope="module")
def recommender(library: Any) -> Recommender:
    """The library's exact index."""
    return Recommender.open(library.output)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight blocks for two hundred users."""
    monkeypatch.setattr(export, "BLOCK_USERS", BLOCK)


def read(path: Path) -> list[Row]:
    """Return the file's rows in their order, and check its columns."""
    with session() as connection:
        found = connection.read_parquet([str(path).replace("[", "[[]")])
        assert found.columns == ["user_id", "rank", "media_id", "title", "score"]
        assert [str(kind) for kind in found.types] == ["VARCHAR", "INTEGER", "VARCHAR", "VARCHAR", "FLOAT"]
        return found.fetchall()


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def expected_rows(recommender: Recommender, user_ids: list[str], k: int, **wish: Any) -> list[Row]:
    """What the file must hold: recommend() for one user after the other, in the blocks that the export makes."""
    rows: list[Row] = []
    for start in range(0, len(user_ids), BLOCK):
        for answer in recommender.recommend(user_ids[start : start + BLOCK], k, **wish):
            user_id = answer.query["user_id"]
            rows += [(user_id, one.rank, one.media_id, one.title, one.score) for one in answer]
    return rows


def check_same(rows: list[Row], expected: list[Row]) -> None:
    """The same lists; scores to a rounding, for a filter's vectors may be gathered in one run and not in the other."""
    assert [row[:2] for row in rows] == [row[:2] for row in expected]
    np.testing.assert_allclose([row[4] for row in rows], [row[4] for row in expected], rtol=0, atol=1e-6)
    same = [row[2:4] == other[2:4] for row, other in zip(rows, expected, strict=True)]
    assert sum(same) >= 0.98 * len(same), "but for titles whose scores a rounding tells apart"


WISHES: dict[str, dict[str, Any]] = {
    "plain": {"k": 10},
    "one": {"k": 1},
    "many": {"k": 120},
    "seen": {"k": 10, "include_seen": True},
    "where": {"k": 7, "where": "'Drama' IN genres AND NOT ok"},
    "filter": {"k": 5, "where": Filter(genres=("Rock 'n' Roll",), years=(1980, None)), "exclude": ["m00003", "Film 9"]},
    "few": {"k": 10, "where": "place < 6"},
    "none": {"k": 10, "where": "false"},
    "varied": {"k": 6, "diversity": 0.4, "max_per": {"franchise": 1}},
    "subset": {"k": 8, "where": "place < 500", "strategy": "subset"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WISHES)
def test_the_file_is_recommend_user_by_user(
    recommender: Recommender, world: Any, library: Any, tmp_path: Path, name: str
) -> None:
    wish = dict(WISHES[name])
    out = tmp_path / "recs.parquet"
    summary = export_all_users(recommender, out, **wish)
    k = wish.pop("k")
    rows = read(out)
    check_same(rows, expected_rows(recommender, library.user_ids, k, **wish))
    assert [row[3] for row in rows] == [f"Film {int(row[2][1:])}" for row in rows]
    assert listed(tmp_path) == ["recs.parquet"]
    per_user = Counter(row[0] for row in rows)
    seen = {
        (library.user_ids[user], world.entries[row]["media_id"])
        for user, rows in enumerate(library.seen)
        for row in rows
    }
    full = sum(count == k for count in per_user.values())
    assert summary.as_dict() == {
        "users": USERS,
        "users_with_k": full,
        "users_short": USERS - full,
        "titles_recommended": len({row[2] for row in rows}),
        "titles": len(world.entries),
        "repeats": len(rows) - len({(row[0], row[2]) for row in rows}),
        "seen_leaks": None if wish.get("include_seen") else sum((row[0], row[2]) in seen for row in rows),
        "resumed_users": 0,
    }
    assert summary.repeats == 0
    assert summary.seen_leaks in (0, None)
    for user_id, count in per_user.items():
        assert [row[1] for row in rows if row[0] == user_id] == list(range(1, count + 1))


def test_progress_counts_the_users(recommender: Recommender, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    export_all_users(recommender, tmp_path / "recs.parquet", 3, progress=lambda *step: told.append(step))
    assert told == [("recommending", min(USERS, (n + 1) * BLOCK), USERS) for n in range(PARTS)]


@pytest.mark.parametrize(
    "name", ["a 'quoted' file.parquet", "b[ra]cket*.parquet", "日本 ?.parquet", '"x".parquet', "%d.pq"]
)
def test_odd_names_are_names(recommender: Recommender, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "it's [a] *folder?" / "deep"
    export_all_users(recommender, folder / name, 2)
    assert listed(folder) == [name]
    content = (folder / name).read_bytes()
    plain = tmp_path / "plain.parquet"
    plain.write_bytes(content)
    assert len(read(plain)) == 2 * (USERS - 1)


def test_a_relative_path(recommender: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    export_all_users(recommender, Path("recs.parquet"), 2)
    assert listed(tmp_path) == ["recs.parquet"]


# Interrupted


class Interrupted(BaseException):
    """What a test raises in the middle of an export."""


def interrupt(recommender: Recommender, out: Path, after: int, **wish: Any) -> None:
    """Export until ``after`` blocks are done, then break off."""

    def stop(what: str, done: int, total: int, /) -> None:
        if done >= after * BLOCK:
            raise Interrupted

    with pytest.raises(Interrupted):
        export_all_users(recommender, out, progress=stop, **wish)


def folders(path: Path) -> list[str]:
    return [name for name in listed(path) if name.startswith(".")]


def test_an_interrupted_run_goes_on_where_it_was(
    recommender: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole" / "recs.parquet"
    export_all_users(recommender, whole, 10)
    out = tmp_path / "out" / "recs.parquet"
    interrupt(recommender, out, 5, k=10)
    assert not out.exists()
    assert len(folders(out.parent)) == 1
    searched: list[int] = []
    run = recommender.searcher.run
    monkeypatch.setattr(
        recommender.searcher, "run", lambda queries, *rest: searched.append(len(queries)) or run(queries, *rest)
    )
    summary = export_all_users(recommender, out, 10)
    assert summary.resumed_users == 5 * BLOCK
    assert sum(searched) == USERS - 5 * BLOCK
    assert read(out) == read(whole)
    assert listed(out.parent) == ["recs.parquet"]
    again = export_all_users(recommender, out, 10)
    assert again.resumed_users == 0


@pytest.mark.parametrize(
    "change",
    [
        {"k": 9},
        {"include_seen": True},
        {"where": "year > 1990"},
        {"where": Filter(genres=("Drama",))},
        {"exclude": ["m00001"]},
        {"diversity": 0.1},
        {"max_per": {"franchise": 3}},
    ],
)
def test_other_settings_start_anew(
    recommender: Recommender, library: Any, tmp_path: Path, change: dict[str, Any]
) -> None:
    out = tmp_path / "recs.parquet"
    interrupt(recommender, out, 4, k=10)
    before = folders(tmp_path)
    wish = {"k": 10, **change}
    with pytest.warns(RuntimeWarning, match=r"made lists for .*recs.parquet with other settings, and this one begins"):
        interrupt(recommender, out, 2, **wish)
    assert len(folders(tmp_path)) == 2
    assert set(folders(tmp_path)) > set(before)
    summary = export_all_users(recommender, out, **wish)
    assert summary.resumed_users == 2 * BLOCK
    assert listed(tmp_path) == [out.name]
    k = wish.pop("k")
    check_same(read(out), expected_rows(recommender, library.user_ids, k, **wish))


def test_a_run_with_other_settings_that_is_broken_off_takes_nothing_from_the_one_before(
    recommender: Recommender, tmp_path: Path
) -> None:
    """Once a fault: who forgot a filter and broke off lost what hours had made."""
    out = tmp_path / "recs.parquet"
    interrupt(recommender, out, 4, k=10, where="year > 1990")
    with pytest.warns(RuntimeWarning, match="recs.parquet.parts-.* stays until .* give its settings to go on with it"):
        interrupt(recommender, out, 1, k=10)
    assert export_all_users(recommender, out, 10, where="year > 1990").resumed_users == 4 * BLOCK
    assert listed(tmp_path) == [out.name]


def test_another_index_or_other_search_settings_start_anew(library: Any, tmp_path: Path) -> None:
    values = {"dataset": str(library.folder), "output": str(tmp_path / "index"), "device": "cpu"}
    index = {"type": "ivf_flat", "build": {"nlist": 16}, "search": {"nprobe": 4}}
    build_index(config_from_dict(values | {"index": index}))
    out = tmp_path / "out" / "recs.parquet"
    interrupt(Recommender.open(tmp_path / "index"), out, 3, k=4)
    interrupt(Recommender.open(tmp_path / "index", ["index.search.nprobe=5"]), out, 3, k=4)
    assert export_all_users(Recommender.open(tmp_path / "index", ["index.search.nprobe=5"]), out, 4).resumed_users == 75
    interrupt(Recommender.open(tmp_path / "index"), out, 3, k=4)
    build_index(config_from_dict(values))
    assert export_all_users(Recommender.open(tmp_path / "index"), out, 4).resumed_users == 0
    assert listed(out.parent) == ["recs.parquet"]


def test_the_old_file_stays_until_the_new_one_is_whole(recommender: Recommender, tmp_path: Path) -> None:
    out = tmp_path / "recs.parquet"
    export_all_users(recommender, out, 3)
    old = out.read_bytes()
    for after in (1, 6, PARTS - 1):
        interrupt(recommender, out, after, k=5)
        assert out.read_bytes() == old
    summary = export_all_users(recommender, out, 5)
    assert summary.resumed_users == (PARTS - 1) * BLOCK
    assert len(read(out)) > len(old) / 100
    assert Counter(row[1] for row in read(out))[5] == summary.users_with_k


# Once a fault: the name is taken for a pattern: this one's brackets match the other's folder, and miss its own.
@pytest.mark.parametrize("name", ["rec[sx].parquet", "rec*.parquet", "rec?.parquet"])
def test_remains_of_other_files_are_left_alone(recommender: Recommender, tmp_path: Path, name: str) -> None:
    interrupt(recommender, tmp_path / "recs.parquet", 5, k=10)
    before = folders(tmp_path)
    export_all_users(recommender, tmp_path / name, 10)
    assert folders(tmp_path) == before
    assert export_all_users(recommender, tmp_path / "recs.parquet", 10).resumed_users == 5 * BLOCK


# Once a fault: as above
def test_remains_of_other_settings_are_removed_under_an_odd_name(recommender: Recommender, tmp_path: Path) -> None:
    out = tmp_path / "recs[1].parquet"
    interrupt(recommender, out, 5, k=10)
    with pytest.warns(RuntimeWarning, match="with other settings"):
        export_all_users(recommender, out, 9)
    assert listed(tmp_path) == [out.name]


# Once a fault: a block that a power cut left empty or half-written was an error, at every further run.
@pytest.mark.parametrize("content", [b"", b"PAR1", None])
def test_a_damaged_block_is_made_again(recommender: Recommender, tmp_path: Path, content: bytes | None) -> None:
    whole = tmp_path / "whole" / "recs.parquet"
    export_all_users(recommender, whole, 10)
    out = tmp_path / "out" / "recs.parquet"
    interrupt(recommender, out, 5, k=10)
    part = sorted(out.parent.glob(".*/users-*.lists"))[2]
    part.write_bytes(part.read_bytes()[:-40] if content is None else content)
    export_all_users(recommender, out, 10)
    assert read(out) == read(whole)


KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
import duckdb, faiss, numpy.ma, pyarrow.parquet
from semrec_faiss.search import export, lists_file
from semrec_faiss.search.recommender import Recommender

index, folder, mode = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
export.BLOCK_USERS = int(sys.argv[4])
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}
held = pyarrow.BufferOutputStream()
pyarrow.parquet.write_table(pyarrow.table({name: [] for name in lists_file.COLUMNS}), held)
OLD = held.getvalue().to_pybytes()

def forked(out, step=None):
    pid = os.fork()
    if pid == 0:
        changes = 0

        def hook(event, arguments):
            nonlocal changes
            if event in CHANGES and str(folder) in str(arguments[0]):
                changes += 1
                if changes == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            summary = export.export_all_users(Recommender.open(index), out, 10)
            out.with_name("summary.json").write_text(json.dumps(summary.as_dict()))
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    return pid

def ended(pid):
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), code
    return code

def fresh(name):
    out = folder / name / "recs.parquet"
    out.parent.mkdir()
    out.write_bytes(OLD)
    return out

def look(out):
    return [len(list(out.parent.glob(".*/users-*.lists"))), out.read_bytes() == OLD]

def killed_at_random(rounds):
    chance, seen = random.Random(5), []
    started = time.monotonic()
    assert ended(forked(fresh("timed"))) == 0
    unbroken = time.monotonic() - started
    number = 0
    while number < rounds or not seen:
        number += 1
        out = fresh(f"random {number}")
        for _ in range(5):
            pid = forked(out)
            time.sleep(unbroken * chance.uniform(0, 0.9))
            os.kill(pid, signal.SIGKILL)
            if ended(pid) == 0:
                unbroken *= 0.7  # the machine has less to do than it had before
                break
            seen.append(look(out))
        assert ended(forked(out)) == 0
    return seen

def killed_before_each_change():
    seen, resumed = [], []
    for step in range(1, 100):
        out = fresh(f"change {step}")
        if ended(forked(out, step)) == 0:
            return seen, resumed
        seen.append(look(out))
        assert ended(forked(out)) == 0
        resumed.append(json.loads(out.with_name("summary.json").read_text())["resumed_users"])

assert ended(forked(fresh("whole"))) == 0
if mode == "random":
    print(json.dumps({"seen": killed_at_random(4)}))
else:
    seen, resumed = killed_before_each_change()
    print(json.dumps({"seen": seen, "resumed": resumed}))
"""


def kill(library: Any, folder: Path, mode: str, block: int) -> dict[str, Any]:
    """Let exports be killed and gone on with, and check that every file is that of the unbroken run."""
    result = run_python("-c", KILLER, library.output, folder, mode, block)
    assert result.returncode == 0, result.stderr
    whole = read(folder / "whole" / "recs.parquet")
    assert len({row[0] for row in whole}) == USERS - 1  # one has seen everything
    for place in folder.iterdir():
        assert read(place / "recs.parquet") == whole
        assert listed(place) == ["recs.parquet", "summary.json"]
    told: dict[str, Any] = json.loads(result.stdout)
    return told


@pytest.mark.slow
def test_killed_at_any_instant_the_file_comes_out_the_same(library: Any, tmp_path: Path) -> None:
    told = kill(library, tmp_path, "random", 20)
    assert told["seen"], "no export was killed; how many depends on the machine, the next test kills at every change"


@pytest.mark.slow
def test_killed_before_each_change_of_the_disk(library: Any, tmp_path: Path) -> None:
    """Five blocks: folders made, blocks renamed, the file put in its place, and what is left cleared away."""
    told = kill(library, tmp_path, "changes", 40)
    assert len(told["seen"]) >= 8
    assert {parts for parts, _ in told["seen"]} >= {0, 1, 2, 3, 4, 5}
    assert set(told["resumed"]) >= {0, 40, 80, 120, 160, 200}
    is_old = [old for _, old in told["seen"]]
    assert is_old == sorted(is_old, reverse=True)
    assert is_old.count(True) >= 6, "the old file is there while the new one is made"
    assert is_old.count(False) >= 1, "and gone before the blocks are cleared away"


# What cannot be written


def test_a_folder_is_no_file(recommender: Recommender, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        export_all_users(recommender, tmp_path, 3)
    assert listed(tmp_path) == []


@pytest.mark.parametrize("name", ["orders.parquet", "letter"])
def test_what_is_no_lists_is_not_replaced(recommender: Recommender, tmp_path: Path, name: str) -> None:
    """Once a fault: any file was replaced, a table of orders, say."""
    out = tmp_path / name
    pq.write_table(pa.table({"user_id": ["u"], "media_id": ["m"]}), tmp_path / "orders.parquet")
    (tmp_path / "letter").write_text("dear", encoding="utf-8")
    before = out.read_bytes()
    with pytest.raises(UsageError, match=rf"{name} holds something else than lists\nname another --out"):
        export_all_users(recommender, out, 3)
    assert out.read_bytes() == before and listed(tmp_path) == ["letter", "orders.parquet"]
    out.write_bytes(b"")  # as mktemp makes it
    assert export_all_users(recommender, out, 3).users == USERS


def test_lists_of_an_earlier_version_are_replaced(recommender: Recommender, tmp_path: Path) -> None:
    out = tmp_path / "recs.parquet"
    export_all_users(recommender, out, 3)
    rows = read(out)
    pq.write_table(pq.read_table(out).replace_schema_metadata(), out)
    assert lists_file.how_made(out) == {}
    export_all_users(recommender, out, 3)
    assert (read(out), listed(tmp_path)) == (rows, ["recs.parquet"])


def test_a_file_is_no_folder(recommender: Recommender, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="is a file"):
        export_all_users(recommender, tmp_path / "file" / "recs.parquet", 3)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


# Once a fault: looking whether it is a directory fails before anything is guarded.
def test_a_name_that_is_too_long(recommender: Recommender, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        export_all_users(recommender, tmp_path / ("x" * 300), 3)
    assert listed(tmp_path) == []


def test_an_index_without_users(make_folder: Callable[..., Any], tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", titles=40)
    build_index(config_from_dict({"dataset": str(folder.root), "output": str(tmp_path / "index"), "device": "cpu"}))
    (tmp_path / "out").mkdir()
    with pytest.raises(NotFoundError, match=r"holds no users\n.*users/seen\.parquet.* build it again"):
        export_all_users(Recommender.open(tmp_path / "index"), tmp_path / "out" / "recs.parquet", 3)
    assert listed(tmp_path / "out") == []


# Once a fault: the folder of blocks is made, and those of an interrupted run removed, before the settings are looked
# at.
@pytest.mark.parametrize(
    "wish",
    [
        {"where": "yaer > 1990"},
        {"where": Filter(genres=("Dramma",))},
        {"exclude": ["No such film"]},
        {"max_per": {"nope": 1}},
        {"k": 0},
    ],
)
def test_a_mistake_leaves_everything_as_it_was(recommender: Recommender, tmp_path: Path, wish: dict[str, Any]) -> None:
    out = tmp_path / "recs.parquet"
    with pytest.raises(SemrecError):
        export_all_users(recommender, out, **{"k": 10, **wish})
    assert listed(tmp_path) == []
    interrupt(recommender, out, 5, k=10)
    before = folders(tmp_path)
    with pytest.raises(SemrecError):
        export_all_users(recommender, out, **{"k": 10, **wish})
    assert folders(tmp_path) == before


FULL = """
import resource, signal, sys
from pathlib import Path
from semrec_faiss.search import export
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.errors import StorageError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
export.BLOCK_USERS = int(sys.argv[3])
recommender = Recommender.open(sys.argv[1])
limit = int(sys.argv[4])
sys.dont_write_bytecode = True  # or what is imported from here on is cut short for everybody
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    export.export_all_users(recommender, Path(sys.argv[2]), 20)
except StorageError as error:
    print("StorageError", error.message)
"""


# Once a fault: DuckDB's error of a full disk is no OSError.
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit of file sizes")
@pytest.mark.parametrize("limit", [1000, 12_000])  # one block; the joined file
def test_a_full_disk_leaves_the_old_file(recommender: Recommender, library: Any, tmp_path: Path, limit: int) -> None:
    out = tmp_path / "recs.parquet"
    export_all_users(recommender, out, 2)
    old = out.read_bytes()
    result = run_python("-c", FULL, library.output, out, BLOCK, limit)
    assert out.read_bytes() == old
    assert "Traceback" not in result.stderr
    assert result.stdout.startswith("StorageError cannot write")
    assert list(tmp_path.rglob("*.new")) == []
    summary = export_all_users(recommender, out, 20)
    assert summary.users_with_k + summary.users_short == USERS
    assert listed(tmp_path) == ["recs.parquet"]


def test_sizes_of_blocks_do_not_matter(
    recommender: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = []
    for block in (7, 64, 199, 200, 4096):
        monkeypatch.setattr(export, "BLOCK_USERS", block)
        out = tmp_path / f"{block}.parquet"
        export_all_users(recommender, out, 10)
        tables.append(read(out))
    for table in tables[1:]:
        check_same(table, tables[0])


def test_searching_waits_for_encoding_and_row_groups_are_of_one_size(
    recommender: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where encoding is slower, no more results than `MOST_WAITING` are held: here two blocks, and the one searched."""
    monkeypatch.setattr(export, "MOST_WAITING", 2 * BLOCK * 2)
    monkeypatch.setattr(lists_file, "ROW_GROUP", 100)
    searched, may_go_on = [], threading.Event()
    search, add = Recommender.lists_for, ListsFile.add

    def counted(self: Recommender, block: Any, *args: Any, **kwargs: Any) -> Any:
        searched.append(len(block))
        return search(self, block, *args, **kwargs)

    def slow(self: ListsFile, *args: Any) -> None:
        assert may_go_on.wait(30)
        add(self, *args)

    monkeypatch.setattr(Recommender, "lists_for", counted)
    monkeypatch.setattr(ListsFile, "add", slow)
    out = tmp_path / "recs.parquet"
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(export_all_users, recommender, out, 2, include_seen=True)
        while len(searched) < 3 and not written.done():
            time.sleep(0.01)
        time.sleep(0.1)
        assert searched == [BLOCK] * 3
        may_go_on.set()
        assert written.result().users_with_k == USERS
    assert len(searched) == PARTS
    groups = pq.ParquetFile(out).metadata
    assert [groups.row_group(group).num_rows for group in range(groups.num_row_groups)] == [100] * 4
    check_same(read(out), expected_rows(recommender, recommender.users.ids, 2, include_seen=True))


_LISTS = """
import sys
from semrec_faiss import Recommender
from semrec_faiss.search.export import export_all_users
recommender = Recommender.open(sys.argv[1], "device.kind=cpu")
export_all_users(recommender, sys.argv[2], 3)
assert recommender.recommend(recommender.users.ids[:2], 3).to_arrow().num_rows == 6
print("pandas" in sys.modules)
"""


def test_files_and_tables_are_made_without_pandas(library: Any, tmp_path: Path) -> None:
    """Once every list of a command waited half a second for it: `pyarrow.array` imports it where there is one."""
    pytest.importorskip("pandas")
    assert run_python("-c", _LISTS, library.output, tmp_path / "lists.parquet").stdout == "False\n"
