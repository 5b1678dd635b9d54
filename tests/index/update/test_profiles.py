"""Users made of what they have seen: which of them an update makes anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

import semrec_faiss
from semrec_faiss import IndexWriter, Recommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import DataError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.saved.verifying import verify
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import update_index
from tests.index.update.living_worlds import begun, write_folder

FLAT = {"type": "flat"}
QUANTISED = {"type": "ivf_sq", "build": {"nlist": 4}, "search": {"nprobe": 4}}


def made_anew(index: Path) -> set[str]:
    """The users that the latest update of an index has written, but for new ones."""
    recommender = Recommender.open(index)
    segments = recommender.saved.segments
    assert segments is not None
    places = segments.users
    first = int(places.starts[-1])
    return {recommender.users.ids[row] for row in np.flatnonzero(places.rows >= first).tolist()}


@pytest.mark.parametrize(
    "settings", [FLAT, {**FLAT, "normalize": False}, QUANTISED], ids=["unit", "plain", "quantised"]
)
@pytest.mark.parametrize("kind", [np.float32, np.float16, None], ids=["float32", "float16", "no vectors"])
def test_a_title_that_is_only_renamed_leaves_its_users_as_they_were(
    settings: dict[str, Any], kind: Any, tmp_path: Path
) -> None:
    model, _ = begun(3)
    if kind is not None:
        model.titles = {name: (record, vector.astype(kind)) for name, (record, vector) in model.titles.items()}
    index = model.build(tmp_path / "first", settings, {"weights": "rating"})
    media_id = model.seen[0][1]
    before = Recommender.open(index)
    vectors, lists = np.array(before.users.vectors[:]), before.recommend(list(model.users), 60)
    # Twice: in the base, and then in the segment of the first time.
    for name in ("Named otherwise", "Named so at last"):
        record, vector = model.titles[media_id]
        titles = {media_id: (record | {"title": name}, vector)}
        folder = write_folder(tmp_path / "change", titles, with_vectors=kind is not None)
        summary = update_index(index, Change(folder), compact_at=None)
        assert (summary.titles.changed, made_anew(index)) == (1, set())
    after = Recommender.open(index)
    assert after.users.ids == before.users.ids
    np.testing.assert_array_equal(np.array(after.users.vectors[:]), vectors)
    for old, new in zip(lists, after.recommend(list(model.users), 60), strict=True):
        scores = {title.media_id: title.score for title in old}
        assert {title.media_id: title.score for title in new} == pytest.approx(scores, abs=1e-3)  # quantised or not
    assert after.similar("Named so at last", 1).query["media_id"] == media_id
    verify(index)


def test_of_titles_that_change_together_only_those_with_other_vectors_touch_users(tmp_path: Path) -> None:
    model, draws = begun(4)
    index = model.build(tmp_path / "first", FLAT, {"weights": "rating"})
    seen_by: dict[str, set[str]] = {}
    for user_id, media_id, *_ in model.seen:
        seen_by.setdefault(media_id, set()).add(user_id)
    moved = next(iter(seen_by))
    kept = next(media_id for media_id in seen_by if not seen_by[media_id] & seen_by[moved])
    titles = {
        "new": draws.titles(1).popitem()[1],
        kept: (model.titles[kept][0] | {"title": "As it was"}, model.titles[kept][1]),
        moved: (model.titles[moved][0] | {"title": "Another film"}, -model.titles[moved][1]),
    }
    update_index(index, Change(write_folder(tmp_path / "change", titles)), compact_at=None)
    assert made_anew(index) == seen_by[moved]


@pytest.mark.slow
def test_renaming_a_film_that_half_of_movielens_has_seen_writes_a_title(movielens: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(movielens / "media", data / "media")
    shutil.copytree(movielens / "users", data / "users")
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT format('user_{:08d}', userId) AS user_id, format('ml_{:08d}', movieId) AS media_id,"
            f" rating, timestamp FROM read_csv('{movielens / 'ratings.csv'}'))"
            f" TO '{data / 'users/seen.parquet'}' (FORMAT parquet)"
        )
    values = {"dataset": str(data), "output": str(tmp_path / "index"), "device": "cpu"}
    build_index(config_from_dict(values | {"index": FLAT, "profile": {"weights": "rating"}}))
    before = Recommender.open(tmp_path / "index")
    lines = (movielens / "media/metadata.jsonl").read_text("utf-8").splitlines()
    record = next(one for one in map(json.loads, lines) if one["title"] == "Matrix, The (1999)")
    record["title"] = "The Matrix (1999)"
    (tmp_path / "change/media").mkdir(parents=True)
    (tmp_path / "change/media/metadata.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    summary = update_index(tmp_path / "index", Change(tmp_path / "change"))
    assert (summary.titles.changed, summary.users.changed, summary.compacted, summary.segments) == (1, 0, False, 1)
    assert made_anew(tmp_path / "index") == set()
    after = Recommender.open(tmp_path / "index")
    np.testing.assert_array_equal(np.array(after.users.vectors[:]), np.array(before.users.vectors[:]))


RATED = [("rates", f"row_{row}", float(row), 1_700_000_000) for row in (1, 2, 3, 4, 5)]
UNRATED = [("watches", f"row_{row}", None, 1_700_000_000) for row in (5, 6, 7)]
SINCE = [("watches", "row_8", None, 1_700_000_009), ("rates", "row_9", 4.0, 1_700_000_009)]
COLUMNS = ["user_id", "media_id", "rating", "timestamp"]


def made_of(rows: list[tuple[str, str, float | None, int]], path: Path) -> Recommender:
    vectors = np.random.default_rng(4).standard_normal((30, 6)).astype(np.float32)
    did = pd.DataFrame(rows, columns=COLUMNS).astype({"rating": float})
    return semrec_faiss.build(vectors, interactions=did, config={"profile": {"weights": "liked"}}, output=path)


@pytest.mark.parametrize(
    ("before", "since"),
    [(RATED + UNRATED, SINCE[:1]), (UNRATED, SINCE[1:]), (RATED + UNRATED, SINCE), (UNRATED, SINCE[:1])],
    ids=["of who rates nothing", "the first rating", "of both", "without ratings"],
)
def test_what_is_not_rated_counts_after_an_update_as_it_does_in_a_build(
    before: list[Any], since: list[Any], tmp_path: Path
) -> None:
    """A user of an update who has rated nothing was taken for one of an index without ratings, and liked everything."""
    more = [("rates", "row_0", None, 1_700_000_000), ("watches", "row_0", None, 1_700_000_000)]
    index, anew = tmp_path / "index", made_of(before + more + since, tmp_path / "anew")
    made_of(before + more, index)
    with IndexWriter(index, compact_at=None) as writer:
        writer.append_seen(**{name: [row[at] for row in since] for at, name in enumerate(COLUMNS)})
    after = Recommender.open(index)
    assert after.users.without_likes.tolist() == anew.users.without_likes.tolist()
    for user in anew.users.ids:
        mine, theirs = after.recommend(user, 30), anew.recommend(user, 30)
        assert (mine.query, mine.rows.tolist()) == (theirs.query, theirs.rows.tolist())
        if "popular" not in mine.query:  # of whom nothing counts, an update keeps the vector
            np.testing.assert_array_equal(mine.scores, theirs.scores)


def test_users_are_made_anew_where_the_last_rating_goes(tmp_path: Path) -> None:
    made_of(RATED + UNRATED, tmp_path / "index")
    update_index(tmp_path / "index", Change(remove_users=["rates"]), compact_at=None)
    assert made_anew(tmp_path / "index") == {"watches"}
    after, anew = Recommender.open(tmp_path / "index"), made_of(UNRATED, tmp_path / "anew")
    assert after.users.without_likes.tolist() == []
    np.testing.assert_array_equal(np.array(after.users.vectors[:]), np.array(anew.users.vectors[:]))
    verify(tmp_path / "index")


def test_a_user_whose_titles_cancel_out_gets_popular_titles_and_stops_no_build_nor_update(tmp_path: Path) -> None:
    """Two editions of a film, one rated 5 and one 1: "query 0 is all zeros" ended the build of the whole index."""
    vectors = np.random.default_rng(4).standard_normal((30, 6)).astype(np.float32)
    vectors[1] = vectors[0]
    did = pd.DataFrame(
        [("eve", "row_0", 5.0), ("eve", "row_1", 1.0), ("bob", "row_3", 5.0), ("bob", "row_5", 1.0)],
        columns=["user", "item", "rating"],
    )
    for normalize in (True, False):
        config = {"profile": {"weights": "centred"}, "index": {"normalize": normalize}}
        index = tmp_path / f"index{normalize}"
        built = semrec_faiss.build(vectors, interactions=did, config=config, output=index)
        semrec_faiss.build(vectors, interactions=did[did.item != "row_1"], config=config, output=index)
        with IndexWriter(index, compact_at=None) as writer:
            writer.append_seen(user_id=["eve"], media_id=["row_1"], rating=[1.0])
        for recommender in (built, Recommender.open(index)):
            assert recommender.users.without_likes.tolist() == [recommender.users.known_rows(["eve"])[0]]
            answer = recommender.recommend("eve", 3)
            assert (answer.query["popular"], answer.rows.tolist()) == (True, [3, 2, 4])


@pytest.mark.parametrize("normalize", [True, False])
def test_a_build_says_that_nobody_likes_anything(normalize: bool, tmp_path: Path) -> None:
    """It spoke of a query of zeros, or served titles in the order of the catalogue."""
    model, _ = begun(3)
    model.seen = [(user, title, 1.0, at) for user, title, _, at in model.seen]
    with pytest.raises(DataError, match="nobody likes anything") as told:
        model.build(tmp_path, {**FLAT, "normalize": normalize}, {"weights": "liked"})
    assert told.value.fix == "choose other profile.weights, or a lower profile.liked"
