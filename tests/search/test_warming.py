"""What an index is asked before anybody asks: every kind of question, once on a CPU, until it is recorded on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.search.batching.joined import MOST_TOGETHER
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.searcher import HELD_AT, Searcher
from semrec_faiss.search.user_rows import UserRows
from semrec_faiss.search.warming import TIMES_GPU, WARM_BATCHES, WARM_BATCHES_GPU, WARM_BATCHES_KERNELS, warm


@pytest.fixture
def recommender(tmp_path: Path, make_folder: Callable[..., Any]) -> Recommender:
    made = make_folder(tmp_path / "data", titles=50, users=7)
    build_index(config_from_dict({"dataset": str(made.root), "output": str(tmp_path / "index"), "device": "cpu"}))
    return Recommender.open(tmp_path / "index")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Kind, queries and k of every search, in order."""
    searches: list[tuple[str, int, int]] = []
    run = Searcher.run

    def noting(self: Searcher, queries: Any, wish: Any, exclusions: Any = None) -> Any:
        kind = "users" if isinstance(queries, UserRows) else "filtered" if wish.filter.says_something else "titles"
        searches.append((kind, len(queries), wish.k))
        its = self.index.device, self.index.fused
        self.index.device, self.index.fused = Device(), None  # a CPU plays whatever part it has
        found = run(self, queries, wish, exclusions)
        self.index.device, self.index.fused = its
        return found

    monkeypatch.setattr(Searcher, "run", noting)
    return searches


def test_on_a_cpu_each_kind_is_asked_once(recommender: Recommender, asked: list[tuple[str, int, int]]) -> None:
    steps: list[tuple[int, int]] = []
    told = warm(recommender, 5, lambda _, done, total: steps.append((done, total)))
    assert [size for kind, size, _ in asked if kind == "titles"][:-1] == sorted(WARM_BATCHES, reverse=True)
    assert [(kind, size) for kind, size, _ in asked if kind != "titles"] == [("filtered", 1), ("users", 1)]
    assert {k for _, _, k in asked} == {5}
    assert steps == [(done, len(told)) for done in range(len(told) + 1)]
    assert all(one.first_ms > 0 and one.again_ms is None for one in told)
    assert [one.what for one in told[-3:]] == [
        "a title, as JSON",
        "a title that nobody made",
        "a user that nobody knows",
    ]


def test_on_a_gpu_every_size_of_every_kind_is_asked_until_it_is_recorded(
    recommender: Recommender, asked: list[tuple[str, int, int]]
) -> None:
    recommender.index.device = Device((0,))
    told = warm(recommender)
    wanted = [
        (kind, size)
        for size in sorted(WARM_BATCHES_GPU, reverse=True)
        for kind in ("titles", "filtered", "users")
        for _ in range(TIMES_GPU)
    ]
    many = [("titles", MOST_TOGETHER), *HELD_AT * [("users", MOST_TOGETHER)]]
    assert [(kind, size) for kind, size, _ in asked[:-1]] == [*many, *wanted]
    assert [one.queries for one in told if one.what == "users"] == [
        MOST_TOGETHER,
        *sorted(WARM_BATCHES_GPU, reverse=True),
    ]
    assert all(one.again_ms is not None for one in told[1:-3])
    asked.clear()
    assert len(warm(recommender, kernels=False)) == len(told) - 2
    assert [(kind, size) for kind, size, _ in asked[:-1]] == wanted


def test_of_type_fused_filters_are_asked_whose_titles_lie_together(
    recommender: Recommender, asked: list[tuple[str, int, int]]
) -> None:
    together: list[tuple[int, int]] = []
    recommender.index.device = Device((0,))
    others = {one.what for one in warm(recommender)}
    recommender.index.fused = SimpleNamespace(shelve=lambda mask: together.append((len(asked), int(mask.sum()))))
    asked.clear()
    told = [one for one in warm(recommender) if one.what not in others]
    sizes = sorted(WARM_BATCHES_KERNELS, reverse=True)
    assert [(one.what, one.queries) for one in told] == [
        (f"{what}, filtered to {share}%", size)
        for share in ("50", "30", "20", "10", "5", "0.1", "1")
        for size, what in [*((size, what) for size in sizes for what in ("titles", "users")), (1, "a title")]
    ]
    assert [one.again_ms is not None for one in told] == [one.what.endswith(" 1%") for one in told]
    each = 2 * len(sizes) + 1
    few = [*[1] * each, *[1] * TIMES_GPU * each]
    assert [allowed for _, allowed in together] == [
        *[25] * each,
        *[15] * each,
        *[10] * each,
        *[5] * each,
        *[3] * each,
        *few,
    ]
    of_most = [asked[at] for at, _ in together[:each]]
    assert of_most[:4] == [("filtered", 4096, 10), ("users", 4096, 10), ("filtered", 2048, 10), ("users", 2048, 10)]
    asked.clear()
    assert {one.what for one in warm(recommender, kernels=False)} - others == {
        "titles, filtered to 1%",
        "users, filtered to 1%",
        "a title, filtered to 1%",
    }


def test_an_index_without_users_and_of_one_title(tmp_path: Path, make_folder: Callable[..., Any]) -> None:
    made = make_folder(tmp_path / "data", titles=1)
    build_index(config_from_dict({"dataset": str(made.root), "output": str(tmp_path / "index"), "device": "cpu"}))
    assert {one.what for one in warm(Recommender.open(tmp_path / "index"))} == {
        "titles",
        "titles, filtered",
        "a title, as JSON",
        "a title that nobody made",
    }
