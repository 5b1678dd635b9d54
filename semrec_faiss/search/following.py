"""A Recommender that goes with its index: when a newer generation is published, the next question is asked of it."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from semrec_faiss.errors import SemrecError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.search.recommender import Recommender

LOOK_SECONDS = 0.5
"""How often the directory is looked at."""


class Following:
    """Answers like a `Recommender`, from the newest generation of its index; safe to use from many threads.

    A newer generation is opened beside the old one, so for a moment both are in memory, and then takes its place
    between two questions: what is being answered is finished by what it was asked of. One that cannot be opened is
    warned of, and the old one stays.

    Attributes:
        current: the Recommender that the next question goes to; take it for several questions that belong together.
    """

    def __init__(self, path: str | PathLike[str], settings: str | Iterable[str] = (), *, follow: bool = True) -> None:
        """Open the index in ``path``; raises as `Recommender.open`.

        Args:
            path: an index directory.
            settings: search and device settings, as for `Recommender.open`.
            follow: look for newer generations twice a second; otherwise only `refresh` does.
        """
        self._path, self._settings = Path(path), settings
        self._refreshing = threading.Lock()
        self._refused: str | None = None
        self._ended = threading.Event()
        self.current = Recommender.open(path, settings)
        if follow:
            threading.Thread(target=self._keep_looking, name="semrec-following", daemon=True).start()

    def refresh(self) -> bool:
        """Open the generation in use, where it is another than the current one; tell whether it was.

        Raises:
            SemrecError: it cannot be opened; the current one stays.
        """
        with self._refreshing:
            if IndexDirectory(self._path).current().ref == self.current.saved.generation.ref:
                return False
            self.current = Recommender.open(self._path, self._settings)
            return True

    def close(self) -> None:
        """Look for newer generations no more; what is open stays."""
        self._ended.set()

    def _keep_looking(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            try:
                self.refresh()
                self._refused = None
            except (SemrecError, OSError, MemoryError) as error:
                if str(error) != self._refused:  # said once
                    self._refused = str(error)
                    with contextlib.suppress(Warning):
                        kept = self.current.saved.generation.name
                        warnings.warn(
                            f"{self._path}: a newer generation cannot be opened, {kept} stays: {error}",
                            RuntimeWarning,
                            stacklevel=1,
                        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "current":  # not there before the index is open
            raise AttributeError(name)
        return getattr(self.current, name)

    def __enter__(self) -> Following:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
