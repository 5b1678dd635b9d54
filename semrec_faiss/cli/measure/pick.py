"""pick: the best index of a sweep for what is required, and why the others lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semrec_faiss.cli.numbers import FiniteRange, WholeNumber
from semrec_faiss.cli.options import FilePath, json_option
from semrec_faiss.cli.printing import as_ms, as_size, print_json, print_table, say, say_if_disturbed
from semrec_faiss.paths import as_typed

if TYPE_CHECKING:
    from semrec_faiss.measure.choose.pick import Choice
    from semrec_faiss.measure.trials.record import Failed, Measured


@click.command(epilog="Example: semrec pick results/sweep-demo --recall 0.95 --p95-ms 5 --batch 1 --memory-gb 2")
@click.argument("results", type=FilePath())
@click.option("--recall", type=FiniteRange(0, 1), help="At least this recall.")
@click.option("--p95-ms", type=FiniteRange(min=0), help="At most this 95th percentile of latency, in ms.")
@click.option("--p50-ms", type=FiniteRange(min=0), help="At most this median latency, in ms.")
@click.option("--qps", type=FiniteRange(min=0), help="At least this many queries per second.")
@click.option(
    "--memory-gb", type=FiniteRange(min=0), help="At most this much memory where the search runs, in 10⁹ bytes."
)
@click.option("--build-s", type=FiniteRange(min=0), help="At most this many seconds to train and fill.")
@click.option(
    "-k", "--count", "k", type=WholeNumber(min=1), help="Titles returned per query. [default: the sweep's first]"
)
@click.option("--batch", type=WholeNumber(min=1), help="Queries searched at once. [default: the sweep's first]")
@click.option("--where", metavar="SQL", help="Under this filter, one of the sweep's.")
@click.option("--device", metavar="NAME", help="cpu, gpu, or a name such as h200.")
@click.option("--data", metavar="NAME", help="The data folder's name, where the sweep has several.")
@click.option(
    "--by",
    default="qps",
    show_default=True,
    type=click.Choice(["qps", "p50", "p95", "recall", "memory", "build"]),
    help="What to choose by among those that meet all limits.",
)
@click.option("--out", type=FilePath(), help="The YAML to write. [default: RESULTS/pick.yaml]")
@json_option
def pick(results: Path, out: Path | None, as_json: bool, **required: Any) -> int:
    """Choose the best index of a sweep that meets what is required, say why the others lost, write its config.

    Ends with exit code 4 when none meets it; the nearest misses and what to relax are shown then.
    """
    from semrec_faiss.measure.choose.as_config import dataset_of, write_config
    from semrec_faiss.measure.choose.pick import Wanted
    from semrec_faiss.measure.choose.pick import pick as choose
    from semrec_faiss.measure.trials.results import SweepResults
    from semrec_faiss.places import CONFIG, check_new_file

    if out is not None:
        check_new_file(out, "--out", CONFIG)
    found = SweepResults.read(results)
    choice = choose(found, Wanted(**required))
    lost = [trial for trial in found.missing if trial.pruned is None]
    if lost:
        say(f"note: {len(lost)} of {len(found.plan.trials)} trials have no record; `semrec sweep` measures them")
    path = out or results / "pick.yaml"
    if choice.winner is not None:
        label = choice.winner.label
        output = f"indexes/{found.plan.name}"
        note = f"Chosen by `semrec pick` from the sweep {found.plan.name}: {label}.\nsemrec build {as_typed(path)}"
        write_config(choice.winner, path, dataset=dataset_of(found, choice.winner.data.name), output=output, note=note)
    if as_json:
        print_json(_choice_as_dict(choice, path))
    else:
        _show_choice(choice)
    if choice.winner is None:
        return 4
    say_if_disturbed(choice.winner.others_used_cores, "the winner's trial", "`semrec sweep --rerun all` measures again")
    say(f"wrote {path}; now try: semrec build {as_typed(path)}")
    return 0


def _brief(record: Measured | Failed) -> dict[str, str | float | None]:
    told: dict[str, str | float | None] = {"index": record.label, "digest": record.digest}
    if record.status == "failed":
        return told
    return told | {
        "recall": record.quality.recall,
        "p50_ms": record.latency.p50_ms,
        "p95_ms": record.latency.p95_ms,
        "qps": record.latency.qps,
        "memory_bytes": record.memory_bytes,
        "build_s": round(record.build_s, 4),
    }


def _choice_as_dict(choice: Choice, path: Path) -> dict[str, Any]:
    return {
        "wanted": choice.wanted.__dict__,
        "winner": None if choice.winner is None else _brief(choice.winner),
        "runner_up": None if choice.runner_up is None else _brief(choice.runner_up),
        "losers": [_brief(record) | {"why": why} for record, why in choice.losers],
        "nearest": [_brief(record) | {"why": why} for record, why in choice.nearest],
        "relax": [{"option": option, "admits": _brief(record)} for option, record in choice.relax],
        "config": str(path) if choice.winner is not None else None,
    }


def _show_choice(choice: Choice) -> None:
    wanted = choice.wanted
    restricted = f" where {wanted.where}" if wanted.where else ""
    click.echo(f"{wanted.data}, k {wanted.k}, batch {wanted.batch}{restricted}, by {wanted.by}:")
    if choice.winner is None:
        click.echo("nothing that was measured meets this; nearest:")
        print_table(["", ""], [[f"  {record.label}", why] for record, why in choice.nearest], header=False)
        for option, record in choice.relax:
            click.echo(f"with {option} instead it would be {record.label}")
        return
    placed = [("winner", choice.winner), ("runner-up", choice.runner_up)]
    print_table(
        ["", "index", "recall", "p50 ms", "p95 ms", "queries/s", "memory", "build s"],
        [[place, *_placed_row(record)] for place, record in placed if record is not None],
        right=(2, 3, 4, 5, 6, 7),
    )
    if choice.losers:
        click.echo("why not the others:")
        print_table(["", ""], [[f"  {record.label}", why] for record, why in choice.losers], header=False)


def _placed_row(record: Measured) -> list[str]:
    return [
        record.label,
        f"{record.recall_or_0:.3f}",
        as_ms(record.latency.p50_ms),
        as_ms(record.latency.p95_ms),
        f"{record.latency.qps:,.0f}",
        "–" if record.memory_bytes is None else as_size(record.memory_bytes),
        f"{record.build_s:.2f}",
    ]
