"""doctor: what is installed, what is missing, and the command that mends it."""

from __future__ import annotations

import click

from semrec_faiss.cli.console import print_json, print_table
from semrec_faiss.cli.options import json_option


@click.command(epilog="Example: semrec doctor")
@json_option
def doctor(as_json: bool) -> int:
    """Check Python, FAISS and its GPUs, the driver, torch, memory and optional packages.

    Ends with exit code 6 when semrec cannot search on this machine as it is.
    """
    from semrec_faiss.index.diagnosis import diagnose

    checks = diagnose()
    if as_json:
        print_json({"checks": [check.as_dict() for check in checks]})
    else:
        marks = {"ok": "✓", "missing": "–", "problem": "✗"}
        print_table(["", "", "", ""], [[marks[c.state], c.name, c.found, c.fix or ""] for c in checks], header=False)
    return 6 if any(check.state == "problem" for check in checks) else 0
