"""The ledger: appended records come back, a torn last line is cut off, damage is told, one writer at a time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import made_records
import pytest

from semrec_faiss.errors import DataError, NotFoundError, StorageError, UsageError
from semrec_faiss.measure.trials import ledger as ledger_module
from semrec_faiss.measure.trials.ledger import LEDGER, Ledger
from semrec_faiss.measure.trials.record import TRIAL_RECORD, Failed, Measured


def record(k: int, **more: Any) -> Failed:
    """The record of a trial that failed, told from others by its k."""
    return Failed.model_validate(made_records.failed("flat", "x", k=k).as_json() | more)


A, B, C = (record(k).digest for k in (1, 2, 3))


def read_ledger(path: Path) -> dict[str, Measured | Failed]:
    return ledger_module.read_ledger(path, TRIAL_RECORD)


def ledger_in(folder: Path) -> Ledger[Measured | Failed]:
    return Ledger(folder, TRIAL_RECORD)


def line_of(k: int) -> bytes:
    return json.dumps(record(k).as_json()).encode() + b"\n"


def lines(folder: Path) -> list[bytes]:
    return (folder / LEDGER).read_bytes().splitlines(keepends=True)


def test_records_come_back_in_order_the_latest_of_each(tmp_path: Path) -> None:
    with ledger_in(tmp_path / "new") as ledger:
        for k, value in ((2, 1), (1, 2), (2, 3)):
            ledger.append(record(k, value=value, title="Amélie"))
        assert ledger.records[B].value == 3
    assert len(lines(tmp_path / "new")) == 3, "nothing is ever overwritten"
    found = read_ledger(tmp_path / "new" / LEDGER)
    assert list(found) == [B, A]
    assert found[B] == record(2, value=3, title="Amélie")


@pytest.mark.parametrize("keep", range(0, 40, 3))
def test_torn_last_line_is_no_record_and_is_cut_off_by_the_next_writer(tmp_path: Path, keep: int) -> None:
    with ledger_in(tmp_path) as ledger:
        ledger.append(record(1, value=1))
        ledger.append(record(2, value="x" * 20))
    first, second = lines(tmp_path)
    assert keep < len(second)
    (tmp_path / LEDGER).write_bytes(first + second[:keep])
    assert list(read_ledger(tmp_path / LEDGER)) == [A]
    with ledger_in(tmp_path) as ledger:
        assert list(ledger.records) == [A]
        ledger.append(record(3))
    assert [json.loads(line)["digest"] for line in lines(tmp_path)] == [A, C]


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"status": 1}', b'{"digest": 7}', b"\xff\xfe", b"", b"[" * 10**5])
def test_a_whole_line_that_is_no_record_is_damage(tmp_path: Path, line: bytes) -> None:
    (tmp_path / LEDGER).write_bytes(line_of(1) + line + b"\n" + line_of(2))
    with pytest.raises(DataError, match=rf"{LEDGER}:2 is not a record"):
        read_ledger(tmp_path / LEDGER)
    with pytest.raises(DataError, match=":2"), ledger_in(tmp_path):
        pass


def test_each_record_is_on_the_disk_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_size)
        real(descriptor)

    with ledger_in(tmp_path) as ledger:
        monkeypatch.setattr(os, "fsync", fsync)
        ledger.append(record(1))
        ledger.append(record(2))
    first, second = lines(tmp_path)
    assert flushed == [len(first), len(first) + len(second)]


def test_full_disk_takes_the_half_written_line_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ledger_in(tmp_path) as ledger:
        ledger.append(record(1))

        def full(_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(ledger_module, "flush_to_disk", full)
            with pytest.raises(StorageError, match="No space left"):
                ledger.append(record(2))
        assert B not in ledger.records
    assert list(read_ledger(tmp_path / LEDGER)) == [A]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with ledger_in(tmp_path), pytest.raises(UsageError, match="another process is writing"), ledger_in(tmp_path):
        pass
    with ledger_in(tmp_path) as ledger:
        ledger.append(record(1))


def test_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no ledger"):
        read_ledger(tmp_path / LEDGER)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"), ledger_in(tmp_path / "file" / "x"):
        pass
