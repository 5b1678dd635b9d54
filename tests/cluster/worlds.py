"""What the tests of a cluster ask: the same titles in one piece and in shards."""

from __future__ import annotations

import os
import signal
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HANG_SECONDS, MadeFolder
from numpy.typing import NDArray

from semrec_faiss.cluster.saved import listed_in
from semrec_faiss.cluster.shards import OpenShards
from semrec_faiss.cluster.workers.lists import ListMaker
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.shards import ShardList

NODE = {"num_cpus": 4, "object_store_memory": 80 << 20, "include_log_monitor": False}
"""A machine of a cluster, with as few processes beside it as Ray allows."""

HEAD = {
    **NODE,
    "include_dashboard": False,
    "no_monitor": True,
    "_system_config": {
        "prestart_worker_first_driver": False,
        "worker_register_timeout_seconds": int(HANG_SECONDS),
        "memory_monitor_refresh_ms": 0,  # it ends workers where other programs take the memory
    },
}


@dataclass(frozen=True)
class World:
    """A data folder, its index in one piece, and where one in shards goes."""

    made: MadeFolder
    whole: Path
    sharded: Path
    config: dict[str, Any]


def listed(index: Path) -> ShardList:
    """Return the shards of the generation in use."""
    return listed_in(IndexDirectory(index).current())


def give_up(monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    """Wait half a second for a shard that is lost, and for others, which may be slow, as long as they take."""
    answer = OpenShards._answer

    def answered(
        shards: OpenShards, ray: Any, shard: int, reference: Any, question: Any, given: float, *, is_lost: bool
    ) -> Any:
        patience_s = min(given, 0.5) if shard == lost else HANG_SECONDS
        return answer(shards, ray, shard, reference, question, patience_s, is_lost=is_lost)

    monkeypatch.setattr(OpenShards, "_answer", answered)


class Worker:
    """Does a block by writing down that it did; the one that is told to ends its process first."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def do(self, number: int) -> int:
        began = self._folder / f"{number}.{os.getpid()}.{time.time_ns()}"
        began.touch()
        dies = self._folder / f"dies.{number}"
        if dies.exists():
            if dies.read_text() == "once":
                dies.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number


def build_one_killed_once(config: Any, *more: Any) -> Any:
    """Build a shard; the first one of all to begin kills its process."""
    from semrec_faiss.cluster.publish import building

    mark = Path(config.output).parents[3] / "killed-0"
    try:
        mark.open("x").close()
    except FileExistsError:
        return building._build_one(config, *more)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def build_one_without_space(config: Any, part: Any, beside: str) -> Any:
    """Build the first shard, and have no space for others."""
    from semrec_faiss import StorageError
    from semrec_faiss.cluster.publish import building

    if part.first:
        raise StorageError("the disk is full", fix="free space")
    return building._build_one(config, part, beside)


def build_one_slowly(config: Any, part: Any, beside: str) -> Any:
    """Build the first shard, say so and take a long time to end; of others, to begin."""
    from semrec_faiss.cluster.publish import building

    if part.first:
        time.sleep(HANG_SECONDS)
    found = building._build_one(config, part, beside)
    (Path(config.output).parent / f"slow-{part.first}").touch()
    time.sleep(HANG_SECONDS)
    return found


def change_one_without_space(source: Any, ref: Any, target: Any, plan: Any, compact_at: Any) -> Any:
    """Change the first shard, and have no space for others."""
    from semrec_faiss import StorageError
    from semrec_faiss.cluster.publish import changing

    if target.name != "00000":
        raise StorageError("the disk is full", fix="free space")
    return changing.change_one(source, ref, target, plan, compact_at)


def change_one_killed_once(source: Any, ref: Any, target: Any, plan: Any, compact_at: Any) -> Any:
    """Change a shard; the first one of all to be linked kills its process."""
    from semrec_faiss.cluster.publish import changing
    from semrec_faiss.index.generations.linked import link_index
    from semrec_faiss.index.generations.manifest import GenerationRef

    mark = target.parent.parent.parent / "killed-0"
    try:
        mark.open("x").close()
    except FileExistsError:
        return changing.change_one(source, ref, target, plan, compact_at)
    link_index(source, GenerationRef.model_validate(ref), target)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class SlowListMaker(ListMaker):
    """Makes the lists of the first users, and takes its time over those of others."""

    def make(self, first: int, last: int) -> bytes:
        time.sleep(HANG_SECONDS if first >= 12 else 0)
        return super().make(first, last)


def times_killed_once(mark: str, block: Any, right: Any) -> Any:
    """Multiply a block; the first one to begin kills its process."""
    try:
        Path(mark).open("x").close()
    except FileExistsError:
        return np.asarray(block @ right)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class GpuShard:
    """Stands for a shard on a GPU: tells which one it sees, and what it was to be opened with."""

    def __init__(self, folder: str, ref: Any, first: int, settings: Sequence[str], cores: int) -> None:
        self._told = (first, tuple(settings))

    def about(self) -> Any:
        import ray

        return (*self._told, os.environ.get("CUDA_VISIBLE_DEVICES", ""), ray.get_runtime_context().get_node_id())


class FakeEncoder:
    """Makes a vector of a text's checksum; kills its process at one text, or once while there is a file."""

    device = "cpu"

    def __init__(self, batch_size: int, at: str = "", once: str = "") -> None:
        self.batch_size = batch_size
        self._at, self._once = at, once

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self._at and any(self._at in text for text in texts) and (not self._once or Path(self._once).exists()):
            if self._once:
                Path(self._once).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.stack([np.random.default_rng(zlib.crc32(text.encode())).normal(size=8) for text in texts]).astype(
            "f4"
        )


def load_fake(source: Any, *, batch_size: int | None, device: str | None) -> FakeEncoder:
    """Load what needs no model."""
    return FakeEncoder(batch_size or 1)


class LoadMortal:
    """Loads an encoder that dies at a text: always, or once while there is a file."""

    def __init__(self, at: str, once: str = "") -> None:
        self._told = (at, once)

    def __call__(self, source: Any, *, batch_size: int | None, device: str | None) -> FakeEncoder:
        return FakeEncoder(batch_size or 1, *self._told)
