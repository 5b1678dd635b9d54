"""Where ``semrec`` begins: Ctrl-C that comes while it still imports ends it as quietly as later."""

from __future__ import annotations

import sys


def run() -> None:
    """Run ``semrec`` and end the process with the exit code of the result."""
    try:
        from semrec_faiss.cli.main import run as command

        command()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("\ninterrupted\n")
        sys.exit(130)
