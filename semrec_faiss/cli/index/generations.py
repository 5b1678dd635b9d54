"""build, info, verify, rollback: making an index and looking after it."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from semrec_faiss.cli.numbers import WholeNumber
from semrec_faiss.cli.options import FilePath, index_argument, json_option, ray_option, set_option
from semrec_faiss.cli.printing import as_size, print_json, print_table, progress_bars, say
from semrec_faiss.errors import DamagedIndexError, UsageError, quoted
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.generations.shards import read_shards
from semrec_faiss.index.saved.facts import Facts, facts_of

if TYPE_CHECKING:
    from semrec_faiss.cluster.publish.building import BuiltShards
    from semrec_faiss.config.schema import Config
    from semrec_faiss.index.generations.directory import IndexDirectory
    from semrec_faiss.progress import Progress


@click.command(epilog="Example: semrec build configs/flat.yaml --dataset data/demo --output indexes/demo")
@click.argument("config", type=FilePath(), required=False)
@click.option("--dataset", type=FilePath(), help="The data folder, instead of the config's.")
@click.option("--output", type=FilePath(), help="The index directory, instead of the config's.")
@click.option("--shards", metavar="N", help="With --ray: how many shards; auto for one per machine or GPU.")
@click.option(
    "--replicas", default=1, show_default=True, type=WholeNumber(min=1), help="Machines that hold each shard."
)
@ray_option
@click.option("--strict", is_flag=True, help="Refuse a history that names unknown titles or users.")
@set_option
@json_option
def build(
    config: Path | None,
    dataset: Path | None,
    output: Path | None,
    shards: str | None,
    replicas: int,
    ray: str | None,
    strict: bool,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Build an index from the YAML file CONFIG and save it; an index directory is rebuilt of its data folder.

    CONFIG may also be the name of a config that semrec ships, such as flat or ivf_flat; without one every setting has
    its default, which is exact search.

    With --shards and --ray the machines of a Ray cluster build it together, and answer from it together. Where that is
    cut off, the same command keeps the shards that were whole, once they are verified, and says how many.

    The index that stood there stays in use until the new one is whole, and can be restored with `semrec rollback`.
    What `semrec update` and `append-seen` have brought is not in the data folder, and a note says what is lost.
    """
    from semrec_faiss.cli.index.rebuilding import Held
    from semrec_faiss.index.build.run import build_index
    from semrec_faiss.index.saved.saved_index import config_at

    if replicas != 1 and shards is None:
        raise UsageError("--replicas goes with --shards", fix="--shards auto --ray auto")
    loaded = config_at(config, settings)
    if config and shards is None and output is None:
        _check_in_one_piece(config)
    loaded = loaded if dataset is None else loaded.of(dataset)
    loaded = loaded if output is None else loaded.model_copy(update={"output": output})
    if output is not None and dataset is None and loaded.dataset.folder is not None:  # a config's own is soon forgotten
        say(f"note: it is built of {loaded.dataset.folder}, which {config or '--set'} names; --dataset names another")
    held = Held.by(config) if dataset is None else None
    started = time.perf_counter()
    more: dict[str, object] = {}
    with progress_bars() as progress:
        if ray is None and shards is None:
            generation = build_index(loaded, progress, strict=strict)
        else:
            built = _in_shards(loaded, shards, replicas, ray, strict, progress)
            generation, more["shards_kept"] = built.generation, built.kept
    more["build_seconds"] = round(time.perf_counter() - started, 3)
    if held is not None and (lost := held.lost(loaded, generation)) is not None:
        say(f"note: {lost}")
    _show(loaded.output, generation, as_json, more)


def _check_in_one_piece(index: Path) -> None:
    """Raise UsageError for an index in shards, which would be one in one piece afterwards, and not as it was."""
    from semrec_faiss.index.generations.directory import IndexDirectory

    directory = IndexDirectory(index)
    number = _count_of_shards(directory.current()) if directory.holds_an_index else None
    if number is not None:
        raise UsageError(
            f"index {index} is in {number} shards",
            fix=f"--shards {number} --ray auto rebuilds it so; --output OTHER builds one in one piece",
        )


def _in_shards(
    config: Config, shards: str | None, replicas: int, ray: str | None, strict: bool, progress: Progress
) -> BuiltShards:
    if shards is None or ray is None:
        raise UsageError("--shards N and --ray ADDRESS go together", fix="--shards auto --ray auto")
    if shards != "auto" and not (shards.isascii() and shards.isdigit()):
        raise UsageError(f"--shards {quoted(shards)} is neither a number nor auto", fix="--shards auto")
    from semrec_faiss.cluster.publish.building import build_shards

    number: int | Literal["auto"] = "auto" if shards == "auto" else int(shards)
    return build_shards(config, number, address=ray, replicas=replicas, strict=strict, progress=progress)


@click.command(epilog="Example: semrec info indexes/demo")
@index_argument
@click.option("--all", "every", is_flag=True, help="List the generations that INDEX keeps instead.")
@json_option
def info(index: Path, every: bool, as_json: bool) -> None:
    """Show what INDEX holds and how it was built."""
    from semrec_faiss.index.generations.directory import IndexDirectory

    directory = IndexDirectory(index)
    if every:
        _show_generations(directory, as_json)
    else:
        _show(index, directory.current(), as_json)


@click.command("verify", epilog="Example: semrec verify indexes/demo")
@index_argument
@ray_option
@json_option
def verify_index(index: Path, ray: str | None, as_json: bool) -> None:
    """Hash every file of INDEX, cross-check its counts and replay its known answers.

    With --ray every shard is verified where it lies. Ends with exit code 5 when anything is not as it was built.
    """
    with progress_bars() as progress:
        facts = _verified(index) if ray is None else _verified_in_shards(index, ray, progress)
    if as_json:
        print_json({"verified": True, **facts})
    else:
        click.echo(
            f"{index} {facts['generation']} is whole: {facts['files']} files of {as_size(facts['bytes'])} hashed,"
            f" {facts['titles']} titles and {facts['users']} users counted,"
            f" {facts['known_answers']} known answers replayed"
        )


