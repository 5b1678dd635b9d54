"""An updated index answers as one that is built anew from the merged data, bit for bit, whatever was done to it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Semrec

from semrec_faiss import IndexWriter, Recommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import ConfigError, DamagedIndexError, DataError, NotFoundError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.verifying import verify
from semrec_faiss.index.screening.screen import Screen
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import compact_index, update_index
from semrec_faiss.search.export import export_all_users
from tests.index.update.living_worlds import DIM, Draws, Model, begun, write_folder, write_seen

FLAT = {"type": "flat"}


def told(answers: Any) -> list[Any]:
    return [
        (one.query, one.matching, one.rows.tolist(), one.scores.tolist(), [result.as_dict() for result in one])
        for one in ([answers] if hasattr(answers, "query") else answers)
    ]


def everything(recommender: Recommender, model: Model, draws: Draws) -> dict[str, Any]:
    """Ask for all that an index answers."""
    queries = np.random.default_rng(1).normal(size=(7, recommender.index.dim))
    titles, users = list(model.titles), list(model.users)
    wishes: list[dict[str, Any]] = [
        {},
        {"where": "year < 1985"},
        {"where": "'Drama' IN genres", "diversity": 0.4},
        {"where": "stars > 3"},
        {"max_per": {"year": 1}},
        {"exclude": titles[:2]},
        {"where": "year < 1985", "strategy": "subset"},
    ]
    if not recommender.index.device.gpus:  # where FAISS takes no selector
        wishes.append({"where": "year < 1985", "strategy": "selector"})
    if not any("stars" in record for record, _ in model.titles.values()):
        wishes.pop(3)
    found: dict[str, Any] = {}
    for number, wish in enumerate(wishes):
        found[f"search {number}"] = told(recommender.search(queries, 12, **wish))
        found[f"one {number}"] = told(recommender.search(queries[0], 40, **wish))
        if users:
            found[f"users {number}"] = told(recommender.recommend(users, 9, **wish))
    for media_id in titles[:: max(1, len(titles) // 6)]:
        found[f"similar {media_id}"] = told(recommender.similar(media_id, 5))
    if users:
        found["explain"] = recommender.explain(users[0], titles[-1]).as_dict()
        found["alike"] = [one.as_dict() for one in recommender.similar_users(users[-1], 4)]
        found["ids"] = recommender.users.ids
        history = recommender.users.history
        found["history"] = [history.offsets.tolist(), history.rows.tolist(), history.timestamps.tolist()]
    found["media_ids"] = [record["media_id"] for record in recommender.titles.records(range(recommender.titles.count))]
    return found


def assert_as_rebuilt(index: Path, model: Model, draws: Draws, tmp_path: Path, settings: dict[str, Any]) -> None:
    rebuilt = Recommender.open(model.build(tmp_path / "rebuilt", settings))
    ours, expected = everything(Recommender.open(index), model, draws), everything(rebuilt, model, draws)
    for name in expected:
        assert ours[name] == expected[name], name


def step(model: Model, draws: Draws, index: Path, folder: Path, update: Any = update_index) -> None:
    """Do something to an index and to its model."""
    titles = draws.titles(int(draws.random.integers(0, 5))) | draws.titles(0, draws.some(list(model.titles), 5))
    titles |= draws.titles(0, draws.some([each for each in draws.absent(model) if each not in titles], 3))
    users = {f"u{draws.random.integers(30)}": draws.vector() for _ in range(int(draws.random.integers(0, 3)))}
    coming = [f"m{draws.made + more:05d}" for more in range(3)]
    named = [*model.titles, *titles, *draws.absent(model), *coming, "m99999"]
    rows = draws.rows([*model.users, *users, "u77"], named, int(draws.random.integers(0, 19)))
    rows += [(next(iter(model.users)), next(iter(model.titles)), 3.0, 5)]
    write_folder(folder, titles, users, rows)
    gone = [each for each in draws.some(list(model.titles), 3) if each not in titles]
    lost = [each for each in draws.some(list(model.users), 1) if each not in users and len(model.users) > 3]
    kept = {row for row in rows if row[0] not in lost}
    if not (titles or users or rows):
        return
    update(index, Change(folder, gone, lost), compact_at=None)
    model.remove(gone, lost)
    model.put_titles(titles)
    model.put_users(users)
    model.see([row for row in rows if row in kept])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_random_updates_answer_as_a_rebuild(seed: int, tmp_path: Path) -> None:
    model, draws = begun(seed)
    index = model.build(tmp_path / "first", FLAT)
    for number in range(4):
        step(model, draws, index, tmp_path / "change")
        if number == 3:
            assert_as_rebuilt(index, model, draws, tmp_path, FLAT)
    verify(index)
    before = everything(Recommender.open(index), model, draws)
    assert IndexDirectory(index).current().manifest.segments is not None
    compact_index(index)
    assert IndexDirectory(index).current().manifest.segments is None
    assert everything(Recommender.open(index), model, draws) == before
    verify(index)


@pytest.mark.slow
def test_random_updates_of_an_index_with_bounds_answer_as_a_rebuild(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single queries look at the bounds of what is left of the base, and of the segments, as one."""
    settings = FLAT | {"build": {"directions": DIM - 1}}
    model, draws = begun(9, titles=1600)
    index = model.build(tmp_path / "first", settings)
    for _ in range(3):
        step(model, draws, index, tmp_path / "change")
    titles = draws.titles(100) | draws.titles(0, draws.some(list(model.titles), 200))
    gone = [each for each in draws.some(list(model.titles), 300) if each not in titles]
    update_index(index, Change(write_folder(tmp_path / "change", titles), gone), compact_at=None)
    model.remove(gone, [])
    model.put_titles(titles)
    answered, search = Counter[bool](), Screen.search

    def counted(screen: Screen, *arguments: Any) -> Any:
        found = search(screen, *arguments)
        answered[found is not None and len(arguments) == 4] += 1
        return found

    monkeypatch.setattr(Screen, "search", counted)
    assert_as_rebuilt(index, model, draws, tmp_path, settings)
    assert Recommender.open(index).search(np.ones(DIM), 40)[0].exact == "proven"
    assert answered[True] > 5


