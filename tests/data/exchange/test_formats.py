"""Files of the forms that benchmarks exchange, written by h5py and numpy by hand: read, written, and refused."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_python

from semrec_faiss.data.check import check_data_folder
from semrec_faiss.data.exchange.formats import BinRows, read_bin, write_bins
from semrec_faiss.data.exchange.importing import write_data_folder
from semrec_faiss.data.exchange.opening import open_ann_file
from semrec_faiss.errors import DataError, NotFoundError, SemrecError, UsageError
from semrec_faiss.measure.quality.export_with_truth import agreement_with, export_folder

h5py = pytest.importorskip("h5py")


def write_hdf5(path: Path, distance: str | bytes | None = "angular", **parts: np.ndarray) -> Path:
    """Write a file as ann-benchmarks does."""
    with h5py.File(path, "w") as file:
        if distance is not None:
            file.attrs["distance"] = distance
        for name, values in parts.items():
            file.create_dataset(name, data=values)
    return path


@pytest.fixture
def parts(clusters: Callable[..., Any], truth: Callable[..., Any]) -> dict[str, np.ndarray]:
    train, test = clusters(300, 8) * np.float32(3), clusters(20, 8, seed=1)
    scores, rows = truth(train / 3, test, 10)
    return {"train": train, "test": test, "neighbors": rows.astype(np.int32), "distances": 1 - scores}


def do_import(path: Path, out: Path, **beside: Path) -> tuple[Any, float | None]:
    with open_ann_file(path, **beside) as found:
        imported = write_data_folder(found, out, name=str(path))
        near = found.neighbors
        agreement = None if near is None else agreement_with(out, near, normalize=imported.normalize)
    return imported, agreement


@pytest.mark.parametrize("distance", ["angular", b"angular", None])
def test_hdf5_of_ann_benchmarks_becomes_a_data_folder(
    tmp_path: Path, parts: dict[str, np.ndarray], distance: str | bytes | None
) -> None:
    path = write_hdf5(tmp_path / "glove.hdf5", distance, **parts)
    imported, agreement = do_import(path, tmp_path / "out")
    assert (imported.titles, imported.users, imported.dim, imported.normalize) == (300, 20, 8, True)
    assert agreement == 1.0
    assert np.array_equal(np.load(tmp_path / "out/media/content_vectors.npy"), parts["train"])
    assert np.array_equal(np.load(tmp_path / "out/users/preference_vectors.npy"), parts["test"])
    lines = (tmp_path / "out/media/metadata.jsonl").read_text().splitlines()
    assert json.loads(lines[299]) == {"media_id": "row_299", "title": "Vector 299"}
    report = check_data_folder(tmp_path / "out")
    assert report.users is not None
    assert report.users.vectors.count == 20


def test_neighbours_that_are_wrong_are_told(tmp_path: Path, parts: dict[str, np.ndarray]) -> None:
    parts["neighbors"][:, 5:] = parts["neighbors"][:, :1]  # the nearest over and over: it counts once
    _, agreement = do_import(write_hdf5(tmp_path / "a.h5", **parts), tmp_path / "out")
    assert agreement == 0.5


def test_inner_products_are_imported_without_normalising(tmp_path: Path, parts: dict[str, np.ndarray]) -> None:
    parts["train"] *= np.linspace(0.2, 4, 300, dtype=np.float32)[:, None]
    scores = parts["test"].astype(np.float64) @ parts["train"].T.astype(np.float64)
    parts["neighbors"] = np.argsort(-scores, axis=1)[:, :10]
    imported, agreement = do_import(write_hdf5(tmp_path / "a.hdf5", "ip", **parts), tmp_path / "out")
    assert (imported.normalize, agreement) == (False, 1.0)


def test_euclidean_only_of_unit_vectors(tmp_path: Path, parts: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match=r"vectors\[0\] has length 3"):
        do_import(write_hdf5(tmp_path / "a.hdf5", "euclidean", **parts), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    parts["train"] /= np.float32(3)
    _, agreement = do_import(write_hdf5(tmp_path / "b.hdf5", "euclidean", **parts), tmp_path / "out")
    assert agreement == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": np.zeros((3, 4), np.int64)}, "train is int64"),
        ({"train": np.zeros(12, np.float32)}, r"train is float32 \(12,\)"),
        ({"train": np.zeros((0, 8), np.float32)}, "at least one vector"),
        ({"test": np.ones((20, 9), np.float32)}, "9 dimensions, train has 8"),
        ({"neighbors": np.zeros((19, 10), np.int32)}, "neighbors is for 19 questions"),
        ({"distances": np.zeros((21, 10), np.float32)}, "distances is for 21 questions"),
        ({"neighbors": np.full((20, 10), 300, np.int32)}, "neighbors names rows 300 to 300"),
        ({"neighbors": np.full((20, 10), -1, np.int32)}, "neighbors names rows -1"),
        (
            {"train": np.full((300, 8), np.nan, np.float32)},
            "no search can use: 300: 0 holds NaN .* and 290 more",
        ),
        ({"train": np.zeros((300, 8), np.float32)}, "no search can use: 300: 0 is all zero, "),
    ],
)
def test_inconsistent_hdf5_is_refused(
    tmp_path: Path, parts: dict[str, np.ndarray], change: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        do_import(write_hdf5(tmp_path / "a.hdf5", **(parts | change)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "test", "neighbors", "distances"])
@pytest.mark.parametrize(
    ("put", "message"),
    [
        (lambda file, name: file.create_dataset(name, data=h5py.Empty("f4")), "is empty: it has a type and no shape"),
        (lambda file, name: file.create_group(name), "is a group"),
        (lambda file, name: file.__setitem__(name, h5py.SoftLink("/nowhere")), "is not there: the file only links"),
    ],
)
def test_hdf5_whose_datasets_hold_nothing_is_refused(
    tmp_path: Path, parts: dict[str, np.ndarray], name: str, put: Callable[[Any, str], None], message: str
) -> None:
    path = write_hdf5(tmp_path / "a.hdf5", **{other: values for other, values in parts.items() if other != name})
    with h5py.File(path, "a") as file:
        put(file, name)
    with pytest.raises(DataError, match=f"dataset {name} {message}"):
        do_import(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_neighbours_without_their_questions_are_refused(tmp_path: Path) -> None:
    base, near = BinRows(iter([np.eye(3)]), (3, 3), np.float32), BinRows(iter([np.zeros((1, 2))]), (1, 2), np.int32)
    write_bins(tmp_path, {"base.fbin": base, "near.ibin": near})
    with pytest.raises(UsageError, match=r"near\.ibin holds the neighbours of questions, but no questions") as caught:
        do_import(tmp_path / "base.fbin", tmp_path / "out", neighbors=tmp_path / "near.ibin")
    assert caught.value.fix == "give their .fbin with --queries, or leave out --neighbors"


def test_files_of_other_kinds_are_refused(tmp_path: Path, parts: dict[str, np.ndarray]) -> None:
    (tmp_path / "text.hdf5").write_text("no HDF5")
    refused: list[tuple[str, type[SemrecError], str]] = [
        ("text.hdf5", DataError, "cannot be read as HDF5"),
        ("nope.hdf5", NotFoundError, "there is no file"),
    ]
    for name, kind, message in refused:
        with pytest.raises(kind, match=message):
            do_import(tmp_path / name, tmp_path / "out")
    with pytest.raises(UsageError, match=r"neither \.hdf5 nor \.fbin"):
        (tmp_path / "a.npy").touch()
        do_import(tmp_path / "a.npy", tmp_path / "out")
    with pytest.raises(DataError, match="jaccard"):
        do_import(write_hdf5(tmp_path / "j.hdf5", "jaccard", **parts), tmp_path / "out")
    with pytest.raises(DataError, match="no dataset 'train'; it has test"):
        do_import(write_hdf5(tmp_path / "t.hdf5", test=parts["test"]), tmp_path / "out")
    with pytest.raises(UsageError, match="holds its questions"):
        do_import(write_hdf5(tmp_path / "a.hdf5", **parts), tmp_path / "out", queries=tmp_path / "a.hdf5")


def test_fbin_and_ibin_as_written_by_hand(tmp_path: Path, parts: dict[str, np.ndarray]) -> None:
    for name, values, dtype in (
        ("base.fbin", "train", "<f4"),
        ("q.fbin", "test", "<f4"),
        ("gt.ibin", "neighbors", "<i4"),
    ):
        header = np.array(parts[values].shape, "<u4").tobytes()
        (tmp_path / name).write_bytes(header + parts[values].astype(dtype).tobytes())
    imported, agreement = do_import(
        tmp_path / "base.fbin", tmp_path / "out", queries=tmp_path / "q.fbin", neighbors=tmp_path / "gt.ibin"
    )
    assert (imported.titles, imported.users, agreement) == (300, 20, 1.0)
    assert np.array_equal(np.load(tmp_path / "out/media/content_vectors.npy"), parts["train"])


TWO_BY_TWO = b"\x02\x00\x00\x00\x02\x00\x00\x00"


@pytest.mark.parametrize(
    "content",
    [b"", TWO_BY_TWO[:5], TWO_BY_TWO + bytes(15), TWO_BY_TWO + bytes(17), bytes(8), b"\xff" * 8],
)
def test_bin_whose_size_is_not_its_headers_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.fbin").write_bytes(content)
    with pytest.raises(DataError, match="header"):
        read_bin(tmp_path / "a.fbin", np.float32)


def test_bin_round_trip(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.int64).reshape(4, 3) - 5
    rows = BinRows(iter([values[:1], values[1:]]), (4, 3), np.int32)
    assert write_bins(tmp_path / "new", {"a.ibin": rows}) == [tmp_path / "new" / "a.ibin"]
    assert (tmp_path / "new" / "a.ibin").read_bytes()[:8] == b"\x04\x00\x00\x00\x03\x00\x00\x00"
    assert np.array_equal(read_bin(tmp_path / "new" / "a.ibin", np.int32), values)


def test_export_is_what_ann_benchmarks_reads(
    tmp_path: Path, make_folder: Callable[..., Any], truth: Callable[..., Any], unit: Callable[..., Any]
) -> None:
    made = make_folder(tmp_path / "data", titles=200, dim=8, users=30)
    exported = export_folder(made.root, tmp_path / "out.hdf5", queries=12, k=7)
    assert (exported.titles, exported.queries, exported.are_users, exported.k) == (200, 12, True, 7)
    with h5py.File(tmp_path / "out.hdf5", "r") as file:
        assert {name: str(file[name].dtype) for name in file} == {
            "train": "float32",
            "test": "float32",
            "neighbors": "int32",
            "distances": "float32",
        }
        assert (file.attrs["distance"], file.attrs["dimension"], file.attrs["type"]) == ("angular", 8, "dense")
        train, test = file["train"][:], file["test"][:]
        scores, rows = truth(made.unit, test, 7)
        assert np.array_equal(file["neighbors"][:], rows)
        np.testing.assert_allclose(file["distances"][:], 1 - scores, atol=1e-6)
    np.testing.assert_allclose(train, made.unit, atol=1e-6)
    users = unit(made.user_vectors)
    assert all(np.isclose(users, one, atol=1e-6).all(axis=1).any() for one in test), "the questions are users"
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_without_users_titles_are_asked_and_not_searched(
    tmp_path: Path, make_folder: Callable[..., Any], truth: Callable[..., Any]
) -> None:
    made = make_folder(tmp_path / "data", titles=100, dim=8)
    exported = export_folder(made.root, tmp_path / "bins", queries=10, k=5)
    assert (exported.titles, exported.queries, exported.are_users) == (90, 10, False)
    base = read_bin(tmp_path / "bins/base.fbin", np.float32)
    query = read_bin(tmp_path / "bins/query.fbin", np.float32)
    _, rows = truth(base, query, 5)
    assert np.array_equal(read_bin(tmp_path / "bins/neighbors.ibin", np.int32), rows)
    together = np.concatenate([base, query])
    np.testing.assert_allclose(np.sort(together.sum(axis=1)), np.sort(made.unit.sum(axis=1)), atol=1e-5)
    with pytest.raises(UsageError, match="at most half"):
        export_folder(made.root, tmp_path / "bins", queries=51)


def test_round_trip_through_hdf5(tmp_path: Path, make_folder: Callable[..., Any]) -> None:
    made = make_folder(tmp_path / "data", titles=150, dim=8, users=20)
    export_folder(made.root, tmp_path / "a.hdf5", k=10)
    imported, agreement = do_import(tmp_path / "a.hdf5", tmp_path / "back")
    assert (imported.titles, imported.users, agreement) == (150, 20, 1.0)
    np.testing.assert_allclose(np.load(tmp_path / "back/media/content_vectors.npy"), made.unit, atol=1e-6)


@pytest.mark.parametrize("name", ["films.csv", "films.JSON", "films.jsonl.gz", "films.feather", "films.npy"])
def test_an_ending_that_promises_another_format_is_refused(
    make_folder: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    made = make_folder(tmp_path / "data", titles=20, dim=4)
    with pytest.raises(UsageError, match="promises a format that is not written"):
        export_folder(made.root, tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_an_export_is_no_failure_where_folders_cannot_be_flushed(
    tmp_path: Path, make_folder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    real, refused = os.fsync, []

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            refused.append(descriptor)
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    made = make_folder(tmp_path / "data", titles=60, dim=8, users=5)
    export_folder(made.root, tmp_path / "a.hdf5", k=10)
    assert refused
    imported, agreement = do_import(tmp_path / "a.hdf5", tmp_path / "back")
    assert (imported.titles, imported.users, agreement) == (60, 5, 1.0)


def test_exports_to_places_that_cannot_be_written_to(tmp_path: Path, make_folder: Callable[..., Any]) -> None:
    made = make_folder(tmp_path / "data")
    (tmp_path / "plain").write_text("mine")
    (tmp_path / "folder.h5").mkdir()
    for name in ("circle", "circle.hdf5"):
        (tmp_path / name).symlink_to(tmp_path / name)
    refused: list[tuple[str, type[SemrecError], str]] = [
        ("plain", UsageError, "plain is a file"),
        ("plain/x", UsageError, r"plain/x cannot be made: .*plain is a file"),
        ("plain/x.hdf5", UsageError, r"x\.hdf5 cannot be made: .*plain is a file"),
        ("folder.h5", UsageError, r"folder\.h5 is a directory"),
        ("base.fbin", UsageError, r"base\.fbin ends as one file does"),
        ("circle", UsageError, "links lead in a circle"),
        ("circle.hdf5", UsageError, "links lead in a circle"),
    ]
    for name, kind, message in refused:
        with pytest.raises(kind, match=message):
            export_folder(made.root, tmp_path / name, queries=3, k=2)
    assert (tmp_path / "plain").read_text() == "mine"


@pytest.mark.parametrize("limit", [2_000, 10_000])
def test_a_full_disk_leaves_no_folder_nor_some_of_its_files(
    tmp_path: Path, make_folder: Callable[..., Any], limit: int
) -> None:
    """Its neighbours, 24 KB, are more than it takes; its base is 6 KB. Once that was left, or an empty folder."""
    made = make_folder(tmp_path / "data", titles=200, dim=8, users=30)
    program = f"""
