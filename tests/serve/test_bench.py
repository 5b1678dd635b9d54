"""``semrec bench serve`` measures a server that it starts, and writes it down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from semrec_faiss.cli.main import cli


@pytest.mark.slow
def test_a_server_is_measured(index: Path, tmp_path: Path) -> None:
    command = [
        "bench",
        "serve",
        str(index),
        "--seconds",
        "0.3",
        "--connections",
        "4",
        "-k",
        "3",
        "--out",
        str(tmp_path),
    ]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "bench-serve-cpu.json").read_text())
    for name in ("fixed_body", "similar"):
        assert document[name]["requests"] > 0
        assert document[name]["failed"] == 0
        assert document[name]["p50_ms"] <= document[name]["p99_ms"]
    rates = [document[name]["requests_per_second"] for name in ("similar", "fixed_body")]
    assert document["similar_to_fixed_body"] == pytest.approx(rates[0] / rates[1])
    assert document["index"] == {"type": "flat", "titles": 300}
