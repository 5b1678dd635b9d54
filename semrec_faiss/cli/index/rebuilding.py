"""What an index held before it is built anew of its data folder, which does not hold what updates have brought."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from semrec_faiss.config.schema import Config
from semrec_faiss.errors import DamagedIndexError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.file_names import SEEN_NAME
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.paths import as_typed


class Held:
    """What an index holds, to be told of what a build of it has not.

    Args:
        index: its directory.
    """

    def __init__(self, index: Path) -> None:
        """Count what is there; raises as `IndexDirectory.current`."""
        generation = IndexDirectory(index).current()
        self._index, self._counts = index, _counts(generation)
        self._is_updated = generation.manifest.segments is not None

    @staticmethod
    def by(config: Path | None) -> Held | None:
        """Return what ``config`` holds where it is an index; None where it is something else."""
        return Held(config) if config is not None and IndexDirectory(config).holds_an_index else None

    def lost(self, config: Config, built: Generation) -> str | None:
        """Tell what ``built``, built by ``config``, has not; None where nothing is known to be missing."""
        now = _counts(built)
        fewer = [f"{held - now[what]} {what}" for what, held in self._counts.items() if held > now[what]]
        if not fewer and not self._is_updated:
            return None
        lacks = f", and lacks {_listed(fewer)} that {self._index} had" if fewer else ""
        back = f"; semrec rollback {as_typed(self._index)} returns to it" if config.output == self._index else ""
        return f"it is built of {config.dataset.folder}{lacks}: what updates have brought is not in that folder{back}"


def _listed(words: list[str]) -> str:
    return " and ".join([*([", ".join(words[:-1])] if words[1:] else []), words[-1]])


def _counts(generation: Generation) -> dict[str, int]:
    import pyarrow.parquet as pq

    manifest = generation.manifest
    seen = [name for name in manifest.files if name == SEEN_NAME or name.endswith(f".{SEEN_NAME}")]
    rows = 0
    for name in seen:
        with suppress(DamagedIndexError):  # a build is what mends it
            rows += pq.read_metadata(generation.file(name)).num_rows
    return {"titles": manifest.count, "users": manifest.users, "rows of what users have seen": rows}
