"""Large batches by products of int8 codes: bounds that hold, whatever the vectors, and the answers of brute force."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.index.fused.plan import CODED_PIECE, plan_search
from semrec_faiss.index.fused.titles.codes import CodesTried
from tests.index.adversaries import ADVERSARIES, check_rounded_once
from tests.index.fused.recordings import recordings
from tests.index.fused.worlds import (
    PLACE,
    SIZE,
    WORLDS,
    Truth,
    came_as_float16,
    clustered,
    exclude,
    needs_kernels,
    note_codes,
    searcher,
)

PLAN = "semrec_faiss.index.fused.plan"
QUERIES, K = 7, 5

pytestmark = pytest.mark.usefixtures("coded")


def _rows_of_pieces(span: int, titles: int, piece: int = CODED_PIECE) -> NDArray[np.int64]:
    """The rows of the pieces of each chunk as the kernels' own words define them: (chunks, pieces, piece)."""
    chunk, i, j = np.ogrid[: -(-titles // (8 * span)) * 4, :span, :2]
    rows = (chunk // 4) * 8 * span + 8 * i + 2 * (chunk % 4) + j
    return np.asarray(rows, np.int64).reshape(len(rows), -1, piece)


@needs_kernels
@pytest.mark.parametrize("kind", ["even", "tiny", "huge", "spikes", "opposites", "one component"])
def test_no_score_exceeds_what_its_chunk_is_told_to_hold(kind: str) -> None:
    """The proof rests on it: neither that of the best piece nor those of the others; and not by much."""
    from semrec_faiss.index.fused.one_pass import FusedPass
    from semrec_faiss.index.fused.titles.gpu_titles import load_torch
    from semrec_faiss.index.fused.titles.uploading import upload_titles

    torch, rng, count, dim = load_torch(), np.random.default_rng(6), 700, 40
    titles, queries = rng.normal(size=(count, dim)), rng.normal(size=(QUERIES, dim))
    scale = {"tiny": 1e-4, "huge": 300.0}.get(kind, 1.0)
    titles, queries = titles * scale, queries / scale
    if kind == "spikes":
        titles *= np.where(rng.random((count, dim)) < 0.02, 30.0, 1.0)
    if kind == "opposites":
        titles[:] = titles[0] * rng.choice([-1.0, 1.0], size=(count, 1))
        queries[0] = -titles[0]
    if kind == "one component":
        titles, queries[:3] = np.eye(dim)[rng.integers(dim, size=count)], np.eye(dim)[:3]
    asked = queries.astype(np.float32)
    kept = upload_titles(titles.astype(np.float32), torch.device(PLACE), keep_originals=True)
    plan = plan_search(count, dim, QUERIES, K, coded=True)
    assert (plan.piece, plan.planes) == (CODED_PIECE // 2, 1)
    work = FusedPass(kept, plan, QUERIES, K)
    work.score(torch.from_numpy(asked).to(PLACE))
    scales = work.bounds.cpu().numpy()
    true = (
        (asked.astype(np.float64) @ titles.astype(np.float32).T) * kept.scale / (scales[:, 1] * scales[:, 2])[:, None]
    )
    members = _rows_of_pieces(plan.span, count, plan.piece)
    true = np.pad(true, ((0, 0), (0, int(members.max()) + 1 - count)), constant_values=-np.inf)[:, members].max(axis=3)
    maxima = work.maxima[:, : len(members)].float().cpu().numpy()
    code = work._others[:, : len(members)].cpu().numpy().astype(np.int64) & 0xFFFF
    piece, steps = code % 64, code // 64
    told = maxima + np.abs(maxima) * 4.97e-4  # as the proof takes them
    exist = np.isfinite(true).any(axis=2)
    np.testing.assert_array_equal(np.isfinite(maxima), exist)
    assert (true.max(axis=2) <= told)[exist].all()
    others = true.copy()
    np.put_along_axis(others, np.minimum(piece, true.shape[2] - 1)[..., None], -np.inf, axis=2)
    below = np.where(steps == 1023, -np.inf, told - steps / 1024)
    assert (others.max(axis=2) <= below)[exist].all()
    left_out = work.code_factors[:, 2:].cpu().numpy() + float(kept.codes.rests.max())
    whole = exist & (members.reshape(len(members), -1).max(axis=1) < count)  # missing titles count as 0
    assert (maxima - true.max(axis=2) <= 2 * left_out + np.abs(maxima) * 1e-3 + 1e-6)[whole].all()
    assert left_out.max() < (0.2 if kind == "spikes" else 0.03)


@needs_kernels
def test_titles_of_a_piece_share_a_step() -> None:
    titles = np.random.default_rng(8).normal(size=(333, 40)).astype(np.float32)
    kept = searcher(titles).titles
    codes, scale = kept.codes, kept.scale
    steps, rests = codes.steps.cpu().numpy(), codes.rests.cpu().numpy()
    members = _rows_of_pieces(CODED_PIECE // 2, 333).reshape(-1, CODED_PIECE)
    for piece in members:
        rows = piece[piece < 333]
        if len(rows):
            assert len(set(steps[rows])) == len(set(rests[rows])) == 1
            assert steps[rows[0]] == pytest.approx(np.abs(titles[rows]).max() * scale / 127, rel=2e-3)
    some = codes.gather(codes.steps.new_tensor([3, 70, 200], dtype=int))
    assert codes.in_pieces
    assert not some.in_pieces


@needs_kernels
@pytest.mark.parametrize("kind", ["clustered", "came as float16", "many copies", "whole numbers", "all zero"])
def test_the_answers_of_brute_force(kind: str) -> None:
    rng = np.random.default_rng(5)
    came = kind == "came as float16"
    titles = WORLDS["clustered" if came else kind](rng, 1003 * SIZE, 40).astype(np.float32)
    titles = came_as_float16(titles) if came else titles
    queries = rng.normal(size=(QUERIES, 40)).astype(np.float32)
    index = searcher(titles)
    assert index.whole.reads_codes(QUERIES, K)
    assert (index.titles.factors is not None) >= came
    Truth.of(titles, queries).check(index.search(queries, K), K)


@needs_kernels
@pytest.mark.parametrize("kind", ADVERSARIES)
def test_scores_are_those_of_float64_rounded_once(kind: str) -> None:
    rng = np.random.default_rng(9)
    titles = ADVERSARIES[kind](rng, 200 * SIZE, 96).astype(np.float32)
    queries = np.concatenate((titles[:1], rng.normal(size=(QUERIES - 1, 96)))).astype(np.float32)
    k = min(K, len(titles))
    found = searcher(titles).search(queries, k)
    Truth.of(titles, queries).check(found, k, tolerance=2e-7)
    check_rounded_once(titles, queries, found.rows, found.scores)


@needs_kernels
@pytest.mark.parametrize("share", [0.9, 0.05, 0.003])
@pytest.mark.parametrize("masking", ["shared", "own"])
def test_titles_that_may_not_be_returned(masking: str, share: float) -> None:
    rng = np.random.default_rng(7)
    titles = clustered(rng, 900 * SIZE, 40)
    queries = titles[rng.choice(len(titles), QUERIES)]
    mask = rng.random(len(titles)) < share
    allowed, options = np.broadcast_to(mask, (QUERIES, len(titles))).copy(), {}
    if masking == "own":
        lists = [rng.choice(len(titles), size) for size in (0, 1, 50, 3, 700, 9, 2)]
        options = {"excluded": exclude(lists)}
        for query, rows in enumerate(lists):
            allowed[query, rows] = False
    index = searcher(titles)
    index.filters.budget = 0  # no shelf, whose titles do not share steps
    for _ in range(1 if PLACE == "cpu" else 3):  # the second time a GPU records, the third it replays
        found = index.search(queries, K, mask=mask, **options)
        Truth.of(titles, queries, allowed).check(found, K)


@needs_kernels
def test_what_products_of_codes_cannot_prove_is_searched_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(12)
    titles = clustered(rng, 2700, 32)
    near = rng.permutation(2700)[:2400]
    titles[near] = titles[0] + 3e-4 * rng.normal(size=(2400, 32))
    queries = np.concatenate((titles[near[:1]], titles[-QUERIES + 1 :])).astype(np.float32)
    index = searcher(titles)
    read = note_codes(monkeypatch, index)
    found = index.search(queries, K)
    Truth.of(titles, queries).check(found, K)
    assert read == [True, False]
    assert found.repeated >= 1


@needs_kernels
@pytest.mark.parametrize("masking", ["none", "shared", "own"])
def test_what_codes_leave_is_searched_for_more_pieces_in_the_same_recording(
    masking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of forty titles within what codes leave out, a float16 tells those apart that are among the best."""
    monkeypatch.setattr("semrec_faiss.index.fused.repeating.QUERIES_A_REPEAT", 4)
    monkeypatch.setattr("semrec_faiss.index.fused.repeating.PIECES_A_REPEAT", 2)
    rng, count, k = np.random.default_rng(12), 14_000, 2
    titles = clustered(rng, count, 40)
    near = rng.permutation(count)[:40]
    apart = rng.normal(size=(40, 40))
    apart -= np.outer(apart @ titles[0], titles[0])
    apart *= np.sqrt(2 * np.linspace(1e-4, 8e-3, 40)[:, None]) / np.linalg.norm(apart, axis=1, keepdims=True)
    titles[near] = titles[0] + apart
    titles = (titles / np.linalg.norm(titles, axis=1, keepdims=True)).astype(np.float32)
    queries = np.concatenate((titles[:1], titles[rng.choice(count, QUERIES - 1 if PLACE == "cpu" else 500)]))
    mask = rng.random(count) < (0.9 if masking == "shared" else 1.1)
    lists = [rng.choice(count, 9) for _ in queries]
    allowed = np.broadcast_to(mask, (len(queries), count)).copy()
    options = {"none": {}, "shared": {"mask": mask}, "own": {"excluded": exclude(lists)}}[masking]
    if masking == "own":
        for query, rows in enumerate(lists):
            allowed[query, rows] = False
    with recordings():
        index = searcher(titles)
        index.filters.budget = 0
        read = note_codes(monkeypatch, index)
        for _ in range(1 if PLACE == "cpu" else 3):
            read.clear()
            found = index.search(queries, k, **options)
            Truth.of(titles, queries, allowed).check(found, k)
        (recorded,) = [kind.search for kind in index.whole._graphs.values() if kind.search is not None]
        assert recorded.work.plan.multiplies
        assert recorded.repeated == found.repeated >= 1
        assert read == [True], "none is left to be searched without codes"


def test_codes_that_leave_much_are_not_multiplied_any_more() -> None:
    few, many = (CodesTried.of(titles, multiplied=True) for titles in (100_000, 1_000_000))
    for tried in (few, many):
        tried.count(4095, 4095)
        assert tried.pay, "too few to tell"
    many.count(12_289, 1)
    few.count(12_289, 1)
    assert many.pay, "a quarter of all"
    assert not few.pay
    few.count(100_000, 0)
    assert not few.pay, "once and for all"
    small = CodesTried.of(1_000_000, multiplied=False)
    small.count(256, 65)
    assert not small.pay


@needs_kernels
def test_gathered_titles_are_multiplied_as_they_are() -> None:
    rng = np.random.default_rng(4)
    titles = clustered(rng, 600 * SIZE, 40)
    index = searcher(titles)
    some = index.titles.gather(index.titles.codes.codes.new_tensor(np.arange(0, len(titles), 2), dtype=int).int())
    from semrec_faiss.index.fused.batch import Workspace
    from semrec_faiss.index.fused.block_search import BlockSearch

    shelved = BlockSearch(some, Workspace())
    assert shelved.reads_codes(1, K)
    assert not shelved.reads_codes(QUERIES, K)


@needs_kernels
@pytest.mark.parametrize("kind", ["vectors", "lists"])
def test_blocks_in_lanes_multiply_codes_too(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.blocks.LEAST_MS", 0.0)
    monkeypatch.setattr("semrec_faiss.index.fused.blocks.block_queries", lambda *_, **__: 2 * QUERIES)
    rng = np.random.default_rng(3)
    titles = clustered(rng, 500 * SIZE, 40)
    titles[rng.choice(len(titles), len(titles) // 8)] = titles[5]
    queries = titles[rng.choice(len(titles), 3 * QUERIES - 1)]
    lists = [rng.choice(len(titles), 30) for _ in queries]
    options = {"excluded": exclude(lists)} if kind == "lists" else {}
    allowed = np.ones((len(queries), len(titles)), bool)
    for query, rows in enumerate(lists if kind == "lists" else []):
        allowed[query, rows] = False
    index = searcher(titles)
    read = note_codes(monkeypatch, index)
    for _ in range(1 if PLACE == "cpu" else 3):
        read.clear()
        Truth.of(titles, queries, allowed).check(index.search(queries, K, **options), K)
        assert read[:3] == [True, True, True]
