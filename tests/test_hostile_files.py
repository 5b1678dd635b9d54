"""Pipes, endless files, numbers without end, bombs and folders that may not be read: refused at once, and named."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import HANG_SECONDS, run_python

from semrec_faiss.cli.printing import progress_bars
from semrec_faiss.config.reading import config_from_dict, load_config, read_source
from semrec_faiss.data.exchange.opening import open_ann_file
from semrec_faiss.data.folder.layout import open_vectors
from semrec_faiss.data.interactions.transformation_file import read_transformation
from semrec_faiss.data.movielens.download import open_movielens
from semrec_faiss.data.text.embed import embed_folder
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.users import read_user_ids
from semrec_faiss.errors import ConfigError, DamagedIndexError, DataError, StorageError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.verifying import verify
from semrec_faiss.measure.documents.results import read_results
from semrec_faiss.measure.trials.kind import kind_of
from semrec_faiss.measure.trials.ledger import Ledger, read_ledger
from semrec_faiss.measure.trials.plan_record import SWEEP_PLAN
from semrec_faiss.measure.trials.record import TRIAL_RECORD
from semrec_faiss.measure.trials.results import read_plan
from semrec_faiss.storage import read_small, sync_folder

Make = Callable[..., Any]


def python(program: str, *, seconds: float = HANG_SECONDS, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_python("-c", textwrap.dedent(program), seconds=seconds, **environment)


@pytest.fixture
def built(tmp_path: Path, make_folder: Make) -> Path:
    made = make_folder(tmp_path / "data", titles=40, users=5)
    build_index(config_from_dict({"dataset": str(made.root), "output": str(tmp_path / "index"), "device": "cpu"}))
    return tmp_path / "index"


@pytest.mark.parametrize("kind", ["pipe", "endless", "huge", "folder"])
def test_only_a_small_regular_file_is_read(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "endless":
        place.symlink_to("/dev/zero")
    elif kind == "folder":
        place.mkdir()
    else:
        with place.open("wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(OSError, match=r"not a regular file|larger than 1,048,576 bytes|[Dd]irectory"):
        read_small(place)


def test_a_small_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a" * 100)
    assert read_small(tmp_path / "file", 100) == b"a" * 100
    with pytest.raises(OSError, match="larger than 99 bytes"):
        read_small(tmp_path / "file", 99)


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST.json", "index.faiss", "items.parquet"])
@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_an_index_with_a_pipe_or_an_endless_file_is_damaged(built: Path, name: str, kind: str) -> None:
    place = built / name if name == "CURRENT" else built / "gen-000001" / name
    place.unlink()
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/zero")
    with pytest.raises(DamagedIndexError, match=name):
        verify(built)


def test_pipes_are_no_user_ids_and_no_config(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(DataError, match="not a regular file"):
        read_user_ids(tmp_path / "pipe.json")


@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_only_regular_files_are_read_of_what_earlier_runs_wrote(tmp_path: Path, kind: str) -> None:
    def put(place: Path) -> Path:
        place.parent.mkdir(exist_ok=True)
        if kind == "pipe":
            os.mkfifo(place)
        else:
            place.symlink_to("/dev/zero")
        return place

    with pytest.raises(StorageError, match=r"trials\.jsonl: it is not a regular file"):
        read_ledger(put(tmp_path / "trials.jsonl"), TRIAL_RECORD)
    with pytest.raises(StorageError, match=r"trials\.jsonl: it is not a regular file"), Ledger(tmp_path, TRIAL_RECORD):
        pass
    with pytest.raises(StorageError, match=r"plan\.json: it is not a regular file"):
        read_plan(put(tmp_path / "plan.json").parent, SWEEP_PLAN)
    assert kind_of(tmp_path) is None
    with pytest.raises(DataError, match=r"results\.json cannot be read as JSON: .* not a regular file"):
        read_results(put(tmp_path / "results.json"))
    about = put(tmp_path / "transformation.json")
    with pytest.raises(DataError, match=r"transformation\.json cannot be read: it is not a regular file"):
        read_transformation(about, tmp_path / "transformation.npz")
    media = tmp_path / "media"
    media.mkdir()
    (media / "metadata.jsonl").write_text('{"media_id": "a", "title": "Film"}\n')
    put(media / "content_vectors.json")
    with pytest.raises(DataError, match=r"content_vectors\.json: it is not a regular file"):
        embed_folder(tmp_path, model="made up", encoder=object())


def test_generation_names_of_thousands_of_digits_are_none(built: Path) -> None:
    (built / ("gen-" + "9" * 200)).mkdir()
    (built / "CURRENT").write_text(f"gen-{'9' * 5000}\nsha256:{'0' * 64}\n")
    with pytest.raises(DamagedIndexError, match="does not name a generation"):
        SavedIndex(built)
    assert IndexDirectory(built)._generation_names() == ["gen-000001"]


def test_what_the_manifest_omits_is_refused(built: Path) -> None:
    (built / "gen-000001" / "more.parquet").touch()
    with pytest.raises(DamagedIndexError, match=r"more\.parquet is not named in the manifest"):
        verify(built)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join([f'*{before}'] * 10)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("text", [BOMB, MERGES])
def test_aliases_that_unfold_are_refused_soon(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    started = time.process_time()
    with pytest.raises(ConfigError, match="unfolds to more than 10000"):
        load_config(tmp_path / "c.yaml")
    with pytest.raises(UsageError, match="unfolds to more than 10000"):
        read_source(None, ["dataset={" + text.replace("\n", ", ").rstrip(", ") + "}"])
    assert time.process_time() - started < 60  # minutes and gigabytes when it is unfolded


@pytest.mark.parametrize("number", ["9" * 5000, "0x" + "f" * 5000, "0b" + "1" * 20_000, str(2**64)])
def test_numbers_without_end_are_refused(tmp_path: Path, number: str) -> None:
    (tmp_path / "c.yaml").write_text(f"device: {{temp_memory_mb: {number}}}\n")
    with pytest.raises(ConfigError):
        load_config(tmp_path / "c.yaml")
    with pytest.raises(UsageError):
        read_source(None, [f"device.temp_memory_mb={number}"])
    if len(number) > 6000:
        with pytest.raises(ConfigError, match="20,000 bits; at most 64"):
            config_from_dict({"device": {"temp_memory_mb": int(number, 0)}})


def test_a_factory_of_thousands_of_parts_and_a_path_with_nul_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 200 characters"):
        config_from_dict({"index": {"factory": "RR16," * 5000 + "Flat"}})
    with pytest.raises(ConfigError, match="NUL character"):
        config_from_dict({"dataset": "data\0demo"})


@pytest.mark.parametrize("shape", ["(True, 4)", "(-1, 4)", f"({'9' * 4000}, {'9' * 4000})", f"({'9' * 5000}, 4)"])
def test_npy_headers_that_no_array_has_are_refused(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    (tmp_path / "v.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16))
    with pytest.raises(DataError, match="header is damaged"):
        open_vectors(tmp_path / "v.npy")


def test_bits_of_bfloat16_are_told_from_numbers(tmp_path: Path) -> None:
    vectors = np.array([[1.0, -2.5], [0.5, 3.0]], dtype=np.float32)
    bits = (vectors.view(np.uint32) >> 16).astype(np.uint16)
    np.save(tmp_path / "v.npy", bits)
    with pytest.raises(DataError, match="dtype uint16") as told:
        open_vectors(tmp_path / "v.npy")
    assert "(vectors.astype('uint32') << 16).view('float32')" in str(told.value.fix)
    assert ((bits.astype("uint32") << 16).view("float32") == vectors).all()


@pytest.mark.parametrize(("levels", "fits"), [(99, True), (900, False)])
def test_metadata_that_could_not_be_read_again_is_refused(tmp_path: Path, levels: int, fits: bool) -> None:
    path = tmp_path / "metadata.jsonl"
    nested = "[" * levels + "1" + "]" * levels
    path.write_text('{"media_id": "a", "title": "A", "deep": ' + nested + "}\n")
    if not fits:
        with pytest.raises(DataError, match=":1: nested deeper than 100 levels"):
            Catalog.read(path)
        return
    assert Catalog.read(path).records([0])[0]["deep"] == json.loads(nested)


KINDS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


def written_zip(path: Path, ratings: bytes, kind: int) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("ml/movies.csv", "movieId,title,genres\n1,Heat (1995),Drama\n")
        archive.writestr("ml/ratings.csv", ratings)
    return path


@pytest.mark.slow
def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = written_zip(tmp_path / "ml.zip", bytes(200_000_000), zipfile.ZIP_DEFLATED)
    (tmp_path / "scratch").mkdir()
    with pytest.raises(DataError, match="would unpack from"):
        open_movielens(path, tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_members_of_every_compression_are_data_errors(tmp_path: Path, kind: int) -> None:
    rows = "".join(f"{row},1,4.0,{1_136_073_600 + row * 7919}\n" for row in range(3000))
    ratings = f"userId,movieId,rating,timestamp\n{rows}".encode()
    whole, refused = written_zip(tmp_path / "whole.zip", ratings, kind).read_bytes(), 0
    (tmp_path / "scratch").mkdir()
    open_movielens(tmp_path / "whole.zip", tmp_path / "scratch")
    with zipfile.ZipFile(tmp_path / "whole.zip") as archive:
        start = archive.getinfo("ml/ratings.csv").header_offset + 45
    for place in range(start, len(whole) - 300, max(1, (len(whole) - start) // 25)):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        (tmp_path / "broken.zip").write_bytes(broken)
        try:
            found = open_movielens(tmp_path / "broken.zip", tmp_path / "scratch")
        except DataError:
            refused += 1
        else:  # a byte that says nothing, such as one behind the end of the stream
            assert found.ratings.path.read_bytes() == ratings
    assert refused > 15


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_flushes_no_folders_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    sync_folder(tmp_path)
    code = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        sync_folder(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to a user who may not read")
@pytest.mark.slow
def test_folders_that_may_not_be_read_are_named_as_that(built: Path, tmp_path: Path) -> None:
    def ended(*arguments: str) -> tuple[int, str]:
        found = python(f"""
            import os, sys
            from semrec_faiss.cli import main
            from semrec_faiss.cli.process import exit
            from semrec_faiss.cli.data import dataset
            from semrec_faiss.cli.index import generations
            from semrec_faiss.index.saved import saved_index as saved
            from semrec_faiss.data import check
            import yaml, duckdb, faiss, filelock
            os.setgroups([]); os.setuid(65534)
            sys.argv = ["semrec", *{list(arguments)!r}]
            main.run()
        """)
        return found.returncode, found.stderr

    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    current = built / "CURRENT"
    current.chmod(0)
    code, told = ended("info", str(built))
    assert (code, "ermission" in told, "damaged" in told) == (StorageError.exit_code, True, False), told
    built.chmod(0)
    code, told = ended("info", str(built))
    assert (code, "ermission" in told, "mistake in semrec" in told) == (StorageError.exit_code, True, False), told
    (tmp_path / "data" / "media").chmod(0)
    code, told = ended("dataset", "check", str(tmp_path / "data"))
    assert code in (DataError.exit_code, StorageError.exit_code), told
    assert "ermission" in told, told
    assert "mistake in semrec" not in told


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "cp437", "utf-8", "utf-16"])
def test_every_encoding_prints_and_its_json_is_json(built: Path, encoding: str) -> None:
    for arguments in (["doctor"], ["similar", str(built), "m00003", "--json"]):
        found = subprocess.run(
            [sys.executable, "-m", "semrec_faiss", *arguments],
            capture_output=True,
            timeout=HANG_SECONDS,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        text = found.stdout.decode("utf-8" if encoding == "ascii" else encoding)  # click takes ASCII for UTF-8
        assert b"Traceback" not in found.stderr
        assert found.returncode == 0, found.stderr
        if "--json" in arguments:
            assert json.loads(text)["results"][0]["note"].startswith("„Film“ №")
        else:
            assert text.split()[0] in ("✓", "+")


def test_vectors_whose_scores_overflow_are_refused(tmp_path: Path, make_folder: Make) -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    made = make_folder(tmp_path / "data", vectors=vectors * np.float32(1e18))
    values = {"dataset": str(made.root), "output": str(tmp_path / "index"), "device": "cpu"}
    build_index(config_from_dict({**values, "index": {"type": "flat", "normalize": False}}))
    vectors[17] *= 1e3
    np.save(made.root / "media" / "content_vectors.npy", vectors * np.float32(1e18))
    with pytest.raises(DataError, match=r"\[17\] has length .*scores overflow float32"):
        build_index(config_from_dict({**values, "index": {"type": "flat", "normalize": False}}))
    build_index(config_from_dict(values))


@pytest.mark.parametrize("kind", ["flat", "ivf_flat", "hnsw"])
def test_vectors_whose_scores_vanish_are_refused(tmp_path: Path, make_folder: Make, kind: str) -> None:
    """Once a fault: titles of a graph built of products that are all zero were not found."""
    vectors = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32) * np.float32(1e-25)
    made = make_folder(tmp_path / "data", vectors=vectors)
    values = {"dataset": str(made.root), "output": str(tmp_path / "index"), "device": "cpu"}
    with pytest.raises(DataError, match=r"longest vector has length \d\.\d+e-25; below 1e-18, scores vanish"):
        build_index(config_from_dict({**values, "index": {"type": kind, "normalize": False}}))
    vectors[17] *= 1e20  # one that others can be told from
    np.save(made.root / "media" / "content_vectors.npy", vectors)
    build_index(config_from_dict({**values, "index": {"type": kind, "normalize": False}}))


def test_redirected_work_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 10.0, 29.9, 30.0, 59.0, 61.0])
    monkeypatch.setattr("semrec_faiss.cli.printing.time", SimpleNamespace(monotonic=lambda: next(now, 61.0)))
    with progress_bars() as progress:
        for done in (1, 2, 3, 4):
            progress("embedding", done * 1000, 5000)
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "embedding: 3,000 of 5,000\n")


@pytest.mark.parametrize("kind", ["external", "soft loop", "virtual", "raw", "nothing"])
def test_hdf5_that_points_elsewhere_is_refused(tmp_path: Path, kind: str) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.hdf5", "w") as other:
        other["train"] = np.ones((3, 2), np.float32)
    (tmp_path / "raw").write_bytes(bytes(24))
    with h5py.File(tmp_path / "made.hdf5", "w") as file:
        if kind == "external":
            file["train"] = h5py.ExternalLink(str(tmp_path / "other.hdf5"), "train")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((3, 2), np.float32)
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.hdf5"), "train", (3, 2))
            file.create_virtual_dataset("train", layout)
        elif kind == "raw":
            file.create_dataset("train", (3, 2), np.float32, external=[(str(tmp_path / "raw"), 0, 24)])
        else:
            file["train"] = h5py.SoftLink("/train" if kind == "soft loop" else "/nothing")
    with pytest.raises(DataError), open_ann_file(tmp_path / "made.hdf5"):
        pass
