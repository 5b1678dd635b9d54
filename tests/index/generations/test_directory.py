"""The index directory: generations, CURRENT, rollback, the lock, and what it will not write over."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import run_python

from semrec_faiss import Recommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.errors import DamagedIndexError, NotFoundError, SemrecError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.generations import held_files
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.saved import titles
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.verifying import verify

Build = Callable[..., Generation]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Any]) -> dict[str, Any]:
    """Data folders that are told apart by the first word of their titles, all of the same ids."""
    root = tmp_path_factory.mktemp("folders")
    return {
        word: make_folder(root / word, titles=60, dim=8, users=4, seed=seed, word=word)
        for seed, word in enumerate(("One", "Two", "Three", "Four"))
    }


@pytest.fixture
def build(folders: dict[str, Any]) -> Build:
    """Build the data folder of a word into an index directory."""

    def into(output: Path, word: str, kind: str = "flat") -> Generation:
        values = {"dataset": str(folders[word].root), "output": str(output), "index": {"type": kind}}
        return build_index(config_from_dict(values))

    return into


def word_of(index: Path) -> str:
    """The word of the data folder that the index was built from, by its answers."""
    recommender = Recommender.open(index)
    answer = recommender.similar("m00007", 4)
    assert recommender.recommend("user_002", 3).returned == 3
    words = {result.title.split()[0] for result in answer} | {str(answer.query["title"]).split()[0]}
    assert len(words) == 1
    return words.pop()


def listing(folder: Path) -> dict[str, bytes | None]:
    """Everything under a folder with its content; None for folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def names(folder: Path) -> list[str]:
    """The names in an index directory, without the lock."""
    return sorted(entry.name for entry in folder.iterdir() if entry.name != ".lock")


# --- generations ----------------------------------------------------------------------------------------------------


def test_the_first_build_makes_the_first_generation(tmp_path: Path, build: Build) -> None:
    generation = build(tmp_path / "deep" / "index", "One")
    assert generation.name == "gen-000001"
    assert names(tmp_path / "deep" / "index") == ["CURRENT", "gen-000001"]
    assert word_of(tmp_path / "deep" / "index") == "One"


def test_current_names_the_generation_and_the_digest_of_its_manifest(tmp_path: Path, build: Build) -> None:
    build(tmp_path, "One")
    text = (tmp_path / "CURRENT").read_text(encoding="ascii")
    match = re.fullmatch(r"(gen-\d{6})\nsha256:([0-9a-f]{64})\n", text)
    assert match
    assert match[1] == "gen-000001"
    assert match[2] == hashlib.sha256((tmp_path / match[1] / "MANIFEST.json").read_bytes()).hexdigest()


def test_the_generation_in_use_and_the_one_before_are_kept(tmp_path: Path, build: Build) -> None:
    for number, word in enumerate(("One", "Two", "Three", "Four"), start=1):
        generation = build(tmp_path, word)
        assert generation.name == f"gen-{number:06d}"
        assert word_of(tmp_path) == word
        kept = [f"gen-{kept:06d}" for kept in (number - 1, number) if kept]
        assert names(tmp_path) == ["CURRENT", *kept]
        previous = generation.manifest.previous
        assert (previous.name if previous else None) == (kept[0] if number > 1 else None)


def test_an_open_index_goes_on_answering_while_another_is_built(tmp_path: Path, build: Build) -> None:
    build(tmp_path, "One")
    recommender = Recommender.open(tmp_path)  # users and their vectors are read when they are asked for
    build(tmp_path, "Two")
    assert str(recommender.similar("m00007", 1).results[0].title).startswith("One")
    assert str(recommender.recommend("user_001", 1).results[0].title).startswith("One")
    assert word_of(tmp_path) == "Two"


def test_an_index_that_was_opened_stays_whole_however_many_are_built_after_it(tmp_path: Path, build: Build) -> None:
    # Once a fault: what is read when it is first used is gone after the second build, and the error calls
    # an index damaged that is not.
    build(tmp_path, "One")
    recommender = Recommender.open(tmp_path)
    build(tmp_path, "Two")
    build(tmp_path, "Three")
    assert not (tmp_path / "gen-000001").exists()
    assert str(recommender.recommend("user_001", 1).results[0].title).startswith("One")


