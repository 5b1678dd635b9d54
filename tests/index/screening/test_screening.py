"""Titles left out by a few principal directions: bounds hold, answers are those of a full comparison."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semrec_faiss.arrays import Rows, Scores, Vectors
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import ConfigError, DamagedIndexError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.cpu.products import best_of_one
from semrec_faiss.index.generations.generation import NewGeneration
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.verifying import verify
from semrec_faiss.index.screening import screen as screen_module
from semrec_faiss.index.screening import spectrum
from semrec_faiss.index.screening.bounds import Rounding, bounds_of, power_of_two_below_one, write_bounds
from semrec_faiss.index.screening.screen import Screen
from semrec_faiss.index.screening.spectrum import choose, principal_directions, told_of, width_of
from semrec_faiss.index.screening.written import write_screening
from semrec_faiss.index.train import VectorBlocks
from semrec_faiss.progress import silent
from semrec_faiss.search.recommender import Recommender

DIM = 64


def texts(count: int, seed: int = 0, dim: int = DIM) -> Vectors:
    """Unit vectors with a text model's spectrum: what the i-th direction holds falls as exp(-i / 6)."""
    random = np.random.default_rng(seed)
    rotation = np.linalg.qr(np.random.default_rng(99).standard_normal((dim, dim)))[0]
    vectors = (random.standard_normal((count, dim)) * np.exp(-np.arange(dim) / 12)) @ rotation
    return unit(vectors)


