"""An index as one file and back: the same bytes, and nothing in place where a bundle is damaged or hostile."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import make_data_folder

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import DamagedIndexError, NotFoundError, StorageError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.generations.bundle import bundle_index, unbundle_index
from semrec_faiss.index.saved.verifying import verify

Member = tuple[tarfile.TarInfo, bytes]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An index, and its bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    make_data_folder(folder / "data", titles=60, dim=8, users=5)
    build_index(config_from_dict({"dataset": str(folder / "data"), "output": str(folder / "index")}))
    bundle_index(folder / "index", folder / "b.tar.zst")
    return folder / "index", folder / "b.tar.zst"


def members_of(bundle: Path) -> list[Member]:
    with pa.CompressedInputStream(pa.OSFile(str(bundle)), "zstd") as stream:
        content = stream.read()
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar.getmembers()]


def write(members: list[Member], out: Path) -> Path:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for member, content in members:
            member.size = len(content) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(content))
    out.write_bytes(pa.compress(packed.getvalue(), "zstd", asbytes=True))
    return out


def test_a_bundle_comes_back_as_the_same_index(made: tuple[Path, Path], tmp_path: Path) -> None:
    index, bundle = made
    found = unbundle_index(bundle, tmp_path / "new" / "index")
    one, other = index / found.generation, tmp_path / "new" / "index" / found.generation
    assert {file.name: file.read_bytes() for file in one.iterdir()} == {
        file.name: file.read_bytes() for file in other.iterdir()
    }
    assert (index / "CURRENT").read_bytes() == (tmp_path / "new/index/CURRENT").read_bytes()
    assert verify(tmp_path / "new" / "index").manifest.count == 60
    with pytest.raises(UsageError, match="is an index, whose files are its own"):
        unbundle_index(bundle, tmp_path / "new" / "index")


def link(name: str, kind: bytes) -> Member:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member, b""


def renamed(name: str) -> Callable[[list[Member]], list[Member]]:
    def change(members: list[Member]) -> list[Member]:
        member, content = members[-1]
        member.name = name
        return [*members[:-1], (member, content)]

    return change


def flipped(members: list[Member]) -> list[Member]:
    member, content = members[-1]
    return [*members[:-1], (member, bytes([content[0] ^ 1]) + content[1:])]


def promising(change: Callable[[dict[str, object]], None]) -> Callable[[list[Member]], list[Member]]:
    def changed(members: list[Member]) -> list[Member]:
        said = json.loads(members[0][1])
        change(said)
        return [(members[0][0], json.dumps(said).encode()), *members[1:]]

    return changed


def huge(said: dict[str, object]) -> None:
    said["files"]["index.faiss"]["bytes"] = 1 << 60


def elsewhere(said: dict[str, object]) -> None:
    said["files"]["../evil"] = said["files"]["index.faiss"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (renamed("/tmp/evil"), "no plain name"),
        (renamed("../evil"), "no plain name"),
        (renamed("other.npy"), "which it does not name"),
        (lambda members: [*members, link("index.faiss", tarfile.SYMTYPE)], "a link"),
        (lambda members: [*members, link("x", tarfile.LNKTYPE)], "a link"),
        (lambda members: [*members, link("x", tarfile.DIRTYPE)], "a folder"),
        (lambda members: [*members, members[-1]], "or twice"),
        (lambda members: members[:-1], "ends before"),
        (lambda members: members[1:], "is no bundle"),
        (lambda members: [*members[:-1], (members[-1][0], members[-1][1] + b"x")], "bytes and then"),
        (flipped, "its SHA-256 differs"),
        (promising(lambda said: said.update(generation="../../x")), "is no bundle that this version"),
        (promising(lambda said: said.update(manifest_sha256="0" * 64)), "has changed since it was written"),
        (promising(elsewhere), "names '../evil'"),
    ],
)
def test_what_is_hostile_or_damaged_is_refused_and_leaves_nothing(
    made: tuple[Path, Path], tmp_path: Path, change: Callable[[list[Member]], list[Member]], says: str
) -> None:
    bundle = write(change(members_of(made[1])), tmp_path / "bad.tar.zst")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(DamagedIndexError, match=says):
        unbundle_index(bundle, tmp_path / "index")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_bundle_that_promises_more_than_the_disk_holds_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    bundle = write(promising(huge)(members_of(made[1])), tmp_path / "bomb.tar.zst")
    with pytest.raises(StorageError, match="the disk has"):
        unbundle_index(bundle, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_half_a_bundle_and_other_files_are_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    whole = made[1].read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"nothing of the kind", whole[:20] + b"\xff" * 100 + whole[120:]):
        (tmp_path / "b.tar.zst").write_bytes(content)
        with pytest.raises(DamagedIndexError, match="nothing was unpacked"):
            unbundle_index(tmp_path / "b.tar.zst", tmp_path / "index")
    with pytest.raises(NotFoundError):
        unbundle_index(tmp_path / "none.tar.zst", tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_damaged_index_makes_no_bundle(made: tuple[Path, Path], tmp_path: Path) -> None:
    unbundle_index(made[1], tmp_path / "index")
    file = next((tmp_path / "index").glob("gen-*/index.faiss"))
    file.write_bytes(file.read_bytes()[:-1] + b"\x00\x01"[1:])
    with pytest.raises(DamagedIndexError):
        bundle_index(tmp_path / "index", tmp_path / "b.tar.zst")
    assert not (tmp_path / "b.tar.zst").exists()
    with pytest.raises(UsageError, match=r"does not end in \.tar\.zst"):
        bundle_index(made[0], tmp_path / "b.zip")
