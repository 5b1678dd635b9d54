"""What this machine has for vector search: each part, what was found, and the command that mends it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from semrec_faiss.config.schema import Config, device_problems
from semrec_faiss.data.folder.vectors import UNIT_TOLERANCE
from semrec_faiss.errors import DamagedIndexError, MissingPackageError
from semrec_faiss.index.fused.plan import LEAST_CAPABILITY
from semrec_faiss.index.hardware.device import Device, gpu_count, has_driver, installed_faiss, load_faiss
from semrec_faiss.index.hardware.gpu_code import code_in, has_code, is_newer
from semrec_faiss.index.hardware.gpu_drivers import NEWEST_TORCH, TORCH_FOR_OLD_DRIVERS, faiss_cuda, too_old
from semrec_faiss.index.hardware.gpu_memory import GpuState, gpu_states
from semrec_faiss.index.hardware.kernels import CHOICE, LIBRARIES, SAFE, kernels_of

if TYPE_CHECKING:
    from semrec_faiss.index.vector_index import VectorIndex

NO_CUDA = "CPU build"

CPU_TORCH = "uv pip install --torch-backend cpu 'semrec-faiss[embed]'   (pip's would bring 6 GB of CUDA)"
"""How torch is installed without what only a GPU needs: pip takes the build with CUDA unless told otherwise."""

SAMPLED = 1000
"""Vectors whose length is measured."""


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        state: ``ok``, ``missing`` (optional, or better otherwise) or ``problem`` (searching fails or goes unused).
        found: what was found.
        fix: the command or step that mends it; None where nothing needs mending.
    """

    name: str
    state: Literal["ok", "missing", "problem"]
    found: str
    fix: str | None = None


def diagnose() -> list[Check]:
    """Look at everything a search depends on; raises nothing."""
    gpus = _gpus()
    packages = [_package(*package) for package in (_OPTIONAL if gpus.state != "missing" else _WITHOUT_GPU)]
    used = (_used(package, gpus) for package in packages)
    return [_python(), _memory(), _faiss(), _arithmetic(), gpus, *used, *_cards()]


def _python() -> Check:
    return Check(
        "python",
        "ok",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    )


def _memory() -> Check:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return Check("memory", "missing", "this system does not tell")
    return Check("memory", "ok", f"{total / 1e9:.1f} GB, {available / 1e9:.1f} GB free")


def _faiss() -> Check:
    wheels = ", ".join(f"{name} {version}" for name, version in installed_faiss().items())
    try:
        faiss = load_faiss()
    except MissingPackageError as error:
        return Check("faiss", "problem", error.message, error.fix)
    options = faiss.get_compile_options().strip()
    return Check("faiss", "ok", f"{wheels or faiss.__version__} ({options}), {faiss.omp_get_max_threads()} threads")


def _arithmetic() -> Check:
    """Say which kernels multiply matrices on the CPU; old ones on a new processor cost most of the speed."""
    told = {library: kernels_of(library) for library in LIBRARIES}
    found = "; ".join(f"{library}: {kernels or 'not told'}" for library, kernels in told.items())
    faiss = told["faiss"]
    if faiss is not None and faiss.is_older_than_processor:
        fix = f"unset {CHOICE}, or set it to {SAFE}, before semrec starts"
        return Check("arithmetic", "missing", f"{found}: older than this processor, which costs most of the speed", fix)
    return Check("arithmetic", "ok", found)


