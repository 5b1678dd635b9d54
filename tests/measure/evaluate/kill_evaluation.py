"""Runs an evaluated sweep and kills this process with SIGKILL while a profile is tried; run by a test.

    python kill_evaluation.py SWEEP.yaml RECORDS

The kill comes when as many records are in the ledger, in the middle of the next one.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from semrec_faiss.measure.evaluate.config import EvaluationSweep
from semrec_faiss.measure.evaluate.plan import make_evaluation_plan
from semrec_faiss.measure.evaluate.run import ProfileState, run_evaluation_sweep
from semrec_faiss.measure.sweep_file import load_sweep_file


def main() -> None:
    """Run until it is killed."""
    path, records = Path(sys.argv[1]), int(sys.argv[2])

    def kill(state: ProfileState) -> None:
        if state.done == records and state.step[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    sweep, _ = load_sweep_file(path)
    assert isinstance(sweep, EvaluationSweep)
    run_evaluation_sweep(make_evaluation_plan(sweep), watch=kill)


if __name__ == "__main__":
    main()