APPROXIMATE: list[dict[str, Any]] = [
    {"type": "ivf_flat", "build": {"nlist": 4}, "search": {"nprobe": 4}},
    {"type": "ivf_flat", "build": {"nlist": 8}, "search": {"nprobe": 2}},
    {"type": "hnsw"},
    {"type": "ivf_pq", "build": {"nlist": 4, "M": 6}, "search": {"nprobe": 4, "refine": 4}},
    {"type": "flat", "normalize": False},
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*few to train")
@pytest.mark.parametrize("settings", APPROXIMATE, ids=lambda one: f"{one['type']}-{len(str(one))}")
def test_any_type_finds_what_was_added_and_nothing_that_was_removed(settings: dict[str, Any], tmp_path: Path) -> None:
    model, draws = begun(3, titles=400, users=4)
    index = model.build(tmp_path / "first", settings)
    titles = draws.titles(30) | draws.titles(0, list(model.titles)[5:300:10])
    gone = list(model.titles)[0:300:10]
    update_index(index, Change(write_folder(tmp_path / "change", titles), gone), compact_at=None)
    model.remove(gone, [])
    model.put_titles(titles)
    rebuilt = Recommender.open(model.build(tmp_path / "rebuilt", settings))
    recommender, queries = Recommender.open(index), np.random.default_rng(1).normal(size=(40, DIM))
    exact = Recommender.open(model.build(tmp_path / "exact", {**FLAT, "normalize": settings.get("normalize", True)}))
    for wish in (
        {},
        {"where": "year < 1985"},
        {"where": "year < 1985", "strategy": "overfetch"},
        {"exclude": gone[:0]},
    ):
        truth = [set(one.rows.tolist()) for one in exact.search(queries, 10, **wish)]
        shares = [
            np.mean([len(own & set(one.rows.tolist())) / len(own) for own, one in zip(truth, each, strict=True)])
            for each in (recommender.search(queries, 10, **wish), rebuilt.search(queries, 10, **wish))
        ]
        assert shares[0] >= shares[1] - 0.005
        assert shares[0] == 1.0 or not recommender.index.exact
    for media_id in list(titles)[:5]:
        vector = titles[media_id][1]
        found = {one.media_id for one in recommender.search(vector, 60)[0]}
        if settings.get("normalize", True):
            assert media_id in found
    found = {one.media_id for each in recommender.search(queries, 350) for one in each}
    assert not found & set(gone)
    assert recommender.search(queries[0], 10_000)[0].returned == len(model.titles)


def test_what_changes_is_counted_and_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    model, draws = begun(4)
    index = model.build(tmp_path / "first", FLAT)
    titles = draws.titles(3) | draws.titles(0, ["m00001", "m00002"]) | {"m00005": model.titles["m00005"]}
    users = {"u1": draws.vector(), "new": draws.vector(), "u2": model.users["u2"]}
    rows = [("u1", "m00007", 4.0, 9), ("nobody", "m00007", 4.0, 9), ("new", "nothing", 4.0, 9)]
    folder = write_folder(tmp_path / "change", titles, users, rows)
    change = Change(folder, ["m00010", "none"], ["u3"], "media_id = 'm00011'")
    for dry_run in (True, False):
        summary = update_index(index, change, dry_run=dry_run, compact_at=None)
        told = summary.as_dict()
        assert told["titles"] == {"new": 3, "changed": 2, "unchanged": 1, "removed": 2, "unknown": 1}
        assert told["users"] == {"new": 1, "changed": 1, "unchanged": 1, "removed": 1, "unknown": 0}
        assert (summary.title_count, summary.user_count) == (61, 12)
        assert (summary.seen, summary.seen_ignored) == (1, 2)
        assert IndexDirectory(index).current().name == ("gen-000001" if dry_run else "gen-000002")
    again = update_index(index, Change(write_folder(folder, titles, users)), compact_at=None)
    assert (again.titles.unchanged, again.users.unchanged, again.bytes_written) == (6, 3, 0)
    assert IndexDirectory(index).current().name == "gen-000002"


def pairs_of(model: Model, rows: list[Any]) -> set[tuple[str, str]]:
    return {(user, media_id) for user, media_id, *_ in rows if user in model.users and media_id in model.titles}


@pytest.mark.parametrize("seed", range(4))
def test_what_was_seen_before_is_not_counted_as_added(seed: int, tmp_path: Path) -> None:
    """Once a fault: rows that were there already counted as added."""
    model, draws = begun(seed)
    index = model.build(tmp_path / "first", FLAT)
    for step in range(6):
        changed = draws.titles(2) | draws.titles(0, draws.some(list(model.titles), 4) or ["m00003"])
        users = {user: draws.vector() for user in [*draws.some(list(model.users), 3), f"new {step}"]}
        gone = [each for each in draws.some(list(model.titles), 3) if each not in changed]
        left = [each for each in draws.some(list(model.users), 1) if each not in users]
        told = pairs_of(model, model.seen)
        since = [*model.seen[-9:], *draws.rows([*model.users, *users, "nobody"], [*model.titles, *changed], 12)] * 2
        since = [row for row in since if row[0] not in left]
        model.put_titles(changed)
        model.put_users(users)
        model.remove(gone, left)
        now = pairs_of(model, since)
        change = Change(write_folder(tmp_path / "change", changed, users, since), gone, left)
        for dry_run in (True, False):
            summary = update_index(index, change, dry_run=dry_run, compact_at=0.4 if step == 4 else None)
            assert (summary.seen, summary.seen_known) == (len(now - told), len(now & told)), (step, dry_run)
            assert summary.seen_ignored == len([row for row in since if (row[0], row[1]) not in now])
        model.see(since)


def test_the_first_that_users_have_seen_is_all_added(tmp_path: Path, semrec: Any) -> None:
    model, _ = begun(1)
    model.seen = []
    data = write_folder(tmp_path / "data", model.titles, model.users)
    build_index(config_from_dict({"dataset": str(data), "output": str(tmp_path / "index"), "device": "cpu"}))
    write_seen(tmp_path / "since.parquet", [("u1", "m00003", 4.0, 9), ("u1", "m00004", 4.0, 9), ("u2", "m9", 1.0, 3)])
    asked = ("append-seen", tmp_path / "index", tmp_path / "since.parquet")
    assert "seen: 2 added, 1 of unknown titles or users ignored" in semrec(*asked).out
    assert "seen: 0 added, 2 there already, 1 of unknown titles or users ignored" in semrec(*asked).out
    told = semrec(*asked, "--json").document
    assert (told["seen"], told["seen_known"], told["seen_ignored"]) == (0, 2, 1)


def test_an_update_links_what_has_not_changed_and_rollback_takes_it_back(tmp_path: Path) -> None:
    model, draws = begun(5)
    index = model.build(tmp_path / "first", FLAT)
    before = everything(Recommender.open(index), model, draws)
    update_index(index, Change(write_folder(tmp_path / "change", draws.titles(1)), ["m00000"]), compact_at=None)
    first, second = index / "gen-000001", index / "gen-000002"
    manifest = IndexDirectory(index).current().manifest
    for name in IndexDirectory(index).current().manifest.files:
        assert name.startswith("seg-000002.") or (first / name).stat().st_ino == (second / name).stat().st_ino
    assert manifest.count == 60
    verify(index)
    IndexDirectory(index).rollback()
    assert everything(Recommender.open(index), model, draws) == before
    update_index(index, Change(remove_titles=["m00001"]), compact_at=None)
    with pytest.raises(NotFoundError):
        Recommender.open(index).similar("m00001")
    assert Recommender.open(index).similar("m00000", 1).returned == 1


def test_metadata_changes_without_vectors_and_new_titles_need_them(tmp_path: Path) -> None:
    model, _ = begun(6)
    index = model.build(tmp_path / "first", FLAT)
    vector = Recommender.open(index).index.vectors([7])
    record = {"title": "Another name", "year": 2001, "genres": ["Drama"], "prize": "Palme d'Or"}
    changed = write_folder(tmp_path / "change", {"m00007": (record, vector[0])}, with_vectors=False)
    update_index(index, Change(changed), compact_at=None)
    recommender = Recommender.open(index)
    assert recommender.titles.find("Another name") == 59
    np.testing.assert_array_equal(recommender.index.vectors([59]), vector)
    np.testing.assert_array_equal(recommender.index.block(55, 60), recommender.index.vectors(range(55, 60)))
    assert [one.media_id for one in recommender.search(vector[0], 5, where="prize IS NOT NULL")[0]] == ["m00007"]
    with pytest.raises(DataError, match="1 title is new, such as 'new', and there are no vectors"):
        update_index(index, Change(write_folder(changed, {"new": (record, vector[0])}, with_vectors=False)))


def test_values_that_a_changed_title_loses_are_counted_by_field(tmp_path: Path, semrec: Semrec) -> None:
    """Once without a word: a rename by a line of id and title took year and genres with it."""
    model, _ = begun(6)
    index = model.build(tmp_path / "first", FLAT)
    before = {one["media_id"]: one for one in Recommender.open(index).titles.records(range(60))}
    whole = {name: value for name, value in before["m00009"].items() if name != "media_id"}
    renamed = {"m00007": {"title": "Another name"}, "m00008": {"title": "Third", "year": 2001}, "m00009": whole}
    vectors = model.titles["m00007"][1]
    told_of = {each: (record, vectors) for each, record in renamed.items()}
    folder = write_folder(tmp_path / "change", told_of, with_vectors=False)
    lost: dict[str, int] = {}
    for media_id, record in renamed.items():
        for name, value in before[media_id].items():
            if value is not None and name not in ("media_id", *record):
                lost[name] = lost.get(name, 0) + 1
    assert lost["year"] == 1 and lost["genres"] == 2
    assert dict(update_index(index, Change(folder), dry_run=True).emptied) == lost
    told = ", ".join(f"{name} of {count}" for name, count in lost.items())
    line = f"values of changed titles that their lines leave out, and that are gone: {told}"
    assert line in semrec("update", index, folder).lines
    assert update_index(index, Change(folder)).emptied == {}  # nothing changes, and nothing is lost again


@pytest.mark.slow
@pytest.mark.parametrize("compacting", range(8), ids="{:03b}".format)
def test_a_title_that_comes_back_has_its_history(compacting: int, tmp_path: Path) -> None:
    """Also what was told of it while it was away, and before it ever came; whenever the index is compacted."""
    model, draws = begun(7)
    media_id = model.seen[0][1]
    title = {media_id: model.titles[media_id]}
    model.seen += [("u3", "later", 2.5, 7), ("u4", "later", 2.5, 7)]
    index, change = model.build(tmp_path / "first", FLAT), tmp_path / "change"

    def compact_in(turn: int) -> None:
        if compacting >> turn & 1:
            compact_index(index)

    for turn in range(2):
        again = {media_id: (title[media_id][0] | {"year": 1901 + turn}, title[media_id][1])}
        update_index(index, Change(write_folder(change, again)), compact_at=None)
        update_index(index, Change(remove_titles=[media_id]), compact_at=None)
        compact_in(0)
        rows = [("u2", media_id, 4.0, 8), ("u4", "later", 4.0, 6), ("u1", "m00003", 4.0, 8)]
        update_index(index, Change(write_folder(change, {}, None, rows)), compact_at=None)
        model.remove([media_id], [])
        model.see(rows)
        assert Recommender.open(index).users.history.offsets[-1] == len(
            {row[:2] for row in model.seen if row[1] in model.titles}
        )
        compact_in(1)
        update_index(index, Change(write_folder(change, title | {"later": draws_of_later(draws)})), compact_at=None)
        model.put_titles(title | {"later": draws_of_later(draws)})
        compact_in(2)
        recommender = Recommender.open(index)
        seen = {(user, recommender.titles.find(title)) for user, title, *_ in model.seen}
        history = recommender.users.history
        of = np.repeat(np.arange(12), np.diff(history.offsets))
        assert set(zip((f"u{user}" for user in of), history.rows.tolist(), strict=True)) == seen
    assert_as_rebuilt(index, model, draws, tmp_path, FLAT)
    verify(index)


def seen_one_by_one(index: Path, model: Model, file: Path, count: int) -> None:
    """Append what one user has seen, one row after the other, none of which is known."""
    known = {row[:2] for row in model.seen}
    since = [("u1", title, 4.0, 9) for title in model.titles if ("u1", title) not in known]
    for row in since[:count]:
        write_seen(file, [row])
        assert update_index(index, Change(seen=file), compact_at=None).seen == 1


def kept(index: Path) -> list[str]:
    return sorted(path.name for path in index.glob("gen-*"))


def test_a_change_can_be_taken_back_whatever_users_have_seen_since(tmp_path: Path, semrec: Semrec) -> None:
    model, draws = begun(5)
    index = model.build(tmp_path / "first", FLAT)
    before = everything(Recommender.open(index), model, draws)
    update_index(index, Change(remove_titles=list(model.titles)[:20]), compact_at=None)
    left = Model(dict(list(model.titles.items())[20:]), model.users, model.seen)
    seen_one_by_one(index, left, tmp_path / "since.parquet", 3)
    assert kept(index) == ["gen-000001", "gen-000004", "gen-000005"]
    wrong = semrec("rollback", index)
    assert wrong.out.startswith(f"{index} is at gen-000004")
    command = f"semrec rollback {index} --to gen-000001"
    assert f"note: to go back to before its titles and users were changed last: {command}\n" in wrong.err
    stuck = semrec("rollback", index)
    assert stuck.code == 4
    assert f"fix: to go back to before its titles and users were changed last: {command}\n" in stuck.err
    right = semrec("rollback", index, "--to", "gen-000001")
    assert (right.code, right.out.startswith(f"{index} is at gen-000001")) == (0, True)
    assert "what users have seen that was appended since is not in it" in right.err
    assert everything(Recommender.open(index), model, draws) == before
    again = semrec("append-seen", index, tmp_path / "since.parquet")
    assert "seen: 1 added" in again.out
    assert kept(index) == ["gen-000001", "gen-000005", "gen-000006"]


def test_a_way_back_that_a_later_change_has_removed_is_not_told(tmp_path: Path, semrec: Semrec) -> None:
    model, _ = begun(5)
    index = model.build(tmp_path / "first", FLAT)
    update_index(index, Change(remove_titles=["m00001"]), compact_at=None)
    seen_one_by_one(index, model, tmp_path / "since.parquet", 1)
    update_index(index, Change(remove_titles=["m00002"]), compact_at=None)
    assert kept(index) == ["gen-000003", "gen-000004"]
    back = semrec("rollback", index)
    assert (back.out.startswith(f"{index} is at gen-000003"), back.err) == (True, "")
    assert f"semrec rollback {index} --to NAME" in semrec("rollback", index).err


def test_what_is_appended_to_a_build_leaves_the_build_before_it(tmp_path: Path, semrec: Semrec) -> None:
    model, _ = begun(5)
    index = model.build(tmp_path / "first", FLAT)
    model.build(tmp_path / "first", FLAT)
    seen_one_by_one(index, model, tmp_path / "since.parquet", 40)  # the 33rd finds so many segments that it is rebuilt
    assert kept(index)[0] == "gen-000001"
    assert len(kept(index)) == 3
    update_index(index, Change(remove_titles=["m00000"]), compact_at=None)
    assert len(kept(index)) == 2
    assert semrec("rollback", index).err == ""


def test_a_compaction_leaves_the_way_back_of_the_change_before_it(tmp_path: Path, semrec: Semrec) -> None:
    model, _ = begun(5)
    index = model.build(tmp_path / "first", FLAT)
    update_index(index, Change(remove_titles=["m00000"]), compact_at=None)
    compact_index(index)
    assert kept(index) == ["gen-000001", "gen-000002", "gen-000003"]
    assert f"semrec rollback {index} --to gen-000001" in semrec("rollback", index).err
    assert semrec("rollback", index, "--to", "gen-000001").code == 0
    assert Recommender.open(index).index.count == 60
    update_index(index, Change(remove_titles=["m00000"]), compact_at=0)  # which compacts by itself
    assert IndexDirectory(index).rollback().manifest.count == 60


def draws_of_later(draws: Draws) -> tuple[dict[str, Any], Any]:
    return {"title": "Later", "year": 1999}, draws.vectors[3]


def test_segments_are_compacted_by_themselves_past_a_share_and_past_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, draws = begun(8)
    index = model.build(tmp_path / "first", FLAT)
    kept = update_index(index, Change(write_folder(tmp_path / "change", draws.titles(6))))
    assert not kept.compacted
    built = update_index(index, Change(write_folder(tmp_path / "change", draws.titles(1))))
    assert built.compacted
    assert (built.segments, built.title_count) == (0, 67)
    directory = IndexDirectory(index)  # the change of 1, in pieces and built anew, is one change to take back
    assert (directory.current().manifest.count, directory.rollback().manifest.count) == (67, 66)
    assert directory.rollback(built.generation).manifest.count == 67
    monkeypatch.setattr("semrec_faiss.index.update.updating.MOST_SEGMENTS", 2)
    summaries = [
        update_index(index, Change(write_folder(tmp_path / "change", draws.titles(1))), compact_at=None)
        for _ in range(3)
    ]
    assert [one.segments for one in summaries] == [1, 2, 1]
    assert [one.compacted for one in summaries] == [False, False, True]


def test_what_cannot_be_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    model, draws = begun(9)
    index = model.build(tmp_path / "first", FLAT)
    folder = write_folder(tmp_path / "change", draws.titles(0, ["m00001"]))
    with pytest.raises(UsageError, match="1 titles are in the folder and to be removed, 'm00001' first"):
        update_index(index, Change(folder, ["m00001"]))
    (new,) = titles = draws.titles(1)
    with pytest.raises(UsageError, match=f"1 titles are in the folder and to be removed, '{new}' first"):
        update_index(index, Change(write_folder(tmp_path / "new", titles), ["nothing", new]))
    with pytest.raises(UsageError, match="all 60 titles would be removed"):
        update_index(index, Change(remove_titles=list(model.titles)))
    with pytest.raises(NotFoundError, match="1 title to be removed is not in the index, such as 'nothing'"):
        update_index(index, Change(remove_titles=["nothing"]), strict=True)
    other = {"m00001": (draws.record(), np.ones(5, np.float32))}
    with pytest.raises(DataError, match="5 dimensions, but 12 are expected"):
        update_index(index, Change(write_folder(folder, other)))
    with pytest.raises(DataError, match=r"5 dimensions, but 12 are expected\n"):  # as the index has
        update_index(index, Change(write_folder(folder, {}, {"u1": np.ones(5, np.float32)})))
    write_seen(tmp_path / "seen.parquet", [("u1", "nothing", 3.0, 5)])
    with pytest.raises(DataError, match="rows whose media_id no title has"):
        update_index(index, Change(seen=tmp_path / "seen.parquet"), strict=True)
    write_seen(tmp_path / "seen.parquet", [("nobody", "m00001", 3.0, 5), ("noone", "m00002", 3.0, 5)])
    with pytest.raises(DataError, match=r"user_id no user has: 2 .*'nobody', 'noone'"):
        update_index(index, Change(seen=tmp_path / "seen.parquet"))
    with pytest.raises(NotFoundError, match="no folder"):
        update_index(index, Change(tmp_path / "none"))
    with pytest.raises(NotFoundError, match="does not exist"):
        update_index(tmp_path / "none", Change(folder))
    assert not (tmp_path / "none").exists()
    assert sorted(path.name for path in index.iterdir() if path.name != ".lock") == ["CURRENT", "gen-000001"]


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [True, False])
def test_users_made_of_their_histories_are_made_anew(normalize: bool, tmp_path: Path) -> None:
    model, draws = begun(10)
    profile = {"weights": "centred", "half_life": 5}
    settings = {**FLAT, "normalize": normalize}
    index = model.build(tmp_path / "first", settings, profile)
    for number in range(4):
        titles = draws.titles(2) | draws.titles(0, draws.some(list(model.titles), 4))
        titles |= draws.titles(0, draws.absent(model)[:1])  # one comes back, which some have seen
        users = {f"new{number}": draws.vector()}
        rows = draws.rows([*model.users, *users], [*model.titles, *titles], 8)
        gone = [next(each for _, each, *_ in model.seen if each in model.titles and each not in titles)]
        folder = write_folder(tmp_path / "change", titles, users, rows)
        update_index(index, Change(folder, gone), compact_at=None)
        model.remove(gone, [])
        model.put_titles(titles)
        model.put_users(users)
        model.see(rows)
        if number == 1:
            compact_index(index)
    ours = Recommender.open(index)
    rebuilt = Recommender.open(model.build(tmp_path / "rebuilt", settings, profile))
    assert sorted(ours.users.ids) == sorted(rebuilt.users.ids)
    unknown = [{one.users.ids[row] for row in one.users.without_likes} for one in (ours, rebuilt)]
    assert unknown[0] == unknown[1]
    for user_id in set(model.users) - unknown[0]:
        assert told(ours.recommend(user_id, 9)) == told(rebuilt.recommend(user_id, 9))
        assert told(ours.recommend(user_id, 9, profile={"interests": 2})) == told(
            rebuilt.recommend(user_id, 9, profile={"interests": 2})
        )
    for user_id in unknown[0]:
        assert told(ours.recommend(user_id, 9)) == told(rebuilt.recommend(user_id, 9))


