"""tune: one search setting of one index, found by bisection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semrec_faiss.cli.numbers import FiniteRange, WholeNumber
from semrec_faiss.cli.options import FilePath, json_option, set_option
from semrec_faiss.cli.printing import as_ms, print_json, print_table, progress_bars, say
from semrec_faiss.paths import as_typed

MOST_BATCH = 1_000_000
"""As in a sweep, whose module is not imported for a help text."""


@click.command(epilog="Example: semrec tune configs/ivf_flat.yaml --recall 0.95")
@click.argument("config", type=FilePath())
@click.option("--recall", required=True, type=FiniteRange(0, 1, min_open=True), help="The recall to reach.")
@click.option("--p95-ms", type=FiniteRange(min=0), help="And at most this 95th percentile of latency, in ms.")
@click.option(
    "--param", type=click.Choice(["nprobe", "efSearch", "refine"]), help="The setting to tune. [default: the first]"
)
@click.option("-k", "--count", "k", default=10, show_default=True, type=WholeNumber(1, 2048), help="Titles per query.")
@click.option(
    "--batch", default=1, show_default=True, type=WholeNumber(1, MOST_BATCH), help="Queries searched at once."
)
@click.option("--titles", default=200, show_default=True, type=WholeNumber(min=0), help="Titles to ask as queries.")
@click.option("--users", default=0, show_default=True, type=WholeNumber(min=0), help="Users to ask as queries.")
@click.option("--seed", default=7, show_default=True, type=WholeNumber(min=0), help="Random seed of the draw.")
@click.option("--dataset", type=FilePath(), help="The data folder, instead of the config's.")
@click.option("--out", type=FilePath(), help="Write the config that was found to this YAML file.")
@set_option
@json_option
def tune(
    config: Path,
    recall: float,
    p95_ms: float | None,
    param: str | None,
    k: int,
    batch: int,
    titles: int,
    users: int,
    seed: int,
    dataset: Path | None,
    out: Path | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> int:
    """Build the index of the YAML file CONFIG and find the least nprobe, efSearch or refine that finds enough.

    The titles that are asked are left out of the index. Ends with exit code 4 when no value finds enough in time.
    """
    from semrec_faiss.config.reading import load_config
    from semrec_faiss.measure.choose.as_config import write_yaml
    from semrec_faiss.measure.choose.tune import tune as search
    from semrec_faiss.measure.sweep.plan import data_ref
    from semrec_faiss.measure.trials.settings import query_settings
    from semrec_faiss.places import CONFIG, check_new_file

    if out is not None:
        check_new_file(out, "--out", CONFIG)
    loaded = load_config(config, settings)
    if dataset is not None:
        loaded = loaded.of(dataset)
    queries = query_settings(titles=titles, users=users, seed=seed)
    if loaded.dataset.folder is not None:
        data_ref(loaded.dataset.folder, queries)  # refuses more questions than there are
    with progress_bars() as progress:
        tuned = search(loaded, recall, parameter=param, k=k, batch=batch, queries=queries, progress=progress)
    slow = tuned.chosen is not None and p95_ms is not None and tuned.chosen.latency.p95_ms > p95_ms
    fits = tuned.chosen is not None and not slow
    written = out if fits else None
    if written is not None and tuned.config is not None:  # before anything is printed: an error is a document, too
        values = tuned.config.model_dump(mode="json", exclude_none=True)
        write_yaml(
            values,
            written,
            note=f"By `semrec tune {as_typed(config)} --recall {recall}`.\nsemrec build {as_typed(written)}",
        )
    if as_json:
        chosen = tuned.chosen.value if tuned.chosen is not None else None
        print_json(
            {
                "parameter": tuned.parameter,
                "chosen": chosen,
                "fits": fits,
                "steps": [step.as_dict() for step in tuned.steps],
            }
        )
    else:
        _show_tuned(tuned, recall, p95_ms, slow=slow)
    if written is not None:
        say(f"wrote {written}; now try: semrec build {as_typed(written)}")
    return 0 if fits else 4


def _show_tuned(tuned: Any, recall: float, p95_ms: float | None, *, slow: bool) -> None:
    rows = []
    for step in sorted(tuned.steps, key=lambda step: step.value):
        interval = step.interval
        told = "–" if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"
        mark = "←" if tuned.chosen is not None and step.value == tuned.chosen.value else ""
        rows.append(
            [str(step.value), f"{step.recall:.4f}", told, as_ms(step.latency.p50_ms), as_ms(step.latency.p95_ms), mark]
        )
    print_table([tuned.parameter, "recall", "95 % interval", "p50 ms", "p95 ms", ""], rows, right=(0, 1, 2, 3, 4))
    if tuned.chosen is None:
        best = max(step.recall for step in tuned.steps)
        click.echo(f"no {tuned.parameter} finds {recall}: the largest finds {best:.4f}; another type or build would")
    elif slow:
        click.echo(
            f"{tuned.parameter}={tuned.chosen.value} finds {recall}, but its p95 is"
            f" {as_ms(tuned.chosen.latency.p95_ms)} ms, over {p95_ms}: relax one of the two, or take another type"
        )
    else:
        click.echo(f"index.search.{tuned.parameter}={tuned.chosen.value} is the least that finds {recall}")
