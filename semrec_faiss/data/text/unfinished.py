"""The folder in which an embedding grows: finished blocks stay after an interruption, the result appears whole."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.folder.layout import open_vectors
from semrec_faiss.data.folder.npy import NpyWriter
from semrec_faiss.errors import DataError
from semrec_faiss.storage import new_file, read_small, save_json, sha256_of_file, sync_folder

_PREFIX = ".embedding-"


class UnfinishedEmbedding:
    """Blocks of vectors on their way to ``vectors``.

    The folder's name is a digest of the settings, so that a run with other settings finds nothing to go on with.

    Args:
        vectors: media/content_vectors.npy; the manifest goes beside it, as content_vectors.json.
        settings: what the vectors depend on.
        count: the number of titles.
        block_rows: titles in a block.
    """

    def __init__(self, vectors: Path, settings: dict[str, Any], count: int, block_rows: int) -> None:
        digest = hashlib.sha256(json.dumps([settings, block_rows], sort_keys=True).encode()).hexdigest()
        self._vectors = vectors
        self._manifest = vectors.with_suffix(".json")
        self._settings = settings
        self._count = count
        self._folder = vectors.parent / f"{_PREFIX}{digest[:16]}"
        # The result waits in the work folder under the names that it will have.
        self._made_vectors = self._folder / vectors.name
        self._made_manifest = self._folder / self._manifest.name
        self.starts = range(0, count, block_rows)
        self._block_rows = block_rows

    def block_size(self, start: int) -> int:
        """Return how many titles the block has that begins with title ``start``."""
        return min(self._block_rows, self._count - start)

    def published_dim(self) -> int | None:
        """Return the dimensions of the vectors in place if they were made with these settings, else None."""
        try:
            manifest = json.loads(read_small(self._manifest))
            same = all(manifest.get(name) == value for name, value in self._settings.items())
            if same and self._vectors.is_file() and manifest.get("vectors_sha256") == sha256_of_file(self._vectors):
                return int(manifest["dim"])
        except (FileNotFoundError, ValueError, AttributeError, KeyError, TypeError):
            pass  # no manifest, or not one of ours: made in another way
        return None

    def open(self) -> set[int]:
        """Make the work folder if need be, and return where the blocks start that are finished."""
        self._folder.mkdir(exist_ok=True)
        save_json(self._folder / "settings.json", self._settings, indent=2)
        return {start for start in self.starts if self._is_finished(start)}

    def save(self, start: int, rows: NDArray[np.floating[Any]]) -> None:
        """Keep the block that begins with title ``start``, float (titles, dim)."""
        with new_file(self._block(start)) as file, NpyWriter(file, rows.shape, self._settings["dtype"]) as writer:
            writer.write(rows)

    def publish(self) -> int:
        """Put all blocks together, move the result into place, and return its dimensions.

        Raises:
            DataError: blocks of an earlier run have other dimensions.
            OSError: the disk refuses.
        """
        dims = {open_vectors(self._block(start)).shape[1] for start in self.starts}
        if len(dims) > 1:
            raise DataError(
                f"{self._folder} has blocks of {min(dims)} and of {max(dims)} dimensions: the model was changed",
                fix=f"remove {self._folder} and run the command again",
            )
        dim = int(dims.pop())
        with (
            new_file(self._made_vectors) as file,
            NpyWriter(file, (self._count, dim), self._settings["dtype"]) as writer,
        ):
            for start in self.starts:
                writer.write(open_vectors(self._block(start)))
        sha256 = sha256_of_file(self._made_vectors)
        made = {**self._settings, "count": self._count, "dim": dim, "vectors_sha256": sha256}
        save_json(self._made_manifest, made, indent=2)
        self.finish_publication()
        return dim

    def finish_publication(self) -> None:
        """Move a finished result into place; also that of a run that was killed while it did so, whatever its settings.

        Of a result whose vectors are in place already, the manifest belongs to them.
        """
        for folder in self._vectors.parent.glob(f"{_PREFIX}*"):
            made_manifest, made_vectors = folder / self._manifest.name, folder / self._vectors.name
            if made_manifest.is_file() and (folder == self._folder or not made_vectors.is_file()):
                if made_vectors.is_file():
                    made_vectors.replace(self._vectors)
                made_manifest.replace(self._manifest)
                sync_folder(self._vectors.parent)
                self.remove_all()
                return

    def remove_all(self) -> None:
        """Remove every work folder: once vectors are in place, what runs with other settings left is of no use."""
        for folder in self._vectors.parent.glob(f"{_PREFIX}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _block(self, start: int) -> Path:
        return self._folder / f"block-{start:010d}.npy"

    def _is_finished(self, start: int) -> bool:
        path = self._block(start)
        if not path.is_file():
            return False
        try:
            return bool(open_vectors(path, expect_rows=self.block_size(start)).dtype == self._settings["dtype"])
        except DataError:
            return False  # damaged: it is made again
