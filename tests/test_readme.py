"""The README holds what is true: every command it shows is run and prints what it shows, and nothing is left out."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from semrec_faiss.cli.main import COMMANDS, cli
from semrec_faiss.config.schema import known_keys
from semrec_faiss.measure.sweep_file import known_keys_of_sweeps

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What differs between runs and machines: times, sizes, dates, versions, and the last digit of a similarity, which is
# rounded from sums whose order depends on the processor.
VARIES = re.compile(
    r"\d+(\.\d+)? (?:ms|[KMG]?B)\b|\d{4}-\d\d-\d\dT\S+|\d+\.\d+\.\d+\S*|\d+\.\d{2,}(?!%)|(?<=\d\.)\d(?=% similar)"
)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(README) if kind == language]


def commands_with_output() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for block in blocks("console"):
        parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
        for part in parts:
            command, _, output = part.replace("\\\n", " ").partition("\n")
            found.append((command, output))
    return found


def comparable(text: str) -> list[str]:
    lines = (re.sub(r"\s+", " ", VARIES.sub("#", line)).strip() for line in text.splitlines())
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a fresh checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("data", "configs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run(command: str, workplace: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    launcher = {"semrec": [sys.executable, "-m", "semrec_faiss"], "python": [sys.executable]}[words[0]]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "160"}
    return subprocess.run([*launcher, *words[1:]], capture_output=True, text=True, cwd=workplace, env=environment)


def test_every_command_prints_what_the_readme_shows(workplace: Path) -> None:
    shown = commands_with_output()
    assert len(shown) >= 15
    wrong = []
    for command, expected in shown:
        result = run(command, workplace)
        printed = comparable(result.stdout) + comparable(result.stderr)
        if result.returncode and not any(line.startswith("error:") for line in comparable(expected)):
            wrong.append(f"$ {command}\nexit code {result.returncode}: {result.stderr}")
        elif sorted(printed) != sorted(comparable(expected)):
            wrong.append(f"$ {command}\n--- shown\n{expected}--- printed\n{result.stdout}{result.stderr}")
    assert not wrong, "\n\n".join(wrong)


def test_the_python_example_prints_what_the_readme_shows(workplace: Path) -> None:
    (example,) = blocks("python")
    assert run("semrec demo", workplace).returncode == 0
    result = subprocess.run(
        [sys.executable, "-c", example],
        capture_output=True,
        text=True,
        cwd=workplace,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    assert comparable(result.stdout) == comparable(blocks("text")[0])


def test_every_command_is_in_the_readme() -> None:
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        if isinstance(command, click.Group):
            for inner in command.commands:
                assert f"semrec {name} {inner}" in README, f"semrec {name} {inner} is not in the README"
        else:
            assert f"semrec {name}" in README, f"semrec {name} is not in the README"


def test_every_config_key_is_in_the_readme() -> None:
    missing = [key for key in known_keys() if f"`{key}`" not in README]
    assert not missing, missing


def test_every_key_of_a_sweep_file_is_in_the_readme() -> None:
    missing = [key for key in known_keys_of_sweeps() if f"`{key}`" not in README]
    assert not missing, missing


def test_ci_runs_the_readmes_test_command_word_for_word() -> None:
    (command,) = [line for block in blocks("sh") for line in block.splitlines() if line.endswith("pytest")]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_pictures_and_links_are_there() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