def _verified(index: Path) -> Facts:
    from semrec_faiss.index.saved.verifying import verify

    generation = verify(index)
    manifest = generation.manifest
    return _verified_facts(generation, len(manifest.files), generation.bytes, len(manifest.known_answers))


def _verified_in_shards(index: Path, ray: str, progress: Progress) -> Facts:
    from semrec_faiss.cluster.publish.verifying import verify_shards

    found = verify_shards(index, address=ray, progress=progress)
    return _verified_facts(found.generation, found.files, found.bytes, found.known_answers)


def _verified_facts(generation: Generation, files: int, size: int, known_answers: int) -> Facts:
    return {
        "generation": generation.name,
        "files": files,
        "bytes": size,
        "titles": generation.manifest.count,
        "users": generation.manifest.users,
        "known_answers": known_answers,
    }


@click.command(epilog="Example: semrec rollback indexes/demo")
@index_argument
@click.option("--to", metavar="NAME", help="A generation that `semrec info --all` lists; it may be a later one.")
@json_option
def rollback(index: Path, to: str | None, as_json: bool) -> None:
    """Return INDEX to its previous generation, or to another that it keeps, after checking that it is whole.

    Where only what users have seen was appended since INDEX was built or updated, that is taken back alone; the
    generation before the update is kept besides, and --to returns to it.
    """
    from semrec_faiss.index.generations.directory import IndexDirectory

    directory, before_change = IndexDirectory(index), None
    with suppress(DamagedIndexError):
        before_change = directory.before_change(directory.current().manifest)
    generation = directory.rollback(to)
    if before_change is not None and generation.ref == before_change:
        say("note: what users have seen that was appended since is not in it: append it again")
    elif before_change is not None and to is None:
        command = directory.command_to(before_change)
        say(f"note: to go back to before its titles and users were changed last: {command}")
    if as_json:
        print_json({"generation": generation.name, "created": generation.manifest.created})
    else:
        click.echo(f"{index} is at {generation.name}, built {generation.manifest.created}")


_BESIDE_SHARDS = " beside shards"  # which may lie on other disks


def _count_of_shards(generation: Generation) -> int | None:
    listed = read_shards(generation)
    return None if listed is None else len(listed.shards)


def _told_of(kept: Generation | DamagedIndexError) -> Facts:
    if isinstance(kept, Generation):
        manifest = kept.manifest
        facts = {"created": manifest.created, "type": manifest.config.index.type, "titles": manifest.count}
        try:
            return facts | {"users": manifest.users, "shards": _count_of_shards(kept), "bytes": kept.bytes}
        except DamagedIndexError as error:
            kept = error
    return {"damaged": kept.message}


def _show_generations(directory: IndexDirectory, as_json: bool) -> None:
    try:
        current = directory.current().name
    except DamagedIndexError:
        current = None
    found = directory.generations().items()
    facts = [{"generation": name, "in_use": name == current, **_told_of(kept)} for name, kept in found]
    if as_json:
        print_json({"index": str(directory.path), "generations": facts})
        return
    for fact in facts:
        told = fact.get("damaged") or (
            f"{fact['type']}, {fact['titles']} titles, {fact['users']} users,"
            f" {as_size(int(str(fact['bytes'])))}{_BESIDE_SHARDS if fact['shards'] else ''}, {fact['created']}"
        )
        click.echo(f"{'*' if fact['in_use'] else ' '} {fact['generation']}  {told}")


def _show(
    index_path: Path | None, generation: Generation, as_json: bool, more: dict[str, object] | None = None
) -> None:
    manifest = generation.manifest
    facts, detail = facts_of(str(index_path), generation)
    facts |= more or {}
    if as_json:
        print_json(facts | detail)
        return
    names = {"bytes": f"bytes{_BESIDE_SHARDS}"} if facts["shards"] else {}
    known = {name: value for name, value in facts.items() if value is not None}
    rows = [[names.get(name, name.replace("_", " ")), _shown(name, value)] for name, value in known.items()]
    rows += [[f"shard {number}", _of_shard(one)] for number, one in enumerate(detail["each_shard"] or ())]
    if detail["fields"]:
        rows.append(["fields", ", ".join(detail["fields"])])
    rows += [["settings", _settings(manifest.config.index.model_dump(mode="json"))], ["faiss", manifest.faiss_version]]
    if manifest.embedding is not None:
        rows.append(["text model", manifest.embedding.model])
    rows += [[name, as_size(entry.bytes)] for name, entry in manifest.files.items()]
    print_table(["", ""], rows, header=False)


def _of_shard(facts: Facts) -> str:
    told = "its manifest cannot be read"
    if "screening" in facts:
        told = facts["screening"] or "no directions"
    elif facts["nodes"]:
        told = f"on {', '.join(facts['nodes'])}, which alone can tell more"
    return f"{facts['titles']} titles: {told}"


def _shown(name: str, value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return as_size(value) if name == "bytes" and isinstance(value, int) else str(value)


def _settings(index: dict[str, object]) -> str:
    flat = {name: value for name, value in index.items() if name not in ("type", "search", "build")}
    for group in ("build", "search"):
        inner = index.get(group)
        flat |= {f"{group}.{name}": value for name, value in inner.items()} if isinstance(inner, dict) else {}
    return ", ".join(f"{name}={value}" for name, value in flat.items() if value is not None)