def test_where_no_file_is_held_open_it_is_said_that_the_generation_was_removed(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_files, "_OPEN_FILES", tmp_path / "nowhere")
    build(tmp_path, "One")
    recommender = Recommender.open(tmp_path)
    build(tmp_path, "Two")
    build(tmp_path, "Three")
    with pytest.raises(
        NotFoundError, match=r"gen-000001 of .* was removed by later builds after it was opened"
    ) as told:
        recommender.recommend("user_001", 1)
    assert told.value.fix == "open the index again"
    assert str(Recommender.open(tmp_path).recommend("user_001", 1).results[0].title).startswith("Three")


def test_current_is_read_again_when_its_generation_goes_while_it_is_opened(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path, "One")
    asked = IndexDirectory(tmp_path).current_ref()
    build(tmp_path, "Two")
    build(tmp_path, "Three")
    refs = iter([asked])  # what a reader saw before both builds
    real = IndexDirectory.current_ref
    monkeypatch.setattr(IndexDirectory, "current_ref", lambda directory: next(refs, None) or real(directory))
    assert IndexDirectory(tmp_path).current().name == "gen-000003"


def test_an_open_index_does_not_depend_on_the_working_directory(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Once a fault: a relative path was resolved again when the users were first asked for.
    build(tmp_path / "index", "One")
    monkeypatch.chdir(tmp_path)
    recommender = Recommender.open("index")
    monkeypatch.chdir("/")
    assert recommender.similar("m00007", 2).returned == 2
    assert recommender.recommend("user_001", 2).returned == 2


@pytest.mark.parametrize("name", ["moved", "ünïcödé with space", "a[1]", "what? st*r", 'it\'s "quoted"', "k=1", "%20"])
def test_an_index_may_be_built_anywhere_and_moved_anywhere(tmp_path: Path, build: Build, name: str) -> None:
    build(tmp_path / "year=1900" / "index", "One")
    assert word_of(tmp_path / "year=1900" / "index") == "One"
    (tmp_path / "year=1900" / "index").rename(tmp_path / name)
    assert verify(tmp_path / name).name == "gen-000001"
    assert word_of(tmp_path / name) == "One"
    assert Recommender.open(tmp_path / name).similar("m00007", 1).results[0].year != 1900
    build(tmp_path / name, "Two")
    assert word_of(tmp_path / name) == "Two"
    shutil.copytree(tmp_path / name, tmp_path / "copy")
    shutil.rmtree(tmp_path / name)
    IndexDirectory(tmp_path / "copy").rollback()
    assert word_of(tmp_path / "copy") == "One"


def test_a_build_leaves_files_that_others_may_read(tmp_path: Path, build: Build) -> None:
    # Once a fault: the generation's folder kept the mode 0700 of a temporary folder, so that a service
    # under another user could not open the index.
    mask = os.umask(0o022)
    try:
        generation = build(tmp_path / "index", "One")
    finally:
        os.umask(mask)
    for path in [tmp_path / "index", generation.folder, tmp_path / "index" / "CURRENT", *generation.folder.iterdir()]:
        wanted = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path.name


def test_opening_writes_nothing(tmp_path: Path, build: Build) -> None:
    build(tmp_path, "One", "ivf_flat")
    before = {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]}
    verify(tmp_path)
    assert word_of(tmp_path) == "One"
    assert {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]} == before


