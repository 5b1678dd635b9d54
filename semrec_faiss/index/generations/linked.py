"""An index directory beside another: its files are those of one generation there, and no further bytes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from semrec_faiss.index.generations.generation import Generation, current_line, write_synced
from semrec_faiss.index.generations.manifest import GenerationRef
from semrec_faiss.storage import CURRENT_NAME, sync_folder


def link_index(source: Path, ref: GenerationRef, target: Path) -> None:
    """Make ``target`` an index of one generation of the index in ``source``; whatever was at ``target`` is removed.

    Files are hard links, copies where the file system refuses these; changes to the one index leave the other as it is.

    Raises:
        DamagedIndexError: there is no such generation.
        OSError: the disk is full or refuses.
    """
    generation = Generation(source, ref)
    shutil.rmtree(target, ignore_errors=True)
    folder = target / ref.name
    folder.mkdir(parents=True)
    for path in generation.folder.iterdir():
        _link(path, folder / path.name)
    sync_folder(folder)
    write_synced(target / CURRENT_NAME, current_line(ref))
    sync_folder(target)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
