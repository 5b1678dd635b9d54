"""`.ci/run` fails where one of its steps does, whichever it is; the steps are made up here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import HANG_SECONDS, REPO, is_running, until

STEP = """#!/bin/bash
me="$(basename "$0") $*"
case "$me" in $SLOW) echo $$ >"$RAN.slow"; command -p sleep 300 ;; esac
case "$me" in $FAILS) [ "$SLOW" = none ] || until [ -s "$RAN.slow" ]; do command -p sleep 0.01; done ;; esac
echo "$me" >>"$RAN"
[ "$(basename "$0")" != python3 ] || { mkdir -p "$3/bin"; : >"$3/bin/activate"; cp "$(dirname "$0")/pip" "$3/bin"; }
case "$me" in $FAILS) exit 3 ;; esac
case "$me" in $FAILS_ONCE) [ -e "$RAN.once" ] || { : >"$RAN.once"; exit 3; } ;; esac
"""

STEPS = ["python3 -m venv", "pip install -e", "pytest ", "pip install torch", "pytest tests/index/fused", "ruff check"]
STEPS += ["ruff format", "mypy", "lint-imports"]

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def _run(folder: Path, fails: str, once: str = "none", slow: str = "none") -> tuple[int, list[str]]:
    commands = folder / "bin"
    commands.mkdir()
    for name in ("python3", "pip", "pytest", "ruff", "mypy", "lint-imports", "chromium", "sleep"):
        (commands / name).write_text(STEP)
        (commands / name).chmod(0o755)
    (folder / ".ci").mkdir()
    shutil.copy(Path(REPO) / ".ci/run", folder / ".ci/run")
    told = {"PATH": f"{commands}:{os.environ['PATH']}", "RAN": str(folder / "ran"), "FAILS": fails}
    told |= {"TMPDIR": str(folder), "FAILS_ONCE": once, "SLOW": slow}
    done = subprocess.run(
        ["bash", str(folder / ".ci/run")], env=os.environ | told, capture_output=True, timeout=HANG_SECONDS, check=False
    )
    assert not list(folder.glob("tmp.*")), "it leaves nothing behind"
    return done.returncode, (folder / "ran").read_text().splitlines()


def test_ci_runs_every_step(tmp_path: Path) -> None:
    code, ran = _run(tmp_path, "none")
    assert code == 0
    for step in STEPS:
        assert any(line.startswith(step) for line in ran), step


@pytest.mark.parametrize("step", STEPS)
def test_ci_fails_where_a_step_does(step: str, tmp_path: Path) -> None:
    """Once a fault: where pip or venv failed the tests were left out, and CI was green."""
    code, _ = _run(tmp_path, step if step.endswith(" ") else f"{step}*")
    assert code != 0


@pytest.mark.parametrize("step", ["pip install -e", "pip install torch"])
def test_what_comes_over_a_network_is_asked_for_again(step: str, tmp_path: Path) -> None:
    code, ran = _run(tmp_path, "none", f"{step}*")
    assert (code, sum(line.startswith(step) for line in ran)) == (0, 2)


def test_what_runs_beside_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """Once a fault: pip went on writing into the folder that was removed, and left it behind."""
    code, _ = _run(tmp_path, "pytest *", slow="python3 -m venv */torch")
    assert code != 0
    pid = int((tmp_path / "ran.slow").read_text())
    until(lambda: not is_running(pid))