def _gpus() -> Check:
    states = gpu_states()
    driver = has_driver()
    try:
        usable = gpu_count()
    except MissingPackageError:
        usable = 0
    if usable:
        without = _without_code(code_in(Path(load_faiss().__file__).parent.glob("*.so")), states)
        if without:
            return Check("gpu", "problem", f"FAISS is {without}: searches there fail", _CPU_FAISS)
        named = "; ".join(str(state) for state in states) or f"{usable} GPUs (install nvidia-ml-py to see their memory)"
        return Check("gpu", "ok", f"FAISS sees {usable}: {named}")
    if not driver:
        return Check("gpu", "missing", "no NVIDIA driver on this machine; searches run on the CPU")
    if "faiss-cpu" in installed_faiss():
        return Check(
            "gpu",
            "problem",
            "an NVIDIA driver is here, but faiss-cpu is installed: the GPU goes unused",
            "pip uninstall -y faiss-cpu && pip install 'semrec-faiss[gpu]'",
        )
    for wheel in installed_faiss():
        cuda = faiss_cuda(wheel)
        least = too_old(states[0].driver, cuda) if states and cuda else None
        if least:
            found = f"{wheel} is built for CUDA {cuda}, which needs driver {least} or later; this is {states[0].driver}"
            return Check("gpu", "problem", found, "install a newer driver, or set device.kind=cpu")
    return Check(
        "gpu",
        "problem",
        "an NVIDIA driver is here, but FAISS sees no GPU",
        "check `nvidia-smi`, and that CUDA_VISIBLE_DEVICES names GPUs that are there, each once",
    )


_CPU_FAISS = "pip uninstall -y faiss-gpu && pip install 'semrec-faiss[cpu]', or set device.kind=cpu"


def _without_code(built: list[str], states: list[GpuState]) -> str:
    """Say for which GPU there is no code in what is built for these architectures; "" where there is, or none tells."""
    for state in states if built else ():
        if state.capability > (0, 0) and not has_code(built, state.capability):
            number = ".".join(map(str, state.capability))
            return f"built for {', '.join(built)}; GPU {state.gpu} ({state.name}) has compute capability {number}"
    return ""


def _torch_detail() -> str:
    import torch

    cuda = torch.version.cuda
    if cuda is None:
        return NO_CUDA
    return f"CUDA {cuda}, " + (f"{torch.cuda.device_count()} GPUs" if torch.cuda.is_available() else "no GPU usable")


def _no_detail() -> str:
    return ""


# distribution, what it is for, the extra that brings it, more to tell
_OPTIONAL: tuple[tuple[str, str, str, Callable[[], str]], ...] = (
    ("torch", "GPU kernels and text embedding", "gpu", _torch_detail),
    ("nvidia-ml-py", "GPU memory as the driver counts it", "gpu", _no_detail),
    ("sentence-transformers", "texts: dataset embed, search", "embed", _no_detail),
    ("scikit-learn", "vectors of what people did: dataset learn", "learn", _no_detail),
    ("uvicorn", "answers over HTTP: serve", "serve", _no_detail),
    ("ray", "several machines: --ray", "ray", _no_detail),
    ("h5py", "dataset import and export of HDF5", "hdf5", _no_detail),
    ("altair", "reports with charts", "report", _no_detail),
    ("vl-convert-python", "reports with charts", "report", _no_detail),
    ("pandas", "answers as a DataFrame", "", _no_detail),
    ("polars", "answers as a DataFrame", "", _no_detail),
)


# Without a driver nothing of the gpu extra is of use, and installing it would bring faiss-gpu over faiss-cpu.
_WITHOUT_GPU = (("torch", "text embedding", "embed", _torch_detail), *_OPTIONAL[2:])


def _package(name: str, purpose: str, extra: str, detail: Callable[[], str]) -> Check:
    try:
        version = metadata.version(name)
        more = detail()
    except metadata.PackageNotFoundError:
        install = f"pip install 'semrec-faiss[{extra}]'" if extra else f"pip install {name}"
        install = CPU_TORCH if (name, extra) == ("torch", "embed") else install
        return Check(name, "missing", f"not installed; for {purpose}", install)
    except Exception as error:  # a package that is there but broken must not hide the other findings
        return Check(name, "problem", f"installed, but fails to load: {error}", f"pip install --force-reinstall {name}")
    return Check(name, "ok", f"{version} {more}".strip())


