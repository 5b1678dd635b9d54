"""Following an index: a thread that looks for newer generations for as long as somebody asks."""

from __future__ import annotations

import contextlib
import threading
import warnings
import weakref
from typing import TYPE_CHECKING

from semrec_faiss.errors import SemrecError
from semrec_faiss.forking import OWN_THREADS

if TYPE_CHECKING:
    from semrec_faiss.search.living.living_index import LivingIndex

LOOK_SECONDS = 0.25
"""How often the directory is looked at."""


class Following:
    """Refreshes an open index soon after something is published; ends with the index, or when it is closed."""

    def __init__(self, living: LivingIndex) -> None:
        self._living = weakref.ref(living)
        self._ended = threading.Event()
        self._refused: str | None = None
        threading.Thread(target=self._keep_looking, name=f"{OWN_THREADS}following", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._ended.set()

    def _keep_looking(self) -> None:
        while not self._ended.wait(LOOK_SECONDS) and self._look():
            pass

    def _look(self) -> bool:
        """Refresh the index; tell whether there still is one."""
        living = self._living()
        if living is None:
            return False
        try:
            living.refresh()
            self._refused = None
        except (SemrecError, OSError, MemoryError) as error:
            if str(error) != self._refused:  # said once
                self._refused = str(error)
                with contextlib.suppress(Warning):
                    warnings.warn(f"a newer generation cannot be opened: {error}", RuntimeWarning, stacklevel=1)
        return True
