"""Killed before any change that it makes to the disk, an update leaves the index as before or as after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_random_operations_that_are_killed_leave_an_index_as_before_or_after(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(HERE / "kill_updates.py"), str(tmp_path), "40", "5"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=HERE,
        env=os.environ | {"PYTHONPATH": f"{HERE.parents[2]}{os.pathsep}{HERE}"},
    )
    assert result.returncode == 0, result.stderr[-2000:]
    told = json.loads(result.stdout)
    assert told["operations"] == 40
    assert sum(count for name, count in told.items() if name.endswith("killed")) >= 10
    assert sum(count for name, count in told.items() if name.endswith("ended")) >= 5