def test_ids_that_end_in_nul_characters_are_their_own_while_their_titles_are_not_there(tmp_path: Path) -> None:
    """Once a fault: numpy's texts of a fixed width end before them, and another title had been seen."""
    model, draws = begun(11)
    model.seen += [("u1", "away\0", 3.0, 7), ("u1", "away", 2.0, 7), ("u2", "away\0\0", 3.0, 8), ("u2", "a", 3.0, 8)]
    index = model.build(tmp_path / "first", FLAT)

    def kept() -> list[tuple[int, str]]:
        users = SavedIndex(index).users
        rows = None if users is None else users.delisted()
        return [] if rows is None else list(zip(rows.users.tolist(), rows.media_ids.tolist(), strict=True))

    first, second = (list(model.users).index(user) for user in ("u1", "u2"))
    assert kept() == [(first, "away"), (first, "away\0"), (second, "a"), (second, "away\0\0")]
    update_index(index, Change(remove_titles=["m00003"]), compact_at=0)
    assert {each for _, each in kept()} >= {"away", "away\0", "away\0\0", "a"}
    with IndexWriter(index, compact_at=None) as writer:
        writer.put_titles([{"media_id": "away", "title": "Back"}], draws.vector()[None])
    assert {each for _, each in kept()} >= {"away\0", "away\0\0", "a"}
    assert "away" not in {each for _, each in kept()}