def unit(vectors: np.ndarray) -> Vectors:
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def screened(vectors: Vectors, kept: int) -> tuple[Screen, np.ndarray, np.ndarray, Rounding]:
    """Make a screen; return it with its directions, its bounds and how they were rounded."""
    directions = np.ascontiguousarray(principal_directions(vectors)[0][:kept])
    file = io.BytesIO()
    longest = float(np.linalg.norm(vectors.astype(np.float64), axis=1).max())
    rounding = write_bounds(file, directions, lambda: [(0, vectors)], len(vectors), power_of_two_below_one(longest))
    file.seek(0)
    bounds = np.load(file)
    return Screen(directions, bounds, rounding), directions, bounds, rounding


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many titles were scored together, time after time."""
    counts: list[int] = []
    products = screen_module._products

    def counted(query: Vectors, rows: Rows, vectors: Vectors) -> Scores:
        counts.append(len(rows))
        return products(query, rows, vectors)

    monkeypatch.setattr(screen_module, "_products", counted)
    return counts


def found_by(screen: Screen, query: Vectors, k: int, vectors: Vectors) -> tuple[np.ndarray, np.ndarray]:
    """Search as an index does: where bounds do not pay, all titles are compared."""
    return screen.search(query, k, vectors) or best_of_one(query, k, vectors)


@functools.cache
def adversarial() -> dict[str, Vectors]:
    """Vectors that are hard to tell apart, to scale or to bound."""
    random = np.random.default_rng(3)
    round_ones = unit(random.standard_normal((2000, DIM)))
    return {
        "text": texts(20_000),
        "round": round_ones,
        "identical": np.repeat(round_ones[:1], 2000, axis=0),
        "near-identical": unit(round_ones[:1] + 1e-6 * random.standard_normal((2000, DIM))),
        "one-hot": np.eye(DIM, dtype=np.float32)[random.integers(0, DIM, 2000)],
        "norms over e^±6": np.float32(np.exp(random.uniform(-6, 6, (2000, 1)))) * round_ones,
        "rank 3": unit(random.standard_normal((2000, 3)) @ random.standard_normal((3, DIM))),
        "tiny": np.float32(1e-18) * round_ones,
        "huge": np.float32(1e17) * round_ones,
        "signs": -np.abs(round_ones),
    }


@pytest.mark.parametrize("name", list(adversarial()))
@pytest.mark.parametrize("kept", [3, 15, 40])
def test_no_score_exceeds_its_bound(name: str, kept: int) -> None:
    vectors = adversarial()[name][:2000]
    screen, _, bounds, rounding = screened(vectors, kept)
    for query in [*vectors[:3], unit(np.random.default_rng(5).standard_normal((1, DIM)))[0]]:
        length = float(np.linalg.norm(query.astype(np.float64)))
        side, slack = screen._bound_of(query.astype(np.float64) / length)
        upper = bounds.astype(np.float64) @ side[0].astype(np.float64) + slack
        exact = vectors.astype(np.float64) @ query.astype(np.float64) / length * rounding.scale
        assert (exact <= upper).all()
        assert slack < 3e-3  # the longest title's length is at most 1


@pytest.mark.parametrize("name", list(adversarial()))
@pytest.mark.parametrize("k", [1, 10, 60])
def test_answers_are_those_of_a_full_comparison(name: str, k: int) -> None:
    vectors = adversarial()[name]
    screen, *_ = screened(vectors, 15)
    assert screen.suits(k)
    for query in vectors[[0, 700, 1999]]:
        scores, rows = found_by(screen, query[None], k, vectors)
        exact = vectors.astype(np.float64) @ query.astype(np.float64)
        best = np.sort(exact)[::-1][:k]
        error = 1e-5 * float(np.abs(exact).max())
        assert len(set(rows[0].tolist())) == k
        np.testing.assert_allclose(exact[rows[0]], best, rtol=0, atol=error)
        np.testing.assert_allclose(scores[0], best, rtol=0, atol=error)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), kept=st.integers(1, 60), k=st.integers(1, 40), count=st.integers(1300, 3000))
def test_whatever_the_sizes(seed: int, kept: int, k: int, count: int) -> None:
    vectors = texts(count, seed)
    screen, *_ = screened(vectors, kept)
    query = texts(1, seed + 1)
    _, rows = found_by(screen, query, k, vectors)
    exact = vectors.astype(np.float64) @ query[0].astype(np.float64)
    assert set(rows[0].tolist()) == set(np.argsort(-exact)[:k].tolist())


def test_several_parts_and_more_than_were_looked_at_first() -> None:
    """40,000 titles are three parts; the 600 nearest of one lie together, more than `MORE` times `FIRST`."""
    vectors = texts(40_000)
    vectors[17_000:17_600] = unit(vectors[17_000:17_001] + 1e-3 * np.random.default_rng(0).standard_normal((600, DIM)))
    screen, *_ = screened(vectors, 7)
    exact = vectors.astype(np.float64) @ vectors[17_300].astype(np.float64)
    _, rows = found_by(screen, vectors[17_300:17_301], 100, vectors)
    np.testing.assert_allclose(exact[rows[0]], np.sort(exact)[::-1][:100], rtol=0, atol=1e-6)


def living(base: Vectors, fresh: Vectors, left: np.ndarray, kept: int) -> Screen:
    screen, directions, _, rounding = screened(base, kept)
    made = bounds_of(fresh, directions, rounding.scale)
    assert made is not None
    return screen.with_segments(left, *made)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1300, 20_000),
    new=st.integers(0, 3000),
    share=st.sampled_from([0.0, 0.1, 0.9]),
    near=st.booleans(),
    k=st.integers(1, 40),
)
def test_segments_and_removed_titles_are_searched_as_one(
    seed: int, count: int, new: int, share: float, near: bool, k: int
) -> None:
    """Whether those removed lie anywhere, or are the very best, so that no bound looked at first is a title's still."""
    random, base, fresh, query = (
        np.random.default_rng(seed),
        texts(count, seed),
        texts(new, seed + 1),
        texts(1, seed + 2),
    )
    exact = np.concatenate((base, fresh)).astype(np.float64) @ query[0].astype(np.float64)
    order = np.argsort(-exact[:count]) if near else random.permutation(count)
    left = np.sort(order[int(share * count) :])
    k = min(k, (len(left) + new) // 32)
    if not k:
        return
    exact[np.setdiff1d(np.arange(count), left)] = -np.inf
    found = living(base, fresh, left, 20).search(query, k, base, fresh)
    if found is None:  # all that was looked at first is removed, and the others are more than are soon scored
        assert near
        return
    assert set(found[1][0].tolist()) == set(np.argsort(-exact)[:k].tolist())
    np.testing.assert_allclose(found[0][0], np.sort(exact)[::-1][:k], rtol=0, atol=1e-5)


def test_longer_vectors_in_segments_have_bounds_that_hold_or_none() -> None:
    base = texts(4000)
    query = texts(1, 4)
    for factor in (1e-3, 30.0, 1e4):
        fresh = np.float32(factor) * texts(1000, 2)
        grown = living(base, fresh, np.arange(100, 4000), 15)
        exact = np.concatenate((base, fresh)).astype(np.float64) @ query[0].astype(np.float64)
        exact[:100] = -np.inf
        found = grown.search(query, 20, base, fresh)
        assert found is not None
        assert set(found[1][0].tolist()) == set(np.argsort(-exact)[:20].tolist())
    _, directions, _, rounding = screened(base, 15)
    assert bounds_of(np.float32(1e6) * texts(1000, 2), directions, rounding.scale) is None


def test_queries_that_leave_too_much_are_left_to_a_full_comparison() -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((2000, DIM)))
    screen, *_ = screened(vectors, 3)
    for query in vectors[:8]:
        screen.search(query[None], 10, vectors)
    assert screen._left > 2000 / 16
    assert screen.search(vectors[5:6], 1, vectors) is None


