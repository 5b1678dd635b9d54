"""A build that is killed, at random instants or at any change to the disk, leaves the old index or the new, whole."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG_SECONDS, run_python

KILLS = 52

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Any]) -> list[Path]:
    """Two data folders with other titles, vectors and users under the same ids."""
    root = tmp_path_factory.mktemp("folders")
    return [
        make_folder(root / word, titles=100, dim=16, users=8, seed=seed, word=word).root
        for seed, word in enumerate(("Old", "New"))
    ]


def kill_builds(how: str, index: Path, folders: list[Path]) -> dict[str, Any]:
    """Run kill_builds.py and return what it saw."""
    program = Path(__file__).with_name("kill_builds.py")
    told = (program, how, index, *folders, KILLS)
    done = run_python(
        *told, seconds=3 * HANG_SECONDS, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYTHONWARNINGS="ignore"
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def check_afterwards(result: dict[str, Any]) -> None:
    """A further build works, and removes what the killed ones left."""
    assert result["afterwards"] == result["wanted"]
    assert [name for name in result["left"] if not re.fullmatch(r"\.lock|CURRENT|gen-\d{6}", name)] == []
    # The third is one that was whole and was killed before it was in use: nobody can tell it from one rolled back.
    assert len([name for name in result["left"] if name.startswith("gen-")]) in (2, 3)


def test_builds_killed_at_random_instants_leave_the_old_or_the_new_index(tmp_path: Path, folders: list[Path]) -> None:
    result = kill_builds("random", tmp_path / "index", folders)
    killed = [outcome for outcome in result["outcomes"] if outcome["killed"]]
    assert len(killed) == KILLS
    for outcome in killed:  # each index was verified, its previous generation too, and asked
        assert outcome["found"] in (outcome["before"], outcome["wanted"])
    check_afterwards(result)


def test_builds_killed_before_each_change_to_the_disk_leave_the_old_or_the_new_index(
    tmp_path: Path, folders: list[Path]
) -> None:
    outcomes = (result := kill_builds("operations", tmp_path / "index", folders))["outcomes"]
    *killed, last = outcomes
    assert last["event"] is None, "the last build got through"
    assert last["found"] == last["wanted"]
    events = [outcome["event"] for outcome in killed]
    for expected in (
        "open index.faiss",
        "open vectors.npy",
        "open MANIFEST.json",
        "open CURRENT.new",
        "os.rename CURRENT.new",
    ):
        assert expected in events
    publish = events.index("os.rename CURRENT.new")
    for number, outcome in enumerate(killed):
        assert outcome["found"] == outcome["before" if number <= publish else "wanted"], outcome
    check_afterwards(result)