@pytest.mark.parametrize(
    ("rows", "strict", "said"),
    [
        (None, False, "nothing.parquet"),
        ([("nobody", "m00007", 4.0, 9)], False, "rows whose user_id no user has: 1"),
        ([("u1", "m00007", 4.0, 9), ("nobody", "m00007", 4.0, 9)], True, "'nobody'"),
        ([("u1", "m00007", 4.0, 5_000_000_000)], False, "row 1 has the timestamp 5000000000"),
    ],
)
def test_a_dry_run_raises_what_the_update_would_of_what_users_have_seen(
    rows: list[tuple[str, str, float, int]] | None, strict: bool, said: str, tmp_path: Path
) -> None:
    """Once a fault: not even whether the file was there was looked at."""
    index = begun(4)[0].build(tmp_path / "first", FLAT)
    seen = tmp_path / "nothing.parquet"
    if rows is not None:
        seen = write_folder(tmp_path / "change", {}, {}, rows) / "users/seen.parquet"
    for dry_run in (True, False):
        with pytest.raises((DataError, NotFoundError), match=said):
            update_index(index, Change(seen=seen), dry_run=dry_run, strict=strict, compact_at=None)
    assert IndexDirectory(index).current().name == "gen-000001"


def test_a_build_counts_history_of_unknown_titles_and_strict_refuses_it(tmp_path: Path) -> None:
    model, _ = begun(11)
    model.seen += [("u1", "delisted", 3.0, 7), ("u2", "m00003", 3.0, 8)]
    index = model.build(tmp_path / "first", FLAT)
    assert IndexDirectory(index).current().manifest.ignored_history == 1
    assert "m00003" in {one.media_id for one in Recommender.open(index).explain("u2", "m00000", 60).contributions}
    with pytest.raises(DataError, match="rows whose media_id no title has"):
        build_index(
            config_from_dict({"dataset": str(tmp_path / "first/data"), "output": str(tmp_path / "x"), "device": "cpu"}),
            strict=True,
        )