import resource, sys
from pathlib import Path
from semrec_faiss.errors import StorageError
from semrec_faiss.measure.quality.export_with_truth import export_folder
sys.dont_write_bytecode = True  # or what is imported from here on is cut short for everybody
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    export_folder(Path(sys.argv[1]), Path(sys.argv[2]), queries=30, k=200)
except StorageError as error:
    print(error.message)
"""
    out = tmp_path / "out"
    ended = run_python("-c", program, made.root, out)
    assert (ended.stdout, ended.stderr) == (f"cannot write {out}: File too large\n", "")
    assert not out.exists()
    export_folder(made.root, out, queries=9, k=3)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    ended = run_python("-c", program, made.root, out)
    assert ended.stdout == f"cannot write {out}: File too large\n"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("limit", [2_000, 100_000, 256_000])
def test_a_full_disk_ends_hdf5_with_an_error_and_nothing_left(tmp_path: Path, limit: int) -> None:
    pytest.importorskip("h5py")
    program = f"""
import resource, sys
from pathlib import Path
import numpy as np
from semrec_faiss.data.exchange.formats import new_hdf5
from semrec_faiss.errors import StorageError
sys.dont_write_bytecode = True  # or what is imported from here on is cut short for everybody
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    with new_hdf5(Path(sys.argv[1])) as file:
        train = file.create_dataset("train", (1000, 64), "<f4")
        for first in range(0, 1000, 100):
            train[first : first + 100] = np.ones((100, 64))
        file.create_dataset("test", data=np.zeros((100, 64), np.float32))
