"""Whole processes: how long they take from start to end, and the most memory they ever hold."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from semrec_faiss.errors import SemrecError
from semrec_faiss.measure.instruments.timing import Timing, measure
from semrec_faiss.progress import Progress, silent

# The process that is measured is the child of this small one, because a parent's own memory counts as its child's
# between fork and exec: started from a benchmark that holds an index, every child would seem to hold it too.
_WATCHER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code if 0 <= code < 256 else 1)
"""

_READ_FLOAT32 = """
import sys
from pathlib import Path
from semrec_faiss.data.folder.layout import open_vectors, read_float32
path = Path(sys.argv[1])
read_float32(open_vectors(path), normalize=True, path=path)
"""

# Runs the command itself, and says when it opened the index, had it open, began every user's list and had them all.
_STAMPED = """
import json, sys, time
from semrec_faiss.cli.start import run
from semrec_faiss.search import export, recommender

stamps = []

def stamped(work):
    def run(*arguments, **named):
        stamps.append(time.monotonic())
        done = work(*arguments, **named)
        stamps.append(time.monotonic())
        return done
    return run

recommender.Recommender.open = stamped(recommender.Recommender.open)
export.export_all_users = stamped(export.export_all_users)
try:
    run()
finally:
    print(json.dumps(stamps))
"""

_IMPORTING = f"import duckdb, pyarrow.compute, pyarrow.parquet\n{_STAMPED}"  # which one user's list does without


def semrec(*arguments: str) -> list[str]:
    """Return the command that runs ``semrec`` with the Python that runs now."""
    return [sys.executable, "-m", "semrec_faiss", *arguments]


def reading_as_float32(path: Path) -> list[str]:
    """Return the command of a process that does nothing but read an .npy file of vectors as float32."""
    return [sys.executable, "-c", _READ_FLOAT32, str(path)]


def importing_libraries() -> list[str]:
    """Return the command of a process that does nothing but import what every build imports."""
    return [sys.executable, "-c", "import duckdb, faiss, pydantic"]


def time_process(command: Sequence[str], *, repeats: int, what: str = "", progress: Progress = silent) -> Timing:
    """Time a process from start to end, after one run that is not counted.

    Its modules are compiled by that run, as those of an installed package are by the installer.

    Raises:
        SemrecError: it ends with an error.
    """
    done = 0

    def once() -> None:
        nonlocal done
        _run(command, bytecode=bytecode)
        done += 1
        progress(what, done, repeats + 1)

    with tempfile.TemporaryDirectory(prefix="semrec-bytecode-") as bytecode:
        return measure(once, warmup=1, repeats=repeats)


def time_all_users(
    index: Path, settings: Sequence[str], user: str, k: int, *, repeats: int, progress: Progress = silent
) -> list[tuple[float, ...]]:
    """Time ``semrec recommend INDEX --all-users`` as a process, after one that answers ``user`` and is not counted.

    Returns:
        For each repeat the seconds from its start until it opens the index, until that is open, until the lists are
        begun, until they are all written, and until it has ended.

    Raises:
        SemrecError: it ends with an error.
    """
    asked = ["recommend", str(index.absolute()), "-k", str(k), *(part for one in settings for part in ("--set", one))]
    runs = []
    with tempfile.TemporaryDirectory(prefix="semrec-lists-") as folder:
        out = str(Path(folder) / "lists.parquet")
        _run([sys.executable, "-c", _IMPORTING, *asked, "--user", user], bytecode=folder)
        for number in range(repeats):
            progress("recommend --all-users", number, repeats)
            started = time.monotonic()
            said = _run([sys.executable, "-c", _STAMPED, *asked, "--all-users", "--out", out], bytecode=folder)
            moments = [*json.loads(said.splitlines()[-1]), time.monotonic()]
            runs.append(tuple(moment - started for moment in moments))
        progress("recommend --all-users", repeats, repeats)
    return runs


def peak_bytes_of_process(command: Sequence[str]) -> int | None:
    """Run a process and return the most memory it ever held, mapped files that it touched included.

    Returns:
        Its peak resident set, in bytes; None where the system does not count it (Windows).

    Raises:
        SemrecError: it ends with an error.
    """
    if os.name == "nt":
        return None
    peak = int(_run(command, through=[sys.executable, "-S", "-c", _WATCHER]))
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def output_of(command: Sequence[str]) -> str:
    """Run a process and return what it printed; raises SemrecError when it ends with an error."""
    return _run(command)


def _run(command: Sequence[str], *, through: Sequence[str] = (), bytecode: str | None = None) -> str:
    environment = _environment() if bytecode is None else _keeping(bytecode)
    done = subprocess.run([*through, *command], env=environment, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        shown = shlex.join(["python", *command[1:]])
        said = done.stderr.strip() or "it said nothing"
        raise SemrecError(f"a command that was to be measured ended with exit code {done.returncode}: {shown}\n{said}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Let children import this very package, installed or not."""
    home = str(Path(__file__).resolve().parents[3])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def _keeping(bytecode: str) -> dict[str, str]:
    """Let children find compiled modules in a folder, and put them there, where they are not kept anyway."""
    environment = _environment()
    if environment.pop("PYTHONDONTWRITEBYTECODE", ""):
        environment["PYTHONPYCACHEPREFIX"] = bytecode
    return environment
