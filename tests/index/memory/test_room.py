"""Whether a generation fits beside another, where type fused may keep its titles on a GPU in several ways."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.memory import room
from semrec_faiss.index.memory.room import LackingRoom, lacking_room

GB = 10**9
TITLES, DIM = 20_000_000, 384


def of_titles(**build: Any) -> Any:
    """What is looked at of a saved index that is to be searched on two GPUs."""
    manifest = SimpleNamespace(count=TITLES, dim=DIM, files={})
    config = config_from_dict({"index": {"type": "fused", "build": build}})
    return SimpleNamespace(config=config, device=Device(gpus=(0, 1)), generation=SimpleNamespace(manifest=manifest))


def with_free(monkeypatch: pytest.MonkeyPatch, *gigabytes: int, host: int = 1000) -> LackingRoom | None:
    states = [
        SimpleNamespace(gpu=gpu, total_bytes=141 * GB, used_bytes=(141 - free) * GB)
        for gpu, free in enumerate(gigabytes)
    ]
    monkeypatch.setattr(room, "gpu_states", lambda: states)
    monkeypatch.setattr(room, "available_bytes", lambda: host * GB)
    return lacking_room(of_titles(directions=0), of_titles(directions=0))


def test_what_fits_in_any_way_that_it_may_be_kept_lacks_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """As float32 beside copies it takes 54 GB of each GPU, once all that was asked; otherwise half or less."""
    assert with_free(monkeypatch, 60, 60) is None
    assert with_free(monkeypatch, 30, 30) is None
    assert with_free(monkeypatch, 100, 30, 1) is None, "the third GPU is not asked for"
    lacking = with_free(monkeypatch, 60, 5)
    assert lacking is not None
    assert (lacking.place, lacking.free_bytes) == ("GPU 1", 5 * GB)
    assert lacking.needed_bytes > 5 * GB


def test_the_host_holds_originals_only_where_they_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Titles that came as float16 have none: these 31 GB were asked of the host once more."""
    held = 4 * TITLES * DIM
    lacking = with_free(monkeypatch, 30, 30, host=1)
    assert lacking is not None
    assert (lacking.place, held < lacking.needed_bytes < 1.5 * held) == ("memory", True)