def test_damage_to_any_file_of_a_segment_is_found_and_links_that_are_refused_are_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, draws = begun(12)
    index = model.build(tmp_path / "first", FLAT)
    titles, users = draws.titles(2) | draws.titles(0, ["m00001"]), {"u1": draws.vector(), "new": draws.vector()}
    folder = write_folder(tmp_path / "change", titles, users, draws.rows(["u1", "new"], ["m00002"], 2))

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    update_index(index, Change(folder, ["m00004"], ["u5"]), compact_at=None)
    generation = IndexDirectory(index).current()
    assert (generation.folder / "index.faiss").stat().st_nlink == 1
    verify(index)
    own = [name for name in generation.manifest.files if name.startswith("seg-")]
    assert len(own) == 12
    for name in own:
        path = generation.folder / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        with pytest.raises(DamagedIndexError):
            verify(index)
        path.write_bytes(whole)
    verify(index)


def test_an_update_takes_over_no_file_that_is_missing_or_of_another_size(tmp_path: Path) -> None:
    """What is missing was told as a disk that refuses, with "free space"; what an update does not read was linked."""
    model, draws = begun(12)
    index = model.build(tmp_path / "first", FLAT)
    folder = write_folder(tmp_path / "change", draws.titles(2))
    generation = IndexDirectory(index).current()
    for name in generation.manifest.files:
        path = generation.folder / name
        whole = path.read_bytes()
        for how in ("missing", "cut", "a folder"):
            path.unlink()
            if how == "cut":
                path.write_bytes(whole[:-1])
            elif how == "a folder":
                path.mkdir()
            with pytest.raises(DamagedIndexError, match=re.escape(name)):
                update_index(index, Change(folder), compact_at=None)
            if how == "a folder":
                path.rmdir()
            path.write_bytes(whole)
    assert [path.name for path in index.glob("gen-*")] == ["gen-000001"]
    update_index(index, Change(folder), compact_at=None)
    verify(index)


