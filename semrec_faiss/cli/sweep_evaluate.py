"""sweep, of a file that evaluates recommendations: the profiles, how far it is, and what the winners came to."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from semrec_faiss.cli.evaluate import print_evaluation
from semrec_faiss.cli.printing import print_json, print_table, progress_bars, say

if TYPE_CHECKING:
    from semrec_faiss.measure.evaluate.config import EvaluationSweep
    from semrec_faiss.measure.evaluate.plan import EvaluationPlan
    from semrec_faiss.measure.evaluate.run import EvaluationOutcome, ProfileState
    from semrec_faiss.measure.sweep.run import Rerun

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
    with _live(sweep.evaluate.by) as watch:
        outcome = run_evaluation_sweep(plan, rerun=rerun, watch=watch)
    if as_json:
        print_json(_as_document(plan, outcome))
    else:
        _show_outcome(plan, outcome)
    say(f"wrote {sweep.folder}; now try: semrec report {sweep.folder}")


def _show_plan(plan: EvaluationPlan, as_json: bool) -> None:
    from semrec_faiss.cli.sweep import as_duration
    from semrec_faiss.measure.evaluate.record import mistake_in
    from semrec_faiss.measure.evaluate.run import seconds_left
    from semrec_faiss.measure.sweep.kind import refuse_indexes
    from semrec_faiss.measure.sweep.ledger import LEDGER, read_ledger

    refuse_indexes(plan.sweep.folder)
    ledger = plan.sweep.folder / LEDGER
    known = read_ledger(ledger, mistake_in) if ledger.is_file() else {}
    states = [known.get(trial.digest, {}).get("status", "to do") for trial in plan.trials]
    left = [trial for trial in plan.trials if trial.digest not in known]
    seconds = seconds_left(left, known)
    if as_json:
        print_json(
            {
                "trials": [
                    {"what": trial.what, "profile": trial.settings["profile"], "digest": trial.digest, "state": state}
                    for trial, state in zip(plan.trials, states, strict=True)
                ],
                "invalid": _invalid(plan),
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


def _invalid(plan: EvaluationPlan) -> list[dict[str, str]]:
    return [{"what": one.what, "reason": one.reason} for one in plan.invalid]


def _print_invalid(plan: EvaluationPlan) -> None:
    if plan.invalid:
        click.echo(f"not tried, since another does the same ({len(plan.invalid)}):")
        print_table(["", ""], [[f"  {one.what}", one.reason] for one in plan.invalid], header=False)


def _as_document(plan: EvaluationPlan, outcome: EvaluationOutcome) -> dict[str, Any]:
    return {
        "name": plan.sweep.name,
        "folder": str(plan.sweep.folder),
        "measured_now": outcome.measured_now,
        "trials": outcome.records,
        "left_for_want_of_time": [trial.what for trial in outcome.left],
        "invalid": _invalid(plan),
        "evaluation": outcome.document,
    }


def _show_outcome(plan: EvaluationPlan, outcome: EvaluationOutcome) -> None:
    by = plan.sweep.evaluate.by
    for one in outcome.document["evaluations"] if outcome.document else ():
        if len(plan.sweep.evaluate.index) > 1:
            click.echo(f"{one['name']}:")
        print_evaluation(one, by)
        click.echo(f"the same again: {one['command']}\n")
    failed = [record for record in outcome.records if record["status"] == "failed"]
    if failed:
        click.echo(f"{len(failed)} failed:")
        rows = [[f"  {record['index']['name']}: {record['label']}", record["reason"]] for record in failed]
        print_table(["", ""], rows, header=False)
    if outcome.left:
        click.echo(f"{len(outcome.left)} left for want of time; the winner is chosen when none is:")
        print_table([""], [[f"  {trial.what}"] for trial in outcome.left], header=False)
    _print_invalid(plan)
    click.echo(f"{len(plan.trials)} profiles: {outcome.measured_now} done now, {len(outcome.records)} in all")


@contextlib.contextmanager
def _live(by: str) -> Iterator[Callable[[ProfileState], None]]:
    """Show on a terminal which profile is tried, the best so far and the time left."""
    if not sys.stderr.isatty():
        yield lambda state: None
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), transient=True, refresh_per_second=4) as live:
        yield lambda state: live.update(picture(state, by))


def picture(state: ProfileState, by: str) -> Any:
    """Draw how far a sweep is, for a terminal."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    from semrec_faiss.cli.sweep import as_duration
    from semrec_faiss.measure.evaluate.evaluator import metric_of

    left = "" if state.seconds_left is None else f", about {as_duration(state.seconds_left)} left"
    what, done, total = state.step
    step = f" · {what} {done:,}/{total:,}" if what else ""
    head = Text(f"profile {min(state.done + 1, state.total)} of {state.total}{left}\n{state.now}{step}")
    best = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title="best so far", title_justify="left")
    best.add_column("profile")
    best.add_column(by.replace("_", " "), justify="right")
    for record in state.best[:SHOWN_BEST]:
        best.add_row(record["label"], f"{metric_of(record, by)['mean']:.4f}")
    return Group(head, ProgressBar(total=state.total, completed=state.done, width=60), best)
