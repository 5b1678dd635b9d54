"""Title vectors in blocks to a trained, filled CPU index; a GPU helps where there is one."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from semrec_faiss.arrays import Vectors
from semrec_faiss.config.index_types import FactoryIndex, HnswIndex, IndexConfig
from semrec_faiss.errors import ConfigError, DataError
from semrec_faiss.index.factory import POINTS_PER_LIST, empty_index, holds_vectors_exactly
from semrec_faiss.index.hardware.device import Device, first_line, load_faiss
from semrec_faiss.index.hardware.on_gpu import gpu_resources, held, to_gpu
from semrec_faiss.index.losses import TRIED_TITLES, warn_of_losses
from semrec_faiss.progress import Progress, silent

LONGEST_TRAINED = math.sqrt(float(np.finfo(np.float32).max)) / 4
"""From this length on squared distances between the differences of two vectors from their lists' centres may overflow
float32, and FAISS's clustering then ends the process."""

VectorBlocks = Callable[[], Iterable[tuple[int, Vectors]]]
"""Gives the title vectors as (first row, float32 block), from the start at every call."""

POINTS_PER_CENTROID = 256
"""FAISS trains with at most this many vectors a centroid (ClusteringParameters.max_points_per_centroid)."""


def build_faiss_index(
    config: IndexConfig, blocks: VectorBlocks, count: int, dim: int, device: Device, progress: Progress = silent
) -> Any:
    """Train and fill a FAISS CPU index of a resolved config.

    Args:
        config: the index section, autos resolved.
        blocks: the vectors, float32 (count, dim) in all.
        count: the number of titles.
        dim: dimensions of a vector.
        device: where clustering and assignment run; the index comes back to the CPU.
        progress: told the vectors done.

    Raises:
        ConfigError: FAISS refuses the settings or cannot train with so few titles.
        DataError: the vectors are too long to train on.
        DeviceError: the GPU cannot hold the index.
    """
    faiss = load_faiss()
    index = empty_index(config, dim)
    some = None if index.is_trained else _train(index, blocks, count, device, progress)
    if isinstance(index, faiss.IndexFlat):
        _fill_flat(index, blocks, count, progress)
        return index
    if not holds_vectors_exactly(index):
        warn_of_losses(index, sampled(blocks, count, TRIED_TITLES, dim) if some is None else some)
    ivf = faiss.try_extract_index_ivf(index)
    on_gpu = bool(device.gpus) and ivf is not None and not isinstance(config, FactoryIndex | HnswIndex)
    if not on_gpu:
        _add(index, blocks, count, progress)
        return index
    one_gpu = Device(device.gpus[:1], temp_memory_mb=device.temp_memory_mb)
    gpu_index, resources = to_gpu(index, one_gpu)
    with held(resources):
        _add(gpu_index, blocks, count, progress)
        return faiss.index_gpu_to_cpu(gpu_index)


def _train(index: Any, blocks: VectorBlocks, count: int, device: Device, progress: Progress) -> Vectors:
    """Train a CPU index; return some of the titles that it was trained on, float32 (at most `TRIED_TITLES`, dim)."""
    faiss = load_faiss()
    ivf = faiss.try_extract_index_ivf(index)
    nlist = 0 if ivf is None else int(ivf.nlist)
    if count < nlist:
        raise ConfigError(
            f"the factory's {nlist} inverted lists are more than the {count} titles", fix="take a smaller IVF number"
        )
    wanted = max(POINTS_PER_CENTROID * nlist, 1 << 16)
    sample = sampled(blocks, count, wanted, index.d)
    _check_lengths(sample)
    _say_once_if_few(index, len(sample))
    progress("training", 0, 1)
    try:
        with contextlib.nullcontext() if ivf is None or not device.gpus else _clustering_on_gpu(ivf, device):
            index.train(sample)
        if ivf is not None:
            _lengthen_centres(index, ivf, sample)
    except RuntimeError as error:
        raise ConfigError(
            f"FAISS cannot train on {len(sample)} titles: {first_line(error)}", fix="take type flat, or more titles"
        ) from error
    progress("training", 1, 1)
    return _some(sample)


@contextlib.contextmanager
def _clustering_on_gpu(ivf: Any, device: Device) -> Iterator[None]:
    """Have an index assign vectors to its centres on a GPU while it is trained."""
    faiss, resource = load_faiss(), gpu_resources(device.gpus[0], device.temp_memory_mb)
    with held([resource]):
        clustering = faiss.index_cpu_to_gpu(resource.handle, resource.gpu, faiss.IndexFlatIP(ivf.d))
        ivf.clustering_index = clustering  # which Python would not free any more
        try:
            yield
        finally:
            ivf.clustering_index = None
            clustering.this.acquire()
            del clustering


