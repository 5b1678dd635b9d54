"""The stamp of a results file: when, with what and on what it was measured, taken by the program itself.

No name of a machine, a person or a folder is in it, so that results can be published as they are.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PurePosixPath, PureWindowsPath

from semrec_faiss._version import __version__
from semrec_faiss.cores import usable_cores
from semrec_faiss.errors import MissingPackageError
from semrec_faiss.index.hardware.device import installed_faiss, load_faiss
from semrec_faiss.index.hardware.gpu_memory import gpu_states
from semrec_faiss.index.hardware.kernels import LIBRARIES, kernels_of
from semrec_faiss.measure.documents.stamp import Blas, Cpu, Git, Gpu, Stamp
from semrec_faiss.measure.instruments.host_memory import machine_bytes

PROGRAM = "semrec"


@dataclass(frozen=True)
class Processor:
    """A CPU as far as it decides how fast a search is: machines that differ in one of these share no trial.

    Attributes:
        model: its name; None where the system does not tell.
        cores: that this process may run on.
        threads: that FAISS searches with.
    """

    model: str | None
    cores: int | None
    threads: int | None

    @classmethod
    def of_this_machine(cls) -> Processor:
        """Look at the CPU that this process runs on."""
        return cls(cpu_model(), usable_cores(), faiss_threads())

    def as_dict(self) -> dict[str, str | int | None]:
        """Return it as a record holds it."""
        return {"processor": self.model, "cores": self.cores, "threads": self.threads}


def stamp_of_this_run(arguments: Sequence[str] | None = None) -> Stamp:
    """Describe this run; what cannot be told is None.

    Args:
        arguments: the command line behind the program's name; this process's own by default.
    """
    return Stamp(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command_line(sys.argv[1:] if arguments is None else arguments),
        git=git_state(Path(__file__).resolve().parents[3]),
        versions=_versions(),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=Cpu(model=cpu_model(), cores=os.cpu_count(), usable_cores=usable_cores()),
        memory_bytes=machine_bytes(),
        faiss_threads=faiss_threads(),
        blas=blas_kernels(),
        gpus=[Gpu(name=state.name, driver=state.driver, memory_bytes=state.total_bytes) for state in gpu_states()],
    )


def load_average() -> float | None:
    """Return how many processes wanted a core during the last minute; None where the system does not tell."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


def command_line(arguments: Sequence[str]) -> str:
    """Spell the command as it was typed, absolute paths cut down to ``.../NAME``."""
    return shlex.join([PROGRAM, *map(_without_place, arguments)])


def _without_place(argument: str) -> str:
    option, equals, value = argument.rpartition("=")
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(value)
        if path.is_absolute():
            return f"{option}{equals}.../{path.name}"
    return argument


def git_state(folder: Path) -> Git | None:
    """Return the commit of a checkout and whether anything but its results differs from it; None elsewhere."""
    if not (folder / ".git").exists():
        return None
    commit = _output_of(["git", "rev-parse", "--verify", "HEAD"], folder)
    changes = _output_of(["git", "status", "--porcelain", "--", ".", ":(exclude)results"], folder)
    return Git(commit=commit or None, dirty=None if changes is None else bool(changes))


def _output_of(command: list[str], folder: Path | None = None) -> str | None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _versions() -> dict[str, str | None]:
    wheels = installed_faiss()
    torch = sys.modules.get("torch")  # importing it only to name it would take seconds
    return {
        "semrec": __version__,
        "python": platform.python_version(),
        "numpy": _version_of("numpy"),
        "faiss": next(iter(wheels.values()), None),
        "faiss_wheel": next(iter(wheels), None),
        "faiss_compile_options": _compile_options(),
        "duckdb": _version_of("duckdb"),
        "torch": None if torch is None else str(torch.__version__),
    }


def _version_of(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _compile_options() -> str | None:
    try:
        return str(load_faiss().get_compile_options()).strip()
    except MissingPackageError:
        return None


def faiss_threads() -> int | None:
    """Return how many threads FAISS searches with; None where it is not installed."""
    try:
        return int(load_faiss().omp_get_max_threads())
    except MissingPackageError:
        return None


def blas_kernels() -> dict[str, Blas | None]:
    """Tell which BLAS kernels FAISS and numpy multiply with; None where it cannot be told."""
    faiss_threads()  # loads FAISS where it is installed
    told = {library: kernels_of(library) for library in LIBRARIES}
    return {
        library: None if kernels is None else Blas.model_validate(asdict(kernels)) for library, kernels in told.items()
    }


def cpu_model() -> str | None:
    """Name the processor; None where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return _output_of(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.processor() or None
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, None) or platform.processor() or None
