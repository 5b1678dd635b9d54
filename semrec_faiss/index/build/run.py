"""From a data folder and a config to a published generation of an index directory."""

from __future__ import annotations

import shutil
from datetime import datetime, timezone
from functools import partial

from semrec_faiss._version import __version__
from semrec_faiss.config.schema import Config
from semrec_faiss.data.interactions.transformation_file import (
    ARRAYS_NAME,
    JSON_NAME,
)
from semrec_faiss.data.text.provenance import read_embedding
from semrec_faiss.errors import ConfigError
from semrec_faiss.index.build.source import Source, open_source, profile_of
from semrec_faiss.index.build.users import write_users
from semrec_faiss.index.build.vectors import write_vectors
from semrec_faiss.index.factory import resolve
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import Generation, NewGeneration
from semrec_faiss.index.generations.manifest import FORMAT_VERSION, Manifest
from semrec_faiss.index.hardware.device import choose_device, load_faiss
from semrec_faiss.index.saved.titles import write_titles
from semrec_faiss.progress import Progress, silent


def build_index(
    config: Config, progress: Progress = silent, *, strict: bool = False, keep_dataset: bool = True
) -> Generation:
    """Build the index that ``config`` describes and publish it in ``config.output``.

    Whatever index was there stays in use until the last step, and stays on disk for `semrec rollback`.

    Args:
        config: needs ``dataset`` and ``output``.
        progress: told the steps.
        strict: refuse a history that names users or titles that there are not, instead of counting such rows.
        keep_dataset: whether the index remembers where its data lay; False where that goes away.

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
    if config.dataset.folder is None:
        raise ConfigError("no dataset is given", fix="set dataset: in the config, or --dataset DIR")
    if config.output is None:
        raise ConfigError("no output is given", fix="set output: in the config, or --output DIR")
    device = choose_device(config.device, config.index)
    source = open_source(config.dataset, progress)
    profile = profile_of(config, source)
    resolved = resolve(config.index, source.count, source.dim)
    directory = IndexDirectory(config.output)
    blocks = partial(source.blocks, normalize=resolved.normalize)
    with directory.writing(), directory.new_generation() as new:
        known = write_vectors(new, resolved, blocks, source.count, source.dim, device, progress)
        write_titles(new, source.catalog)
        ignored = write_users(new, resolved, profile, source, progress, strict=strict)
        _carry_transformation(new, source)
        progress("publishing", 0, 1)
        manifest = Manifest(
            format=FORMAT_VERSION,
            generation=new.name,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            semrec_version=__version__,
            faiss_version=load_faiss().__version__,
            count=source.count,
            dim=source.dim,
            users=len(source.user_ids),
            config=config.of(config.dataset.folder if keep_dataset else None).model_copy(
                update={"index": resolved, "profile": profile}
            ),
            files=new.files,
            known_answers=known,
            previous=new.previous,
            embedding=read_embedding(source.folder.media_vectors),
            ignored_history=ignored or None,
        )
        generation = directory.publish(new, manifest)
        progress("publishing", 1, 1)
        return generation


def _carry_transformation(new: NewGeneration, source: Source) -> None:
    if source.transformation is None:
        return
    for name in (JSON_NAME, ARRAYS_NAME):
        shutil.copyfile(source.folder.media_vectors.parent / name, new.folder / name)
        new.adopt(name)
