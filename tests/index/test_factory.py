"""From a config to an empty FAISS index: what auto chooses, and what FAISS would answer badly is refused by us."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HANG_SECONDS
from hypothesis import given
from hypothesis import strategies as st

from semrec_faiss.config.index_types import GPU_PQ_M
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import ConfigError, DataError, DeviceError, SemrecError
from semrec_faiss.index.factory import auto_nlist, auto_pq_m, empty_index, holds_vectors_exactly, resolve
from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.index.vector_index import VectorIndex

pytestmark = pytest.mark.filterwarnings("ignore:.*few to train")


def section(**settings: Any) -> Any:
    """The index section of a config."""
    return config_from_dict({"index": settings}).index


@pytest.mark.parametrize(
    ("count", "nlist"),
    [(1, 1), (38, 1), (77, 1), (78, 2), (1000, 25), (9742, 249), (62_423, 999), (1_000_000, 4000), (10_000_000, 12649)],
)
def test_auto_nlist_is_four_roots_of_n_but_leaves_39_titles_a_list(count: int, nlist: int) -> None:
    assert auto_nlist(count) == nlist


@given(st.integers(1, 10**9))
def test_auto_nlist_always_leaves_enough_titles_to_train(count: int) -> None:
    nlist = auto_nlist(count)
    assert 1 <= nlist <= max(1, count // 39)
    assert nlist <= 4 * count**0.5 + 1


@pytest.mark.parametrize(
    ("dim", "m"), [(384, 48), (768, 48), (512, 32), (1024, 32), (128, 16), (100, 20), (32, 4), (8, 1), (1, 1), (7, 1)]
)
def test_auto_m_divides_the_dimension_and_is_ready_for_a_gpu(dim: int, m: int) -> None:
    chosen = auto_pq_m(dim)
    assert dim % chosen == 0
    assert chosen in GPU_PQ_M
    assert chosen == m or abs(np.log(chosen / (dim / 8))) <= abs(np.log(m / (dim / 8)))


@given(st.integers(1, 5000))
def test_auto_m_exists_for_every_dimension(dim: int) -> None:
    assert dim % auto_pq_m(dim) == 0


def test_resolving_replaces_auto_and_keeps_what_was_given() -> None:
    assert resolve(section(type="ivf_flat"), 62_423, 384).build.nlist == auto_nlist(62_423)
    assert resolve(section(type="ivf_flat", build={"nlist": 5, "seed": 8}), 1000, 4).build.model_dump() == {
        "nlist": 5,
        "seed": 8,
    }
    resolved = resolve(section(type="ivf_pq", build={"nbits": 6}), 62_423, 384)
    assert (resolved.build.M, resolved.build.nbits, resolved.search.refine) == (48, 6, 4)
    assert resolve(section(type="hnsw"), 1000, 255).build.M == 32
    assert resolve(section(type="hnsw"), 1000, 256).build.M == 48
    assert resolve(section(type="hnsw", build={"M": 7}), 1000, 256).build.M == 7
    for unchanged in (section(type="flat"), section(factory="IVF9,Flat")):
        assert resolve(unchanged, 10, 10) == unchanged


@pytest.mark.parametrize(
    ("settings", "count", "dim", "told"),
    [
        ({"type": "ivf_flat", "build": {"nlist": 101}}, 100, 8, ["nlist is 101", "100 titles"]),
        ({"type": "ivf_pq", "build": {"M": 5}}, 1000, 8, ["M is 5", "8 dimensions", "[1, 2, 4, 8]"]),
        ({"type": "ivf_pq"}, 255, 8, ["256 titles", "255"]),
        ({"type": "ivf_pq", "build": {"nbits": 12}}, 4095, 8, ["12 bits", "4096", "4095"]),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused(
    settings: dict[str, Any], count: int, dim: int, told: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(section(**settings), count, dim)
    for part in told:
        assert part in str(caught.value)
    assert caught.value.fix


def test_the_index_is_of_the_kind_and_settings_that_the_config_says() -> None:
    faiss = load_faiss()

    def made(**settings: Any) -> Any:
        return empty_index(resolve(section(**settings), 5000, 32), 32)

    assert isinstance(made(type="flat"), faiss.IndexFlat)
    ivf = made(type="ivf_flat", build={"nlist": 17, "seed": 99})
    assert (type(ivf), ivf.nlist, ivf.cp.seed) == (faiss.IndexIVFFlat, 17, 99)
    sq = made(type="ivf_sq", build={"nlist": 3})
    assert (type(sq), sq.sq.qtype) == (faiss.IndexIVFScalarQuantizer, faiss.ScalarQuantizer.QT_fp16)
    sq8 = made(type="ivf_sq", build={"nlist": 3, "storage": "8bit"})
    assert sq8.sq.qtype == faiss.ScalarQuantizer.QT_8bit
    pq = made(type="ivf_pq", build={"nlist": 3, "M": 8, "nbits": 6})
    assert (type(pq), pq.pq.M, pq.pq.nbits, pq.nlist) == (faiss.IndexIVFPQ, 8, 6, 3)
    graph = made(type="hnsw", build={"M": 20, "efConstruction": 77})
    assert (type(graph), graph.hnsw.nb_neighbors(1), graph.hnsw.efConstruction) == (faiss.IndexHNSWFlat, 20, 77)
    for settings in ({"type": "ivf_flat"}, {"type": "hnsw"}, {"factory": "IVF4,SQ8"}):
        assert made(**settings).metric_type == faiss.METRIC_INNER_PRODUCT


@pytest.mark.parametrize(
    ("settings", "holds"),
    [
        ({"type": "flat"}, True),
        ({"type": "ivf_flat"}, True),
        ({"type": "hnsw"}, True),
        ({"type": "ivf_sq"}, False),
        ({"type": "ivf_pq"}, False),
        ({"factory": "Flat"}, True),
        ({"factory": "PCA8,Flat"}, False),
        ({"factory": "SQfp16"}, False),
        ({"factory": "HNSW8_SQ8"}, False),
    ],
)
def test_only_what_gives_back_every_bit_holds_the_vectors(settings: dict[str, Any], holds: bool) -> None:
    assert holds_vectors_exactly(empty_index(resolve(section(**settings), 5000, 32), 32)) is holds


@pytest.mark.parametrize(
    "factory",
    [
        "",
        " ",
        "Falt",
        "IVF16",
        "IVF16,",
        "é",
        "LSH",
        "IMI2x4,Flat",
        "PQ5",
        "PQ0",
        "IVF99999999999999999999,Flat",
        "IVF16,ITQ,SH",
        "ZnLattice1x10_6",
        "Flat,Flat",
        "IVF16,Flat;DROP",
    ],
)
def test_a_factory_string_that_faiss_does_not_take_is_our_error(factory: str) -> None:
    with pytest.raises(ConfigError):
        empty_index(section(factory=factory), 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "factory",
    [
        "SQ8",
        "SQfp16",
        "IVF8,PQ4x4fs",
        "IVF8_HNSW8,SQ8",
        "PCA8,IVF8,Flat",
        "OPQ4,IVF8,PQ4x4",
        "L2norm,Flat",
        "NSG8",
        "HNSW8_SQ8",
        "Flat,Refine(Flat)",
        "IVF8,RQ2x4",
        "PQ4x4",
        "Pad32,Flat",
        "RR8,Flat",
    ],
)
def test_any_other_factory_string_keeps_every_promise(
    factory: str, make_index: Callable[..., VectorIndex], clusters: Any, well_formed: Callable[..., None]
) -> None:
    titles = clusters(400, 16, seed=6)
    index = make_index(titles, {"factory": factory})
    for k in (1, 10, 400):
        found = index.search(titles[:20], k)
        assert found.rows.shape == (20, k)
        well_formed(found.rows, found.scores, 400)


@pytest.mark.parametrize("factory", ["IDMap,Flat", "IDMap2,Flat", "NSG8", "IVF500,Flat", "PCA17,Flat"])
def test_a_factory_string_that_faiss_cannot_fill_is_our_error_or_works(
    factory: str, make_index: Callable[..., VectorIndex], clusters: Any
) -> None:
    # Once a fault: `add` of IDMap, and a second `add` of NSG, ended in RuntimeError.
    titles = clusters(1200 if factory == "NSG8" else 400, 16, seed=6)
    try:
        found = make_index(titles, {"factory": factory}).search(titles[:3], 5)
    except SemrecError as error:
        assert error.exit_code == 2
    else:
        assert found.rows[:, 0].tolist() == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("factory", ["HNSW0,Flat", "IVF0,Flat", "IVF1000000000,Flat", "HNSW99999999,Flat"])
def test_a_factory_string_with_a_senseless_number_never_ends_the_process(factory: str, repo: Path) -> None:
    # Once a fault: HNSW0 aborted in C++, IVF1000000000 ended in MemoryError.
    program = (
        "import resource, numpy as np\n"
        "resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))\n"
        "from semrec_faiss.config.reading import config_from_dict\n"
        "from semrec_faiss.errors import SemrecError\n"
        "from semrec_faiss.index.hardware.device import Device\n"
        "from semrec_faiss.index.factory import resolve\n"
        "from semrec_faiss.index.train import build_faiss_index\n"
        "from semrec_faiss.index.vector_index import VectorIndex\n"
        "titles = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)\n"
        f"config = config_from_dict({{'index': {{'factory': {factory!r}}}}}).index\n"
        "try:\n"
        "    index = build_faiss_index(resolve(config, 300, 8), lambda: [(0, titles)], 300, 8, Device())\n"
        "    found = VectorIndex(index, config, originals=titles).search(titles[:3], 5)\n"
        "    print('found', found.rows.shape)\n"
        "except SemrecError as error:\n"
        "    print('refused', error.exit_code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=repo,
        capture_output=True,
        encoding="utf-8",
        timeout=HANG_SECONDS,
        check=False,
        env={"PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.split()[0] in ("found", "refused")


@pytest.mark.parametrize(
    ("factory", "search", "told"),
    [("Flat", {"nprobe": 3}, "no inverted lists"), ("IVF4,Flat", {"efSearch": 3}, "no graph")],
)
def test_a_search_setting_that_the_factory_lacks_is_refused(
    factory: str, search: dict[str, int], told: str, make_index: Callable[..., VectorIndex], clusters: Any
) -> None:
    with pytest.raises(ConfigError, match=told):
        make_index(clusters(300, 8), {"factory": factory, "search": search})


@pytest.mark.parametrize(
    "factory",
    [
        *("PQ2", "IVF4,PQ2", "OPQ2,IVF4,PQ2", "OPQ2,PQ2", "PCA4,PQ2,RFlat", "IDMap,PQ2"),
        *("Flat,Refine(PQ2)", "OPQ2,IVF4(PQ2x4),Flat", "IVF4,PQ2,Refine(PQ2)"),
    ],
)
def test_codes_are_put_in_no_order_that_nobody_asks_for(factory: str) -> None:
    """Once a fault: a product quantiser of a factory took some four seconds a sub-quantiser, whatever the titles."""
    faiss = load_faiss()
    made, told = empty_index(section(factory=factory), 8), []
    parts = [made]  # whose end would be that of its parts
    for part in parts:
        own = faiss.downcast_index(part)
        told.append(getattr(own, "do_polysemous_training", None))
        names = ("index", "base_index", "refine_index", "quantizer")
        parts += [held for name in names if (held := getattr(own, name, None)) is not None]
    assert False in told
    assert True not in told


def test_the_order_of_codes_changes_no_answer(make_index: Callable[..., VectorIndex], clusters: Any) -> None:
    faiss, titles = load_faiss(), clusters(400, 8)
    ordered = faiss.index_factory(8, "IVF4,PQ2x4", faiss.METRIC_INNER_PRODUCT)
    assert ordered.do_polysemous_training
    ordered.train(titles)
    ordered.add(titles)
    ours = make_index(titles, {"factory": "IVF4,PQ2x4"}).cpu_index
    for found, expected in zip(ours.search(titles[:50], 10), ordered.search(titles[:50], 10), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("factory", ["OPQ4,IVF8,SQ8", "IVF8,SQ8", "IVF8,Flat,RFlat"])
def test_nprobe_reaches_the_inverted_lists_wherever_they_are(
    factory: str, make_index: Callable[..., VectorIndex], clusters: Any
) -> None:
    titles = clusters(400, 16, clusters=100, spread=1.0, seed=6)
    few, all_lists = (
        make_index(titles, {"factory": factory, "search": {"nprobe": nprobe}}).search(titles + 0.2, 3)
        for nprobe in (1, 8)
    )
    assert all_lists.scores[:, 2].mean() > few.scores[:, 2].mean() + 1e-4


def test_efsearch_reaches_the_graph(make_index: Callable[..., VectorIndex], clusters: Any) -> None:
    titles = clusters(3000, 24, clusters=1000, spread=1.5, seed=6)
    scores = [
        make_index(titles, {"type": "hnsw", "build": {"M": 4}, "search": {"efSearch": ef}})
        .search(titles[:200] + 0.1, 5)
        .scores
        for ef in (5, 500)
    ]
    assert scores[1].mean() > scores[0].mean()


def test_too_few_titles_for_a_factory_are_our_error(make_index: Callable[..., VectorIndex], clusters: Any) -> None:
    for factory in ("IVF500,Flat", "IVF4,PQ4", "PQ4"):
        with pytest.raises((ConfigError, DeviceError)):
            make_index(clusters(100, 16), {"factory": factory})


@pytest.mark.parametrize(
    ("storage", "longer", "all_by", "told"),
    [
        ("8bit", 1, 1, None),
        ("8bit", 100, 1, r"the codes .* find \d+% of the 10 best of 2,000 .* are 1 long, the longest 100; .*normalize"),
        ("fp16", 100, 1, None),
        ("fp16", 1, 1e6, r"find \d+% of the 10 best .* 1e\+06 long"),
        ("fp16", 1, 1e-6, r"find \d+% of the 10 best .* 1e-06 long"),
    ],
)
def test_a_scalar_quantiser_that_loses_what_the_vectors_tell_says_so(
    storage: str,
    longer: float,
    all_by: float,
    told: str | None,
    make_index: Callable[..., VectorIndex],
    clusters: Any,
    unit: Any,
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Once a fault: few long vectors among many others, or very long ones, and other titles came than the best."""
    titles = unit(clusters(2000, 32, clusters=20, spread=0.6, seed=6))
    titles[:5] *= longer
    settings = {"type": "ivf_sq", "normalize": False, "build": {"nlist": 8, "storage": storage}}
    index = make_index(titles * all_by, settings | {"search": {"nprobe": 8}}).cpu_index
    found = index.search(titles[100:200].astype(np.float32), 10)[1]
    best = np.argsort(-(titles[100:200] @ titles.T), axis=1)[:, :10]
    kept = np.mean([len(set(ours) & set(own)) for ours, own in zip(found.tolist(), best.tolist(), strict=True)])
    said = [str(one.message) for one in recwarn if "codes" in str(one.message)]
    assert len(said) == (told is not None)
    if told is None:
        assert kept > 9
    else:
        assert kept < 8
        assert re.search(told, said[0])