@pytest.mark.slow
def test_a_query_that_leaves_more_than_is_soon_scored_is_given_up(scored: list[int]) -> None:
    """Once a fault: nearly all titles were scored one by one, which took five times as long as to compare them all."""
    vectors = unit(np.random.default_rng(0).standard_normal((40_000, DIM)))
    screen, *_ = screened(vectors, 3)
    assert screen.search(vectors[:1], 10, vectors) is None
    assert sum(scored) <= 3 * screen_module.FIRST
    assert screen._left > 40_000 / 16


def test_bounds_are_looked_at_from_the_highest_down(scored: list[int]) -> None:
    """Not many more titles are scored than have bounds above the last score, and those far below never are."""
    vectors = texts(40_000)
    screen, _, bounds, rounding = screened(vectors, 31)
    for query in vectors[:20]:
        scored.clear()
        found = screen.search(query[None], 10, vectors)
        assert found is not None
        side, slack = screen._bound_of(query.astype(np.float64))
        upper = (bounds.astype(np.float64) @ side[0].astype(np.float64) + slack) / rounding.scale
        needed = int(np.count_nonzero(upper >= found[0][0, -1]))
        assert needed <= sum(scored) + 1 <= 2 * needed + 2 * 10 + 1


def test_the_choice_follows_the_spectrum() -> None:
    choice, directions = choose(blocks_of(texts(20_000)), 20_000, DIM)
    assert (choice.directions + 1) % 16 == 0
    assert choice.left < choice.left_most < 1000
    np.testing.assert_allclose(directions @ directions.T, np.eye(DIM), atol=1e-12)
    rotated = texts(20_000).astype(np.float64) @ directions[: choice.directions].T
    assert choice.share == pytest.approx((rotated**2).sum() / 20_000, rel=1e-6)
    round_ones = unit(np.random.default_rng(0).standard_normal((20_000, DIM)))
    assert choose(blocks_of(round_ones), 20_000, DIM)[0].directions == 0


@pytest.mark.parametrize("counted", [20_000, 2000])
def test_what_is_left_is_counted_over_all_titles(counted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "COUNTED_TITLES", counted)
    titles = texts(20_000)
    choice, directions = told_of(blocks_of(titles), 20_000, DIM, 23)
    queries = spectrum._queries_of(titles)  # all are sampled
    exact = queries.astype(np.float64) @ titles.astype(np.float64).T
    last = np.sort(exact, axis=1)[:, -11]
    along, whole = (vectors.astype(np.float64) @ directions[:23].T for vectors in (queries, titles))
    lengths = [(vectors.astype(np.float64) ** 2).sum(axis=1) for vectors in (queries, titles)]
    rests = [
        np.sqrt(np.maximum(0, square - (part**2).sum(axis=1)))
        for square, part in zip(lengths, (along, whole), strict=True)
    ]
    left = np.count_nonzero(along @ whole.T + np.outer(*rests) >= last[:, None], axis=1)
    assert choice.left == pytest.approx(left.mean(), rel=0.02 if counted == 20_000 else 0.5)


def blocks_of(vectors: Vectors) -> VectorBlocks:
    return lambda: ((first, vectors[first : first + 7000]) for first in range(0, len(vectors), 7000))


