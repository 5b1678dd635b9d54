"""Predicted memory against sums done by hand, against FAISS's own files, and as an inverse of itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import ConfigError
from semrec_faiss.index.factory import resolve
from semrec_faiss.index.hardware.device import Device, load_faiss
from semrec_faiss.index.memory.parts import MemoryParts
from semrec_faiss.index.memory.prediction import (
    PROGRAM_BYTES,
    SEARCH_BYTES,
    TORCH_BYTES,
    largest_catalogue,
    predict_memory,
)
from semrec_faiss.index.memory.stored_bytes import Stored, directions_of
from semrec_faiss.index.screening.spectrum import width_of
from semrec_faiss.index.train import build_faiss_index

GPU = Device(gpus=(0,))
MIB = 1 << 20

CONFIGS: dict[str, dict[str, Any]] = {
    "flat": {"type": "flat"},
    "ivf_flat": {"type": "ivf_flat", "build": {"nlist": 16}},
    "ivf_sq": {"type": "ivf_sq", "build": {"nlist": 16}},
    "ivf_sq_8bit": {"type": "ivf_sq", "build": {"nlist": 16, "storage": "8bit"}},
    "ivf_pq": {"type": "ivf_pq", "build": {"nlist": 16, "M": 8}},
    "hnsw": {"type": "hnsw", "build": {"M": 16}},
    "factory": {"factory": "OPQ8_32,IVF16,PQ8"},
}


def index_of(values: dict[str, Any]) -> Any:
    return config_from_dict({"index": values}).index


def test_flat_on_a_cpu_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.cpu.products.numpy_is_faster", lambda: False)
    found = predict_memory(index_of({"type": "flat"}), 62_423, 384, batch=10_000, k=10).host
    assert found == MemoryParts(
        vectors=62_423 * 384 * 4,
        structure=62_423 * 192 * 2 + 191 * 384 * 8,  # auto is taken for half the dimensions
        reserved=PROGRAM_BYTES,
        scratch=1024 * 2048 * 4 + SEARCH_BYTES,
        batch=10_000 * 384 * 4 + 2 * 10_000 * 10 * 12,
    )
    assert found.base == 95_881_728 + 24_557_184 + 4_194_304
    assert found.peak == 95_881_728 + 24_557_184 + 4_194_304 + 8_388_608 + 1_572_864 + 15_360_000 + 2_400_000


@pytest.mark.parametrize(
    ("kind", "titles", "dim", "directions"),
    [
        ("flat", 8191, 384, 0),
        ("flat", 10**6, 32, 0),
        ("flat", 10**6, 41, 0),
        ("flat", 10**6, 42, 31),
        ("flat", 10**6, 384, 191),
        ("fused", 10**6, 80, 0),
        ("fused", 10**6, 96, 63),
        ("fused", 10**6, 256, 127),
    ],
)
def test_auto_is_taken_for_what_a_build_may_choose(kind: str, titles: int, dim: int, directions: int) -> None:
    """Once a fault: bounds were counted of 32 dimensions, of which none are tried, a quarter too much."""
    assert directions_of(index_of({"type": kind}), titles, dim) == directions
    bounds = titles * 2 * width_of(directions) + directions * dim * 8 if directions else 0
    assert predict_memory(index_of({"type": kind}), titles, dim).host.structure == bounds


@pytest.mark.parametrize(
    ("threads", "batch", "at_once", "ranges"),
    [(1, 10_000, 1, 1), (2, 10_000, 2, 1), (32, 10_000, 32, 4), (32, 32, 15, 15)],
)
def test_numpys_product_takes_a_tile_a_copy_and_a_buffer_of_its_blas_a_thread(
    threads: int, batch: int, at_once: int, ranges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where 40 tiles of queries, or one, are too few for 128 pieces of work, titles are divided into ranges."""
    monkeypatch.setattr("semrec_faiss.index.cpu.products.numpy_is_faster", lambda: True)
    found = predict_memory(index_of({"type": "flat"}), 62_423, 384, batch=batch, k=10, threads=threads).host
    results = 12 * ranges * batch * 10 if ranges > 1 else 0
    a_thread = 4096 * (min(batch, 256) + 384) * 4 + 5 * MIB // 4
    assert found.scratch == SEARCH_BYTES + at_once * a_thread + results


def test_a_single_query_of_flat_holds_a_score_a_title() -> None:
    assert predict_memory(index_of({"type": "flat"}), 1000, 8).host.scratch == SEARCH_BYTES + 4000


def test_flat_on_a_gpu_by_hand() -> None:
    found = predict_memory(index_of({"type": "flat"}), 1 << 20, 384, GPU, batch=100, context_bytes=400 * MIB)
    assert found.gpu == MemoryParts(
        vectors=1536 * MIB, structure=4 * MIB, context=400 * MIB, reserved=1536 * MIB, scratch=0, batch=0
    )
    assert found.searched is found.gpu
    assert found.host.vectors == 1536 * MIB
    assert found.host.reserved == 256 * MIB + PROGRAM_BYTES