SPREAD = np.exp(1.5 * np.random.default_rng(3).normal(size=(2000, 1)))


@pytest.mark.parametrize(
    ("factory", "lengths", "loses"),
    [
        ("IVF8,RaBitQ4", 1, False),
        ("IVF8,RaBitQ4", 1e-3, True),
        ("RaBitQ4", 1e-10, True),
        ("RaBitQ4", 1e3, True),
        ("IVF8,RaBitQ4,Refine(SQ8)", 1e-6, True),
        ("PCA24,Flat", 1, False),
        ("PCA24,Flat", 1e3, True),
        ("SQfp16", 1, False),
        ("SQfp16", 1e-10, True),
        ("IVF8_HNSW8,PQ8x6", 1, False),
        ("IVF8_HNSW8,PQ8x6", 1e-6, True),
        ("HNSW16_SQfp16", 1, False),
        ("HNSW16_SQfp16", 1e-10, True),
        ("L2norm,Flat", 1, False),
        ("L2norm,Flat", SPREAD, True),
        ("IVF8,PQ8x6", SPREAD, False),
        ("IVF8,PQ8x6,RFlat", 1e-10, False),
    ],
    ids=lambda value: "spread" if isinstance(value, np.ndarray) else None,
)
def test_no_index_that_finds_other_titles_than_the_best_is_built_without_a_word(
    factory: str,
    lengths: Any,
    loses: bool,
    make_index: Callable[..., VectorIndex],
    clusters: Any,
    unit: Any,
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Once a fault: RaBitQ's lists found nothing of short vectors, PCA nothing of long ones."""
    queries = unit(clusters(2000, 32, clusters=20, spread=0.6, seed=6))
    titles = (queries * lengths).astype(np.float32)
    index = make_index(titles, {"factory": factory, "normalize": False, "search": {}}).cpu_index
    ivf = load_faiss().try_extract_index_ivf(index)
    if ivf is not None:
        ivf.nprobe = ivf.nlist
    found = index.search(queries[::20].astype(np.float32), 100)[1]
    best = np.argsort(-(queries[::20] @ titles.T.astype(np.float64)), axis=1)[:, :10]
    kept = np.mean([len(set(its) & set(own)) for its, own in zip(found.tolist(), best.tolist(), strict=True)]) / 10
    said = [str(one.message) for one in recwarn if "codes" in str(one.message)]
    assert [kept < 0.85, len(said)] == [loses, loses]
    if loses:
        assert re.search(
            r"find \d+% of the 10 best of 2,000 .* should find [89]0%; take index.normalize: true", said[0]
        )


def test_what_codes_are_tried_on_stays_out_of_the_index(make_index: Callable[..., VectorIndex], clusters: Any) -> None:
    titles = clusters(600, 16, seed=6)
    for factory in ("PQ4x4", "IVF8,SQ8", "HNSW8_SQ8", "PCA8,Flat", "IVF8,PQ4x4,RFlat"):
        assert make_index(titles, {"factory": factory}).cpu_index.ntotal == 600


@pytest.mark.filterwarnings("ignore:.*few to train")
@pytest.mark.parametrize("factory", ["IVF8,PQ8x6", "IVF8,SQ8", "RR32,IVF8,PQ8x6"])
@pytest.mark.parametrize("length", [1e-17, 1e-6, 1e4, 4e18])
def test_codes_tell_as_much_of_titles_of_any_length(
    factory: str, length: float, make_index: Callable[..., VectorIndex], clusters: Any, unit: Any
) -> None:
    """Once a fault: FAISS's centres are of unit length; of titles 1e-6 long, codes then held the centres alone."""
    titles = unit(clusters(2000, 32, clusters=20, spread=0.6, seed=6)).astype(np.float32)
    best = np.argsort(-(titles[:200] @ titles.T), axis=1)[:, :10]
    settings = {"factory": factory, "normalize": False, "search": {"nprobe": 8}}

    def kept(long: float) -> float:
        found = make_index(titles * np.float32(long), settings).cpu_index.search(titles[:200], 10)[1]
        return sum(len(set(ours) & set(own)) for ours, own in zip(found.tolist(), best.tolist(), strict=True)) / 2000

    assert kept(length) > kept(1) - 0.05
    assert kept(1) > 0.4


def test_titles_of_unit_length_are_trained_as_faiss_does(
    make_index: Callable[..., VectorIndex], clusters: Any, unit: Any
) -> None:
    faiss, titles = load_faiss(), unit(clusters(1500, 16, clusters=50, seed=6)).astype(np.float32)
    plain = faiss.index_factory(16, "IVF8,SQ8", faiss.METRIC_INNER_PRODUCT)
    plain.train(titles)
    plain.add(titles)
    ours = make_index(titles, {"factory": "IVF8,SQ8"}).cpu_index
    np.testing.assert_array_equal(faiss.serialize_index(ours), faiss.serialize_index(plain))


@pytest.mark.parametrize("kind", [{"type": "ivf_flat"}, {"type": "ivf_sq"}, {"type": "ivf_pq"}, {"factory": "PQ8"}])
@pytest.mark.parametrize("length", [5e18, 1e37])
def test_titles_too_long_to_train_on_are_our_error(
    kind: dict[str, Any], length: float, make_index: Callable[..., VectorIndex], clusters: Any, unit: Any
) -> None:
    """Once a fault: FAISS's clustering ended the process."""
    titles = unit(clusters(700, 16, seed=6)).astype(np.float32) * np.float32(length)
    with pytest.raises(DataError, match=rf"up to {re.escape(f'{length:.0e}')} long; from 4.612e\+18 on"):
        make_index(titles, kind | {"normalize": False})


def test_titles_without_a_direction_have_no_best_that_codes_could_lose(
    make_index: Callable[..., VectorIndex], recwarn: pytest.WarningsRecorder
) -> None:
    """Once numpy warned of the mean of nothing."""
    settings = {"type": "ivf_sq", "normalize": False, "build": {"nlist": 8, "storage": "8bit"}}
    assert make_index(np.zeros((500, 32), np.float32), settings).count == 500
    assert [str(one.message) for one in recwarn if "mean" in str(one.message).lower()] == []


def test_the_same_seed_gives_the_same_index(make_index: Callable[..., VectorIndex], clusters: Any) -> None:
    faiss = load_faiss()
    titles = clusters(1500, 16, clusters=300, spread=1.0, seed=6)

    def written(seed: int) -> bytes:
        built = make_index(titles, {"type": "ivf_flat", "build": {"nlist": 20, "seed": seed}})
        return bytes(faiss.serialize_index(built.cpu_index))

    assert written(1) == written(1)
    assert written(1) != written(2)
