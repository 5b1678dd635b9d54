"""Damage to any file of an index ends in a damaged-index error or in the right answer, and `verify` finds all of it."""

from __future__ import annotations

import functools
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Semrec

from semrec_faiss import Recommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import DamagedIndexError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.saved.verifying import verify

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*few to train")]

KINDS: dict[str, dict[str, Any]] = {
    "flat": {"type": "flat"},
    "ivf_flat": {"type": "ivf_flat", "build": {"nlist": 6}, "search": {"nprobe": 2}},
    "ivf_pq": {"type": "ivf_pq", "build": {"nlist": 4}},
}
OF_ITS_TYPE = ("MANIFEST.json", "index.faiss", "vectors.npy")
"""The files that are read otherwise for another index type; the others are damaged with type flat alone."""

CASES_A_FILE = 22
"""Sixteen files of type flat, CURRENT included, and those of two other types: about 500 cases."""

Damage = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Index:
    """An index on disk, the generation in use, and what it answers."""

    path: Path
    generation: str
    answers: Any

    def files(self) -> list[Path]:
        """Every file that the generation in use stands on."""
        return [self.path / "CURRENT", *sorted((self.path / self.generation).iterdir())]

    def files_to_damage(self) -> list[Path]:
        """All files of type flat, and of the others those that are another type's."""
        return [file for file in self.files() if self.path.parent.name.startswith("flat") or file.name in OF_ITS_TYPE]


def ask(path: Path) -> Any:
    """Everything that an index can be asked, as JSON has it, times left out."""
    recommender = Recommender.open(path, ["device.kind=cpu"])
    answers = [
        recommender.similar("Film 7 (1957)", 5).as_dict(),
        recommender.similar("m00123", 3, where="year > 0").as_dict(),
        *recommender.recommend(["user_002", "user_004"], 4).as_dict()["answers"],
    ]
    for answer in answers:
        del answer["elapsed_ms"]
    answers += recommender.recommend(["user_001", "user_003"], 3).to_arrow().to_pylist()
    seen = [part.tolist() for part in recommender.users.seen]
    manifest = recommender.saved.generation.manifest
    return answers, seen, recommender.users.ids, (manifest.count, manifest.dim, manifest.users, manifest.generation)


@pytest.fixture(scope="module", params=KINDS)
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_folder: Any) -> Index:
    """An index of each type in its second generation, with users and what they have seen."""
    root = tmp_path_factory.mktemp(request.param)
    path = root / "index"
    for seed in (1, 0):
        made = make_folder(root / f"data{seed}", titles=280, dim=12, users=6, seed=seed)
        values = {"dataset": str(made.root), "output": str(path), "index": KINDS[request.param]}
        generation = build_index(config_from_dict(values))
    return Index(path, generation.name, ask(path))


