"""bench: speed and memory, measured beside raw FAISS in one run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from semrec_faiss.cli.bench.answers import answers
from semrec_faiss.cli.bench.cluster import cluster
from semrec_faiss.cli.bench.gpu import gpu
from semrec_faiss.cli.bench.learn import learn
from semrec_faiss.cli.bench.serve import serve
from semrec_faiss.cli.bench.update import update
from semrec_faiss.cli.ending import run_bench
from semrec_faiss.cli.groups import Group
from semrec_faiss.cli.numbers import WholeNumber
from semrec_faiss.cli.options import FilePath, json_option, results_option, set_option
from semrec_faiss.cli.printing import as_ms, as_size, print_table, say_if_disturbed

if TYPE_CHECKING:
    from semrec_faiss.measure.bench.filters import FilterResults
    from semrec_faiss.measure.bench.recommend import RecommendResults
    from semrec_faiss.measure.bench.search_record import BatchCost, BatchLimit, SearchResults
    from semrec_faiss.measure.documents.criterion import Criterion
    from semrec_faiss.search.restricted.strategy import Chosen

INDEX_TYPES = ("flat", "ivf_flat", "ivf_sq", "ivf_pq", "hnsw", "fused")
SHAPING = ("titles", "users", "dim", "index_type")
"""Options that shape an index which is built for the run; an index that is given has its shape."""


@click.group(cls=Group)
def bench() -> None:
    """Measure speed and memory beside raw FAISS; write JSON."""


@bench.command(epilog="Example: semrec bench search --device cpu --out results")
@click.argument("index", required=False, type=FilePath())
@click.option("--titles", default=62_423, show_default=True, type=WholeNumber(min=1), help="Titles to make up.")
@click.option("--users", default=119_743, show_default=True, type=WholeNumber(min=0), help="Users to make up.")
@click.option("--dim", default=384, show_default=True, type=WholeNumber(min=1), help="Dimensions of a vector.")
@click.option(
    "--type",
    "index_type",
    default="flat",
    show_default=True,
    type=click.Choice(INDEX_TYPES),
    help="Index type to build.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "gpu"]),
    help="Where to search. [default: auto, or as INDEX was built]",
)
@set_option
@click.option(
    "--repeats",
    default=20,
    show_default=True,
    type=WholeNumber(min=2),
    help="Rounds of 1,000 queries; those of other batches follow from it.",
)
@results_option
@click.option("--check", is_flag=True, help="End with exit code 1 when a promise is not met.")
@json_option
@click.pass_context
def search(
    ctx: click.Context,
    index: Path | None,
    titles: int,
    users: int,
    dim: int,
    index_type: str,
    device: str | None,
    settings: tuple[str, ...],
    repeats: int,
    out: Path,
    check: bool,
    as_json: bool,
) -> int:
    """Measure what a search costs on INDEX, or on data made up for the run, and check it against the promises.

    Our search and raw FAISS take turns in one process. Whole commands, peak memory and the machine's own limits are
    measured too, and everything goes to a JSON file in --out. Run it on a machine that does nothing else.
    """
    from semrec_faiss.config.reading import config_from_dict
    from semrec_faiss.measure.bench.search import SearchBench, bench_search

    if device is not None:
        settings = (*settings, f"device.kind={device}")
    if index is None:
        config = config_from_dict({"index": {"type": index_type}}, settings)
        asked = SearchBench(config, titles=titles, users=users, dim=dim, repeats=repeats)
    else:
        _refuse_shaping(ctx)
        asked = SearchBench(index=index, settings=settings, repeats=repeats)
    results = run_bench(lambda progress: bench_search(asked, progress), _print, out, as_json=as_json)
    say_if_disturbed(results.others_used_cores, "the run")
    return 1 if check and any(promise.met is False for promise in results.promises) else 0


def _refuse_shaping(ctx: click.Context) -> None:
    from click.core import ParameterSource

    for parameter in ctx.command.params:
        given = ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if parameter.name in SHAPING and given:
            raise click.UsageError(
                f"{parameter.opts[0]} shapes an index that is built for the run; INDEX has its shape", ctx
            )


def _print(results: SearchResults) -> None:
    data, name = results.data, results.device.name
    click.echo(f"{results.type} index of {data.titles:,} titles × {data.dim} on {name}, median ms:")
    limits = {row.queries: row for row in (results.floor and results.floor.batches) or ()}
    columns = [
        "queries",
        "raw FAISS",
        "VectorIndex",
        "",
        "Recommender",
        "",
        "with titles",
        "",
        "limit",
        "Recommender / limit",
    ]
    rows = [_search_row(row, limits.get(row.queries)) for row in results.search]
    print_table(columns, rows, right=tuple(range(len(columns))))
    click.echo("\nPromises:")
    print_table(["", "", "", ""], [_promise_row(promise) for promise in results.promises], right=(2, 3), header=False)


def _search_row(row: BatchCost, limit: BatchLimit | None) -> list[str]:
    cells = [f"{row.queries:,}", as_ms(row.raw_faiss.median_ms)]
    for ours in (row.vector_index, row.recommender, row.recommender_with_titles):
        cells += [as_ms(ours.median_ms), f"×{ours.ratio:.3f}"]
    return cells + (["–", "–"] if limit is None else [as_ms(limit.limit_ms), f"×{limit.recommender_gap:.2f}"])


def _promise_row(promise: Criterion) -> list[str]:
    mark = {True: "✓", False: "✗", None: "–"}[promise.met]
    if promise.measured is None or promise.target is None:
        return [mark, promise.what, "not measured", promise.reason or ""]
    measured, limit = (_with_unit(value, promise.unit) for value in (promise.measured, promise.target))
    return [mark, promise.what, measured, f"at most {limit}"]


def _with_unit(value: float, unit: str) -> str:
    if unit == "bytes":
        return as_size(int(value))
    return f"×{value:.3f}" if unit == "x" else f"{value:.3f} {unit}"


@bench.command(epilog="Example: semrec bench filters --out results")
@click.option("--titles", default=62_423, show_default=True, type=WholeNumber(min=100), help="Titles to make up.")
@click.option("--dim", default=384, show_default=True, type=WholeNumber(min=32), help="Dimensions of a vector.")
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice(INDEX_TYPES),
    help="Index type; repeatable. [default: flat, ivf_flat, hnsw]",
)
@click.option(
    "--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "gpu"]), help="Where to search."
)
@click.option("--repeats", default=5, show_default=True, type=WholeNumber(min=1), help="Rounds of each comparison.")
@results_option
@json_option
def filters(titles: int, dim: int, types: tuple[str, ...], device: str, repeats: int, out: Path, as_json: bool) -> None:
    """Measure what a filter costs, and every strategy beside the one that the planner chooses."""
    from semrec_faiss.measure.bench.filters import FilterBench, bench_filters

    asked = FilterBench(types or FilterBench.types, device, titles, dim, repeats=repeats)
    run_bench(lambda progress: bench_filters(asked, progress), _print_filters, out, as_json=as_json)


def _print_filters(results: FilterResults) -> None:
    click.echo("A filter from expression to mask, median ms:")
    rows = [
        [one.where, f"{one.matching:,}", *(f"{times.median_ms:.4f}" for times in (one.first, one.repeated))]
        for one in results.filters
    ]
    print_table(["filter", "matching", "first", "repeated"], rows, right=(1, 2, 3))
    click.echo("\nStrategies, median ms:")
    names: tuple[Chosen, ...] = ("overfetch", "subset", "selector", "masked")
    rows = []
    for row in results.strategies:
        times = [row.median_ms(name) for name in names]
        told = ["–" if ms is None else as_ms(ms) for ms in times]
        rows.append([row.type, f"{row.share:.1%}", f"{row.queries:,}", *told, row.chosen, row.best])
    print_table(["type", "share", "queries", *names, "chosen", "best"], rows, right=(1, 2, 3, 4, 5, 6))
    planner = results.planner
    click.echo(
        f"the planner chose the best {planner.best_chosen} of {planner.choices} times; its choice took"
        f" ×{planner.median_chosen_to_best:.2f} the time of the best in the median,"
        f" ×{planner.worst_chosen_to_best:.2f} at worst"
    )


@bench.command(epilog="Example: semrec bench recommend --out results")
@click.option("--titles", default=62_423, show_default=True, type=WholeNumber(min=100), help="Titles to make up.")
@click.option("--users", default=119_743, show_default=True, type=WholeNumber(min=1), help="Users to make up.")
@click.option("--dim", default=384, show_default=True, type=WholeNumber(min=32), help="Dimensions of a vector.")
@click.option(
    "--type",
    "index_type",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "flat", "fused"]),
    help="Index type; auto takes fused on a GPU.",
)
@click.option("--seen", default=100, show_default=True, type=WholeNumber(min=0), help="Titles a user has seen.")
@click.option(
    "--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "gpu"]), help="Where to search."
)
@click.option("--repeats", default=3, show_default=True, type=WholeNumber(min=1), help="Rounds of searches.")
@results_option
@json_option
def recommend(
    titles: int, users: int, dim: int, index_type: str, seen: int, device: str, repeats: int, out: Path, as_json: bool
) -> None:
    """Measure lists for every user beside the bare search of the same vectors, in turns."""
    from semrec_faiss.measure.bench.recommend import RecommendBench, bench_recommend

    asked = RecommendBench(device, index_type, titles, users, dim, seen, repeats=repeats)
    run_bench(lambda progress: bench_recommend(asked, progress), _print_recommend, out, as_json=as_json)


def _print_recommend(results: RecommendResults) -> None:
    rows = []
    for name, row in results.times.items():
        mark = {True: "✓", False: "✗", None: ""}[row.met]
        ratio = "" if row.ratio is None else f"×{row.ratio:.3f}"
        limit = "" if row.limit is None else f"at most ×{row.limit}"
        seconds = f"{row.median_ms / 1e3:.2f} s"
        rows.append([mark, name.replace("_", " "), seconds, f"{row.users_per_second:,.0f} users/s", ratio, limit])
    print_table(["", "", "", "", "", ""], rows, right=(2, 3, 4, 5), header=False)


bench.add_command(gpu)
bench.add_command(answers)
bench.add_command(cluster)
bench.add_command(learn)
bench.add_command(serve)
bench.add_command(update)
