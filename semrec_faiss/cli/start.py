"""Where ``semrec`` begins and ends: Ctrl-C while it still imports ends it as quietly as later; ending takes no time."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence

OBJECTS_A_COLLECTION = 50_000
"""New objects after which Python looks for cycles: by its default a tenth of the time that imports take."""


def run() -> None:
    """Run ``semrec`` and end the process with the exit code of the result.

    The interpreter would free an index and a GPU piece by piece, which takes up to a second. The system does it at
    once, after everything else: threads that are waited for, and what is registered with `atexit`.
    """
    gc.set_threshold(OBJECTS_A_COLLECTION, *gc.get_threshold()[1:])
    codes: list[object] = []
    atexit.register(_end_at_once, codes)  # before anything else is: its turn is the last
    try:
        from semrec_faiss.cli.main import run as command

        command()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("\ninterrupted\n")
        codes.append(130)
        sys.exit(130)
    except SystemExit as ending:
        codes.append(ending.code)
        raise


def _end_at_once(codes: Sequence[object]) -> None:
    """End the process with its exit code, where it has one: what ends by an error of another kind is told of first."""
    if not codes or not isinstance(codes[0], int):
        return
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):  # which the interpreter tells of
        return
    os._exit(codes[0])