def test_fused_on_a_gpu_by_hand() -> None:
    """Two and four bytes a component, codes of many titles, nothing of FAISS's, and work buffers within their bound.

    Where directions are kept, many titles' two bytes and codes are those of bounds. Pages have two megabytes.
    """
    for rescore, titles, directions, vectors in (
        ("float32", 1 << 15, 0, 6 * 384 * MIB // 32),
        ("float32", 1 << 20, 0, (6 * 384 + 384 + 2 + 2) * MIB),
        ("float32", 1 << 18, 255, 2 * -(-(6 * 384 + 384 + 2 + 2) // 8) * MIB),
        ("float32", 1 << 20, 255, (4 * 384 + 2 * 256 + 256 + 2 + 2) * MIB),
        ("float16", 1 << 20, 255, 2 * 384 * MIB),
    ):
        build = {"directions": directions}
        index = index_of({"type": "fused", "build": build, "search": {"rescore": rescore}})
        found = predict_memory(index, titles, 384, GPU, batch=10_000, context_bytes=400 * MIB).gpu
        assert found is not None
        assert (found.vectors, found.structure, found.reserved) == (vectors, 0, 0)
        assert found.base == vectors + 400 * MIB + TORCH_BYTES
        assert 0 < found.scratch < 1100 * MIB
    each = [
        predict_memory(index_of({"type": "fused"}), 62_423, 384, GPU, batch=batch).gpu for batch in (8_064, 119_743)
    ]
    assert each[0] and each[1] and each[1].scratch == 2 * each[0].scratch, "in two lanes of 8,064 queries"
    on_cpu = predict_memory(index_of({"type": "fused"}), 62_423, 384, batch=100).host
    assert on_cpu == predict_memory(index_of({"type": "flat"}), 62_423, 384, batch=100).host


def test_fused_takes_what_fits() -> None:
    """Originals on the GPU, on the host, or in titles that came as float16; replicas, or else shards."""
    index, million = index_of({"type": "fused", "build": {"directions": 0}}), 1 << 20

    def vectors(gpus: int = 1, limit: int | None = None, *, came: bool = False, **device: Any) -> int:
        on = Device(gpus=tuple(range(gpus)), **device)
        found = predict_memory(index, million, 384, on, float16_titles=came, limit_bytes=limit).gpu
        assert found is not None
        return found.vectors

    codes = (384 + 4) * MIB
    assert vectors(originals="host") == 2 * 384 * MIB + codes
    assert vectors(came=True) == (2 * 384 + 8) * MIB + codes
    assert vectors(limit=4 << 30) == vectors(originals="gpu") == 6 * 384 * MIB + codes
    assert vectors(limit=2 << 30) == vectors(originals="host")
    assert vectors(2) == vectors(2, 4 << 30) == vectors()
    assert vectors(2, 5 << 29) == vectors(2, layout="shards") == 3 * 384 * MIB + codes // 2
    assert vectors(2, layout="replicas", limit=5 << 29) == vectors(originals="host")
    assert vectors(2, 1900 * MIB) == vectors(2, originals="host", layout="shards") == 384 * MIB + codes // 2
    by_bounds, found = index_of({"type": "fused", "build": {"directions": 255}}), []
    limit = None
    for _ in range(3):
        predicted = predict_memory(by_bounds, million, 384, GPU, float16_titles=True, limit_bytes=limit)
        tight = predicted.gpu
        assert tight is not None
        found.append((predicted.kept, tight.vectors))
        limit = tight.peak - 1
    beside = (2 * 384 + 8 + 2 * 256) * MIB
    assert found == [("bounded", beside + (256 + 4) * MIB), ("uncoded", beside), ("halves", vectors(came=True))]
    on_host = predict_memory(index, million, 384, GPU, limit_bytes=2 << 30)
    assert (on_host.kept, predict_memory(index, million, 384).kept) == ("host", None)
    most = [largest_catalogue(index, 384, 10**11, GPU, float16_titles=came) for came in (False, True)]
    assert 0.99 * most[0] < most[1] < most[0], "eight bytes a title"


@pytest.mark.parametrize(("gpus", "limit", "locked"), [(1, 4 << 30, 0), (1, 2 << 30, 1), (2, 1900 * MIB, 1)])
def test_originals_on_the_host_are_a_copy_beside_the_index(gpus: int, limit: int, locked: int) -> None:
    """One for all GPUs, and none where they fit those."""
    index, device = index_of({"type": "fused", "build": {"directions": 0}}), Device(gpus=tuple(range(gpus)))
    its = predict_memory(index, 1 << 20, 384, device, limit_bytes=limit).host
    assert (its.vectors, its.locked) == (1536 * MIB, locked * 1536 * MIB)
    assert its.base == its.vectors + its.locked + its.reserved


def test_float16_halves_the_vectors_and_two_gpus_halve_them_again() -> None:
    halved = Device(gpus=(0,), float16=True)
    shared = Device(gpus=(0, 1), float16=True, temp_memory_mb=100)
    index = index_of({"type": "flat"})
    one, two = (predict_memory(index, 1 << 20, 384, device).gpu for device in (halved, shared))
    assert one is not None
    assert two is not None
    assert (one.vectors, two.vectors) == (768 * MIB, 384 * MIB)
    assert two.reserved == 100 * MIB


def test_inverted_lists_on_a_gpu_are_padded_by_half_a_warp_a_list() -> None:
    found = predict_memory(index_of({"type": "ivf_flat", "build": {"nlist": 1024}}), 1 << 20, 64, GPU).gpu
    assert found is not None
    codes = (1 << 20) * 64 * 4 + 1024 * 15.5 * 64 * 4 + 1024 * 256
    assert 0 <= found.vectors - codes < 2 * MIB


def test_a_graph_is_no_gpu_index() -> None:
    with pytest.raises(ConfigError, match="type hnsw runs on CPU only"):
        predict_memory(index_of(CONFIGS["hnsw"]), 1000, 32, GPU)
    with pytest.raises(ConfigError, match="HNSW16,Flat"):
        predict_memory(index_of({"factory": "HNSW16,Flat"}), 1000, 32, GPU)


@pytest.mark.filterwarnings("ignore:.*few to train")
@pytest.mark.parametrize("kind", CONFIGS)
def test_what_is_stored_is_what_faiss_writes(kind: str, clusters: Any) -> None:
    faiss = load_faiss()
    titles, dim = 4000, 32
    made = clusters(titles, dim, seed=3)
    index = resolve(index_of(CONFIGS[kind]), titles, dim)
    built = build_faiss_index(index, lambda: [(0, made)], titles, dim, Device())
    written = len(faiss.serialize_index(built))
    stored = Stored.of(index, titles, dim)
    direct_map = 8 * titles if kind == "ivf_flat" else 0  # made when vectors are asked for, not written
    assert stored.vectors + stored.structure - direct_map == pytest.approx(written, rel=0.02, abs=6000)
    holds_originals = kind in ("ivf_sq", "ivf_sq_8bit", "ivf_pq", "factory")
    assert stored.originals == (titles * dim * 4 if holds_originals else 0)


def test_refining_needs_room_for_candidates() -> None:
    refined = {"type": "ivf_pq", "build": {"nlist": 16, "M": 8}, "search": {"refine": 4}}
    plain = refined | {"search": {"refine": None}}
    sizes = [predict_memory(index_of(values), 4000, 32, batch=100).host.scratch for values in (refined, plain)]
    distinct = 2528  # 4000 × (1 − e⁻¹): as many candidates as titles, drawn at random
    # gathered as float32
    assert sizes[0] - sizes[1] == (100 * 40 + distinct) * 32 * 4 + 100 * 40 * 12


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["flat", "ivf_flat", "ivf_sq", "hnsw"]),
    limit=st.integers(64 * MIB, 1 << 40),
    batch=st.sampled_from([1, 100, 10_000]),
)
def test_the_largest_catalogue_fits_and_a_somewhat_larger_one_does_not(kind: str, limit: int, batch: int) -> None:
    index = index_of({"type": kind})
    most = largest_catalogue(index, 96, limit, batch=batch)
    assert predict_memory(index, most, 96, batch=batch).host.peak <= limit
    assert predict_memory(index, most + most // 100 + 100, 96, batch=batch).host.peak > limit


def test_no_catalogue_fits_where_the_search_alone_does_not() -> None:
    assert largest_catalogue(index_of({"type": "flat"}), 384, 1000 * MIB, GPU) == 0
    assert largest_catalogue(index_of({"type": "ivf_flat", "build": {"nlist": 4096}}), 384, MIB) == 0


def test_as_dict_names_every_part_in_bytes() -> None:
    document = predict_memory(index_of({"type": "flat"}), 10, 4).as_dict()
    assert document["gpu"] is None
    assert document["host"] == {
        "vectors_bytes": 160,
        "structure_bytes": 0,
        "originals_bytes": 0,
        "context_bytes": 0,
        "locked_bytes": 0,
        "reserved_bytes": PROGRAM_BYTES,
        "scratch_bytes": SEARCH_BYTES + 40,
        "batch_bytes": 16 + 2 * 10 * 12,
        "base_bytes": 160 + PROGRAM_BYTES,
        "peak_bytes": 160 + PROGRAM_BYTES + SEARCH_BYTES + 40 + 256,
    }
