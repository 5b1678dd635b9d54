"""An index that lives as long as an object does: in memory, where a system has memory that is read like files."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path

from semrec_faiss.config.schema import Config
from semrec_faiss.index.build.run import build_in_memory, build_index
from semrec_faiss.index.build.source import Source
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.generations.held_files import HeldFiles


def build_for_now(config: Config, source: Source) -> Generation:
    """Build an index that goes with the object returned; raises as `build_index`.

    FAISS, DuckDB and Arrow read files alone. Linux has anonymous memory that they take for files; elsewhere the files
    lie in a temporary folder, which is removed with the object.
    """
    built = build_in_memory(config, source) if HeldFiles.can_create() else _in_temporary_folder(config, source)
    built.for_now = True
    return built


def _in_temporary_folder(config: Config, source: Source) -> Generation:
    folder = Path(tempfile.mkdtemp(prefix="semrec-"))
    try:
        built = build_index(config.model_copy(update={"output": folder / "index"}), source=source)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(built, _remove_own, folder, os.getpid())
    return built


def _remove_own(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # and not in a forked child
        shutil.rmtree(folder, ignore_errors=True)
