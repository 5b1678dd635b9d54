"""Every public name has a docstring with an example, and every example prints what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import semrec_faiss
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.demo import demo_folder
from semrec_faiss.index.build.run import build_index

pytest.importorskip("pandas")
pytest.importorskip("polars")

ROOT = Path(__file__).resolve().parents[1]
NAMES = [name for name in semrec_faiss.__all__ if name != "__version__"]
OF_FORKS = ("go_on", "opened_anew")  # what forking calls, and nobody else
MODULES = sorted(
    {getattr(semrec_faiss, name).__module__ for name in NAMES} | {"semrec_faiss.search.living.living_index"}
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader has it who has tried README: the demo's index, and a sweep's results."""
    place = tmp_path_factory.mktemp("workplace")
    build_index(config_from_dict({"dataset": str(demo_folder()), "output": str(place / "indexes/demo")}))
    (place / "results" / "sweep-demo").mkdir(parents=True)
    for name in ("plan.json", "trials.jsonl"):
        shutil.copy(ROOT / "results" / "sweep-demo" / name, place / "results" / "sweep-demo")
    return place


@pytest.fixture
def at_work(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(workplace)
    yield
    for mine in ("own", "damaged"):
        shutil.rmtree(workplace / "indexes" / mine, ignore_errors=True)


def examples() -> list[Any]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    return [pytest.param(test, id=test.name.removeprefix("semrec_faiss.")) for test in found]


@pytest.mark.usefixtures("at_work")
@pytest.mark.parametrize("test", examples())
def test_every_example_prints_what_it_says(test: doctest.DocTest) -> None:
    told: list[str] = []
    options = doctest.NORMALIZE_WHITESPACE
    outcome = doctest.DocTestRunner(optionflags=options).run(test, out=told.append)
    assert not outcome.failed, "".join(told)


def test_every_public_name_and_its_methods_have_an_example() -> None:
    things: dict[str, Any] = {name: getattr(semrec_faiss, name) for name in NAMES}
    for name, thing in list(things.items()):
        if inspect.isclass(thing) and not issubclass(thing, Exception):
            methods = inspect.getmembers(thing, lambda one: inspect.isfunction(one) or inspect.ismethod(one))
            ours = [each for each in methods if (each[1].__module__ or "").startswith("semrec_faiss")]
            asked = [each for each in ours if not each[0].startswith("_") and each[0] not in OF_FORKS]
            things |= {f"{name}.{inner}": method for inner, method in asked}
    assert len(things) > 50
    without = [name for name, thing in things.items() if ">>>" not in (inspect.getdoc(thing) or "")]
    assert not without, without
    untyped = [name for name, thing in things.items() if not _is_typed(thing)]
    assert not untyped, untyped


def _is_typed(thing: Any) -> bool:
    """Whether every parameter and what comes back has a type; of a class, those that make it."""
    made = thing.__init__ if inspect.isclass(thing) else thing
    signature = inspect.signature(made)
    given = [one for one in signature.parameters.values() if one.name != "self"]
    return all(one.annotation is not one.empty for one in given) and (
        inspect.isclass(thing) or signature.return_annotation is not signature.empty
    )
