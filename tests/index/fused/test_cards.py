"""Type fused on cards that are not here: what is refused, and what plans take of a card's shared memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import HANG_SECONDS

from semrec_faiss.errors import DeviceError
from semrec_faiss.index.fused import plan as plans
from semrec_faiss.index.fused.cards import COPY_ENGINE, Card, fitted, tile_bytes
from semrec_faiss.index.fused.plan import LARGEST_TILE, plan_search
from semrec_faiss.index.fused.titles.users import GpuUsers
from tests.index.fused.compiled import CARDS, SAMPLES, SCORING, Launch, Noting, Search, launches_of
from tests.index.fused.compiled import plans as every_plan
from tests.index.fused.worlds import PLACE, Truth, clustered, needs_kernels, searcher


def of(major: int, minor: int) -> Card:
    found = SimpleNamespace(major=major, minor=minor, name="NVIDIA Card", shared_memory_per_block_optin=166_912)
    torch = SimpleNamespace(cuda=SimpleNamespace(get_device_properties=lambda _: found))
    return Card.of(torch, SimpleNamespace(type="cuda"))


@pytest.mark.parametrize(("major", "minor"), [(6, 1), (7, 0), (7, 5)])
def test_a_card_that_is_too_old_is_refused(major: int, minor: int) -> None:
    with pytest.raises(DeviceError, match=rf"capability 8\.0 or later; NVIDIA Card has {major}\.{minor}") as caught:
        of(major, minor)
    assert caught.value.fix == "take type flat, or set device.kind=cpu"


def test_others_are_not() -> None:
    assert of(8, 0) == Card((8, 0), 166_912)


@pytest.mark.parametrize("card", CARDS, ids=str)
def test_every_plan_fits_every_card(card: Card) -> None:
    for plan, _ in every_plan():
        its = fitted(plan, card)
        assert tile_bytes(its) <= card.shared_bytes
        assert its.stages >= (3 if its.pointers else 2), "one tile is loaded while another is multiplied"
        assert its.pointers == (card.capability < COPY_ENGINE)
        if card.capability in {(9, 0), (10, 0)}:
            assert replace(its, most_registers=plan.most_registers) == plan, "Hopper's own plan"
        assert its.most_registers == (plan.most_registers if card.capability == (9, 0) else 0)


SPILLED_AT_MOST = {
    "chunk_maxima": 0,
    "coded_chunk_maxima": 32,
    "coded_piece_maxima": 32,
    "select_largest": 128,
    "select_pieces": 16,
    "find_rows": 32,
}
"""Bytes of registers that a thread may spill, of 1,020: score passes none, but up to 32 with Triton 3.6 over
codes; selection for many queries of a large k, one warp each, 112."""

SPILLED_BY_CARD = {("coded_chunk_maxima", (10, 0)): 384, ("chunk_maxima", (12, 0)): 64, ("find_rows", (8, 6)): 64}
"""Blackwell's large cards multiply int8 otherwise: 312 of a pass over codes by each query's own lists; for its small
ones Triton 3.6 spills 56, and for Ampere's 40."""

BARRIERS = 64
"""Bytes of shared memory beside the tiles, of the copy engine's barriers."""


