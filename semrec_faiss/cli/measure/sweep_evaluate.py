"""sweep, of a file that evaluates recommendations: the profiles, how far it is, and what the winners came to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from semrec_faiss.cli.measure.evaluate import print_evaluation
from semrec_faiss.cli.measure.live import Picture, live
from semrec_faiss.cli.printing import as_duration, print_json, print_listing, print_table, progress_bars, say
from semrec_faiss.paths import as_typed

if TYPE_CHECKING:
    from semrec_faiss.measure.evaluate.config import EvaluationSweep
    from semrec_faiss.measure.evaluate.plan import EvaluationPlan
    from semrec_faiss.measure.evaluate.run import EvaluationOutcome, ProfileState
    from semrec_faiss.measure.trials.run import Rerun

SHOWN_BEST = 8


def evaluate_profiles(sweep: EvaluationSweep, *, dry_run: bool, rerun: Rerun, as_json: bool) -> None:
    """Try the profiles of a sweep, or list them, and print what came of it."""
    from semrec_faiss.measure.evaluate.plan import make_evaluation_plan
    from semrec_faiss.measure.evaluate.run import run_evaluation_sweep

    with progress_bars() as progress:
        plan = make_evaluation_plan(sweep, progress)
    if dry_run:
        _show_plan(plan, as_json)
        return
    with live(picture_of(sweep.evaluate.by)) as watch:
        outcome = run_evaluation_sweep(plan, rerun=rerun, watch=watch)
    if as_json:
        print_json(_as_document(plan, outcome))
    else:
        _show_outcome(plan, outcome)
    say(f"wrote {sweep.folder}; now try: semrec report {as_typed(sweep.folder)}")


def _show_plan(plan: EvaluationPlan, as_json: bool) -> None:
    from semrec_faiss.measure.evaluate.record import PROFILE_RECORD
    from semrec_faiss.measure.evaluate.run import seconds_left
    from semrec_faiss.measure.trials.kind import refuse_indexes
    from semrec_faiss.measure.trials.ledger import LEDGER, read_ledger

    refuse_indexes(plan.sweep.folder)
    ledger = plan.sweep.folder / LEDGER
    known = read_ledger(ledger, PROFILE_RECORD) if ledger.is_file() else {}
    states = [known[one.digest].status if one.digest in known else "to do" for one in plan.trials]
    left = [trial for trial in plan.trials if trial.digest not in known]
    seconds = seconds_left(left, known)
    if as_json:
        print_json(
            {
                "trials": [
                    {"what": trial.what, "profile": trial.profile.model_dump(), "digest": trial.digest, "state": state}
                    for trial, state in zip(plan.trials, states, strict=True)
                ],
                "invalid": [one.as_json() for one in plan.invalid],
                "to_do": len(left),
                "estimated_seconds": None if seconds is None else round(seconds, 1),
            }
        )
        return
    rows = [[trial.index_name, trial.label, state] for trial, state in zip(plan.trials, states, strict=True)]
    print_table(["index", "profile", ""], rows)
    _print_invalid(plan)
    took = "" if seconds is None or not left else f"; about {as_duration(seconds)}"
    click.echo(f"{len(rows)} profiles, {len(left)} of them to do{took}")


def _print_invalid(plan: EvaluationPlan) -> None:
    rows = [[one.what, one.reason] for one in plan.invalid]
    print_listing(f"not tried, since another does the same ({len(rows)})", rows)


def _as_document(plan: EvaluationPlan, outcome: EvaluationOutcome) -> dict[str, Any]:
    return {
        "name": plan.sweep.name,
        "folder": str(plan.sweep.folder),
        "measured_now": outcome.measured_now,
        "trials": [record.as_json() for record in outcome.records],
        "left_for_want_of_time": [trial.what for trial in outcome.left],
        "invalid": [one.as_json() for one in plan.invalid],
        "evaluation": None if outcome.document is None else outcome.document.as_json(),
    }


def _show_outcome(plan: EvaluationPlan, outcome: EvaluationOutcome) -> None:
    by = plan.sweep.evaluate.by
    for one in outcome.document.evaluations if outcome.document else ():
        if len(plan.sweep.evaluate.index) > 1:
            click.echo(f"{one.name}:")
        print_evaluation(one, by)
        click.echo(f"the same again: {one.command}\n")
    failed = [[record.what, record.reason] for record in outcome.records if record.status == "failed"]
    print_listing(f"{len(failed)} failed", failed)
    left = [[trial.what, ""] for trial in outcome.left]
    print_listing(f"{len(left)} left for want of time; the winner is chosen when none is", left)
    _print_invalid(plan)
    click.echo(f"{len(plan.trials)} profiles: {outcome.measured_now} done now, {len(outcome.records)} in all")


def picture_of(by: str) -> Callable[[ProfileState], Picture]:
    """Tell which profile is tried, the best so far by a metric and the time left."""

    def picture(state: ProfileState) -> Picture:
        best = [
            [record.label, f"{record.metric(by).mean:.4f}"]
            for record in state.best[:SHOWN_BEST]
            if record.status == "measured"
        ]
        return Picture("profile", "best so far", ["profile", by.replace("_", " ")], best)

    return picture
