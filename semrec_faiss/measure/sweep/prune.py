"""Trials that are not worth measuring: their own cheaper settings leave them nothing to win."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from semrec_faiss.measure.trials.trial import SEARCH_EFFORT, Trial

RECALL_MARGIN = 0.001
"""Less recall than this is nothing to win."""


def hopeless(trial: Trial, records: Iterable[dict[str, Any]]) -> str | None:
    """Say why a trial is hopeless, or None when it is not.

    Trials of the same index that differ in one search setting are compared, of which more costs more and finds no
    less. One is hopeless when a cheaper one finds all but `RECALL_MARGIN`, or when the two dearest of the cheaper
    ones find the same but for that: recall has stopped to grow. Only recall is looked at, never a time, so that the
    choice is the same at every run.

    Args:
        trial: not yet measured.
        records: the sweep's, this trial's index's among them.
    """
    own = trial.settings
    search = own["index"]["search"]
    for name in (name for name in SEARCH_EFFORT if search.get(name) is not None):
        cheaper = sorted(
            (record["index"]["search"][name], record["quality"]["recall"])
            for record in records
            if record["status"] == "measured"
            and record["quality"]["recall"] is not None
            and _differs_only_in(own, record, name)
            and record["index"]["search"][name] < search[name]
        )
        values = [recall for _, recall in cheaper]
        if values and values[-1] >= 1 - RECALL_MARGIN:
            return f"{name} {cheaper[-1][0]} finds {values[-1]:.4f} already"
        if len(values) > 1 and values[-1] - values[-2] < RECALL_MARGIN:
            return (
                f"recall has stopped to grow: {values[-2]:.4f} at {name} {cheaper[-2][0]},"
                f" {values[-1]:.4f} at {cheaper[-1][0]}"
            )
    return None


def _differs_only_in(own: dict[str, Any], record: dict[str, Any], name: str) -> bool:
    if any(own[key] != record[key] for key in own if key != "index"):
        return False
    theirs = record["index"]
    same_build = all(own["index"].get(key) == theirs.get(key) for key in {*own["index"], *theirs} - {"search"})
    return same_build and all(own["index"]["search"].get(key) == theirs["search"].get(key)
                              for key in {*own["index"]["search"], *theirs["search"]} - {name})  # fmt: skip
