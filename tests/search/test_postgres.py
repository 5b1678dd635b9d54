"""README's way of recommendations into Postgres, on a server of the test's own; skipped where there is none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from conftest import HANG_SECONDS

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.demo import demo_folder
from semrec_faiss.index.build.run import build_index
from semrec_faiss.search.export import export_all_users
from semrec_faiss.search.recommender import Recommender

README = Path(__file__).resolve().parents[2] / "semrec_faiss" / "README.md"
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
"""As whom a server refuses to run; the user that its packages bring, postgres, may."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BINARIES or shutil.which("psql") is None, reason="no Postgres is installed"),
]


def as_owner(*command: str | Path, folder: Path) -> None:
    become = ["runuser", "-u", "postgres", "--"] if IS_ROOT else []
    subprocess.run([*become, *map(str, command)], check=True, capture_output=True, cwd=folder, timeout=HANG_SECONDS)


@pytest.fixture
def server() -> Iterator[dict[str, str]]:
    """A server that listens at a socket in a folder of its own, and how psql finds it."""
    place = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path has at most 107 characters
    try:
        if IS_ROOT:
            shutil.chown(place, "postgres")
        binaries, data = BINARIES[-1], place / "data"
        made_as = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale", "C"]
        as_owner(binaries / "initdb", "-D", data, *made_as, folder=place)
        options = f"-c listen_addresses= -c unix_socket_directories={place} -c fsync=off"
        as_owner(binaries / "pg_ctl", "-D", data, "-l", place / "log", "-o", options, "-w", "start", folder=place)
        try:
            yield {"PGHOST": str(place), "PGUSER": "postgres", "PGDATABASE": "postgres"}
        finally:
            as_owner(binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop", folder=place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_readmes_commands_bring_every_recommendation_into_postgres(server: dict[str, str], tmp_path: Path) -> None:
    build_index(config_from_dict({"dataset": str(demo_folder()), "output": str(tmp_path / "index"), "device": "cpu"}))
    recs = tmp_path / "scratch" / "recs.parquet"
    export_all_users(Recommender.open(tmp_path / "index"), recs, 10)
    text = README.read_text(encoding="utf-8")
    (to_csv,) = re.findall(r'^duckdb\.sql\("(COPY .*)"\)$', text, flags=re.M)
    with duckdb.connect() as connection:
        connection.execute(to_csv.replace("scratch/", f"{tmp_path}/scratch/"))
    commands = re.findall(r"^psql -c .*$", text, flags=re.M)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(["sh", "-c", command], check=True, cwd=tmp_path, env=os.environ | server, timeout=HANG_SECONDS)
    asked = "COPY (SELECT user_id, rank, media_id, title, score FROM recs ORDER BY user_id, rank) TO STDOUT CSV"
    held = subprocess.run(
        ["psql", "-c", asked],
        check=True,
        capture_output=True,
        encoding="utf-8",
        env=os.environ | server,
        timeout=HANG_SECONDS,
    ).stdout
    (tmp_path / "held.csv").write_text(held, encoding="utf-8")
    with duckdb.connect() as connection:
        types = "{'u': 'VARCHAR', 'r': 'INTEGER', 'm': 'VARCHAR', 't': 'VARCHAR', 's': 'FLOAT'}"
        rows = connection.execute(f"FROM read_csv('{tmp_path}/held.csv', header = false, columns = {types})").fetchall()
        ours = connection.execute(f"FROM '{recs}' ORDER BY user_id, rank").fetchall()
    assert len(rows) == 2000
    assert [row[:4] for row in rows] == [row[:4] for row in ours]
    assert [row[4] for row in rows] == pytest.approx([row[4] for row in ours], rel=1e-6)