def _some(sample: Vectors) -> Vectors:
    some: Vectors = sample[:: -(-len(sample) // TRIED_TITLES)].copy()  # the rest is gigabytes, of many lists
    return some


def _check_lengths(sample: Vectors) -> None:
    longest = math.sqrt(float(np.einsum("ij,ij->i", sample, sample, dtype=np.float64).max(initial=0)))
    if longest >= LONGEST_TRAINED:
        raise DataError(
            f"titles have vectors up to {longest:.4g} long; from {LONGEST_TRAINED:.4g} on, distances that FAISS trains"
            " by overflow float32",
            fix="set index.normalize: true, divide all vectors by one number, or take type flat",
        )


def _lengthen_centres(index: Any, ivf: Any, sample: Vectors) -> None:
    """Make the centres of lists as long as titles are where codes hold their differences, and train the codes again.

    FAISS brings centres to unit length where it ranks by inner product. The difference of a title 0.001 long from its
    centre is then the centre, whichever title it is: such codes tell nothing of short vectors, and of long ones less
    than they could. Centres all as long as one another choose the same lists, however long they are.
    """
    faiss = load_faiss()
    lists, centres, outer = (faiss.downcast_index(part) for part in (ivf, ivf.quantizer, index))
    if not isinstance(lists, faiss.IndexIVFPQ | faiss.IndexIVFScalarQuantizer) or not lists.by_residual:
        return
    if not isinstance(centres, faiss.IndexFlat):
        return
    seen = sample
    if isinstance(outer, faiss.IndexPreTransform):
        for at in range(outer.chain.size()):
            seen = outer.chain.at(at).apply(seen)
    lengths = np.linalg.norm(seen.astype(np.float64), axis=1)
    if not lengths.any():
        return
    length = float(np.median(lengths[lengths > 0]))  # a few very long titles count no more than others
    if math.isclose(length, 1, rel_tol=1e-3):
        return
    stored = faiss.rev_swig_ptr(centres.get_xb(), centres.ntotal * centres.d)
    stored *= np.float32(length)
    ivf.train(seen)  # lists that have centres keep them


def _say_once_if_few(index: Any, count: int) -> None:
    """Replace FAISS's warnings, one a sub-quantiser on stderr, by a single one."""
    faiss = load_faiss()
    ivf = faiss.try_extract_index_ivf(index)
    parts = [faiss.downcast_index(part) for part in (index, ivf) if part is not None]
    clusterings = [part.cp for part in parts if hasattr(part, "cp")]
    quantizers = [part.pq for part in parts if hasattr(part, "pq")]
    needed = [int(part.nlist) * POINTS_PER_LIST for part in parts if hasattr(part, "nlist")]
    needed += [int(quantizer.ksub) * POINTS_PER_LIST for quantizer in quantizers]
    for parameters in [*clusterings, *(quantizer.cp for quantizer in quantizers)]:
        parameters.min_points_per_centroid = 1
    if count < max(needed, default=0):
        warnings.warn(
            f"{count} titles are few to train this index on; from {max(needed)} up its quantisation is sound",
            RuntimeWarning,
            stacklevel=4,
        )


def sampled(blocks: VectorBlocks, count: int, wanted: int, dim: int) -> Vectors:
    """Take ``wanted`` vectors at seeded random rows, in row order; all of them when there are fewer."""
    if count <= wanted:
        chosen = np.arange(count)
    else:
        chosen = np.sort(np.random.default_rng(count).choice(count, wanted, replace=False))
    sample = np.empty((len(chosen), dim), np.float32)
    for first, block in blocks():
        start, stop = np.searchsorted(chosen, (first, first + len(block)))
        sample[start:stop] = block[chosen[start:stop] - first]
    return sample


def _fill_flat(index: Any, blocks: VectorBlocks, count: int, progress: Progress) -> None:
    """Write the vectors straight into the index: ``add`` would grow its storage by doubling, and copy."""
    faiss = load_faiss()
    index.codes.resize(count * index.code_size)
    index.ntotal = count
    stored = faiss.rev_swig_ptr(index.get_xb(), count * index.d).reshape(count, index.d)
    for first, block in blocks():
        stored[first : first + len(block)] = block
        progress("adding vectors", first + len(block), count)


def _add(index: Any, blocks: VectorBlocks, count: int, progress: Progress) -> None:
    for first, block in blocks():
        try:
            index.add(block)
        except RuntimeError as error:
            raise ConfigError(
                f"FAISS cannot add titles to this index one block after the other: {first_line(error)}",
                fix="take another factory string",
            ) from error
        progress("adding vectors", first + len(block), count)