except StorageError as error:
    print(error.message)
"""
    out = tmp_path / "vectors.hdf5"
    ended = run_python("-c", program, out)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"cannot write {out}: File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_unusable_vectors_of_all_blocks_are_named_at_once(
    tmp_path: Path, parts: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semrec_faiss.data.exchange.importing.BLOCK_BYTES", 8 * 4 * 10)  # ten vectors a block
    parts["train"][[3, 155]] = np.nan
    parts["train"][290] = 0
    told = "no search can use: 3: 3 holds NaN or infinity, 155 holds NaN or infinity, 290 is all zero\n"
    with pytest.raises(DataError, match=told):
        do_import(write_hdf5(tmp_path / "a.hdf5", **parts), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_hdf5_with_flipped_bits_is_read_or_refused(tmp_path: Path, parts: dict[str, np.ndarray]) -> None:
    """HDF5's library may end the process that reads such files; `flip_hdf5.py` tries any number of them."""
    program = Path(__file__).with_name("flip_hdf5.py")
    ended = run_python(program, tmp_path, 12)
    assert ended.returncode == 0, ended.stderr
    counts = json.loads(ended.stdout)
    assert sum(counts.values()) == 12
    assert counts["refused"] > 0


def test_a_library_that_ends_its_process_is_a_data_error(
    tmp_path: Path, parts: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_hdf5(tmp_path / "a.hdf5", **parts)
    with open_ann_file(path) as found:
        assert np.array_equal(found.train[7:9], parts["train"][7:9])
        found.train.reader._process.kill()
        with pytest.raises(DataError, match=r"a\.hdf5 cannot be read as HDF5: it ends the library that reads it"):
            found.train[0:10]