@pytest.fixture
def read_only(build: Build) -> Iterator[Path]:
    """An index in a folder that nobody may write to, reachable for every user."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        build(folder / "index", "One")
        for path in (folder / "index").rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        (folder / "index").chmod(0o555)
        yield folder / "index"
    finally:
        for path in [folder / "index", *(folder / "index").rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.slow
def test_a_read_only_index_opens_and_is_verified(read_only: Path) -> None:
    program = (
        "import os, sys\n"
        "import semrec_faiss.index.saved.verifying, semrec_faiss.search.recommender\n"
        "import faiss, duckdb\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "os.chdir('/')\n"
        "from semrec_faiss.index.generations.directory import IndexDirectory\n"
        "from semrec_faiss.errors import StorageError\n"
        f"path = {str(read_only)!r}\n"
        "semrec_faiss.index.saved.verifying.verify(path)\n"
        "recommender = semrec_faiss.search.recommender.Recommender.open(path)\n"
        "print(recommender.similar('m00007', 3).returned, recommender.recommend('user_001', 3).returned)\n"
        "try:\n"
        "    with IndexDirectory(path).writing(): print('written')\n"
        "except StorageError as error:\n"
        "    print('refused', error.exit_code)\n"
    )
    done = run_python("-c", program, HOME="/")
    assert done.stdout.split() == ["3", "3", "refused", "8"], done.stderr[-800:]


# --- rollback -------------------------------------------------------------------------------------------------------


def test_rollback_returns_to_the_generation_before(tmp_path: Path, build: Build) -> None:
    build(tmp_path, "One")
    build(tmp_path, "Two")
    generation = IndexDirectory(tmp_path).rollback()
    assert generation.name == "gen-000001"
    assert verify(tmp_path).name == "gen-000001"
    assert word_of(tmp_path) == "One"


def test_there_is_one_way_back_and_no_second(tmp_path: Path, build: Build) -> None:
    for word in ("One", "Two", "Three"):
        build(tmp_path, word)
    directory = IndexDirectory(tmp_path)
    directory.rollback()
    assert word_of(tmp_path) == "Two"
    before = listing(tmp_path)
    for _ in range(2):
        with pytest.raises(NotFoundError, match="gen-000002 to roll back to"):
            directory.rollback()
    assert listing(tmp_path) == before
    assert word_of(tmp_path) == "Two"


def test_a_build_after_a_rollback_can_be_rolled_back_too(tmp_path: Path, build: Build) -> None:
    build(tmp_path, "One")
    build(tmp_path, "Two")
    IndexDirectory(tmp_path).rollback()
    assert build(tmp_path, "Three").name == "gen-000003"
    assert names(tmp_path) == ["CURRENT", "gen-000001", "gen-000002", "gen-000003"]
    assert word_of(tmp_path) == "Three"
    IndexDirectory(tmp_path).rollback()
    assert word_of(tmp_path) == "One"


def test_what_was_rolled_back_can_be_had_again_until_it_is_the_third(tmp_path: Path, build: Build) -> None:
    build(tmp_path, "One")
    build(tmp_path, "Two")
    directory = IndexDirectory(tmp_path)
    directory.rollback()
    assert directory.rollback("gen-000002").name == "gen-000002"
    assert word_of(tmp_path) == "Two"
    directory.rollback()
    build(tmp_path, "Three")
    assert directory.rollback("gen-000002").name == "gen-000002"
    assert word_of(tmp_path) == "Two"
    directory.rollback("gen-000003")
    build(tmp_path, "Four")
    assert names(tmp_path) == ["CURRENT", "gen-000003", "gen-000004"]
    with pytest.raises(NotFoundError, match="has no generation 'gen-000002'") as caught:
        directory.rollback("gen-000002")
    assert caught.value.candidates == ("gen-000003", "gen-000004")


def test_repeated_rollbacks_keep_three_generations(tmp_path: Path, build: Build) -> None:
    build(tmp_path, "One")
    for word in ("Two", "Three", "Four"):
        build(tmp_path, word)
        IndexDirectory(tmp_path).rollback()
    assert word_of(tmp_path) == "One"
    assert names(tmp_path) == ["CURRENT", "gen-000001", "gen-000003", "gen-000004"]


@pytest.mark.parametrize("name", ["gen-000009", "..", "gen-000001/", "CURRENT", "", "gen-1", "\0"])
def test_only_a_generation_of_the_index_is_gone_to(tmp_path: Path, build: Build, name: str) -> None:
    build(tmp_path, "One")
    with pytest.raises(NotFoundError, match="has no generation"):
        IndexDirectory(tmp_path).rollback(name)
    assert word_of(tmp_path) == "One"


def test_every_generation_is_listed_damaged_ones_too(tmp_path: Path, build: Build) -> None:
    build(tmp_path, "One")
    build(tmp_path, "Two")
    (tmp_path / "gen-000001" / "MANIFEST.json").write_text("{}", encoding="utf-8")
    found = IndexDirectory(tmp_path).generations()
    assert list(found) == ["gen-000001", "gen-000002"]
    assert isinstance(found["gen-000001"], DamagedIndexError)
    assert isinstance(found["gen-000002"], Generation)
    with pytest.raises(NotFoundError, match="does not exist"):
        IndexDirectory(tmp_path / "nothing").generations()


def test_an_index_is_not_made_in_another(tmp_path: Path, build: Build) -> None:
    """Once a fault: as a generation of the other that was no longer needed, it would have been removed."""
    build(tmp_path, "One")
    with pytest.raises(UsageError, match=r"gen-000009 lies in the index .*, whose files are its own"):
        build(tmp_path / "gen-000009", "Two")
    assert not (tmp_path / "gen-000009").exists()


@pytest.mark.parametrize("file", ["index.faiss", "items.parquet", "users.npy", "MANIFEST.json"])
def test_a_damaged_generation_is_not_rolled_back_to(tmp_path: Path, build: Build, file: str) -> None:
    build(tmp_path, "One")
    build(tmp_path, "Two")
    path = tmp_path / "gen-000001" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    current = (tmp_path / "CURRENT").read_bytes()
    with pytest.raises(DamagedIndexError, match=re.escape(file)):
        IndexDirectory(tmp_path).rollback()
    assert (tmp_path / "CURRENT").read_bytes() == current
    assert word_of(tmp_path) == "Two"


def test_rollback_mends_a_damaged_index(tmp_path: Path, build: Build) -> None:
    build(tmp_path, "One")
    build(tmp_path, "Two")
    (tmp_path / "gen-000002" / "index.faiss").write_bytes(b"")
    with pytest.raises(DamagedIndexError, match="semrec rollback"):
        Recommender.open(tmp_path)
    IndexDirectory(tmp_path).rollback()
    assert word_of(tmp_path) == "One"


@pytest.mark.parametrize("file", ["CURRENT", "gen-000002/MANIFEST.json"])
@pytest.mark.parametrize("damage", ["emptied", "deleted"])
def test_rollback_mends_whatever_its_own_advice_is_given_for(
    tmp_path: Path, build: Build, file: str, damage: str
) -> None:
    # Once a fault: the error of a damaged CURRENT or manifest advises `semrec rollback`, which then fails
    # with the same error and the same advice.
    build(tmp_path, "One")
    build(tmp_path, "Two")
    if damage == "deleted":
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(b"")
    with pytest.raises(DamagedIndexError) as caught:
        Recommender.open(tmp_path)
    if "semrec rollback" not in str(caught.value):
        return
    IndexDirectory(tmp_path).rollback()
    assert word_of(tmp_path) == "One"


def test_rollback_without_an_index_is_not_found_and_writes_nothing(tmp_path: Path) -> None:
    # Once a fault: a lock file was left in the folder, and a foreign folder ended in advice on --output.
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("years of work")
    before = listing(tmp_path)
    for name in ("none", "empty", "foreign"):
        with pytest.raises(NotFoundError):
            IndexDirectory(tmp_path / name).rollback()
    assert listing(tmp_path) == before


def test_what_is_no_index_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for name in ("none", "file", "folder", "file/below"):
        for ask in (Recommender.open, verify, lambda path: IndexDirectory(path).current()):
            with pytest.raises(NotFoundError, match="index"):
                ask(tmp_path / name)


# --- the lock -------------------------------------------------------------------------------------------------------


def test_a_second_builder_is_refused_while_the_first_writes(tmp_path: Path, build: Build) -> None:
    build(tmp_path, "One")
    with IndexDirectory(tmp_path).writing():
        before = listing(tmp_path)
        with pytest.raises(UsageError, match="another process"):
            build(tmp_path, "Two")
        with pytest.raises(UsageError, match="another process"):
            IndexDirectory(tmp_path).rollback()
        assert word_of(tmp_path) == "One", "reading takes no lock"
        assert listing(tmp_path) == before
    build(tmp_path, "Two")
    assert word_of(tmp_path) == "Two"


@pytest.mark.slow
def test_another_process_is_refused_too(tmp_path: Path, build: Build, folders: dict[str, Any]) -> None:
    build(tmp_path / "index", "One")
    (tmp_path / "c.yaml").write_text(f"dataset: {folders['Two'].root}\noutput: {tmp_path / 'index'}\n")
    with IndexDirectory(tmp_path / "index").writing():
        done = run_python("-m", "semrec_faiss", "build", tmp_path / "c.yaml")
    assert done.returncode == 2
    assert "another process is writing" in done.stderr
    assert "Traceback" not in done.stderr
    assert word_of(tmp_path / "index") == "One"


def test_an_index_under_a_file_is_a_mistake_in_the_arguments(tmp_path: Path, build: Build) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageError, match="cannot be made: it lies under a file"):
        build(tmp_path / "file" / "index", "One")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_failed_build_gives_the_lock_back(tmp_path: Path, build: Build, folders: dict[str, Any]) -> None:
    build(tmp_path, "One")
    values = {"dataset": str(folders["Two"].root), "output": str(tmp_path), "index": {"factory": "nonsense"}}
    with pytest.raises(SemrecError):
        build_index(config_from_dict(values))
    assert names(tmp_path) == ["CURRENT", "gen-000001"]
    build(tmp_path, "Two")
    assert word_of(tmp_path) == "Two"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
def test_an_interrupted_build_leaves_the_old_index_and_no_remains(
    tmp_path: Path, folders: dict[str, Any], build: Build, interruption: type[BaseException]
) -> None:
    build(tmp_path, "One")
    values = {"dataset": str(folders["Two"].root), "output": str(tmp_path)}

    def stop(what: str, done: int, total: int, /) -> None:
        if what in ("adding vectors", "publishing"):
            raise interruption

    with pytest.raises(interruption):
        build_index(config_from_dict(values), stop)
    assert names(tmp_path) == ["CURRENT", "gen-000001"]
    assert word_of(tmp_path) == "One"


def test_remains_of_killed_builds_are_removed_by_the_next(tmp_path: Path, build: Build) -> None:
    build(tmp_path, "One")
    for remains in (".building-abc", ".building-xyz", "gen-000002", "gen-000017"):
        (tmp_path / remains).mkdir()
        (tmp_path / remains / "index.faiss").write_bytes(b"half")
    (tmp_path / "CURRENT.new").write_bytes(b"gen-0000")
    assert word_of(tmp_path) == "One"
    generation = build(tmp_path, "Two")
    assert names(tmp_path) == sorted(["CURRENT", "gen-000001", generation.name])
    assert generation.name == "gen-000018"
    assert word_of(tmp_path) == "Two"
    IndexDirectory(tmp_path).rollback()
    assert word_of(tmp_path) == "One"


@pytest.mark.parametrize("damage", ["CURRENT", "gen-000001/MANIFEST.json", "gen-000001/index.faiss"])
def test_a_damaged_index_is_built_anew_in_its_place(tmp_path: Path, build: Build, damage: str) -> None:
    build(tmp_path, "One")
    (tmp_path / damage).write_bytes(b"?")
    build(tmp_path, "Two")
    assert verify(tmp_path).name == "gen-000002"
    assert word_of(tmp_path) == "Two"
    with pytest.raises(SemrecError):
        IndexDirectory(tmp_path).rollback()
    assert word_of(tmp_path) == "Two"


# --- what is not ours -----------------------------------------------------------------------------------------------


def _a_file(path: Path) -> None:
    path.write_text("a thesis")


def _a_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")


def _a_folder_of_gen(path: Path) -> None:
    (path / "gen-art").mkdir(parents=True)
    (path / "gen-art" / "picture.svg").write_text("<svg/>")
    (path / "README").write_text("mine")


def _a_database(path: Path) -> None:  # LevelDB and RocksDB have a file CURRENT too
    path.mkdir()
    (path / "CURRENT").write_text("MANIFEST-000004\n")
    (path / "MANIFEST-000004").write_bytes(b"\0\1")
    (path / "000005.ldb").write_bytes(b"data")


def _a_python_project(path: Path) -> None:  # uv, poetry and others leave such a file
    path.mkdir()
    (path / ".lock").write_text("")
    (path / "main.py").write_text("print()")


@pytest.mark.parametrize("make", [_a_file, _a_folder, _a_folder_of_gen, _a_database, _a_python_project])
def test_what_is_not_an_index_is_never_written_over(tmp_path: Path, build: Build, make: Callable[[Path], None]) -> None:
    # Once a fault: any folder with CURRENT, .lock or gen-ANYTHING inside passed for an index, and every
    # gen-ANYTHING was deleted.
    make(tmp_path / "out")
    before = listing(tmp_path)
    content = (tmp_path / "out").read_bytes() if (tmp_path / "out").is_file() else None
    with pytest.raises(UsageError, match="out"):
        build(tmp_path / "out", "One")
    assert listing(tmp_path) == before
    if content is not None:
        assert (tmp_path / "out").read_bytes() == content


def test_a_folder_of_ones_own_beside_the_generations_survives_builds(tmp_path: Path, build: Build) -> None:
    # Once a fault: everything named gen-* was taken for a generation and deleted.
    build(tmp_path, "One")
    for name in ("gen-notes", "notes", "gen-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kept.txt").write_text("mine")
    for word in ("Two", "Three"):
        build(tmp_path, word)
    for name in ("gen-notes", "notes", "gen-1"):
        assert (tmp_path / name / "kept.txt").read_text() == "mine"
    assert word_of(tmp_path) == "Three"


def test_an_empty_folder_may_become_an_index(tmp_path: Path, build: Build) -> None:
    (tmp_path / "empty").mkdir()
    build(tmp_path / "empty", "One")
    assert word_of(tmp_path / "empty") == "One"


def test_an_index_may_be_a_link_to_a_folder(tmp_path: Path, build: Build) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    build(tmp_path / "link", "One")
    build(tmp_path / "link", "Two")
    assert (tmp_path / "link").is_symlink()
    assert word_of(tmp_path / "real") == "Two"


# --- verify ---------------------------------------------------------------------------------------------------------


def test_verify_says_which_generation_is_whole(tmp_path: Path, build: Build) -> None:
    build(tmp_path, "One")
    build(tmp_path, "Two", "ivf_flat")
    generation = verify(tmp_path)
    assert generation.name == "gen-000002"
    assert generation.manifest.count == 60


def test_verify_replays_known_answers(tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FAISS that computes wrongly is found although every digest is right."""
    build(tmp_path, "One")
    from semrec_faiss.index.vector_index import VectorIndex

    real = VectorIndex.faiss_search

    def wrong(self: VectorIndex, *arguments: Any, **options: Any) -> Any:
        scores, rows = real(self, *arguments, **options)
        return scores * 0.999, rows

    monkeypatch.setattr(VectorIndex, "faiss_search", wrong)
    with pytest.raises(DamagedIndexError, match="known answer 1"):
        verify(tmp_path)

    def other_titles(self: VectorIndex, *arguments: Any, **options: Any) -> Any:
        scores, rows = real(self, *arguments, **options)
        return scores, (rows + 1) % 60

    monkeypatch.setattr(VectorIndex, "faiss_search", other_titles)
    with pytest.raises(DamagedIndexError, match="known answer 1"):
        verify(tmp_path)


def test_verify_counts_titles_and_loads_none(tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, "One")
    monkeypatch.setattr(Catalog, "__init__", lambda *_: pytest.fail("titles are loaded"))
    verify(tmp_path)
    monkeypatch.setattr(titles, "inspect_parquet", lambda _: (59, {}))
    with pytest.raises(DamagedIndexError, match=r"items\.parquet holds 59 titles, the manifest says 60"):
        verify(tmp_path)


def test_verify_hashes_again_what_was_hashed_before(tmp_path: Path, build: Build) -> None:
    build(tmp_path, "One")
    saved = SavedIndex(tmp_path)
    assert saved.catalog.count == 60
    path = tmp_path / "gen-000001" / "items.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(DamagedIndexError, match=r"items\.parquet"):
        saved.generation.check_all()
