"""`semrec build INDEX`: it reads the data folder, so that what updates have brought is lost, which it tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Semrec

from semrec_faiss import Change, compact_index, update_index


@pytest.fixture
def index(tmp_path: Path, make_folder: Callable[..., Any], semrec: Semrec) -> Path:
    make_folder(tmp_path / "data", titles=60, users=5)
    built = semrec("build", "flat", "--dataset", tmp_path / "data", "--output", tmp_path / "index")
    assert (built.code, built.err) == (0, "")
    return tmp_path / "index"


def test_an_index_that_was_not_updated_is_built_again_without_a_word(index: Path, semrec: Semrec) -> None:
    again = semrec("build", index)
    assert (again.code, "it is built of" in again.err) == (0, False)


@pytest.mark.parametrize("is_compacted", [False, True])
def test_titles_and_users_that_updates_brought_are_told_as_lost(
    index: Path, tmp_path: Path, make_folder: Callable[..., Any], semrec: Semrec, is_compacted: bool
) -> None:
    """Once a fault: `build INDEX --set …` said that it builds an index as it was, and left them out without a word."""
    assert update_index(index, Change(more_than(tmp_path, make_folder)), compact_at=1).titles.new == 6
    if is_compacted:
        compact_index(index)
    again = semrec("build", index, "--set", "index.normalize=true")
    assert again.code == 0, again.err
    assert f"note: it is built of {tmp_path / 'data'}, and lacks 6 titles" in again.err
    assert f"; semrec rollback {index} returns to it\n" in again.err
    assert "60 titles and 5 users" in semrec("verify", index).out


def test_a_change_that_leaves_the_counts_is_told_too(index: Path, tmp_path: Path, semrec: Semrec) -> None:
    update_index(index, Change(remove_titles=["m00003"]), compact_at=1)
    told = semrec("build", index).err
    assert f"note: it is built of {tmp_path / 'data'}: what updates have brought is not in that folder" in told


def test_what_users_have_seen_since_is_told_as_lost(index: Path, tmp_path: Path, semrec: Semrec) -> None:
    """Also by a build to another place, which leaves the index as it is; not by one of another data folder."""
    since = tmp_path / "since.parquet"
    seen = pq.read_table(tmp_path / "data" / "users" / "seen.parquet")
    every = [f"m{row:05}" for row in range(60)]
    row = {name: [seen[name][0].as_py()] * 60 for name in seen.column_names} | {"media_id": every}
    pq.write_table(pa.table(row, schema=seen.schema), since)
    assert semrec("append-seen", index, since).code == 0
    elsewhere = semrec("build", index, "--output", tmp_path / "other").err
    assert " rows of what users have seen that " in elsewhere
    assert "rollback" not in elsewhere
    of_another = semrec("build", index, "--dataset", tmp_path / "data").err
    assert "rows of what users have seen" not in of_another


def test_a_damaged_history_does_not_keep_an_index_from_being_built_again(index: Path, semrec: Semrec) -> None:
    (index / "gen-000001" / "seen.parquet").write_bytes(b"damaged")
    assert semrec("build", index).code == 0
    assert semrec("verify", index).code == 0


def more_than(tmp_path: Path, make_folder: Callable[..., Any]) -> Path:
    """A folder of the same titles and six more."""
    make_folder(tmp_path / "more", titles=66, users=5)
    return tmp_path / "more"
