"""sweep: every combination of a grid, measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semrec_faiss.cli.measure.live import Picture, live
from semrec_faiss.cli.options import FilePath, json_option
from semrec_faiss.cli.printing import (
    as_duration,
    as_ms,
    as_size,
    print_json,
    print_listing,
    print_table,
    progress_bars,
    say,
)
from semrec_faiss.errors import UsageError
from semrec_faiss.paths import as_typed

if TYPE_CHECKING:
    from semrec_faiss.measure.sweep.plan import TrialsPlan
    from semrec_faiss.measure.sweep.run import Outcome, State
    from semrec_faiss.measure.trials.record import Measured
    from semrec_faiss.measure.trials.run import Rerun
    from semrec_faiss.measure.trials.trial import Trial


@click.command(epilog="Example: semrec sweep configs/sweep-demo.yaml --dry-run")
@click.argument("config", type=FilePath())
@click.option("--dataset", "datasets", multiple=True, metavar="DIR", help="A data folder, instead of the file's.")
@click.option("--name", help="The results' name, instead of the file's.")
@click.option("--results", metavar="DIR", help="The folder that results/NAME lies in, instead of the file's.")
@click.option("--slice", "field", metavar="FIELD", help="Also report recall by this metadata field, such as genres.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key of the file, such as repeats=5."
)
@click.option("--dry-run", is_flag=True, help="Print the trials, their memory and the time; measure nothing.")
@click.option(
    "--rerun",
    is_flag=False,
    flag_value="all",
    default="none",
    type=click.Choice(["none", "failed", "all"]),
    help="Measure again what the ledger has: all, or only what failed.",
)
@click.option("--prune", is_flag=True, help="Skip trials whose index finds as much with cheaper settings.")
@json_option
def sweep(
    config: Path,
    datasets: tuple[str, ...],
    name: str | None,
    results: str | None,
    field: str | None,
    settings: tuple[str, ...],
    dry_run: bool,
    rerun: Rerun,
    prune: bool,
    as_json: bool,
) -> None:
    """Measure every combination of the YAML file CONFIG: recall, speed, memory; one line per trial in a ledger.

    An interrupted sweep continues where it stopped when the same command is given again, and a changed grid adds
    only what is new. `semrec pick` and `semrec report` read what it found. A file with the key evaluate tries profiles
    instead: how users become queries, and how good what they find is.
    """
    from semrec_faiss.measure.evaluate.config import EvaluationSweep
    from semrec_faiss.measure.sweep.plan import make_plan
    from semrec_faiss.measure.sweep.run import run_sweep
    from semrec_faiss.measure.sweep_file import load_sweep_file

    given = {"name": name, "results": results, "slice": field}
    overrides = [f"{key}={_yaml(value)}" for key, value in given.items() if value is not None]
    if datasets:
        overrides.append(f"dataset={_yaml(list(datasets))}")
    loaded, source = load_sweep_file(config, (*overrides, *settings))
    if isinstance(loaded, EvaluationSweep):
        from semrec_faiss.cli.measure.sweep_evaluate import evaluate_profiles

        if prune:
            raise UsageError(f"--prune is for sweeps of indexes; {config} evaluates recommendations")
        evaluate_profiles(loaded, dry_run=dry_run, rerun=rerun, as_json=as_json)
        return
    with progress_bars() as progress:
        plan = make_plan(loaded, source, progress)
    if dry_run:
        _show_plan(plan, as_json)
        return
    with live(_picture) as watch:
        outcome = run_sweep(plan, rerun=rerun, prune=prune, watch=watch)
    if as_json:
        print_json(_as_document(plan, outcome))
    else:
        _show_outcome(plan, outcome)
    say(f"wrote {plan.sweep.folder}; now try: semrec pick {as_typed(plan.sweep.folder)} --recall 0.95")


def _yaml(value: Any) -> str:
    """Spell a value so that it comes back from YAML as it is: JSON is YAML."""
    import json

    return json.dumps(value)


def _show_plan(plan: TrialsPlan, as_json: bool) -> None:
    from semrec_faiss.index.memory.prediction import predict_memory
    from semrec_faiss.measure.sweep.estimate import Estimate
    from semrec_faiss.measure.trials.ledger import LEDGER, read_ledger
    from semrec_faiss.measure.trials.record import TRIAL_RECORD

    ledger = plan.sweep.folder / LEDGER
    known = read_ledger(ledger, TRIAL_RECORD) if ledger.is_file() else {}
    estimate = Estimate(plan.trials, known)
    wanted = [trial for trial in plan.trials if trial.digest not in known]
    seconds = estimate.seconds([trial.digest for trial in wanted])
    rows = []
    for trial in plan.trials:
        memory = predict_memory(
            trial.index, trial.data.titles, trial.data.dim, trial.device, batch=trial.batch, k=trial.k
        )
        state = known[trial.digest].status if trial.digest in known else "to do"
        rows.append((trial, memory.host.peak, None if memory.gpu is None else memory.gpu.peak, state))
    if as_json:
        print_json(
            {
                "trials": [
                    {"what": trial.what, "digest": trial.digest, "state": state, **_predicted(host, gpu)}
                    for trial, host, gpu, state in rows
                ],
                "invalid": [one.as_json() for one in plan.invalid],
                "to_do": len(wanted),
                "estimated_seconds": round(seconds, 1),
            }
        )
        return
    on_gpus = any(gpu is not None for _, _, gpu, _ in rows)
    print_table(
        ["data", "index", "filter", "k", "batch", "host memory", *(["GPU memory"] if on_gpus else []), ""],
        [
            [
                trial.data.name,
                trial.label,
                trial.where or "",
                str(trial.k),
                str(trial.batch),
                as_size(host),
                *(["" if gpu is None else as_size(gpu)] if on_gpus else []),
                state,
            ]
            for trial, host, gpu, state in rows
        ],
        right=(3, 4, 5, *([6] if on_gpus else [])),
    )
    _print_invalid(plan)
    click.echo(f"{len(rows)} trials, {len(wanted)} of them to do; about {as_duration(seconds)}")


def _predicted(host: int, gpu: int | None) -> dict[str, int | None]:
    return {"predicted_host_peak_bytes": host, "predicted_gpu_peak_bytes": gpu}


def _print_invalid(plan: TrialsPlan) -> None:
    rows = [[one.what, one.reason] for one in plan.invalid]
    print_listing(f"{len(rows)} combinations cannot be measured", rows)


def _as_document(plan: TrialsPlan, outcome: Outcome) -> dict[str, Any]:
    what = {trial.digest: trial.what for trial in plan.trials}
    return {
        "name": plan.sweep.name,
        "folder": str(plan.sweep.folder),
        "measured_now": outcome.measured_now,
        "trials": [record.as_json() for record in outcome.records],
        "pruned": [{"what": what[digest], "reason": reason} for digest, reason in outcome.pruned.items()],
        "left_for_want_of_time": [trial.what for trial in outcome.left],
        "invalid": [one.as_json() for one in plan.invalid],
    }


def _show_outcome(plan: TrialsPlan, outcome: Outcome) -> None:
    from semrec_faiss.measure.trials.frontier import frontier
    from semrec_faiss.measure.trials.results import measured_of

    measured = measured_of(outcome.records)
    for trial in _places(plan):
        here = [record for record in measured if _is_at(record, trial)]
        best = frontier(here)
        if best:
            click.echo(f"{trial.data.name}, k {trial.k}, batch {trial.batch}, the frontier:")
            print_table(
                ["index", "recall", "95 % interval", "p50 ms", "p95 ms", "queries/s"],
                [_frontier_row(record) for record in best],
                right=(1, 2, 3, 4, 5),
            )
    what = {trial.digest: trial.what for trial in plan.trials}
    failed = [[record.label, record.reason] for record in outcome.records if record.status == "failed"]
    print_listing(f"{len(failed)} failed", failed)
    print_listing(
        f"{len(outcome.pruned)} pruned", [[what[digest], reason] for digest, reason in outcome.pruned.items()]
    )
    print_listing(f"{len(outcome.left)} left for want of time", [[trial.what, ""] for trial in outcome.left])
    _print_invalid(plan)
    click.echo(f"{len(plan.trials)} trials: {outcome.measured_now} done now, {len(outcome.records)} in all")
    _say_if_disturbed(measured)


def _say_if_disturbed(records: Sequence[Measured]) -> None:
    disturbed = [record.others_used_cores or 0.0 for record in records if record.is_disturbed]
    if disturbed:
        trials = "one trial" if len(disturbed) == 1 else f"{len(disturbed)} trials"
        say(
            f"note: other programs kept up to {max(disturbed):.1f} cores busy during {trials}, whose times are longer"
            " for it; measure again with --rerun all when nothing else runs"
        )


def _places(plan: TrialsPlan) -> list[Trial]:
    """One trial of each data folder, k and batch size without a filter."""
    places: dict[tuple[str, int, int], Trial] = {}
    for trial in plan.trials:
        if trial.where is None:
            places.setdefault((trial.data.digest, trial.k, trial.batch), trial)
    return list(places.values())


def _is_at(record: Measured, trial: Trial) -> bool:
    same = (record.filter, record.k, record.batch) == (trial.where, trial.k, trial.batch)
    return same and record.data.digest == trial.data.digest


def _frontier_row(record: Measured) -> list[str]:
    interval, latency = record.quality.recall_interval, record.latency
    return [
        record.label,
        f"{record.recall_or_0:.3f}",
        "–" if interval is None else f"{interval.low:.3f} to {interval.high:.3f}",
        as_ms(latency.p50_ms),
        as_ms(latency.p95_ms),
        f"{latency.qps:,.0f}",
    ]


def _picture(state: State) -> Picture:
    """Tell which trial is running, the frontier so far and the time left."""
    best = [
        [record.label, f"{record.recall_or_0:.3f}", as_ms(record.latency.p50_ms)]
        for record in state.best[-8:]
        if record.status == "measured"
    ]
    return Picture("trial", "frontier so far", ["index", "recall", "p50 ms"], best)
