"""Which kind of sweep a folder of results holds: one of indexes, or one that evaluates recommendations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from semrec_faiss.errors import UsageError
from semrec_faiss.measure.documents.results import MOST_BYTES
from semrec_faiss.paths import as_typed
from semrec_faiss.storage import read_small

PLAN = "plan.json"
"""The file that says which trials a sweep consists of; of an evaluation it names its kind."""

EVALUATION = "evaluation"


def kind_of(folder: Path) -> Literal["indexes", "evaluation"] | None:
    """Tell what the results in a folder are of; None where there are none, or none that can be read."""
    try:
        plan = json.loads(read_small(folder / PLAN, MOST_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(plan, dict):
        return None
    return "evaluation" if plan.get("kind") == EVALUATION else "indexes"


def refuse_evaluation(folder: Path) -> None:
    """Refuse a folder that evaluates recommendations where one that measured indexes is asked for.

    Raises:
        UsageError: it does; the fix names the commands that read it.
    """
    if kind_of(folder) == "evaluation":
        raise UsageError(
            f"{folder} holds an evaluation of recommendations, not a sweep of indexes",
            fix=f"`semrec report {as_typed(folder)}` shows it; the profile it chose is in {folder / 'evaluation.json'}",
        )


def refuse_indexes(folder: Path) -> None:
    """Refuse a folder that measured indexes where recommendations are to be evaluated.

    Raises:
        UsageError: it does.
    """
    if kind_of(folder) == "indexes":
        raise UsageError(f"{folder} holds a sweep of indexes", fix="give another name: --name evaluated, say")