def test_an_export_of_all_users_knows_segments(tmp_path: Path) -> None:
    model, draws = begun(13)
    index = model.build(tmp_path / "first", FLAT)
    titles = draws.titles(4) | draws.titles(0, ["m00001"])
    update_index(index, Change(write_folder(tmp_path / "change", titles, {"new": draws.vector()}), ["m00004"], ["u5"]))
    model.remove(["m00004"], ["u5"])
    recommender = Recommender.open(index)
    assert recommender.saved.segments is not None
    summary = export_all_users(recommender, tmp_path / "all.parquet", 5)
    assert (summary.users, summary.titles, summary.repeats, summary.seen_leaks) == (12, 63, 0, 0)
    rows = duckdb.sql(f"SELECT user_id, list(media_id ORDER BY rank) FROM '{tmp_path / 'all.parquet'}' GROUP BY 1")
    for user_id, media_ids in rows.fetchall():
        assert media_ids == [one.media_id for one in recommender.recommend(user_id, 5)]


def changed_much(model: Model, draws: Draws, index: Path, folder: Path) -> None:
    """Update an index twice, so that a tenth is removed, another replaced, and there are new titles in two segments."""
    for first in (0, 1000):
        titles = draws.titles(100) | draws.titles(0, list(model.titles)[first + 1 : first + 1000 : 10])
        gone = list(model.titles)[first : first + 1000 : 10]
        users = {f"u{first}": draws.vector(), "u1": draws.vector()}
        rows = draws.rows([*model.users, *users], list(titles), 30)
        change = Change(write_folder(folder, titles, users, rows), gone, ["u2"] if first else [])
        update_index(index, change, compact_at=None)
        model.remove(gone, list(change.remove_users))
        model.put_titles(titles)
        model.put_users(users)
        model.see([row for row in rows if row[0] in model.users])


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["flat", "fused"])
def test_on_a_gpu_an_updated_index_answers_as_a_rebuild(kind: str, tmp_path: Path) -> None:
    model, draws = begun(14, titles=3000)
    index = model.build(tmp_path / "first", {"type": kind})
    changed_much(model, draws, index, tmp_path / "change")
    rebuilt = Recommender.open(model.build(tmp_path / "rebuilt", {"type": kind}), ["device.kind=gpu"])
    updated = Recommender.open(index, ["device.kind=gpu"])
    assert updated.index.device.gpus
    ours, expected = everything(updated, model, draws), everything(rebuilt, model, draws)
    for name in expected:
        assert ours[name] == expected[name], name
    one, other = (each.search(np.eye(DIM), 1500) for each in (updated, rebuilt))
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.gpu
def test_on_a_gpu_segments_beside_inverted_lists_are_searched_too(tmp_path: Path) -> None:
    """All lists are visited, so that the two, whose lists differ, find the same."""
    settings = {"type": "ivf_flat", "build": {"nlist": 4}, "search": {"nprobe": 4}}
    model, draws = begun(14, titles=3000)
    index = model.build(tmp_path / "first", settings)
    changed_much(model, draws, index, tmp_path / "change")
    rebuilt = Recommender.open(model.build(tmp_path / "rebuilt", settings), ["device.kind=gpu"])
    updated = Recommender.open(index, ["device.kind=gpu"])
    queries = np.random.default_rng(1).normal(size=(50, DIM)).astype(np.float32)
    for wish in ({}, {"where": "year < 1985"}):
        for k in (10, 900):
            ours, theirs = updated.search(queries, k, **wish), rebuilt.search(queries, k, **wish)
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
            assert (ours.rows == theirs.rows).mean() > 0.99
            assert not set(ours.rows[ours.rows >= 0].tolist()) - set(range(len(model.titles)))


