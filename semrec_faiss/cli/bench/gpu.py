"""bench gpu: type fused on one GPU beside its limit and its peers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from semrec_faiss.cli.ending import run_bench
from semrec_faiss.cli.numbers import FiniteRange, WholeNumber
from semrec_faiss.cli.options import json_option, results_option
from semrec_faiss.cli.printing import as_ms, as_size, print_table
from semrec_faiss.errors import UsageError

if TYPE_CHECKING:
    from semrec_faiss.measure.bench.gpu.float16 import Float16Results
    from semrec_faiss.measure.bench.gpu.originals import OriginalsResults
    from semrec_faiss.measure.bench.gpu.record import GpuResults, MaskedBatch
    from semrec_faiss.measure.bench.gpu.several_record import GpusResults, SearcherTimes


def _gpus(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Read a list of GPUs, ``0,1``."""
    names = [name.strip() for name in value.split(",")]
    if not all(name.isdecimal() for name in names) or len(set(names)) < len(names):
        raise click.BadParameter(f"{value!r} is no list of different GPUs such as 0,1", ctx, parameter)
    return tuple(map(int, names))


@click.command(epilog="Example: semrec bench gpu --out results")
@click.option(
    "--titles",
    multiple=True,
    type=WholeNumber(min=1000),
    help="Catalogue size; repeatable. [default: 62423, 1 M, 4 M]",
)
@click.option(
    "--queries", multiple=True, type=WholeNumber(min=1), help="Batch size; repeatable. [default: 1 to 119743]"
)
@click.option("--dim", default=384, show_default=True, type=WholeNumber(min=1), help="Dimensions of a vector.")
@click.option(
    "-k",
    "--count",
    default=10,
    show_default=True,
    type=WholeNumber(min=1, max=1000),
    help="Titles per query; the least catalogue has as many.",
)
@click.option(
    "--seconds", default=0.4, show_default=True, type=FiniteRange(min=0), help="Seconds spent on each timing."
)
@click.option(
    "--gpus",
    default="0",
    show_default=True,
    callback=_gpus,
    help="Which GPUs; several are compared with the first: 0,1.",
)
@click.option(
    "--spectrum",
    default="round",
    show_default=True,
    type=click.Choice(["round", "text"]),
    help="Spectrum of the vectors made; text is a text model's, and is searched by bounds of fewer dimensions too.",
)
@click.option("--float16", is_flag=True, help="Titles that came as float16, made in parts: for the largest catalogues.")
@click.option("--originals", is_flag=True, help="float32 originals page-locked on the host, beside those on the GPU.")
@results_option
@json_option
def gpu(
    titles: tuple[int, ...],
    queries: tuple[int, ...],
    dim: int,
    count: int,
    seconds: float,
    gpus: tuple[int, ...],
    spectrum: Literal["round", "text"],
    float16: bool,
    originals: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Measure type fused beside its limit, FAISS's flat index and a matrix product, vectors and results on the GPU.

    With several --gpus, measure them as shards and as replicas, beside FAISS's own and beside the first alone.
    """
    from semrec_faiss.measure.bench.gpu.float16 import bench_float16
    from semrec_faiss.measure.bench.gpu.one import GpuBench, bench_gpu
    from semrec_faiss.measure.bench.gpu.originals import bench_originals
    from semrec_faiss.measure.bench.gpu.several import bench_gpus

    kinds = {"--float16": float16, "--originals": originals, "several --gpus": len(gpus) > 1}
    kinds["--spectrum text"] = spectrum == "text" and not float16
    wanted = [kind for kind, is_wanted in kinds.items() if is_wanted]
    if len(wanted) > 1:
        raise UsageError(f"{' and '.join(wanted)} are measured apart", fix="ask for one of them at a time")
    given = (titles or GpuBench.titles, queries or GpuBench.batches, dim, count)
    asked = GpuBench(*given, seconds=seconds, gpus=gpus, spectrum=spectrum)
    if float16:
        run_bench(lambda progress: bench_float16(asked, progress), _print_float16, out, as_json=as_json)
        return
    if originals:
        run_bench(lambda progress: bench_originals(asked, progress), _print_originals, out, as_json=as_json)
        return
    if len(gpus) > 1:
        run_bench(lambda progress: bench_gpus(asked, progress), _print_gpus, out, as_json=as_json)
        return
    run_bench(lambda progress: bench_gpu(asked, progress), _print_gpu, out, as_json=as_json)


def _print_gpu(results: GpuResults) -> None:
    names = [*results.peers, "numpy"]
    columns = ["titles", "queries", "reads", "limit", *names, "fused / limit", "not proven at once"]
    rows = []
    for row in results.search:
        medians = [row.median_ms(name) for name in names]
        times = [as_ms(row.limit_ms), *("–" if median is None else as_ms(median) for median in medians)]
        proven = [f"×{row.fused_to_limit:.2f}", str(row.unproven)]
        rows.append([f"{row.titles:,}", f"{row.queries:,}", row.reads, *times, *proven])
    print_table(columns, rows, right=tuple(range(len(columns))))
    if results.masked:
        _print_masked(results.masked)
    for peak in results.memory:
        beyond = as_size(peak.peak_beyond_vectors_bytes)
        click.echo(f"{peak.titles:,} titles, {peak.queries:,} queries: {beyond} beside the vectors at the peak")


def _print_masked(rows: Sequence[MaskedBatch]) -> None:
    click.echo(
        "\nMasked to a share of the titles: kernels, to the time without a mask; and a filter from numpy to numpy:"
    )
    shown = [
        [
            *(f"{row.titles:,}", f"{row.queries:,}", f"{row.share:.2%}", as_ms(row.masked_ms), f"×{row.ratio:.3f}"),
            *("–" if used is None else as_ms(used.median_ms) for used in (row.first_filtered, row.filtered)),
        ]
        for row in rows
    ]
    columns = ["titles", "queries", "share", "kernels", "", "first use", "later uses"]
    print_table(columns, shown, right=tuple(range(len(columns))))


def _print_gpus(results: GpusResults) -> None:
    click.echo(f"One GPU and {len(results.gpus)} of {results.device}, from numpy to numpy, median ms:")
    kinds = ("one GPU", "shards", "", "replicas", "")
    columns = ["titles", "queries", *kinds, *(f"FAISS {name}".strip() if name else "" for name in kinds), "answers"]
    rows = [
        [
            *(f"{row.titles:,}", f"{row.queries:,}"),
            *_times(row.fused),
            *_times(row.faiss),
            "as on one" if row.same_answers else "differ",
        ]
        for row in results.search
    ]
    print_table(columns, rows, right=tuple(range(len(columns) - 1)))


def _times(times: SearcherTimes) -> list[str]:
    told = [as_ms(times.one_gpu.median_ms)]
    for several in (times.shards, times.replicas):
        told += [as_ms(several.median_ms), f"×{several.speedup:.2f}"]
    return told


def _print_float16(results: Float16Results) -> None:
    rows = [
        [
            *(f"{one.titles:,}", f"{row.queries:,}", as_ms(row.limit_ms), as_ms(row.numpy.median_ms)),
            *(str(row.repeated), str(row.compared_with_all), f"{row.largest_error:.1e}", as_size(one.vector_bytes)),
        ]
        for one in results.catalogues
        for row in one.search
    ]
    columns = ["titles", "queries", "limit", "numpy", "repeated", "compared with all", "largest error", "vectors"]
    print_table(columns, rows, right=tuple(range(len(columns))))


def _print_originals(results: OriginalsResults) -> None:
    rows = [
        [
            *(f"{one.titles:,}", f"{row.queries:,}", as_ms(row.gpu.median_ms), as_ms(row.host.median_ms)),
            *(f"×{row.ratio:.2f}", as_size(one.gpu_bytes), as_size(one.host_bytes)),
            "the same" if row.same_answers else "differ",
        ]
        for one in results.catalogues
        for row in one.search
    ]
    columns = ["titles", "queries", "originals on the GPU", "host", "", "GPU memory", "host's", "answers"]
    print_table(columns, rows, right=tuple(range(len(columns) - 1)))
