"""bench: speed and memory, measured beside raw FAISS in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semrec_faiss.cli.bench_answers import answers
from semrec_faiss.cli.bench_gpu import gpu
from semrec_faiss.cli.bench_serve import serve
from semrec_faiss.cli.bench_update import update
from semrec_faiss.cli.options import json_option, set_option
from semrec_faiss.cli.printing import BUSY, as_ms, as_size, print_json, print_table, progress_bars, say

INDEX_TYPES = ("flat", "ivf_flat", "ivf_sq", "ivf_pq", "hnsw", "fused")
SHAPING = ("titles", "users", "dim", "index_type")
"""Options that shape an index which is built for the run; an index that is given has its shape."""


@click.group()
def bench() -> None:
    """Measure speed and memory beside raw FAISS; write JSON."""


@bench.command(epilog="Example: semrec bench search --device cpu --out results")
@click.argument("index", required=False, type=click.Path(path_type=Path))
@click.option("--titles", default=62_423, show_default=True, type=click.IntRange(min=1), help="Titles to make up.")
@click.option("--users", default=119_743, show_default=True, type=click.IntRange(min=0), help="Users to make up.")
@click.option("--dim", default=384, show_default=True, type=click.IntRange(min=1), help="Dimensions of a vector.")
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
    type=click.IntRange(min=2),
    help="Rounds of 1,000 queries; the rest follow.",
)
@click.option(
    "--out", default="results", show_default=True, type=click.Path(path_type=Path), help="Where the JSON goes."
)
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
    """Measure what a search costs on INDEX, or on data made up for the run, and hold it against the promises.

    Our search and raw FAISS take turns in one process. Whole commands, peak memory and the machine's own limits are
    measured too, and everything goes to a JSON file in --out. Run it on a machine that does nothing else.
    """
    from semrec_faiss.config.reading import config_from_dict
    from semrec_faiss.measure.bench.search import SearchBench, bench_search, results_name
    from semrec_faiss.measure.documents.results import save_results
    from semrec_faiss.storage import check_new_folder

    check_new_folder(out, "--out")
    if device is not None:
        settings = (*settings, f"device.kind={device}")
    if index is None:
        config = config_from_dict({"index": {"type": index_type}}, settings)
        plan = SearchBench(config, titles=titles, users=users, dim=dim, repeats=repeats)
    else:
        _refuse_shaping(ctx)
        plan = SearchBench(index=index, settings=settings, repeats=repeats)
    with progress_bars() as progress:
        document = bench_search(plan, progress)
    path = out / results_name(document)
    save_results(document, path)
    if as_json:
        print_json(document)
    else:
        _print(document)
    say(f"wrote {path}")
    others = document["others_used_cores"]
    if others is not None and others > BUSY:
        say(f"note: other programs kept {others:.1f} cores busy meanwhile; measure again when nothing else runs")
    missed = [promise["name"] for promise in document["promises"] if promise["met"] is False]
    return 1 if check and missed else 0


def _refuse_shaping(ctx: click.Context) -> None:
    from click.core import ParameterSource

    for parameter in ctx.command.params:
        given = ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if parameter.name in SHAPING and given:
            raise click.UsageError(
                f"{parameter.opts[0]} shapes an index that is built for the run; INDEX has its shape", ctx
            )


def _print(document: dict[str, Any]) -> None:
    data, kind = document["data"], document["index"].get("type", "factory")
    click.echo(f"{kind} index of {data['titles']:,} titles × {data['dim']} on {document['device']['name']}, median ms:")
    limits = {row["queries"]: row for row in (document["floor"] or {}).get("batches") or ()}
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
    print_table(columns, [_search_row(row, limits) for row in document["search"]], right=tuple(range(len(columns))))
    click.echo("\nPromises:")
    print_table(
        ["", "", "", ""], [_promise_row(promise) for promise in document["promises"]], right=(2, 3), header=False
    )


def _search_row(row: dict[str, Any], limits: dict[int, dict[str, Any]]) -> list[str]:
    cells = [f"{row['queries']:,}", as_ms(row["raw_faiss"]["median_ms"])]
    for name in ("vector_index", "recommender", "recommender_with_titles"):
        cells += [as_ms(row[name]["median_ms"]), f"×{row[name]['ratio']:.3f}"]
    limit = limits.get(row["queries"])
    return cells + (["–", "–"] if limit is None else [as_ms(limit["limit_ms"]), f"×{limit['recommender_gap']:.2f}"])


def _promise_row(promise: dict[str, Any]) -> list[str]:
    mark = {True: "✓", False: "✗", None: "–"}[promise["met"]]
    if promise["met"] is None:
        return [mark, promise["what"], "not measured", promise["reason"]]
    measured, limit = (_with_unit(promise[name], promise["unit"]) for name in ("measured", "limit"))
    return [mark, promise["what"], measured, f"at most {limit}"]


def _with_unit(value: float, unit: str) -> str:
    if unit == "bytes":
        return as_size(int(value))
    return f"×{value:.3f}" if unit == "x" else f"{value:.3f} {unit}"


@bench.command(epilog="Example: semrec bench filters --out results")
@click.option("--titles", default=62_423, show_default=True, type=click.IntRange(min=100), help="Titles to make up.")
@click.option("--dim", default=384, show_default=True, type=click.IntRange(min=32), help="Dimensions of a vector.")
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice(INDEX_TYPES),
    help="Index type; repeat it. [default: flat, ivf_flat, hnsw]",
)
@click.option("--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "gpu"]), help="Where.")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(min=1), help="Rounds of each comparison.")
@click.option(
    "--out", default="results", show_default=True, type=click.Path(path_type=Path), help="Where the JSON goes."
)
@json_option
def filters(titles: int, dim: int, types: tuple[str, ...], device: str, repeats: int, out: Path, as_json: bool) -> None:
    """Measure what a filter costs, and every strategy beside the one that the planner chooses."""
    from semrec_faiss.measure.bench.filters import FilterBench, bench_filters
    from semrec_faiss.measure.documents.results import save_results
    from semrec_faiss.storage import check_new_folder

    check_new_folder(out, "--out")
    plan = FilterBench(types or FilterBench.types, device, titles, dim, repeats=repeats)
    with progress_bars() as progress:
        document = bench_filters(plan, progress)
    path = out / f"bench-filters-{document['device']}.json"
    save_results(document, path)
    if as_json:
        print_json(document)
    else:
        _print_filters(document)
    say(f"wrote {path}")


def _print_filters(document: dict[str, Any]) -> None:
    click.echo("A filter from expression to mask, median ms:")
    rows = [
        [one["where"], f"{one['matching']:,}", *(f"{one[name]['median_ms']:.4f}" for name in ("first", "repeated"))]
        for one in document["filters"]
    ]
    print_table(["filter", "matching", "first", "repeated"], rows, right=(1, 2, 3))
    click.echo("\nStrategies, median ms:")
    names = ("overfetch", "subset", "selector", "masked")
    print_table(
        ["type", "share", "queries", *names, "chosen", "best"],
        [
            [
                row["type"],
                f"{row['share']:.1%}",
                f"{row['queries']:,}",
                *(as_ms(row[name]["median_ms"]) if name in row else "–" for name in names),
                row["chosen"],
                row["best"],
            ]
            for row in document["strategies"]
        ],
        right=(1, 2, 3, 4, 5, 6),
    )
    planner = document["planner"]
    click.echo(
        f"the planner chose the best {planner['best_chosen']} of {planner['choices']} times; its choice took"
        f" ×{planner['median_chosen_to_best']:.2f} the time of the best in the median,"
        f" ×{planner['worst_chosen_to_best']:.2f} at worst"
    )


@bench.command(epilog="Example: semrec bench recommend --out results")
@click.option("--titles", default=62_423, show_default=True, type=click.IntRange(min=100), help="Titles to make up.")
@click.option("--users", default=119_743, show_default=True, type=click.IntRange(min=1), help="Users to make up.")
@click.option("--dim", default=384, show_default=True, type=click.IntRange(min=32), help="Dimensions of a vector.")
@click.option(
    "--type",
    "index_type",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "flat", "fused"]),
    help="Index type; auto takes fused on a GPU.",
)
@click.option("--seen", default=100, show_default=True, type=click.IntRange(min=0), help="Titles a user has seen.")
@click.option("--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "gpu"]), help="Where.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1), help="Rounds.")
@click.option(
    "--out", default="results", show_default=True, type=click.Path(path_type=Path), help="Where the JSON goes."
)
@json_option
def recommend(
    titles: int, users: int, dim: int, index_type: str, seen: int, device: str, repeats: int, out: Path, as_json: bool
) -> None:
    """Measure lists for every user beside the bare search of the same vectors, in turns."""
    from semrec_faiss.measure.bench.recommend import RecommendBench, bench_recommend
    from semrec_faiss.measure.documents.results import save_results
    from semrec_faiss.storage import check_new_folder

    check_new_folder(out, "--out")
    plan = RecommendBench(device, index_type, titles, users, dim, seen, repeats=repeats)
    with progress_bars() as progress:
        document = bench_recommend(plan, progress)
    kind = document["index"]["type"]
    path = out / f"bench-recommend-{document['device']}{'' if kind == 'flat' else f'-{kind}'}.json"
    save_results(document, path)
    if as_json:
        print_json(document)
    else:
        _print_recommend(document)
    say(f"wrote {path}")


def _print_recommend(document: dict[str, Any]) -> None:
    rows = []
    for name, row in document["times"].items():
        mark = {True: "✓", False: "✗", None: ""}[row.get("met")]
        ratio = f"×{row['ratio']:.3f}" if "ratio" in row else ""
        limit = f"at most ×{row['limit']}" if "limit" in row else ""
        seconds = f"{row['median_ms'] / 1e3:.2f} s"
        rows.append([mark, name.replace("_", " "), seconds, f"{row['users_per_second']:,.0f} users/s", ratio, limit])
    print_table(["", "", "", "", "", ""], rows, right=(2, 3, 4, 5), header=False)


bench.add_command(gpu)
bench.add_command(answers)
bench.add_command(serve)
bench.add_command(update)