def _flip(bit: int, data: bytes, *, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1 << bit
    return bytes(changed)


def _replace(data: bytes, *, at: int, by: int) -> bytes:
    changed = bytearray(data)
    changed[at] = by if changed[at] != by else by ^ 0xFF
    return bytes(changed)


def _cut(data: bytes, *, at: int) -> bytes:
    return data[:at]


def _cut_start(data: bytes, *, at: int) -> bytes:
    return data[at:]


def _zero(data: bytes, *, at: int) -> bytes:
    end = min(len(data), at + 64)
    zeroed = data[:at] + bytes(end - at) + data[end:]
    return zeroed if zeroed != data else _flip(3, data, at=at)


def _swap(data: bytes, *, at: int) -> bytes:
    """Exchange the part before ``at`` and the part after it: the same size and the same bytes."""
    swapped = data[at:] + data[:at]
    return swapped if swapped != data else _flip(0, data, at=at)


def damages(size: int, rng: random.Random) -> Iterator[tuple[str, Damage]]:
    """Ways to spoil a file of ``size`` bytes, none of which leaves it as it was."""
    yield "emptied", lambda data: b""
    yield "one byte more", lambda data: data + b"\0"
    yield "a line more", lambda data: data + b"\n"
    yield "twice", lambda data: data * 2
    yield "cut by one", lambda data: data[:-1]
    yield "first bit", functools.partial(_flip, 0, at=0)
    yield "last bit", functools.partial(_flip, 0, at=size - 1)
    for number in range(CASES_A_FILE - 7):
        at = rng.randrange(1, size)
        if number % 5 == 0:
            yield f"cut at {at}", functools.partial(_cut, at=at)
        elif number % 5 == 1:
            yield f"byte {at} replaced", functools.partial(_replace, at=at, by=rng.randrange(256))
        elif number % 10 == 2:
            yield f"cut off before {at}", functools.partial(_cut_start, at=at)
        elif number % 10 == 7:
            yield f"zeroed from {at}", functools.partial(_zero, at=at)
        elif number % 10 == 8:
            yield f"halves swapped at {at}", functools.partial(_swap, at=at)
        else:
            bit = rng.randrange(8)
            yield f"bit {bit} of byte {at}", functools.partial(_flip, bit, at=at)


def outcome_of(index: Index) -> str:
    """Ask a damaged index: ``damaged`` or ``right``; anything else fails the test."""
    try:
        answers = ask(index.path)
    except DamagedIndexError as error:
        assert error.exit_code == 5
        assert error.message
        return "damaged"
    assert answers == index.answers, "a wrong answer"
    return "right"


def check(index: Index, file: Path, label: str) -> None:
    """Hold one damage against what is promised."""
    try:
        outcome = outcome_of(index)
        with pytest.raises(DamagedIndexError):
            verify(index.path)
    except Exception as error:
        raise AssertionError(f"{file.name}, {label}: {type(error).__name__}: {error}") from error
    # Records have a sum a line, and only those that are asked for are read.
    if file.suffix in (".jsonl", ".index"):
        return
    # The manifest's digest stands in CURRENT too; the second copy is for rollback, and only `verify` reads it.
    expected = "right" if file.name == "MANIFEST.sha256" else "damaged"
    assert outcome == expected, f"{file.name}, {label}: every file was read, so every damage must be found"


def test_the_index_is_as_it_should_be_before_it_is_damaged(index: Index) -> None:
    assert verify(index.path).name == index.generation == "gen-000002"
    assert ask(index.path) == index.answers
    assert index.answers[0][0]["returned"] == 5
    names = [path.name for path in index.files()]
    expected = [
        "CURRENT",
        "MANIFEST.json",
        "MANIFEST.sha256",
        "columns.arrow",
        "fields.json",
        "index.faiss",
        "items.parquet",
        "records.index",
        "records.jsonl",
        "records.lookup",
        "seen.parquet",
        "user_ids.index",
        "user_ids.jsonl",
        "user_ids.lookup",
        "users.npy",
        "users.parquet",
    ]
    assert [name for name in names if name != "vectors.npy"] == expected
    assert ("vectors.npy" in names) == (index.path.parent.name.startswith("ivf_pq"))


def test_every_damage_to_every_file_is_found(index: Index) -> None:
    rng = random.Random(f"{index.path.parent.name[:6]}")
    count = 0
    for file in index.files_to_damage():
        whole = file.read_bytes()
        try:
            for label, damage in damages(len(whole), rng):
                spoilt = damage(whole)
                assert spoilt != whole
                file.write_bytes(spoilt)
                check(index, file, label)
                count += 1
        finally:
            file.write_bytes(whole)
    assert count == CASES_A_FILE * len(index.files_to_damage()) > 0
    assert ask(index.path) == index.answers


@pytest.mark.parametrize("index", ["flat"], indirect=True)
def test_every_byte_of_current_counts(index: Index) -> None:
    file = index.path / "CURRENT"
    whole = file.read_bytes()
    try:
        for at in range(len(whole)):
            for bit in (0, 5):
                file.write_bytes(_flip(bit, whole, at=at))
                assert outcome_of(index) == "damaged", f"bit {bit} of byte {at}"
        for text in ("gen-000001", "gen-000002", "gen-000002\n", "../index/gen-000002", "\n", "gen-000002\nsha256:\n"):
            file.write_text(text)
            assert outcome_of(index) == "damaged", text
        file.write_bytes(whole.replace(b"gen-000002", b"gen-000001"))  # with the digest of the other
        assert outcome_of(index) == "damaged"
    finally:
        file.write_bytes(whole)


def test_every_missing_file_is_found(index: Index) -> None:
    for file in index.files_to_damage():
        aside = file.with_name(f"{file.name}.aside")
        file.rename(aside)
        try:
            check(index, file, "deleted")
            file.mkdir()
            check(index, file, "a folder in its place")
            file.rmdir()
            file.symlink_to("nowhere")
            check(index, file, "a link to nowhere")
            file.unlink()
            if file.name != "MANIFEST.json":
                other = index.path / "gen-000001" / file.name
                if other.is_file() and other.read_bytes() != aside.read_bytes():
                    shutil.copy(other, file)
                    check(index, file, "that of the other generation")
                    file.unlink()
        finally:
            aside.rename(file)


@pytest.mark.parametrize("index", ["flat"], indirect=True)
def test_a_missing_generation_is_found(index: Index) -> None:
    folder = index.path / index.generation
    aside = folder.with_name("aside")
    folder.rename(aside)
    try:
        check(index, folder, "deleted")
    finally:
        aside.rename(folder)


@pytest.mark.parametrize("index", ["flat"], indirect=True)
def test_another_manifest_with_its_own_digests_is_found(index: Index) -> None:
    """Whoever changes a file and its entry in the manifest is found out by CURRENT."""
    manifest = index.path / index.generation / "MANIFEST.json"
    whole = manifest.read_bytes()
    document = json.loads(whole)
    try:
        for change in (
            {"count": 279},
            {"users": 0},
            {"files": {}},
            {"known_answers": []},
            {"format": 2},
            {"previous": None},
        ):
            manifest.write_text(json.dumps(document | change))
            check(index, manifest, str(change))
    finally:
        manifest.write_bytes(whole)


@pytest.mark.parametrize("index", ["flat"], indirect=True)
def test_damage_to_the_previous_generation_does_not_matter(index: Index) -> None:
    for file in sorted((index.path / "gen-000001").iterdir()):
        whole = file.read_bytes()
        try:
            file.write_bytes(whole[:-3])
            assert outcome_of(index) == "right"
            verify(index.path)
        finally:
            file.write_bytes(whole)


@pytest.mark.parametrize("index", ["ivf_pq"], indirect=True)
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("CURRENT", ["info"]),
        ("MANIFEST.json", ["info", "--json"]),
        ("index.faiss", ["similar", "m00007"]),
        ("items.parquet", ["similar", "Film 7", "--json", "--year", "1950.."]),
        ("records.lookup", ["similar", "Film 7"]),
        ("records.jsonl", ["verify"]),
        ("records.jsonl", ["similar", "m00007", "-k", "279", "--json"]),
        ("users.npy", ["recommend", "--user", "user_001"]),
        ("user_ids.lookup", ["recommend", "--user", "user_001", "--json"]),
        ("users.parquet", ["verify"]),
        ("seen.parquet", ["verify"]),
        ("vectors.npy", ["verify", "--json"]),
    ],
)
def test_the_command_line_ends_with_exit_code_5_and_no_traceback(
    name: str, command: list[str], index: Index, semrec: Semrec
) -> None:
    file = next(path for path in index.files() if path.name == name)
    whole = file.read_bytes()
    try:
        file.write_bytes(_flip(2, whole, at=len(whole) // 2))
        ended = semrec(command[0], index.path, *command[1:])
    finally:
        file.write_bytes(whole)
    assert ended.code == 5, ended.err
    told = json.loads(ended.out) if "--json" in command else {}
    assert told or ended.out == "", "of what is damaged nothing is printed"
    assert not told or list(told) == ["exit_code", "detail", "fix"]
    assert f"{index.generation}/{name}" in ended.err or "CURRENT" in ended.err
    assert "fix: " in ended.err
