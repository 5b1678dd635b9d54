"""Trials that are not worth measuring: their own cheaper settings leave them nothing to win."""

from __future__ import annotations

from collections.abc import Iterable

from semrec_faiss.measure.trials.record import Measured, TrialSettings
from semrec_faiss.measure.trials.trial import SEARCH_EFFORT, Trial

RECALL_MARGIN = 0.001
"""Less recall than this is nothing to win."""


def hopeless(trial: Trial, records: Iterable[Measured]) -> str | None:
    """Say why a trial is hopeless, or None when it is not.

    Trials of the same index that differ in one search setting are compared, of which more costs more and finds no
    less. One is hopeless when a cheaper one finds all but `RECALL_MARGIN`, or when the two dearest of the cheaper
    ones find the same but for that: recall has stopped to grow. Only recall is looked at, never a time, so that the
    choice is the same at every run.

    Args:
        trial: not yet measured.
        records: the sweep's measured ones, this trial's index's among them.
    """
    for name in SEARCH_EFFORT:
        effort = getattr(trial.index.search, name, None)
        if effort is None:
            continue
        same = _all_but(trial.settings, name)
        cheaper = sorted(
            (getattr(record.index.search, name), record.quality.recall)
            for record in records
            if record.quality.recall is not None
            and _all_but(record, name) == same
            and getattr(record.index.search, name) < effort
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


def _all_but(settings: TrialSettings, name: str) -> object:
    """Return what a trial measures, less one search setting, to be compared."""
    values = settings.settings_as_json()
    values["index"]["search"].pop(name, None)
    return values
