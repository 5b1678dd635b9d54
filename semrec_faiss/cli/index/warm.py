"""warm: what an index's first questions wait for, done beforehand, told and timed."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from semrec_faiss.cli.numbers import WholeNumber
from semrec_faiss.cli.options import index_argument, json_option, set_option
from semrec_faiss.cli.printing import as_ms, as_size, print_json, print_table, progress_bars

if TYPE_CHECKING:
    from semrec_faiss.search.recommender import Recommender

LEFT_BY_FUSED = (
    "The compiled kernels are kept in {cache}: other processes on this machine do not wait for them any more. Batches"
    " are recorded by each process for itself; semrec serve does so as it starts."
)
LEFT_BY_FAISS = "FAISS's kernels come compiled. What other processes gain are pages of the files in the system's cache."
LEFT_BY_CPU = "On a CPU nothing is compiled. What other processes gain are pages of the files in the system's cache."


@click.command(epilog="Example: semrec warm indexes/demo")
@index_argument
@click.option("-k", "--count", default=10, show_default=True, type=WholeNumber(min=1), help="Titles per query.")
@set_option
@json_option
def warm(index: Path, count: int, settings: tuple[str, ...], as_json: bool) -> None:
    """Ask INDEX everything it will be asked, so that later processes do not wait for what the first one prepares.

    Its files are read and held against their digests, its vectors copied to the GPU where it is searched there, and
    batches of every size asked, with the times of the first and the last of each; of type fused also with filters that
    let few titles through. The kernels of type fused are compiled when they are first used, which takes seconds, and
    kept on the disk. `semrec serve` does the same as it starts.
    """
    from semrec_faiss.search.recommender import Recommender
    from semrec_faiss.search.warming import warm as warmed

    recommender = Recommender.open(index, settings)
    generation = recommender.saved.generation
    started = time.perf_counter()
    generation.check_all()
    read_s = time.perf_counter() - started
    device = str(recommender.index.device)
    opened_s = time.perf_counter() - started - read_s
    with progress_bars() as progress:
        told = warmed(recommender, count, progress)
    facts = {
        "index": str(index),
        "generation": generation.name,
        "device": device,
        "k": count,
        "bytes_read": generation.bytes,
        "read_seconds": round(read_s, 3),
        "vectors_seconds": round(opened_s, 3),
        "warmed": [asdict(one) for one in told],
        "kept": _kept(recommender),
    }
    if as_json:
        print_json(facts)
        return
    click.echo(f"{index} {generation.name}: {as_size(generation.bytes)} read and hashed in {read_s:.1f} s")
    click.echo(f"vectors ready on {device} in {opened_s:.1f} s; questions for {count} titles each:")
    rows = [
        [one.what, f"{one.queries:,}", as_ms(one.first_ms), "" if one.again_ms is None else as_ms(one.again_ms)]
        for one in told
    ]
    columns = 4 if any(row[3] for row in rows) else 3  # on a CPU nothing gets faster, and nothing is asked again
    shown = ["asked", "at once", "first ms", "last ms"][:columns]
    print_table(shown, [row[:columns] for row in rows], right=(1, 2, 3)[: columns - 1])
    click.echo(facts["kept"])


def _kept(recommender: Recommender) -> str:
    """Say what of it other processes have."""
    if recommender.index.fused is not None:
        from triton import knobs

        return LEFT_BY_FUSED.format(cache=knobs.cache.dir)
    return LEFT_BY_FAISS if recommender.index.device.gpus else LEFT_BY_CPU
