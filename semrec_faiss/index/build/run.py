"""From titles, users and a config to a published generation of an index directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from semrec_faiss._version import __version__
from semrec_faiss.config.index_types import IndexConfig
from semrec_faiss.config.schema import Config
from semrec_faiss.data.interactions.transformation_file import (
    ARRAYS_NAME,
    JSON_NAME,
)
from semrec_faiss.errors import ConfigError
from semrec_faiss.index.build.source import Source, TitleRange, open_source, profile_of
from semrec_faiss.index.build.users import write_users
from semrec_faiss.index.build.vectors import write_vectors
from semrec_faiss.index.factory import resolve
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import Generation, NewGeneration
from semrec_faiss.index.generations.in_memory import NewGenerationInMemory
from semrec_faiss.index.generations.manifest import FORMAT_VERSION, KnownAnswer, Manifest, Screening
from semrec_faiss.index.generations.shards import SHARDS_LIST, ShardList
from semrec_faiss.index.hardware.device import choose_device, load_faiss
from semrec_faiss.index.saved.titles import write_fields, write_titles
from semrec_faiss.index.screening.written import write_screening
from semrec_faiss.progress import Progress, silent

WrittenTitles = tuple[tuple[KnownAnswer, ...], IndexConfig, Screening | None]
TitlesWriter = Callable[[NewGeneration, Source, IndexConfig], WrittenTitles]
ShardsWriter = Callable[[str, int, Mapping[str, str]], ShardList]


def build_index(
    config: Config,
    progress: Progress = silent,
    *,
    strict: bool = False,
    source: Source | None = None,
    part: TitleRange | None = None,
) -> Generation:
    """Build the index that ``config`` describes and publish it in ``config.output``.

    Whatever index was there stays in use until the last step, and stays on disk for `semrec rollback`.

    Args:
        config: needs ``output``, and ``dataset`` where no source is given.
        progress: told the steps.
        strict: refuse a history that names unknown users or titles, instead of counting such rows.
        source: titles and users in memory; by default those of ``dataset``.
        part: the titles that it has, as a shard, without users; all by default.

    Returns:
        The generation that is now in use.

    Raises:
        ConfigError: no dataset or output, or settings that do not fit the data.
        NotFoundError: the dataset folder does not exist.
        DataError: it is inconsistent.
        MissingPackageError: FAISS is not installed.
        DeviceError: the GPU cannot do it.
        StorageError: the disk is full or refuses.
        UsageError: the output is something else than an index, or another process writes it.
    """
    output = _output_of(config, needs_dataset=source is None)
    write = _titles_writer(config, progress)  # which chooses the device before anything is read
    dataset = config.dataset.folder if source is None else None
    opened = source or open_source(config.dataset, progress, part)
    return _published(config.of(dataset), output, opened, write, progress, strict=strict)


def build_in_memory(config: Config, source: Source) -> Generation:
    """Build the index of a source that ``config`` describes in memory, where no folder has it.

    Only where `HeldFiles.can_create`; raises as `build_index`.
    """
    new = NewGenerationInMemory()
    write = _titles_writer(config, silent)
    return Generation.staged(new, _written(new, config.of(None), source, write, silent, strict=False))


def _titles_writer(config: Config, progress: Progress) -> TitlesWriter:
    """Return what trains, fills and writes an index; raises DeviceError where there is no device for it."""
    device = choose_device(config.device, config.index)

    def write(new: NewGeneration, source: Source, index: IndexConfig) -> WrittenTitles:
        blocks = partial(source.blocks, normalize=index.normalize)
        known = write_vectors(new, index, blocks, source.count, source.dim, device, progress)
        resolved, screening = write_screening(new, index, blocks, source.count, source.dim, progress)
        write_titles(new, source.catalog)
        return known, resolved, screening

    return write


def build_front(config: Config, write_shards: ShardsWriter, progress: Progress = silent, *, strict: bool) -> Generation:
    """Publish an index whose titles lie in shards: its users, and the list of the shards, which are made meanwhile.

    Args:
        config: as for `build_index`.
        write_shards: makes the shards of a generation with this name, of so many titles with these fields.
        progress: told the steps.
        strict: as for `build_index`.

    Raises:
        SemrecError: as `build_index`, and what ``write_shards`` raises.
    """

    def write(new: NewGeneration, source: Source, index: IndexConfig) -> WrittenTitles:
        write_fields(new, source.catalog.fields)
        shards = write_shards(new.name, source.count, source.catalog.fields)
        with new.create(SHARDS_LIST) as file:
            file.write(shards.as_json())
        return (), index, None

    output = _output_of(config)
    source = open_source(config.dataset, progress, ids_alone=True)
    return _published(config, output, source, write, progress, strict=strict)


def _published(
    config: Config, output: Path, source: Source, write: TitlesWriter, progress: Progress, *, strict: bool
) -> Generation:
    profile_of(config, source)  # refuses what does not fit before anything is made
    resolve(config.index, source.count, source.dim)
    directory = IndexDirectory(output)
    with directory.writing(), directory.new_generation() as new:
        manifest = _written(new, config, source, write, progress, strict=strict)
        progress("publishing", 0, 1)
        generation = directory.publish(new, manifest)
        progress("publishing", 1, 1)
        return generation


def _written(
    new: NewGeneration, config: Config, source: Source, write: TitlesWriter, progress: Progress, *, strict: bool
) -> Manifest:
    """Write all files of a generation but the manifest, which is returned."""
    profile = profile_of(config, source)
    known, resolved, screening = write(new, source, resolve(config.index, source.count, source.dim))
    ignored = write_users(new, resolved, profile, source, progress, strict=strict)
    _carry_transformation(new, source)
    return Manifest(
        format=FORMAT_VERSION,
        generation=new.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        semrec_version=__version__,
        faiss_version=load_faiss().__version__,
        count=source.count,
        dim=source.dim,
        users=0 if source.users is None else len(source.users.ids),
        config=config.model_copy(update={"index": resolved, "profile": profile}),
        files=new.files,
        known_answers=known,
        previous=new.previous,
        embedding=source.embedding,
        ignored_history=ignored or None,
        screening=screening,
    )


def _output_of(config: Config, *, needs_dataset: bool = True) -> Path:
    """Return where the index goes; raises ConfigError where that, or where the data is, is not said."""
    if needs_dataset and config.dataset.folder is None:
        raise ConfigError("no dataset is given", fix="set dataset: in the config, or --dataset DIR")
    if config.output is None:
        raise ConfigError("no output is given", fix="set output: in the config, or --output DIR")
    return config.output


def _carry_transformation(new: NewGeneration, source: Source) -> None:
    if source.transformation is None or source.transformation_folder is None:
        return
    for name in (JSON_NAME, ARRAYS_NAME):
        shutil.copyfile(source.transformation_folder / name, new.path(name))
        new.adopt(name)
