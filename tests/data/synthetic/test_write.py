"""Made-up data: the layout, the bytes, the geometry of the vectors, and what happens when it cannot be written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
from conftest import Semrec, run_python
from hypothesis import given, settings
from hypothesis import strategies as st

from semrec_faiss import storage
from semrec_faiss.data.folder.layout import find_data_folder, open_vectors
from semrec_faiss.data.folder.metadata_lines import inspect_metadata
from semrec_faiss.data.folder.npy import NpyWriter
from semrec_faiss.data.synthetic import names as synthetic_names
from semrec_faiss.data.synthetic import tastes as synthetic_tastes
from semrec_faiss.data.synthetic import vectors as synthetic_vectors
from semrec_faiss.data.synthetic import world as synthetic_world
from semrec_faiss.data.synthetic import write as synthetic
from semrec_faiss.data.synthetic.lines import json_lines
from semrec_faiss.data.synthetic.tastes import TitlePool, best_known, draw_liked
from semrec_faiss.data.synthetic.vectors import Rotation, World
from semrec_faiss.data.synthetic.world import BLOCK_TITLES, GENRES, make_titles
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.data.users import read_user_ids
from semrec_faiss.errors import StorageError, UsageError
from semrec_faiss.storage import new_file
from tests.data.synthetic.test_workers import bytes_of


def write(out: Path, **changes: object) -> Path:
    arguments: dict[str, object] = {"titles": 3000, "users": 500, "dim": 48, "seed": 7, "seen_per_user": 20}
    write_synthetic(out, **(arguments | changes))
    return out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("synthetic") / "world", titles=5000, dim=384)


def titles_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "media/metadata.jsonl").read_text().splitlines()]


def test_the_layout_is_that_of_a_data_folder(world: Path) -> None:
    files = find_data_folder(world)
    media = open_vectors(files.media_vectors)
    assert (media.shape, media.dtype) == ((5000, 384), np.float32)
    assert files.user_vectors is not None and files.user_ids is not None and files.seen is not None
    users = open_vectors(files.user_vectors)
    assert (users.shape, users.dtype) == ((500, 384), np.float64)
    assert list(read_user_ids(files.user_ids))[::499] == ["user_00000001", "user_00000500"]
    assert inspect_metadata(files.metadata, expect_count=5000).count == 5000
    assert sorted(bytes_of(world)) == [
        "media/content_vectors.npy",
        "media/metadata.jsonl",
        "users/preference_vectors.npy",
        "users/seen.parquet",
        "users/user_ids.json",
    ]
    np.testing.assert_allclose(np.linalg.norm(media, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(users, axis=1), 1.0, atol=1e-12)


def test_titles_are_unique_and_say_their_year(world: Path) -> None:
    titles = titles_of(world)
    assert len({title["title"] for title in titles}) == len(titles)
    assert [title["media_id"] for title in titles][::4999] == ["title_000000001", "title_000005000"]
    for title in titles:
        assert str(title["title"]).endswith(f"({title['year']})")
        genres = title["genres"]
        assert isinstance(genres, list)
        assert 1 <= len(genres) <= 3 and len(set(genres)) == len(genres) and set(genres) <= set(GENRES)
    commonest = Counter(genre for title in titles for genre in title["genres"])
    assert commonest.most_common(1)[0][0] == "Drama"
    assert commonest["Drama"] > 10 * commonest["Western"]


def test_films_of_a_franchise_are_numbered_in_the_order_of_their_years(world: Path) -> None:
    films: dict[str, dict[int, int]] = {}
    for title in titles_of(world):
        if title["franchise"] is not None:
            name = str(title["title"]).rsplit(" (", 1)[0].removeprefix(str(title["franchise"])).strip()
            films.setdefault(str(title["franchise"]), {})[int(name or 1)] = int(str(title["year"]))
    assert len(films) > 300
    for parts in films.values():
        years = [parts[number] for number in sorted(parts)]
        assert years == sorted(set(years))


@pytest.mark.slow
def test_vectors_lie_as_those_of_texts_do(world: Path) -> None:
    vectors = np.load(world / "media/content_vectors.npy")
    titles = titles_of(world)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    nearest = np.percentile(cosines.max(axis=1), [5, 50, 95])
    assert 0.45 < nearest[0] < nearest[1] < nearest[2] < 0.97
    assert 0.6 < nearest[1] < 0.8
    assert 0.05 < np.median(cosines[::10]) < 0.2
    franchise = np.array([title["franchise"] or "" for title in titles])
    has_sibling = np.array([count > 1 for count in map(Counter(franchise).get, franchise)]) & (franchise != "")
    found = franchise[cosines.argmax(axis=1)] == franchise
    assert found[has_sibling].mean() > 0.95
    # The spread has a decaying spectrum, as embeddings have: a few dozen directions hold half of it, not half of 384.
    variances = np.linalg.eigvalsh(np.cov(vectors.T))[::-1]
    assert 10 < np.searchsorted(np.cumsum(variances) / variances.sum(), 0.5) < 60


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    first, again, other = write(tmp_path / "a"), write(tmp_path / "b"), write(tmp_path / "c", seed=8)
    assert bytes_of(first) == bytes_of(again)
    assert all(bytes_of(first)[name] != content for name, content in bytes_of(other).items() if "user_ids" not in name)


def test_seen_titles_and_dtypes_change_nothing_else(tmp_path: Path) -> None:
    plain, halved = write(tmp_path / "a"), write(tmp_path / "b", seen_per_user=0, media_dtype="float16")
    assert not (halved / "users/seen.parquet").exists()
    full = np.load(plain / "media/content_vectors.npy")
    np.testing.assert_array_equal(np.load(halved / "media/content_vectors.npy"), full.astype(np.float16))
    assert bytes_of(plain)["media/metadata.jsonl"] == bytes_of(halved)["media/metadata.jsonl"]


def test_a_large_world_begins_with_the_titles_of_a_small_one(tmp_path: Path) -> None:
    small, large = write(tmp_path / "a", titles=2500), write(tmp_path / "b", titles=7000)
    assert titles_of(large)[:2500] == titles_of(small)
    np.testing.assert_array_equal(
        np.load(large / "media/content_vectors.npy")[:2500], np.load(small / "media/content_vectors.npy")
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("titles", "users", "dim"), [(1, 1, 1), (1, 0, 3), (BLOCK_TITLES, 7, 32), (BLOCK_TITLES + 1, 1, 5)]
)
def test_any_size_and_dtype(tmp_path: Path, titles: int, users: int, dim: int, dtype: str) -> None:
    out = write(tmp_path / "x", titles=titles, users=users, dim=dim, user_dtype=dtype, media_dtype=dtype)
    files = find_data_folder(out)
    media = open_vectors(files.media_vectors, expect_rows=titles, expect_dim=dim)
    assert media.dtype == dtype
    np.testing.assert_allclose(np.linalg.norm(media.astype(np.float64), axis=1), 1.0, atol=2e-3)
    assert len(titles_of(out)) == titles
    assert (files.user_vectors is None) == (users == 0)
    if files.user_vectors is not None:
        assert open_vectors(files.user_vectors, expect_rows=users, expect_dim=dim).dtype == dtype


@settings(deadline=None, max_examples=40)
@given(dim=st.integers(2, 130), seed=st.integers(0, 1000))
def test_rotation_keeps_angles(dim: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    before = random.standard_normal((dim, 3)).astype(np.float32)
    after = Rotation.draw(random, dim).apply(before.copy(), np.empty_like(before))
    np.testing.assert_allclose(after.T @ after, before.T @ before, atol=1e-3)


@pytest.mark.parametrize("dim", [64, 65, 100, 257])
def test_every_coordinate_has_a_like_share_of_the_spread(dim: int) -> None:
    vectors = World(dim, 7).vectors(make_titles(7, 0))
    variances = vectors.var(axis=0)
    assert variances.max() < 3 * variances.mean()
    assert variances.min() > variances.mean() / 3
    # The directions themselves are far from even: without the rotation the coordinates would be, too.
    assert np.linalg.eigvalsh(np.cov(vectors.T)).max() > 3.5 * variances.mean()


@pytest.mark.parametrize("known", [300, 2_000_000])
def test_users_are_weighted_means_of_titles_they_like(
    tmp_path: Path, known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic_tastes, "KNOWN_TITLES", known)
    out = write(tmp_path / "x", users=300)
    vectors = np.load(out / "media/content_vectors.npy").astype(np.float64)
    pool = TitlePool(3000)
    for number, count in ((0, BLOCK_TITLES), (1, 3000 - BLOCK_TITLES)):
        pool.add(best_known(make_titles(7, number), count, pool.share))
    pool.close()
    liked = draw_liked(pool, 7, 0)
    expected = np.stack([liked.weights[user] @ vectors[liked.rows[user]] for user in range(300)])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(out / "users/preference_vectors.npy"), expected, atol=1e-12)
    seen = duckdb.sql(f"SELECT user_id, media_id FROM '{out / 'users/seen.parquet'}'").fetchall()
    seen_by: dict[str, set[str]] = {}
    for user, title in seen:
        seen_by.setdefault(user, set()).add(title)
    assert len(seen_by) == 300
    assert len(set(liked.rows.ravel())) <= known + 1
    assert len(set(seen)) == len(seen)
    assert known == 300 or 15 < len(seen) / 300 < 23  # of few titles, many are drawn twice and count once
    counts = sorted(map(len, seen_by.values()))
    assert counts[0] < 8 and (known == 300 or counts[-1] > 60)
    for user in range(300):
        first = liked.rows[user][liked.weights[user] > 0]
        mine = seen_by[f"user_{user + 1:08d}"]
        if len(mine) > len(first):
            assert {f"title_{row + 1:09d}" for row in first} <= mine
    assert {title for _, title in seen} <= {str(title["media_id"]) for title in titles_of(out)}


def test_users_of_one_dimension_have_a_direction(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "data", titles=40, users=2000, dim=1, seed=7)
    users = np.load(tmp_path / "data" / "users" / "preference_vectors.npy")
    assert set(np.unique(users)) == {-1.0, 1.0}


def test_in_a_large_catalogue_users_choose_among_the_known_titles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic_tastes, "KNOWN_TITLES", 300)
    out = write(tmp_path / "x", titles=6000, users=400)
    chosen = {row[0] for row in duckdb.sql(f"SELECT media_id FROM '{out / 'users/seen.parquet'}'").fetchall()}
    popularity = {str(title["media_id"]): float(str(title["popularity"])) for title in titles_of(out)}
    assert len(chosen) <= 303
    assert min(popularity[title] for title in chosen) > np.percentile(list(popularity.values()), 90)


def test_names_do_not_repeat() -> None:
    three = 70**3
    words = [*synthetic_names.invented_words(0, 5000), *synthetic_names.invented_words(three - 5000, 10_000)]
    assert len(set(words)) == 15_000
    assert {len(word) for word in words[:10_000]} == {6} and {len(word) for word in words[10_000:]} == {8}
    assert synthetic_names.invented_words(three - 1, 3) == [words[9999], *words[10_000:10_002]]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_titles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "usable_cores", lambda: 2)  # it grows with them: each works on some titles
    write(tmp_path / "warm", titles=100)
    tracemalloc.start()
    write(tmp_path / "x", titles=100_000, users=100, dim=128, seen_per_user=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "x/media/content_vectors.npy").stat().st_size > 50_000_000
    assert peak < 25_000_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titles": 0}, "titles is 0; it must be from 1 to 1,000,000,000"),
        ({"users": -1}, "users is -1; it must be from 0 to 1,000,000,000"),
        ({"dim": 0}, "dim is 0; it must be from 1 to 4,096"),
        ({"dim": 5000}, "dim is 5,000; it must be from 1 to 4,096"),
        ({"seed": -3}, "seed is -3"),
        ({"seen_per_user": 1001}, "seen per user is 1,001; it must be from 0 to 1,000"),
        ({"media_dtype": "int8"}, "media dtype is 'int8'; it must be one of float16, float32, float64"),
    ],
)
def test_arguments_out_of_their_limits(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        write(tmp_path / "x", **change)
    assert message in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_few_titles_of_which_users_see_fewer_than_was_asked_are_told(tmp_path: Path, semrec: Semrec) -> None:
    """Once a fault: of 50 titles asked for, users silently saw 3 of 10."""
    few = ("dataset", "synth", tmp_path / "few", "--titles", 10, "--users", 50, "--dim", 8)
    made = semrec(*few, "--seen", 50)
    rows = duckdb.sql(f"SELECT count(*) FROM '{tmp_path / 'few/users/seen.parquet'}'").fetchall()[0][0]
    assert made.err.startswith(f"note: users have seen {rows / 50:.1f} titles on average, not 50: with more --titles")
    assert "note" not in semrec(*few, "--overwrite", "--seen", 1).err
    assert "note" not in semrec(*few, "--overwrite").err
    told = semrec(*few, "--overwrite", "--seen", 50, "--json")
    assert (told.err, told.document["seen"]) == ("", rows)


def test_what_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "x"
    out.mkdir()  # an empty folder is no obstacle
    write(out, titles=10, users=0)
    with pytest.raises(UsageError, match="--overwrite"):
        write(out, titles=20, users=0)
    assert len(titles_of(out)) == 10
    write(out, titles=20, users=0, overwrite=True)
    assert len(titles_of(out)) == 20
    (out / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"thesis\.tex, which is not a part of a data folder"):
        write(out, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    with pytest.raises(UsageError, match="is a file"):
        write(out / "thesis.tex", overwrite=True)


def test_too_little_room_is_noticed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 0, 3_000_000_000))
    with pytest.raises(StorageError) as caught:
        write(tmp_path / "x", titles=10_000_000, dim=384)
    assert "would take about 20,3" in caught.value.message and "has 3,000,000,000 free" in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_duckdb_cannot_name(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(UsageError, match=r"caf\\udce9.* not UTF-8.*\n?"):
        write(odd, users=3)
    assert list(tmp_path.iterdir()) == []
    write(odd, users=3, seen_per_user=0)
    assert sorted(path.name for path in odd.iterdir()) == ["media", "users"]


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file/x cannot be made: .*file is a file"):
        write(tmp_path / "file" / "x")


@pytest.mark.parametrize("step", ["titles", "users", "seen titles"])
def test_an_interruption_keeps_what_was_there(tmp_path: Path, step: str) -> None:
    out = write(tmp_path / "x", titles=10, users=0)
    before = bytes_of(out)

    def interrupt(what: str, done: int, total: int) -> None:
        if what == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(out, overwrite=True, progress=interrupt)
    assert bytes_of(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.slow
def test_a_killed_run_leaves_no_folder(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from semrec_faiss.data.synthetic.write import write_synthetic\n"
        "def kill(what, done, total): os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_synthetic(Path(sys.argv[1]), titles=5000, users=10, dim=8, progress=kill)"
    )
    done = run_python("-c", program, tmp_path / "x")
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "x").exists()


def test_progress_is_told_to_its_end(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    write(tmp_path / "x", progress=lambda *report: told.append(report))
    assert {("titles", 3000, 3000), ("users", 500, 500), ("seen titles", 500, 500)} <= set(told)
    assert [done for what, done, _ in told if what == "titles"] == [2048, 3000]


def test_the_report_is_of_what_was_written(tmp_path: Path) -> None:
    report = synthetic.write_synthetic(tmp_path / "x", titles=3000, users=10, dim=16, media_dtype="float16")
    assert report.bytes == sum(path.stat().st_size for path in (tmp_path / "x").rglob("*") if path.is_file())
    assert report.bytes_per_second == report.bytes / report.seconds
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["media", "users"]


def test_a_block_is_the_same_in_whatever_array_it_is_made() -> None:
    world, block = World(48, 7), make_titles(7, 2)
    alone = world.vectors(block)
    again = np.full(alone.shape, np.nan, np.float16)
    assert world.vectors(block, again) is again
    np.testing.assert_array_equal(again, alone.astype(np.float16))
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("dim", [3, 100, 257])
def test_a_block_is_the_same_whatever_its_tiles(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    block = make_titles(7, 1)
    expected = World(dim, 7).vectors(block)
    for tile_bytes in (1, 40_000, 10_000_000):
        monkeypatch.setattr(synthetic_vectors, "TILE_BYTES", tile_bytes)
        np.testing.assert_array_equal(World(dim, 7).vectors(block), expected)


def test_every_work_has_the_centre_of_its_theme_and_genres() -> None:
    sets = synthetic_world.GENRE_SETS.tolist()
    assert len(sets) == len(set(map(tuple, sets))) == 20 + 2 * 69
    for block in (make_titles(7, number) for number in range(20)):
        numbers, themes = np.divmod(block.centre_numbers(), synthetic_world.THEMES_PER_GENRE)
        assert block.genres.tolist() == [sets[number] for number in numbers]
        np.testing.assert_array_equal(block.genres[:, 0] * np.int64(60) + themes, block.theme)


def test_tiles_fit_the_cache() -> None:
    assert [synthetic_vectors.tile_titles(dim) for dim in (1, 100, 384, 768, 4096)] == [1024, 1024, 273, 136, 25]


def test_a_vector_is_its_centre_and_the_directions_of_its_work_and_its_own() -> None:
    """Put together again, in float64 and title by title, from what the world is made of."""
    world, block = World(48, 7), make_titles(7, 3)
    random = synthetic_world.stream(7, synthetic_vectors.VECTORS_STREAM, 3)
    of_works = random.integers(0, 1024, (4, len(block.sizes)))
    of_titles = random.integers(0, 1024, (4, BLOCK_TITLES))
    pool = world.pool.reshape(9, 1024, 48).astype(np.float64)
    centres = block.centre_numbers()
    expected = np.empty((BLOCK_TITLES, 48))
    for row, work in enumerate(block.work.tolist()):
        whole = world.centres[centres[work]] + pool[8, of_works[:, work]].sum(axis=0)
        whole += pool[block.spread[work], of_titles[:, row]].sum(axis=0)
        expected[row] = whole / np.linalg.norm(whole)
    made = world.vectors(block)
    assert np.abs(made - expected).max() < 3 / synthetic_vectors.UNIT  # even coordinates are made odd
    np.testing.assert_allclose(np.linalg.norm(pool, axis=2)[:8].mean(axis=1), 3000 * synthetic_world.SPREADS, rtol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(pool[8], axis=1).mean(), 3000 * 0.34**0.5, rtol=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_the_longest_sums_fit(seed: int) -> None:
    """In one dimension all directions are the same or opposite, so sums become as long as they can."""
    world = World(1, seed)
    most = np.abs(world.centres).max() + 4 * np.abs(world.pool[-1]).max() + 4 * np.abs(world.pool).max()
    assert 29_000 < most < 32_767
    vectors = world.vectors(make_titles(seed, 0), np.empty((BLOCK_TITLES, 1), np.float16))
    assert set(np.unique(vectors).tolist()) == {-1.0, 1.0}


def test_spreads_are_the_nearest() -> None:
    wanted = np.array([0.01, 0.25, 0.276, 0.28, 0.7, 0.99, 0.9901, 1.0, 9.0])
    by_ratio = np.abs(np.log(wanted[:, None] / synthetic_world.SPREADS)).argmin(axis=1)
    np.testing.assert_array_equal(synthetic_world.nearest_spread(wanted), by_ratio)
    assert by_ratio[0] == 0 and by_ratio[-1] == 7


def test_lines_hold_the_facts_of_their_titles() -> None:
    block = make_titles(7, 3)
    popularity = np.where(np.arange(BLOCK_TITLES) % 5 == 0, np.arange(BLOCK_TITLES) / 16 + 0.0005, block.popularity)
    popularity[:4] = 0.0625, 0.1875, 1.0005, 1234.9996  # ties, nearly a tie, and digits that carry
    block = replace(block, popularity=popularity)
    written = json_lines(block, 2000).decode().splitlines()
    titles = [json.loads(line) for line in written]
    assert [line.rpartition(" ")[2] for line in written] == [f"{value:.3f}}}" for value in popularity[:2000]]
    assert [title["media_id"] for title in titles] == [f"title_{row + 1:09d}" for row in range(6144, 8144)]
    assert [title["year"] for title in titles] == block.year[:2000].tolist()
    for title, work, part in zip(titles, block.work.tolist(), block.part.tolist(), strict=False):
        assert title["genres"] == [GENRES[genre] for genre in block.genres[work] if genre >= 0]
        assert (title["franchise"] is not None) == (block.sizes[work] > 1)
        if title["franchise"] is not None:
            film = title["franchise"] + (f" {part + 1}" if part else "")
            assert title["title"] == f"{film} ({title['year']})"


def test_the_pool_of_a_huge_catalogue_stays_small() -> None:
    pools = [TitlePool(titles) for titles in (10**6, 10**8, 10**9)]
    assert [pool.nbytes for pool in pools] == [13 * 1_000_000, 13 * 2_001_954, 13 * 2_441_407]


def test_an_overwrite_that_fails_at_the_last_step_puts_the_old_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write(tmp_path / "x", titles=10, users=0)
    before = bytes_of(out)
    rename = Path.rename

    def refuse_the_new(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_the_new)
    monkeypatch.setattr(storage, "exchange", lambda *_: False)  # as on a system that cannot do it in one step
    with pytest.raises(StorageError, match="Input/output error"):
        write(out, titles=20, users=0, overwrite=True)
    assert bytes_of(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_writer_that_is_not_filled_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="wrote 2 rows of the 3"),
        new_file(tmp_path / "x.npy") as file,
        NpyWriter(file, (3, 2), "float32") as writer,
    ):
        writer.write(np.ones((2, 2)))
    assert list(tmp_path.iterdir()) == []


def test_remains_of_a_killed_run_are_removed_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, encoding="utf-8"
    )
    dead, living = (tmp_path / f"out.partial-{pid}" for pid in (finished.stdout.strip(), os.getppid()))
    for remains in (dead, living):
        remains.mkdir()
        (remains / "half.npy").write_bytes(b"half")
    write_synthetic(tmp_path / "out", titles=50, users=5, dim=32)
    assert not dead.exists()
    assert (living / "half.npy").exists()