@needs_kernels
@pytest.mark.slow
@pytest.mark.parametrize("card", CARDS, ids=str)
def test_compiled_a_launch_takes_no_more_than_a_card_has(card: Card) -> None:
    """Masked, screened, coded, with lists of its own; every other launch by hand, see `compiled.py`."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_DEFAULT_FP_FUSION": "0"}  # as in Triton 3.10
    paths = [str(Path(__file__).parents[2]), *sys.path]
    script = Path(__file__).with_name("compiled.py")
    made = subprocess.run(
        [sys.executable, str(script), "--samples", "".join(map(str, card.capability))],
        env=environment | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        encoding="utf-8",
        timeout=2 * HANG_SECONDS,
        check=True,
    )
    names = set()
    for _, name, sizes, shared, registers, spilled in map(json.loads, made.stdout.splitlines()):
        names.add(name)
        assert sizes["enable_fp_fusion"] is True
        assert shared <= card.shared_bytes
        assert registers <= 255
        most = max(SPILLED_BY_CARD.get((name, card.capability), 0), SPILLED_AT_MOST.get(name, 0))
        assert spilled <= most, (name, sizes)
        if name in SCORING:
            stages = sizes["num_stages"] - sizes["POINTERS"]
            reckoned = (1 if "PLANES" in sizes else 2) * (sizes["BM"] + sizes["BN"]) * sizes["BK"] * stages
            assert 0 < shared <= reckoned + BARRIERS
    assert names >= set(SCORING)
    if card.capability == (8, 6):
        assert names >= {
            "prepare_queries",
            "leave_out_rows",
            "count_rows",
            "list_rows",
            "query_maxima",
            "find_groups",
            "list_reaching",
            "select_largest",
            "select_pieces",
            "find_rows",
            "rescore_chunks",
            "rank_rows",
        }


@needs_kernels
@pytest.mark.parametrize("card", CARDS, ids=str)
def test_every_launch_says_when_products_are_rounded(card: Card) -> None:
    """Triton 3.10 changes what it does where nothing is said, and with it scores, registers and times."""
    every = [launch for search in SAMPLES for launch in launches_of(search, card)]
    assert len({launch.name for launch in every}) >= 12
    assert [launch.name for launch in every if dict(launch.options).get("enable_fp_fusion") is not True] == []


@needs_kernels
def test_one_query_of_more_dimensions_than_registers_hold_is_multiplied_as_several_are() -> None:
    """By the kernel that has all steps written out it spilled up to 10 KB a thread."""
    card, found = CARDS[-1], {}
    for dim in (384, 768, 776, 4096):
        search = Search(62_423, 1, 10, "none", coded=False, kept="rounded", dim=dim)
        names = {launch.name for launch in launches_of(search, card)}
        found[dim] = sorted(names & {"query_maxima", "chunk_maxima", "prepare_queries"})
    several = ["chunk_maxima", "prepare_queries"]
    assert found == {384: ["query_maxima"], 768: ["query_maxima"], 776: several, 4096: several}


@needs_kernels
def test_so_does_the_gathering_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from semrec_faiss.index.fused.kernels import gathering

    launches: list[Launch] = []
    monkeypatch.setattr(gathering, "gather_vectors", Noting(gathering.gather_vectors, launches))
    users = SimpleNamespace(is_locked=True, vectors=torch.empty(9, 48))
    GpuUsers.gather(users, torch.arange(3), torch.empty(3, 48), torch.arange(3))
    assert [(one.name, one.options) for one in launches] == [("gather_vectors", (("enable_fp_fusion", True),))]


@needs_kernels
@pytest.mark.parametrize("count", [3, 70], ids=["small tiles", "the largest"])
def test_tiles_loaded_by_every_thread_give_the_same_answers(
    read: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if count == 70:
        monkeypatch.setattr(plans, "MANY_TITLES", 1)
        monkeypatch.setattr(plans, "MANY_QUERIES", 1 if read == "vectors" else 256)
        plan_search.cache_clear()
        plan = plan_search(333, 40, count, 5, coded=read == "codes")
        assert (plan.tile_queries, plan.parts) == (LARGEST_TILE, 2 if read == "vectors" else 1)
    rng = np.random.default_rng(17)
    titles = clustered(rng, 333, 40)
    queries = rng.normal(size=(count, 40)).astype(np.float32)
    own = searcher(titles).search(queries, 5)
    shared = Card.of(__import__("torch"), __import__("torch").device(str(PLACE))).shared_bytes
    monkeypatch.setattr(Card, "of", lambda *_: Card((8, 0), min(shared, 163 << 10)))
    found = searcher(titles).search(queries, 5)
    plan_search.cache_clear()
    Truth.of(titles, queries).check(found, 5)
    np.testing.assert_array_equal(found.rows, own.rows)
    np.testing.assert_array_equal(found.scores, own.scores)