def test_what_is_left_is_gathered_in_one_piece_for_a_gpu(tmp_path: Path) -> None:
    """FAISS is given this index for type flat; here the CPU searches it."""
    model, draws = begun(15, titles=3000)
    index = model.build(tmp_path / "first", FLAT)
    changed_much(model, draws, index, tmp_path / "change")
    updated = Recommender.open(index).index
    gathered = updated._for_gpus(updated.config)
    vectors = np.stack([vector for _, vector in model.titles.values()])
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert gathered.ntotal == len(model.titles)
    np.testing.assert_allclose(gathered.reconstruct_n(0, gathered.ntotal), expected, atol=1e-6)
    scores = gathered.search(expected[:40], 5)[0]
    np.testing.assert_allclose(scores, -np.sort(-(expected[:40] @ expected.T))[:, :5], atol=1e-6)


def test_rows_of_titles_yet_to_come_are_kept_even_where_all_are(tmp_path: Path) -> None:
    """Once a fault: a file that named no title of the index was refused, and what it told of tomorrow's was lost."""
    model, draws = begun(8)
    index = model.build(tmp_path / "first", FLAT)
    write_seen(tmp_path / "since.parquet", rows := [("u1", "m00060", 4.0, 7), ("u2", "m00060", 2.0, 8)])
    done = update_index(index, Change(seen=tmp_path / "since.parquet"))
    assert (done.generation, done.seen, done.seen_ignored) == ("gen-000002", 0, 2)
    with pytest.raises(DataError, match="different ids: 1, such as 'm00060'"):
        update_index(index, Change(seen=tmp_path / "since.parquet"), strict=True)
    model.see(rows)
    model.put_titles(titles := draws.titles(1))
    update_index(index, Change(write_folder(tmp_path / "change", titles)))
    assert_as_rebuilt(index, model, draws, tmp_path, FLAT)


def test_what_adds_nothing_makes_no_generation(tmp_path: Path) -> None:
    index = begun(9)[0].build(tmp_path / "first", FLAT)
    write_seen(tmp_path / "since.parquet", [])
    done = update_index(index, Change(seen=tmp_path / "since.parquet"))
    assert (done.generation, done.seen, done.seen_ignored, done.bytes_written) == ("gen-000001", 0, 0, 0)
    assert [path.name for path in index.glob("gen-*")] == ["gen-000001"]


