"""Runs a sweep again and again, kills each run at a random instant, and prints what came of it; run by a test.

    python kill_sweeps.py SWEEP.yaml KILLS

Each run is a fork of this process, which has imported everything but computed nothing. Prints one JSON document.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401 - so that a fork need not import it
import faiss
import numpy.ma  # noqa: F401 - DuckDB imports it when it first gives an array

from semrec_faiss.measure.sweep.plan import make_plan
from semrec_faiss.measure.sweep.run import run_sweep
from semrec_faiss.measure.sweep_file import load_sweep_file
from semrec_faiss.measure.trials.ledger import LEDGER


def sweep(path: Path, name: str) -> None:
    """Run the sweep in this process."""
    faiss.omp_set_num_threads(1)
    run_sweep(make_plan(*load_sweep_file(path, (f"name={name}",))), isolated=False)


def run(path: Path, name: str, kill_after: float | None) -> bool:
    """Run the sweep in a fork, and kill it after so many seconds: whether it was still at work."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            sweep(path, name)
            code = 0
        finally:
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)  # not waited for yet, so the process id is still its own
    status = os.waitpid(pid, 0)[1]
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a run of the sweep failed")
    return os.WIFSIGNALED(status)


def records_of(folder: Path) -> int:
    """Count the lines of a ledger, none where there is no ledger yet."""
    ledger = folder / LEDGER
    return ledger.read_bytes().count(b"\n") if ledger.is_file() else 0


def main() -> None:
    """Measure an unbroken run, kill others, finish each killed sweep."""
    path, kills = Path(sys.argv[1]), int(sys.argv[2])
    results = load_sweep_file(path)[0].results
    started = time.monotonic()
    run(path, "unbroken", None)
    whole = time.monotonic() - started
    rng, outcomes, name, longer, hit = random.Random(5), [], 0, 1.0, 0
    while len(outcomes) < kills or hit < kills // 4:
        before = records_of(results / f"killed{name}")
        killed = run(path, f"killed{name}", whole * longer * rng.uniform(0.02, 0.7))
        if killed:
            after = records_of(results / f"killed{name}")
            outcomes.append({"sweep": name, "before": before, "after": after})
            hit += after > before
            longer *= 1.0 if after > before else 1.5  # the machine may have more to do than it had before
        else:
            name, longer = name + 1, longer / 1.5  # it is done: the next one begins anew
    for number in range(name + 1):
        run(path, f"killed{number}", None)
    document: dict[str, Any] = {"outcomes": outcomes, "sweeps": name + 1, "whole": whole}
    print(json.dumps(document))


if __name__ == "__main__":
    main()
