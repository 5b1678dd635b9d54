"""From the config to an empty FAISS index, and the settings that vary from search to search."""

from __future__ import annotations

import math
import re
from typing import Any

from semrec_faiss.config.index_types import (
    FUSED_DIM_LIMIT,
    GPU_PQ_M,
    FactoryIndex,
    FlatIndex,
    FusedIndex,
    HnswIndex,
    IndexConfig,
    IvfPqIndex,
    IvfSqIndex,
)
from semrec_faiss.errors import ConfigError
from semrec_faiss.index.hardware.device import first_line, load_faiss

POINTS_PER_LIST = 39
"""FAISS's own lower bound of training points a centroid (ClusteringParameters.min_points_per_centroid)."""


MIN_LINKS, MAX_LINKS = 2, 512
"""Links of a graph's node."""


def auto_nlist(count: int) -> int:
    """Choose the number of inverted lists for ``count`` titles: 4·√n, FAISS's guideline, at most n/39."""
    return max(1, min(round(4 * math.sqrt(count)), count // POINTS_PER_LIST))


def auto_pq_m(dim: int) -> int:
    """Choose M for product quantisation: the GPU-ready divisor of ``dim`` nearest to dim/8, in proportion."""
    divisors = [m for m in GPU_PQ_M if dim % m == 0 and m <= 48]
    return min(divisors, key=lambda m: abs(math.log(m / (dim / 8))))


def resolve(index: IndexConfig, count: int, dim: int) -> IndexConfig:
    """Replace every ``auto`` by a number and check the numbers against the data.

    How many directions pay hangs on the vectors: that ``auto`` stays until they are read.

    Raises:
        ConfigError: a setting does not fit ``count`` titles of ``dim`` dimensions.
    """
    if isinstance(index, FactoryIndex):
        _check_factory_numbers(index.factory, count)
        return index
    if isinstance(index, FusedIndex) and dim > FUSED_DIM_LIMIT:
        raise ConfigError(
            f"index.type fused takes up to {FUSED_DIM_LIMIT} dimensions; the vectors have {dim}", fix="take type flat"
        )
    if isinstance(index, FlatIndex | FusedIndex):
        if index.build.directions != "auto" and index.build.directions >= dim:
            raise ConfigError(
                f"index.build.directions is {index.build.directions}; it must be below the {dim} dimensions",
                fix="take fewer, 0 for none, or auto",
            )
        return index
    if isinstance(index, HnswIndex):
        m = (48 if dim >= 256 else 32) if index.build.M == "auto" else index.build.M
        candidates = min(index.build.efConstruction, max(1, count))  # FAISS keeps room for as many as it is told
        build = index.build.model_copy(update={"M": m, "efConstruction": candidates})
        return index.model_copy(update={"build": build})
    nlist = auto_nlist(count) if index.build.nlist == "auto" else index.build.nlist
    if nlist > count:
        raise ConfigError(
            f"index.build.nlist is {nlist}, more than the {count} titles", fix=f"auto gives {auto_nlist(count)}"
        )
    changes: dict[str, Any] = {"nlist": nlist}
    if isinstance(index, IvfPqIndex):
        changes["M"] = _checked_pq_m(index, count, dim)
    return index.model_copy(update={"build": index.build.model_copy(update=changes)})


def _check_factory_numbers(factory: str, count: int) -> None:
    """Refuse numbers with which FAISS ends the process or asks for all memory, instead of raising an error."""
    for lists in re.findall(r"(?:IVF|IMI2x)(\d+)", factory):
        if not 1 <= int(lists) <= count:
            raise ConfigError(f"factory {factory!r}: {lists} inverted lists for {count} titles", fix="take fewer lists")
    for links in re.findall(r"(?:HNSW|NSG)(\d+)", factory):
        if not MIN_LINKS <= int(links) <= MAX_LINKS:
            raise ConfigError(
                f"factory {factory!r}: a graph takes {MIN_LINKS} to {MAX_LINKS} links a node, not {links}"
            )


def _checked_pq_m(index: IvfPqIndex, count: int, dim: int) -> int:
    m = auto_pq_m(dim) if index.build.M == "auto" else index.build.M
    if dim % m:
        divisors = [d for d in range(1, min(dim, 128) + 1) if dim % d == 0]
        raise ConfigError(
            f"index.build.M is {m}, which does not divide the {dim} dimensions", fix=f"take one of {divisors}"
        )
    if count < 1 << index.build.nbits:
        needed = 1 << index.build.nbits
        raise ConfigError(
            f"product quantisation with {index.build.nbits} bits needs at least {needed} titles; there are {count}",
            fix="lower index.build.nbits or take type flat",
        )
    return m


def empty_index(index: IndexConfig, dim: int) -> Any:
    """Make the untrained CPU index of a resolved config.

    Raises:
        ConfigError: FAISS does not know the factory string or refuses a setting.
    """
    faiss = load_faiss()
    spelled = _factory_string(index)
    try:
        made = faiss.index_factory(dim, spelled, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, MemoryError) as error:
        raise ConfigError(
            f"FAISS cannot make an index from {spelled!r} in {dim} dimensions: {first_line(error)}"
        ) from error
    if made.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ConfigError(f"factory {spelled!r} does not rank by inner product", fix="take another factory string")
    ivf = faiss.try_extract_index_ivf(made)
    if ivf is not None and not isinstance(index, FactoryIndex | HnswIndex | FlatIndex | FusedIndex):
        ivf.cp.seed = index.build.seed
    if isinstance(index, HnswIndex):
        made.hnsw.efConstruction = index.build.efConstruction
    _spare_polysemous_codes(made)
    return made


_PARTS = ("index", "base_index", "refine_index", "quantizer")
"""What a FAISS index calls the indexes that it is made of."""


def _spare_polysemous_codes(part: Any) -> None:
    """Keep FAISS from ordering the codes of a factory's product quantisers so that Hamming distances tell of them.

    No search here asks for those (Douze, Jégou and Perronnin, Polysemous codes, 2016), and the order takes some four
    seconds a sub-quantiser, however few the titles.
    """
    part = load_faiss().downcast_index(part)
    if hasattr(part, "do_polysemous_training"):
        part.do_polysemous_training = False
    for name in _PARTS:
        if getattr(part, name, None) is not None:
            _spare_polysemous_codes(getattr(part, name))


def _factory_string(index: IndexConfig) -> str:
    if isinstance(index, FactoryIndex):
        return index.factory
    if isinstance(index, FlatIndex | FusedIndex):
        return "Flat"
    if isinstance(index, HnswIndex):
        return f"HNSW{index.build.M},Flat"
    if isinstance(index, IvfPqIndex):
        code = f"PQ{index.build.M}x{index.build.nbits}"
    elif isinstance(index, IvfSqIndex):
        code = {"fp16": "SQfp16", "8bit": "SQ8"}[index.build.storage]
    else:
        code = "Flat"
    return f"IVF{index.build.nlist},{code}"


def holds_vectors_exactly(index: Any) -> bool:
    """Tell whether the vectors that were added can be had back from a CPU index bit by bit."""
    faiss = load_faiss()
    kinds = (faiss.IndexFlat, faiss.IndexIVFFlat, faiss.IndexHNSWFlat)
    return isinstance(faiss.downcast_index(index), kinds)


def apply_search_settings(index: Any, config: IndexConfig, *, cpu_index: Any) -> None:
    """Set nprobe and efSearch on an index that is searched on CPU or GPU.

    Raises:
        ConfigError: a factory's index has no such setting.
    """
    faiss = load_faiss()
    nprobe = getattr(config.search, "nprobe", None)
    ef_search = getattr(config.search, "efSearch", None)
    if nprobe is not None:
        if faiss.try_extract_index_ivf(cpu_index) is None:
            raise ConfigError(
                f"search.nprobe is {nprobe}, but factory {_factory_string(config)!r} has no inverted lists"
            )
        space = faiss.ParameterSpace() if index is cpu_index else faiss.GpuParameterSpace()
        space.set_index_parameter(index, "nprobe", nprobe)
    if ef_search is not None:
        if not isinstance(faiss.downcast_index(cpu_index), faiss.IndexHNSW):
            raise ConfigError(f"search.efSearch is {ef_search}, but factory {_factory_string(config)!r} has no graph")
        faiss.downcast_index(cpu_index).hnsw.efSearch = min(ef_search, max(1, int(cpu_index.ntotal)))