def _used(package: Check, gpus: Check) -> Check:
    """Object to a torch that cannot use the GPU which FAISS sees: built without CUDA, or for a newer driver's."""
    if package.name != "torch" or package.state != "ok" or gpus.state != "ok":
        return package
    if package.found.endswith(NO_CUDA):
        fix = "pip uninstall -y torch && pip install 'semrec-faiss[gpu]'"
        return Check("torch", "problem", f"{package.found}, but FAISS sees a GPU: it goes unused", fix)
    built, states = re.search(r"CUDA (\d+)", package.found), gpu_states()
    least = too_old(states[0].driver, int(built.group(1))) if built and states else None
    if least is None:
        return _built_for(package, states)
    why = f"which needs driver {least} or later; this is {states[0].driver}: FAISS works, type fused does not"
    return Check("torch", "problem", f"{package.found}, {why}", f"{TORCH_FOR_OLD_DRIVERS}, or install a newer driver")


def _built_for(torch: Check, states: list[GpuState]) -> Check:
    """Object to a torch that has no code for a GPU of this machine: one too new for it, or too old."""
    built = _torch_architectures() if states else []
    without = _without_code(built, states)
    if not without:
        return torch
    newer = any(is_newer(built, state.capability) for state in states)
    fix = NEWEST_TORCH if newer else TORCH_FOR_OLD_DRIVERS
    return Check("torch", "problem", f"{torch.found}, {without}: FAISS works, type fused does not", fix)


def _torch_architectures() -> list[str]:
    import torch

    return list(torch.cuda.get_arch_list())


def _cards() -> list[Check]:
    """Name the GPUs that type fused does not run on."""
    old = [state for state in gpu_states() if (0, 0) < state.capability < LEAST_CAPABILITY]
    least = ".".join(map(str, LEAST_CAPABILITY))
    return [
        Check(
            "type fused",
            "missing",
            f"GPU {state.gpu} ({state.name}) has compute capability {state.capability[0]}.{state.capability[1]};"
            f" type fused needs {least}",
            "take type flat there",
        )
        for state in old
    ]


def diagnose_index(path: str | Path) -> list[Check]:
    """Look at an index: whether it opens and its counts agree, its vectors' length, and where it is searched.

    Raises:
        NotFoundError: there is no index at ``path``.
    """
    from semrec_faiss.index.saved.saved_index import SavedIndex

    try:
        saved = SavedIndex(path)
        titles, index = saved.catalog.count, saved.load(saved.config.index, Device())
        users = 0 if saved.users is None else len(saved.users.vectors)
        ids = 0 if saved.users is None else len(saved.users.ids)
    except DamagedIndexError as error:
        return [Check("index", "problem", error.message, error.fix or "build the index again")]
    if users != ids:
        return [Check("index", "problem", f"{users} user vectors and {ids} user ids", "build the index again")]
    counts = f"{titles} titles, as many vectors" + (f"; {users} users, as many ids" if users else "; no users")
    return [Check("index", "ok", counts), _lengths(index), _place(saved.config)]


def _lengths(index: VectorIndex) -> Check:
    """Say whether scores are cosines; of an index that does not normalise, some vectors are measured."""
    if index.config.normalize:
        return Check("vectors", "ok", "brought to unit length, so that scores are cosines")
    rows = np.unique(np.linspace(0, index.count - 1, SAMPLED).astype(np.int64))
    norms = np.linalg.norm(index.vectors(rows), axis=1)
    if np.abs(norms - 1).max() < UNIT_TOLERANCE:
        return Check("vectors", "ok", f"of unit length, judged by {len(rows)} of them")
    return Check(
        "vectors",
        "missing",
        f"not of unit length (norms from {norms.min():.4g} to {norms.max():.4g}): long vectors win at any angle",
        "set index.normalize: true and build the index again",
    )


def _place(config: Config) -> Check:
    try:
        usable = gpu_count()
    except MissingPackageError as error:
        return Check("device", "problem", error.message, error.fix)
    problems = device_problems(config.index, config.device.model_copy(update={"kind": "gpu"}))
    if not usable:
        return Check("device", "ok", "searched on the CPU; FAISS sees no GPU")
    if problems:
        return Check("device", "missing", f"searched on the CPU: {problems[0]}", "build a type that runs on a GPU")
    if config.device.kind == "cpu":
        unused = "a GPU is here, but the index was built with device.kind=cpu: the GPU goes unused"
        return Check("device", "missing", unused, "--set device.kind=auto, or build it again so")
    return Check("device", "ok", f"searched on GPU {', '.join(map(str, config.device.gpus))}")
