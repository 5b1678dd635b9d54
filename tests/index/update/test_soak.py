"""Killed before any change that it makes to the disk, an update leaves the index as before or as after."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import HANG_SECONDS, run_python

HERE = Path(__file__).parent
OPERATIONS = 20_000


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder whose disk costs nothing, where there is one."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="semrec-soak-", dir=memory))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_20_000_operations_some_killed_lose_nothing_and_readers_are_answered_right(in_memory: Path) -> None:
    result = run_python(HERE / "soak.py", in_memory, OPERATIONS, 5, seconds=3 * HANG_SECONDS, cwd=HERE)
    assert result.returncode == 0, result.stderr[-2000:]
    told = json.loads(result.stdout)
    assert told["operations"] >= OPERATIONS
    killed = told["killed_before"]
    assert {"fsync", "os.rename", "os.link", "open"} <= killed.keys()
    assert sum(killed.values()) >= 50
    for name in ("update", "append", "compact", "rollback"):
        assert told.get(f"{name} ended", 0) + told.get(f"{name} killed", 0) >= 3
    assert told["update ended"] >= 10
    assert told["reader_generations"] >= 20, "it goes on until so many were seen"
