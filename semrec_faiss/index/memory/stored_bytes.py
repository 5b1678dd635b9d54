"""What each index type stores, in bytes: on the CPU, where it is saved, and on a GPU, where FAISS arranges it anew."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from semrec_faiss.config.index_types import (
    FactoryIndex,
    FlatIndex,
    FusedIndex,
    HnswIndex,
    IndexConfig,
    IvfFlatIndex,
    IvfPqIndex,
    IvfSqIndex,
)
from semrec_faiss.index.factory import empty_index, holds_vectors_exactly
from semrec_faiss.index.fused.plan import SCREENED_TITLES
from semrec_faiss.index.fused.room import Kept, title_bytes
from semrec_faiss.index.hardware.device import Device, load_faiss
from semrec_faiss.index.screening.spectrum import LEAST_TITLES, choices_of, width_of

HALF_BYTES, FLOAT_BYTES, ROW_BYTES = 2, 4, 8

GPU_PAGE_BYTES = 2 << 20
"""What the driver takes memory in; large allocations are rounded up to whole pages."""

GPU_UNIT_BYTES = 512
"""What small allocations are rounded up to, many of which share a page."""

WARP = 32
"""Vectors of an inverted list are stored on a GPU in blocks of so many."""


@dataclass(frozen=True)
class Stored:
    """What a CPU index consists of, in bytes.

    Attributes:
        vectors: the vectors, or the codes that stand for them.
        structure: centroids, list ids, graph links, bounds.
        originals: exact vectors in a file beside codes.
    """

    vectors: int
    structure: int
    originals: int

    @classmethod
    def of(cls, index: IndexConfig, titles: int, dim: int) -> Stored:
        """Count the bytes of ``titles`` in a resolved config; a new index type has its line here."""
        exact = FLOAT_BYTES * titles * dim
        if isinstance(index, FlatIndex | FusedIndex):
            return cls(exact, screening_bytes(index, titles, dim), 0)
        if isinstance(index, HnswIndex):
            return cls(exact, graph_bytes(titles, int(index.build.M)), 0)
        if isinstance(index, FactoryIndex):
            return cls._of_factory(index, titles, dim)
        nlist = int(index.build.nlist)
        lists = FLOAT_BYTES * nlist * dim + ROW_BYTES * titles
        if isinstance(index, IvfFlatIndex):
            return cls(exact, lists + ROW_BYTES * titles, 0)  # and where in the lists each title is
        if isinstance(index, IvfSqIndex):
            return cls(titles * dim * (2 if index.build.storage == "fp16" else 1), lists, exact)
        codebooks = FLOAT_BYTES * dim << index.build.nbits
        return cls(titles * -(-int(index.build.M) * index.build.nbits // 8), lists + codebooks, exact)

    @classmethod
    def _of_factory(cls, index: FactoryIndex, titles: int, dim: int) -> Stored:
        lists = [int(number) for number in re.findall(r"IVF(\d+)", index.factory)]
        links = [int(number) for number in re.findall(r"(?:HNSW|NSG)(\d+)", index.factory)]
        structure = sum(FLOAT_BYTES * nlist * dim + ROW_BYTES * titles for nlist in lists)
        structure += sum(graph_bytes(lists[0] if lists else titles, m) for m in links)
        code, fixed, is_exact = _factory_code(index, dim)
        return cls(titles * code, structure + fixed, 0 if is_exact else FLOAT_BYTES * titles * dim)


@lru_cache(maxsize=64)
def _factory_code(index: FactoryIndex, dim: int) -> tuple[int, int, bool]:
    """Ask FAISS, by an empty index, what a factory string means.

    Returns:
        The bytes kept a vector, those of code books and transforms, and whether the vector itself is kept.
    """
    faiss = load_faiss()
    whole = empty_index(index, dim)
    part, refined, fixed = faiss.downcast_index(whole), 0, 0
    while True:
        if isinstance(part, faiss.IndexRefine):
            refined += int(faiss.downcast_index(part.refine_index).code_size)
        if isinstance(part, faiss.IndexPreTransform):
            transforms = [part.chain.at(position) for position in range(part.chain.size())]
            fixed += FLOAT_BYTES * sum(int(one.d_in * one.d_out) for one in transforms)
        inner = next((getattr(part, name) for name in ("storage", "base_index", "index") if hasattr(part, name)), None)
        if inner is None:
            books = FLOAT_BYTES * int(part.pq.ksub) * int(part.d) if hasattr(part, "pq") else 0
            return int(part.code_size) + refined, fixed + books, holds_vectors_exactly(whole)
        part = faiss.downcast_index(inner)


def screening_bytes(index: FlatIndex | FusedIndex, titles: int, dim: int) -> int:
    """Return the bytes of principal directions and of titles' bounds; for auto see `directions_of`."""
    kept = directions_of(index, titles, dim)
    return titles * HALF_BYTES * width_of(kept) + 2 * FLOAT_BYTES * kept * dim if kept > 0 else 0


