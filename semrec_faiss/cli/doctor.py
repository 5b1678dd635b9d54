"""doctor: what is installed, what is missing, and the command that mends it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from semrec_faiss.cli.options import FilePath, json_option
from semrec_faiss.cli.printing import print_json, print_table


@click.command(epilog="Example: semrec doctor indexes/demo")
@click.argument("index", required=False, type=FilePath())
@json_option
def doctor(index: Path | None, as_json: bool) -> int:
    """Check Python, FAISS and its GPUs, the driver, torch, memory and optional packages; INDEX too where it is given.

    Of an index: whether its counts agree, its vectors are of unit length, and a GPU goes unused. Ends with exit code 6
    when semrec cannot search on this machine as it is.
    """
    from semrec_faiss.index.diagnosis import diagnose, diagnose_index

    checks = diagnose() + ([] if index is None else diagnose_index(index))
    if as_json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        marks = {"ok": "✓", "missing": "–", "problem": "✗"}
        print_table(["", "", "", ""], [[marks[c.state], c.name, c.found, c.fix or ""] for c in checks], header=False)
    return 6 if any(check.state == "problem" for check in checks) else 0
