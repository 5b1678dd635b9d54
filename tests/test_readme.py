"""The READMEs hold what is true: every command they show is run and prints what they show, and nothing is left out."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import duckdb
import pytest
from conftest import run_python

import semrec_faiss
from semrec_faiss.cli.main import COMMANDS, cli
from semrec_faiss.config.schema import keys_of, known_keys
from semrec_faiss.measure.evaluate.config import EvaluationSweep
from semrec_faiss.measure.sweep.config import Sweep

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ("semrec_faiss", "semrec_faiss/index", "semrec_faiss/serve", "semrec_faiss/cluster")
FOLDERS = (".", *PACKAGE, "configs", "data", "results", "tests", "data/demo")
READMES = [ROOT / folder / "README.md" for folder in FOLDERS]
PAGES = [*READMES, ROOT / "semrec_faiss" / "ARCHITECTURE.md", ROOT / ".github" / "CONTRIBUTING.md"]
TEXT = " ".join(" ".join(page.read_text(encoding="utf-8").split()) for page in READMES)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What differs between runs and machines: times, sizes, dates, versions, how many titles fit, which depends on whose
# kernels multiply, and the last digit of a similarity, which is rounded from sums whose order the processor decides.
VARIES = re.compile(
    r"\d+(\.\d+)? (?:ms|[KMG]?B)\b|\d{4}-\d\d-\d\dT\S+|\d+\.\d+\.\d+\S*|\d+\.\d{2,}(?!%)|(?<=\d\.)\d(?=% similar)"
    r"|\d[\d,]*(?= titles fit)"
)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def commands_with_output(page: Path) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.replace("\\\n", " ").partition("\n")
            found.append((command, output))
    return found


def comparable(text: str) -> list[str]:
    lines = (re.sub(r"\s+", " ", VARIES.sub("#", line)).strip() for line in text.splitlines())
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def with_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a fresh checkout in which the root's first command has been run."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("data", "configs"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "results" / "sweep-demo", folder / "results" / "sweep-demo")
    made = run("semrec demo", folder)
    assert made.returncode == 0, made.stderr
    (folder / "indexes").rename(folder / "indexes-as-made")
    return folder


@pytest.fixture
def workplace(with_demo: Path) -> Path:
    """A place to follow one page from its beginning: what other pages made is gone, the demo is as it was made."""
    for name in ("scratch", "indexes"):
        shutil.rmtree(with_demo / name, ignore_errors=True)
    shutil.copytree(with_demo / "indexes-as-made", with_demo / "indexes")
    return with_demo


def run(command: str, workplace: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    launcher = {"semrec": ["-m", "semrec_faiss"], "python": []}[words[0]]
    return run_python(*launcher, *words[1:], cwd=workplace, COLUMNS="160")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands_with_output(page)], ids=name_of)
def test_every_command_prints_what_its_page_shows(page: Path, workplace: Path) -> None:
    wrong = []
    for command, expected in commands_with_output(page):
        result = run(command, workplace)
        printed = comparable(result.stdout) + comparable(result.stderr)
        if result.returncode and not any(line.startswith("error:") for line in comparable(expected)):
            wrong.append(f"$ {command}\nexit code {result.returncode}: {result.stderr}")
        elif sorted(printed) != sorted(comparable(expected)):
            wrong.append(f"$ {command}\n--- shown\n{expected}--- printed\n{result.stdout}{result.stderr}")
    assert not wrong, "\n\n".join(wrong)


def test_the_pages_show_commands_with_their_output() -> None:
    assert sum(len(commands_with_output(page)) for page in PAGES) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_every_python_example_prints_what_its_page_shows(page: Path, workplace: Path) -> None:
    for example, expected in zip(blocks(page, "python"), blocks(page, "text"), strict=True):
        result = run_python("-c", example, cwd=workplace)
        assert result.returncode == 0, result.stderr
        assert comparable(result.stdout) == comparable(expected)


@pytest.mark.slow
def test_new_titles_with_new_ratings_take_the_commands_shown(with_demo: Path, tmp_path: Path) -> None:
    run_all([f"semrec dataset export {with_demo / 'data/demo'} all.parquet"], tmp_path)
    films, seen = f"'{tmp_path / 'all.parquet'}'", f"'{with_demo / 'data/demo/users/seen.parquet'}'"
    for name, first, last in (("films", 1930, 2100), ("new-films", 1900, 1929)):
        duckdb.sql(f"COPY (FROM {films} WHERE year BETWEEN {first} AND {last}) TO '{tmp_path / name}.parquet'")
    for name, rest in (("ratings", 0), ("new-ratings", 1)):
        duckdb.sql(f"COPY (FROM {seen} WHERE timestamp % 2 = {rest}) TO '{tmp_path / name}.parquet'")
    imported = "semrec dataset import films.parquet first --interactions ratings.parquet"
    run_all([imported, "semrec build --dataset first --output indexes/films"], tmp_path)
    (shown,) = [block for block in blocks(ROOT / "semrec_faiss/index/README.md", "sh") if "new-films" in block]
    run_all([line.partition("#")[0] for line in shown.splitlines()], tmp_path)
    users = semrec_faiss.Recommender.open(tmp_path / "indexes/films").users
    assert (users.count, len(users.seen[1])) == (200, 4897), "as the demo has them, old films and new ones"


def run_all(commands: list[str], workplace: Path) -> None:
    for command in commands:
        done = run(command, workplace)
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_the_front_page_is_a_door() -> None:
    page = READMES[0].read_text(encoding="utf-8")
    assert page.count("\n") <= 200
    assert blocks(READMES[0], "python")


def test_every_command_is_in_a_readme() -> None:
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        if isinstance(command, click.Group):
            for inner in command.commands:
                assert f"semrec {name} {inner}" in TEXT, f"semrec {name} {inner} is in no README"
        else:
            assert f"semrec {name}" in TEXT, f"semrec {name} is in no README"


def test_every_public_name_but_the_kinds_of_errors_is_in_the_guide() -> None:
    guide = (ROOT / "semrec_faiss/README.md").read_text("utf-8")
    listed = re.search(r"^The names at the top of .*?\n\n", guide, re.MULTILINE | re.DOTALL)
    assert listed is not None
    public = {name for name in semrec_faiss.__all__ if not name.endswith("Error")} - {"__version__"}
    assert set(re.findall(r"`(\w+)`", listed.group())) == public | {"semrec_faiss", "SemrecError"}


def test_every_key_of_a_config_and_of_a_sweep_file_that_has_a_value_is_in_the_readme_of_configs() -> None:
    page = (ROOT / "configs" / "README.md").read_text(encoding="utf-8")
    of_sweeps = keys_of(Sweep) | keys_of(EvaluationSweep)
    assert {"dataset", "queries.titles", "evaluate.hold_out", "evaluate.grid.pool"} <= of_sweeps
    keys = {*known_keys(), *of_sweeps}
    values = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    missing = [key for key in values if f"`{key}`" not in page]
    assert not missing, missing


def test_every_config_is_in_the_readme_of_configs() -> None:
    page = (ROOT / "configs" / "README.md").read_text(encoding="utf-8")
    assert not [path.name for path in (ROOT / "configs").glob("*.yaml") if f"]({path.name})" not in page]


def test_ci_runs_the_readmes_test_command_word_for_word() -> None:
    (command,) = [line for block in blocks(READMES[0], "sh") for line in block.splitlines() if line.endswith("pytest")]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pictures_and_links_lead_somewhere(page: Path) -> None:
    for target, _, heading in re.findall(r"\]\((?!https?:)([^)#]*)(#([^)]*))?\)", page.read_text(encoding="utf-8")):
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), target
        if heading:
            assert heading in anchors(found), f"{target}#{heading}"


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them: lower case, words joined by hyphens, without other signs."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_file_that_the_architecture_names_is_there() -> None:
    package = ROOT / "semrec_faiss"
    page = (package / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:[a-z_]+/)+(?:\w+\.py)?)`", page):
        assert (package / name).exists() or (ROOT / name).exists(), name
    modules = {path.name for path in package.rglob("*.py")}
    assert set(re.findall(r"`(\w+\.py)`", page)) <= modules


@pytest.mark.parametrize(
    "room", sorted((ROOT / "semrec_faiss").rglob("__init__.py")), ids=lambda room: room.parent.name
)
def test_what_a_room_says_of_itself_is_in_it(room: Path) -> None:
    """Modules and rooms that it names, in it or by their way from the package; three sentences after the first."""
    said = ast.get_docstring(ast.parse(room.read_text(encoding="utf-8"))) or ""
    for name in re.findall(r"`([a-z][a-z_/]*(?:\.py)?)`", said):
        ways = [place / way for place in (room.parent, ROOT / "semrec_faiss") for way in (name, f"{name}.py")]
        assert any(way.exists() for way in ways), name
