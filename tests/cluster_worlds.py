"""What the tests of a cluster ask: the same titles in one piece and in shards."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import MadeFolder


@dataclass(frozen=True)
class World:
    """A data folder, its index in one piece, and where one in shards goes."""

    made: MadeFolder
    whole: Path
    sharded: Path
    config: dict[str, Any]


class Worker:
    """Does a block by writing down that it did; the one that is told to ends its process first."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def do(self, number: int) -> int:
        began = self._folder / f"{number}.{os.getpid()}.{time.time_ns()}"
        began.touch()
        dies = self._folder / f"dies.{number}"
        if dies.exists():
            if dies.read_text() == "once":
                dies.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number