def test_width_leaves_room_for_the_rest() -> None:
    assert [width_of(kept) for kept in (1, 15, 16, 31, 191)] == [16, 16, 32, 32, 192]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of 3,000 titles, for which directions are chosen as of many."""
    monkeypatch.setattr("semrec_faiss.index.screening.written.LEAST_TITLES", 1000)
    monkeypatch.setattr("semrec_faiss.index.screening.spectrum.FUSED_WIDTHS", 16)
    data = tmp_path / "data" / "media"
    data.mkdir(parents=True)
    np.save(data / "content_vectors.npy", texts(3000))
    lines = [json.dumps({"media_id": f"m{row}", "title": f"Title {row}"}) for row in range(3000)]
    (data / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def built(folder: Path, **index: object) -> SavedIndex:
    config = {
        "dataset": str(folder / "data"),
        "output": str(folder / "index"),
        "index": index,
        "device": {"kind": "cpu"},
    }
    build_index(config_from_dict(config))
    return SavedIndex(folder / "index")


@pytest.mark.parametrize("kind", ["flat", "fused"])
def test_an_index_is_built_with_what_pays(folder: Path, kind: str) -> None:
    saved = built(folder, type=kind)
    about = saved.generation.manifest.screening
    assert about is not None
    assert saved.config.index.build.directions == about.directions > 0
    queries = texts(5, seed=8)
    plain = built(folder, type=kind, build={"directions": 0})
    assert plain.generation.manifest.screening is None
    for query in queries:
        found, expected = saved.vectors.search(query[None], 10), plain.vectors.search(query[None], 10)
        assert (found.exact, expected.exact) == ("proven", True)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores, expected.scores)
    assert saved.vectors.search(queries, 10).exact is True
    verify(folder / "index")


def test_what_a_query_leaves_out_does_not_hide_that_it_is_proven(folder: Path) -> None:
    built(folder, type="flat")
    recommender, query = Recommender.open(folder / "index"), texts(1, seed=8)
    left_out = [title.media_id for title in recommender.search(query, 3)[0]]
    [found] = recommender.search(query, 10, exclude=left_out)
    expected = recommender.search(query, 13).rows[0, 3:]
    assert (found.strategy, found.exact) == ("overfetch", "proven")
    np.testing.assert_array_equal(recommender.search(query, 10, exclude=left_out).rows[0], expected)
    assert recommender.search(texts(2, seed=8), 10, exclude=left_out).exact is True, "batches compare every title"


def test_how_many_directions_is_a_setting(folder: Path) -> None:
    saved = built(folder, type="flat", build={"directions": 20})
    about = saved.generation.manifest.screening
    assert about is not None
    assert about.directions == 20
    assert np.load(saved.generation.file("bounds.npy")).shape == (3000, 32)
    with pytest.raises(ConfigError, match="directions is 64; it must be below the 64 dimensions"):
        built(folder, type="flat", build={"directions": 64})


def test_small_catalogues_have_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.screening.written.LEAST_TITLES", spectrum.LEAST_TITLES)
    saved = built(folder, type="flat")
    assert saved.generation.manifest.screening is None
    assert saved.config.index.build.directions == 0


def test_of_few_dimensions_none_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than two widths leave nothing to choose: the vectors are not read for it."""
    monkeypatch.setattr("semrec_faiss.index.screening.written.LEAST_TITLES", 10)

    def unread() -> Iterator[tuple[int, Vectors]]:
        raise AssertionError("the vectors were read")

    for kind, most in (("flat", 41), ("fused", 83)):
        index = config_from_dict({"index": {"type": kind}}).index
        new: NewGeneration = SimpleNamespace()  # nothing is written
        found, about = write_screening(new, index, unread, 1000, most, silent)
        assert (found.build.directions, about) == (0, None)
        with pytest.raises(AssertionError, match="were read"):
            write_screening(new, index, unread, 1000, most + 1, silent)


def test_bounds_that_are_not_as_written_are_refused(folder: Path) -> None:
    saved = built(folder, type="flat")
    path = saved.generation.folder / "bounds.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedIndexError, match=r"bounds\.npy has changed"):
        _ = SavedIndex(folder / "index").vectors
