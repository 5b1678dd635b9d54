"""bundle, unbundle: an index as one file, to be copied to another machine."""

from __future__ import annotations

from pathlib import Path

import click

from semrec_faiss.cli.options import FilePath, index_argument, json_option
from semrec_faiss.cli.printing import as_size, print_json, progress_bars


@click.command(epilog="Example: semrec bundle indexes/demo demo.tar.zst")
@index_argument
@click.argument("out", type=FilePath())
@json_option
def bundle(index: Path, out: Path, as_json: bool) -> None:
    """Pack the generation of INDEX that is in use into one file OUT.tar.zst, digests included."""
    from semrec_faiss.index.generations.bundle import bundle_index

    with progress_bars() as progress:
        made = bundle_index(index, out, progress)
    if as_json:
        print_json({"bundle": str(out), "packed_bytes": out.stat().st_size, **made.model_dump()})
        return
    packed = as_size(out.stat().st_size)
    click.echo(
        f"packed {made.generation} of {index} in {out}: {len(made.files)} files of {as_size(made.bytes)}, {packed}"
    )


@click.command(epilog="Example: semrec unbundle demo.tar.zst indexes/demo")
@click.argument("file", type=FilePath())
@click.argument("out", type=FilePath())
@json_option
def unbundle(file: Path, out: Path, as_json: bool) -> None:
    """Unpack FILE, which `semrec bundle` made, to a new index directory OUT.

    OUT appears only when every file has the size and the digest that it must have; ends with exit code 5 otherwise.
    """
    from semrec_faiss.index.generations.bundle import unbundle_index

    with progress_bars() as progress:
        found = unbundle_index(file, out, progress)
    if as_json:
        print_json({"index": str(out), **found.model_dump()})
        return
    click.echo(
        f"unpacked {found.generation} to {out}: {len(found.files)} files of {as_size(found.bytes)}, digests right"
    )
