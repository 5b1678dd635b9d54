"""What the tests of a cluster ask: the same titles in one piece and in shards."""

from __future__ import annotations

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