@pytest.mark.parametrize("profile", [None, {"weights": "rating"}], ids=["vectors", "profile"])
@pytest.mark.parametrize("columns", [4, 3, 2], ids=["times", "ratings", "seen"])
def test_what_is_known_makes_no_generation(columns: int, profile: dict[str, Any] | None, tmp_path: Path) -> None:
    def write(path: Path, rows: list[tuple[Any, ...]]) -> Path:
        write_seen(path, [(*row, 3.0, 1)[:4] for row in rows])
        pq.write_table(pq.read_table(path).select(list(range(columns))), path)
        return path

    def appended(*rows: tuple[Any, ...]) -> tuple[str, int, int]:
        told = update_index(index, Change(seen=write(tmp_path / "since.parquet", list(rows))), compact_at=None)
        return told.generation, told.seen, told.seen_known

    model, _ = begun(9)
    users, titles = list(model.users), list(model.titles)
    old, other = (users[0], titles[3], 4.0, 500), (users[1], titles[2], None, 400)
    data = model.write(tmp_path / "data")
    write(data / "users" / "seen.parquet", [old, other])
    index = tmp_path / "index"
    values = {"dataset": str(data), "output": str(index), "device": "cpu", "index": FLAT}
    build_index(config_from_dict(values | ({} if profile is None else {"profile": profile})))
    assert appended(old) == ("gen-000001", 0, 1)
    assert appended(other, old, old) == ("gen-000001", 0, 2)
    if columns == 4:  # what is older than what is known has no effect
        assert appended((users[0], titles[3], 1.0, 499)) == ("gen-000001", 0, 1)
        assert appended((users[0], titles[3], 4.0, 501)) == ("gen-000002", 0, 1)
    elif columns == 3:
        assert appended((users[0], titles[3], 1.0), old) == ("gen-000001", 0, 1)
        assert appended(old, (users[0], titles[3], 1.0)) == ("gen-000002", 0, 1)
    new = (users[0], titles[4], 4.0, 500)
    number = 3 if columns > 2 else 2
    assert appended(old, new) == (f"gen-{number:06d}", 1, 1)
    assert appended(new) == (f"gen-{number:06d}", 0, 1)
    assert not update_index(index, Change(seen=tmp_path / "since.parquet"), compact_at=0).compacted
    update_index(index, Change(remove_titles=[titles[3]]), compact_at=None)
    assert appended(old) == (f"gen-{number + 2:06d}", 0, 0)  # which is kept until the title comes back
    verify(index)


@pytest.mark.slow
@pytest.mark.parametrize("profile", [None, {"weights": "rating"}], ids=["vectors", "profile"])
def test_all_titles_or_all_users_may_be_others(profile: dict[str, Any] | None, tmp_path: Path) -> None:
    model, draws = begun(10)
    index = model.build(tmp_path / "first", FLAT, profile)
    gone, users = list(model.titles), list(model.users)
    assert update_index(index, Change(remove_users=users), compact_at=None).user_count == 0
    model.remove([], users)
    with pytest.raises(UsageError, match="all 60 titles would be removed"):
        update_index(index, Change(remove_titles=gone))
    titles, came = draws.titles(20), {"u1": draws.vector(), "other": draws.vector()}
    rows = draws.rows(list(came), list(titles), 9)
    update_index(index, Change(write_folder(tmp_path / "change", titles, came, rows), gone), compact_at=None)
    model.remove(gone, [])
    model.put_titles(titles)
    model.put_users(came)
    model.see(rows)
    verify(index)
    for _ in range(2):
        rebuilt = Recommender.open(model.build(tmp_path / "rebuilt", FLAT, profile))
        assert everything(Recommender.open(index), model, draws) == everything(rebuilt, model, draws)
        compact_index(index)
        verify(index)


def test_an_index_built_anew_before_an_update_was_compacted_though_not_again_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = begun(12)
    index = model.build(tmp_path / "first", {"type": "ivf_flat", "build": {"nlist": 16}, "search": {"nprobe": 16}})
    update_index(index, Change(remove_titles=list(model.titles)[:1]), compact_at=None)
    monkeypatch.setattr("semrec_faiss.index.update.updating.MOST_SEGMENTS", 1)
    with pytest.warns(RuntimeWarning, match="could not be built anew"):  # of the nine titles that are left
        done = update_index(index, Change(remove_titles=list(model.titles)[1:51]))
    assert (done.title_count, done.compacted, done.segments, done.generation) == (9, True, 1, "gen-000004")


def test_an_update_is_made_where_building_anew_fails(tmp_path: Path) -> None:
    model, _ = begun(11)
    index = model.build(tmp_path / "first", {"type": "ivf_flat", "build": {"nlist": 16}, "search": {"nprobe": 16}})
    gone = list(model.titles)[:50]
    with pytest.warns(RuntimeWarning, match="built anew, which is due, and is changed without"):
        done = update_index(index, Change(remove_titles=gone))
    assert (done.title_count, done.titles.removed, done.compacted, done.segments) == (10, 50, False, 1)
    assert Recommender.open(index).saved.generation.folder.name == done.generation == "gen-000002"
    assert {result.media_id for result in Recommender.open(index).search(np.ones(DIM), 60)[0]} == {*model.titles} - {
        *gone
    }
    with pytest.raises(ConfigError, match="inverted lists"):
        compact_index(index)
    verify(index)