def directions_of(index: FlatIndex | FusedIndex, titles: int, dim: int) -> int:
    """Return how many principal directions are kept; auto is taken for half the dimensions.

    How many it chooses, if any, hangs on the vectors: of a text model's it is about as many. Of few dimensions or
    titles it chooses none.
    """
    if index.build.directions != "auto":
        return index.build.directions
    choices = choices_of(dim, fused=isinstance(index, FusedIndex)) if titles >= LEAST_TITLES else ()
    return min(choices, key=lambda kept: abs(kept - (dim // 2 - 1)), default=0)


def bound_width(index: FusedIndex, titles: int, dim: int) -> int | None:
    """Return how wide the bounds are that type fused keeps on a GPU; None where it takes copies of the vectors."""
    kept = directions_of(index, titles, dim)
    screened = kept > 0 and index.search.rescore == "float32" and titles >= SCREENED_TITLES
    return width_of(kept) if screened else None


def graph_bytes(titles: int, links: int) -> int:
    """Return the bytes of an HNSW graph.

    A node has 2·M links on the lowest layer and M on each further one, which a share of M⁻¹ of the nodes of the layer
    below reaches (Malkov and Yashunin, 2018, with FAISS's level multiplier 1/ln M); each link is an int32. An offset of
    eight bytes and a level of four stand beside them.
    """
    a_title = 4 * (2 * links + links / (links - 1)) + 8 + 4
    return round(titles * a_title)


def gpu_flat(titles: int, dim: int, device: Device) -> tuple[int, int]:
    """Return the bytes of the vectors, which lie in one piece, and of the norms that FAISS keeps beside them."""
    component = 2 if device.float16 else FLOAT_BYTES
    return _whole_pages(component * titles * dim), _whole_pages(FLOAT_BYTES * titles)


def gpu_fused(index: FusedIndex, titles: int, dim: int, kept: Kept) -> int:
    """Return the bytes of the vectors of type fused: float16 copies, what proves answers, codes of many titles."""
    width = None if kept == "halves" else bound_width(index, titles, dim)
    return _whole_pages(title_bytes(titles, dim, kept, width=width))


def gpu_lists(index: IndexConfig, nlist: int, titles: int, dim: int) -> tuple[int, int]:
    """Return the bytes of codes and of everything else: FAISS keeps both codes and ids in an allocation a list."""
    stored = Stored.of(index, titles, dim)
    # The last block of a list is half full on average, and so is the last unit of an allocation.
    vectors = -(-stored.vectors * (2 * titles + nlist * (WARP - 1)) // (2 * titles)) + nlist * GPU_UNIT_BYTES // 2
    ids = ROW_BYTES * titles + nlist * GPU_UNIT_BYTES // 2
    # The coarse quantiser is a flat index of the centroids; pointers and lengths of the lists lie beside it.
    centroids = _whole_pages(FLOAT_BYTES * nlist * dim) + _whole_pages(FLOAT_BYTES * nlist)
    pointers = _whole_pages((ROW_BYTES + ROW_BYTES + FLOAT_BYTES) * nlist)
    codebooks = FLOAT_BYTES * dim << index.build.nbits if isinstance(index, IvfPqIndex) else 0
    return _whole_pages(vectors), _whole_pages(ids) + centroids + pointers + _whole_pages(codebooks)


def lists_of(index: IndexConfig) -> int:
    """Return the number of inverted lists of a resolved config, 0 where it has none."""
    if isinstance(index, FactoryIndex):
        found = re.search(r"IVF(\d+)", index.factory)
        return int(found.group(1)) if found else 0
    return int(getattr(index.build, "nlist", 0))


def _whole_pages(count: int) -> int:
    return -(-count // GPU_PAGE_BYTES) * GPU_PAGE_BYTES
