"""Building an index in shards: each is built where it will be served, and all are published together, last."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from semrec_faiss.cluster.connection import OWN, alive_nodes, connect, load_ray, told_as_ours
from semrec_faiss.cluster.publish.gathering import gathered, task_at
from semrec_faiss.cluster.publish.kept import BuiltOf, digest_beside, kept_shard
from semrec_faiss.cluster.publish.remains import remove_unlisted
from semrec_faiss.cluster.starting import Resources, at_node
from semrec_faiss.config.schema import Config
from semrec_faiss.errors import ConfigError, UnavailableError, UsageError
from semrec_faiss.index.build.run import build_front, build_index
from semrec_faiss.index.build.source import TitleRange
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.generations.manifest import GenerationRef
from semrec_faiss.index.generations.shards import SHARDS_FOLDER, Place, Shard, ShardList
from semrec_faiss.progress import Progress, silent

_TOKEN = ".here"


@dataclass(frozen=True)
class BuiltShards:
    """What a build has made.

    Attributes:
        generation: that is in use now.
        kept: how many of its shards a build that did not end had left whole; of replicas each counts.
    """

    generation: Generation
    kept: int


def build_shards(
    config: Config,
    shards: int | Literal["auto"] = "auto",
    *,
    address: str = OWN,
    replicas: int = 1,
    strict: bool = False,
    progress: Progress = silent,
) -> BuiltShards:
    """Build an index in shards and publish it in ``config.output``; what was there stays in use until the last step.

    The data must be readable on every machine. Where all machines share the output's storage, shards are built anywhere
    and served anywhere; where they do not, each shard lies on the disks of ``replicas`` machines. A shard whose worker
    or machine is lost is built again by another. Where this process or the cluster is lost, shards that are whole stay,
    and the next build of the same data and settings takes them, once it has hashed their files.

    Args:
        config: needs ``dataset`` and ``output``.
        shards: how many; ``auto`` takes one per GPU where the cluster has some, or else one per machine.
        address: the cluster; see `connect`.
        replicas: on how many machines a shard lies where storage is not shared.
        strict: as for `build_index`.
        progress: told the steps.

    Raises:
        UsageError: more shards than titles, or more replicas than machines.
        UnavailableError: there is no cluster, or it was lost.
        SemrecError: as `build_index`; the first error of a shard ends the build.
    """
    if config.dataset.folder is None or config.output is None:
        raise ConfigError("no dataset or no output is given", fix="--dataset DIR --output DIR")
    connect(address)
    made = config.of(config.dataset.folder.absolute()).model_copy(update={"output": config.output.absolute()})
    build = _Build(made, shards, replicas, progress)
    generation = build_front(made, build.write, progress, strict=strict)
    with contextlib.suppress(UsageError), IndexDirectory(made.output or "").writing():  # unless another build began
        remove_unlisted(made.output or Path())
    return BuiltShards(generation, build.kept)


class _Build:
    def __init__(self, config: Config, shards: int | Literal["auto"], replicas: int, progress: Progress) -> None:
        self._config = config
        self._shards = shards
        self._replicas = replicas
        self._progress = progress
        self._index = Path(config.output or "")
        self.kept = 0
        self._nodes = list(dict.fromkeys(node["NodeManagerAddress"] for node in alive_nodes()))

    def write(self, name: str, count: int, fields: Mapping[str, str]) -> ShardList:
        """Build the shards of a generation."""
        folder = f"{SHARDS_FOLDER}/{name}"
        remove_unlisted(self._index, [folder])  # what a build that was killed has left is the same, or built over
        try:
            return self._write(Path(folder), count, fields)
        except UnavailableError:
            raise
        except Exception:
            remove_unlisted(self._index)
            raise

    def _write(self, folder: Path, count: int, fields: Mapping[str, str]) -> ShardList:
        number = self._number(count)
        resources = Resources.of(self._config, number)
        where = self._places(folder, number)
        bounds = np.linspace(0, count, number + 1).astype(np.int64).tolist()
        parts = [TitleRange(first, last, fields) for first, last in pairwise(bounds)]
        folders = [str(folder / f"{at:05d}") for at in range(number)]
        each = [(at, node) for at in range(number) for node in where[at]]
        begin = partial(self._begin, resources, digest_beside(self._config.dataset))
        asked = {begin(folders[at], parts[at], node): (at, node) for at, node in each}
        found = gathered(asked, "building shards", self._progress)
        self.kept = sum(is_kept for _, is_kept in found.values())
        return ShardList(
            shards=tuple(
                Shard(
                    folder=folders[at],
                    first=part.first,
                    titles=part.last - part.first,
                    places=tuple(Place(node=node, generation=found[at, node][0]) for node in where[at]),
                )
                for at, part in enumerate(parts)
            )
        )

    def _number(self, count: int) -> int:
        wanted = self._shards
        if wanted == "auto":
            gpus = int(load_ray().cluster_resources().get("GPU", 0)) if self._config.device.kind != "cpu" else 0
            return min(gpus or len(self._nodes), count)
        if isinstance(wanted, bool) or not isinstance(wanted, int) or not 1 <= wanted <= count:
            raise UsageError(
                f"shards is {wanted!r}; a number from 1 to {count:,}, the titles, is expected", fix="--shards auto"
            )
        return wanted

    def _places(self, folder: Path, number: int) -> list[list[str | None]]:
        """Return on which machines each shard is built; None for any, where all see what one writes."""
        ray = load_ray()
        token = secrets.token_hex(8)
        (self._index / folder).mkdir(parents=True, exist_ok=True)
        here = self._index / folder / _TOKEN
        here.write_text(token, encoding="ascii")
        with told_as_ours():
            seen = ray.get(
                [
                    ray.remote(_sees).options(num_cpus=0, **at_node(node)).remote(str(here), token)
                    for node in self._nodes
                ],
                timeout=60,
            )
        here.unlink()
        if all(seen):
            return [[None]] * number
        if not 1 <= self._replicas <= len(self._nodes):
            raise UsageError(
                f"{self._replicas} replicas on disks of their own need as many machines; the cluster has"
                f" {len(self._nodes)}",
                fix="start more, or give fewer --replicas",
            )
        return [[self._nodes[(at + own) % len(self._nodes)] for own in range(self._replicas)] for at in range(number)]

    def _begin(self, resources: Resources, beside: str, folder: str, part: TitleRange, node: str | None) -> Any:
        device = self._config.device.model_copy(
            update={"gpus": (0,)} if resources.gpus else {"kind": "cpu", "float16": False}
        )
        config = self._config.model_copy(update={"output": self._index / folder, "profile": None, "device": device})
        return task_at(node, _build_one, resources.gpus).remote(config, part, beside)


def _build_one(config: Config, part: TitleRange, beside: str) -> tuple[GenerationRef, bool]:
    """Build a shard, unless the same is there already; name its generation, and tell whether it was there."""
    kept = kept_shard(Path(config.output or ""), BuiltOf.of(config, part, beside))
    generation = build_index(config, part=part) if kept is None else kept
    return generation.ref, kept is not None


def _sees(path: str, token: str) -> bool:
    try:
        return Path(path).read_text(encoding="ascii") == token
    except OSError:
        return False
