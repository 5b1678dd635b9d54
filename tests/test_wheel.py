"""The wheel alone: installed into an environment of its own, without a checkout, it does what the READMEs show."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from conftest import HANG_SECONDS

from tests.test_readme import PAGES, READMES, ROOT, blocks, commands_with_output, comparable, name_of

pytest.importorskip("hatchling", reason="it builds the wheel")
pytestmark = pytest.mark.slow

SHIPPED = ("data/demo", "configs/")
"""What other pages' commands name that a checkout has."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel, and what it needs from this one."""
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place]
    subprocess.run(build, check=True, capture_output=True, cwd=ROOT, timeout=HANG_SECONDS)
    (wheel,) = place.glob("*.whl")
    venv.create(place / "env", with_pip=False)
    (packages,) = (place / "env").glob("lib/python*/site-packages")
    ours = {path for path in sys.path if path.endswith("site-packages")} | {sysconfig.get_paths()["purelib"]}
    (packages / "others.pth").write_text("".join(f"{path}\n" for path in sorted(ours)), encoding="utf-8")
    programs = place / "env" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True, capture_output=True, timeout=HANG_SECONDS)
    return programs


def alone(words: list[str], programs: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "160"}
    command = [str(programs / words[0]), *words[1:]]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", cwd=cwd, env=environment, timeout=HANG_SECONDS
    )


def test_it_does_all_of_the_readme_and_of_the_other_pages_what_names_a_checkout(
    installed: Path, tmp_path: Path
) -> None:
    where = alone(["python", "-c", "import semrec_faiss; print(semrec_faiss.__file__)"], installed, tmp_path)
    assert str(installed.parent) in where.stdout, "it is the wheel that is tried"
    for command, expected in commands_with_output(READMES[0]):
        ran = alone(shlex.split(command), installed, tmp_path)
        refused = any(line.startswith("error:") for line in comparable(expected))
        assert bool(ran.returncode) == refused, f"{command}\n{ran.stdout}{ran.stderr}"
    for example, expected in zip(blocks(READMES[0], "python"), blocks(READMES[0], "text"), strict=True):
        assert comparable(alone(["python", "-c", example], installed, tmp_path).stdout) == comparable(expected)
    others: dict[tuple[str, ...], tuple[Path, str]] = {}
    for page in PAGES:
        for command, _ in commands_with_output(page):
            if any(name in command for name in SHIPPED) and page != READMES[0]:
                others.setdefault(tuple(shlex.split(command)[:3]), (page, command))  # one of each kind is enough
    assert len(others) >= 5, others
    for page, command in others.values():
        ran = alone(shlex.split(command), installed, tmp_path)
        assert ran.returncode == 0, f"{name_of(page)}: {command}\n{ran.stderr}"
    assert {path.name for path in tmp_path.iterdir()} == {"indexes", "scratch"}
