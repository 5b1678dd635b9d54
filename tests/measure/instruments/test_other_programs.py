"""How busy other programs kept the machine, from made-up counters."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from semrec_faiss.measure.instruments import other_programs as quiet
from semrec_faiss.measure.instruments.other_programs import OtherPrograms


def counters(user: int, nice: int = 0, system: int = 0, idle: int = 0) -> str:
    """Spell /proc/stat's first lines; the last two numbers repeat what user and nice hold already."""
    return f"cpu  {user} {nice} {system} {idle} 7 1 2 3 4 5\ncpu0 1 1 1 1 1 1 1 1 1 1\n"


def test_other_programs_are_all_busy_time_less_our_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stat, own, now = tmp_path / "stat", [10.0, 1.0, 2.0, 3.0, 999.0], [50.0]
    monkeypatch.setattr(quiet, "_STAT", stat)
    monkeypatch.setattr(quiet.os, "sysconf", lambda _: 100, raising=False)
    monkeypatch.setattr(quiet.os, "times", lambda: os.times_result(own))
    monkeypatch.setattr(quiet, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    stat.write_text(counters(user=5_000, idle=1_000))
    others = OtherPrograms()
    # 20 s later: 24 s of all cores' time were busy, of which this process and its children took 19 s.
    stat.write_text(counters(user=7_000, nice=100, system=300, idle=2_600))
    own[:] = [20.0, 3.0, 7.0, 5.0, 1019.0]
    now[0] = 70.0
    assert others.cores_used() == 0.25


def test_what_is_over_at_once_says_nothing_about_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [50.0]
    monkeypatch.setattr(quiet, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(OtherPrograms, "cores_used", lambda self: 0.5)
    others = OtherPrograms()
    now[0] += quiet.SHORTEST_S / 2
    assert others.cores_used_by_them() is quiet.TOO_SHORT
    now[0] += quiet.SHORTEST_S
    assert others.cores_used_by_them() == 0.5
    monkeypatch.setattr(OtherPrograms, "cores_used", lambda self: None)
    assert others.cores_used_by_them() is quiet.UNTOLD


def test_without_counters_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(quiet, "_STAT", tmp_path / "missing")
    assert OtherPrograms().cores_used() is None
