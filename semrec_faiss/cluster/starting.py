"""Starting the actors of an index's shards where these lie; those that serve the same already are kept."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semrec_faiss.cluster.connection import alive_nodes, head_answers, load_ray
from semrec_faiss.cluster.head import LOOK_SECONDS, SILENT_SECONDS, watched
from semrec_faiss.cluster.shard import ShardServer
from semrec_faiss.cluster.shards import LOST_FIX, OPEN_SECONDS, OpenShards, named
from semrec_faiss.config.schema import Config
from semrec_faiss.errors import UnavailableError
from semrec_faiss.index.generations.shards import Place, Shard, ShardList

A_PLACE = 0.01
"""What an actor reserves of a core: it shares them, and never waits for a place that another holds."""

THREADS = 16
"""Questions that one actor answers at a time."""


@dataclass(frozen=True)
class Resources:
    """What an actor uses: cores, which are shared with whoever else is there, and GPUs, which are its own."""

    cores: int
    gpus: int

    @classmethod
    def of(cls, config: Config, actors: int) -> Resources:
        """Divide the cluster's GPUs, where it has one for each and the config takes them, and its cores."""
        ray = load_ray()
        head = watched(ray)
        if head is not None:
            head.check(SILENT_SECONDS)  # or Ray would wait for it
        total = ray.cluster_resources()
        gpus = int(config.device.kind != "cpu" and total.get("GPU", 0) >= actors)
        return cls(max(1, int(total.get("CPU", 1) / actors)), gpus)

    @property
    def settings(self) -> tuple[str, ...]:
        """What an index is opened with: the one GPU that the actor sees, or none."""
        return ("device.gpus=[0]",) if self.gpus else ("device.kind=cpu",)


@dataclass(frozen=True)
class _Slot:
    """An actor that is to be: one of a shard's replicas, and what it serves."""

    number: int
    shard: Shard
    place: Place


class ShardStarter:
    """Starts the actors of one index; of GPUs each has its own, by a placement group."""

    def __init__(self, config: Config, settings: Sequence[str], replicas: int) -> None:
        """Start ``replicas`` actors per shard, which open it with ``settings``."""
        self._config = config
        self._settings = tuple(settings)
        self._replicas = replicas

    def start(self, shards: OpenShards, before: OpenShards | None = None) -> None:
        """Give ``shards`` their actors, spread over machines.

        Args:
            shards: has none yet.
            before: what was open until now: of shards that are in both, the actors are kept.

        Raises:
            UnavailableError: a shard lies on machines that are not there, there are no GPUs left, or no head.
        """
        shards.head = watched(load_ray())
        kept = {} if before is None else _actors_by_shard(before)
        wanted = Resources.of(self._config, self._replicas * len(shards))
        every = list(enumerate(shards.listed.shards))
        slots = [
            _Slot(number, shard, place)
            for number, shard in every
            if _same(shard) not in kept
            for place in self._places(shards, number)
        ]
        options, held = _options(slots, wanted)
        fresh: dict[int, list[Any]] = {slot.number: [] for slot in slots}
        for slot, own in zip(slots, options, strict=True):
            fresh[slot.number].append(self._actor(shards, slot, own, wanted))
        for replica in (actor for actors in fresh.values() for actor in actors[1:]):
            replica.ping.remote()  # is open before it is needed; the first one is asked at once
        shards.replicas = [fresh[number] if number in fresh else kept[_same(shard)] for number, shard in every]
        shards.held = (*held, *(() if before is None else before.held))

    def lacks_gpus(self, listed: ShardList, before: OpenShards) -> bool:
        """Tell whether shards find no GPU of their own while those of ``before`` have theirs."""
        if not Resources.of(self._config, self._replicas * len(listed.shards)).gpus:
            return False
        kept = _actors_by_shard(before)
        fresh = sum(_same(shard) not in kept for shard in listed.shards)
        return bool(load_ray().available_resources().get("GPU", 0) < fresh * self._replicas)

    def _places(self, shards: OpenShards, number: int) -> list[Place]:
        """Return where the replicas of a shard go: of several machines' disks, to those of machines that are there."""
        places = shards.listed.shards[number].places
        there = alive_places(places)
        if not there:
            if not shards.partial:
                raise lost_machines(shards.listed, number)
            shards.lose(number)  # its actors begin when a machine comes back
        return [(there or places)[replica % len(there or places)] for replica in range(self._replicas)]

    def _actor(self, shards: OpenShards, slot: _Slot, options: Mapping[str, Any], wanted: Resources) -> Any:
        more = {"num_cpus": A_PLACE, "num_gpus": wanted.gpus, "max_restarts": -1, "max_concurrency": THREADS}
        actor = load_ray().remote(ShardServer).options(**more, **options)
        settings = (*self._settings, *wanted.settings)
        folder, ref = str(shards.index / slot.shard.folder), slot.place.generation.model_dump()
        return actor.remote(folder, ref, slot.shard.first, settings, wanted.cores)


def at_node(address: str) -> dict[str, Any]:
    """Return the options that keep a task or an actor on the machine with this address."""
    return {"resources": {f"node:{address}": 0.001}}


def alive_places(places: Sequence[Place]) -> list[Place]:
    """Return the places that can be read now."""
    alive = {node["NodeManagerAddress"] for node in alive_nodes()}
    return [place for place in places if place.node is None or place.node in alive]


def lost_machines(listed: ShardList, shard: int) -> UnavailableError:
    """Return the error for a shard whose machines are all away."""
    return UnavailableError(f"{named(listed, shard)} lies on machines that the cluster does not have now", fix=LOST_FIX)


def _same(shard: Shard) -> tuple[Any, ...]:
    """Return what two generations' shards have in common where one actor serves both."""
    return shard.folder, shard.first, shard.titles, shard.places


def _actors_by_shard(shards: OpenShards) -> dict[tuple[Any, ...], list[Any]]:
    return {_same(shard): own for shard, own in zip(shards.listed.shards, shards.replicas, strict=True)}


def _options(slots: Sequence[_Slot], wanted: Resources) -> tuple[list[dict[str, Any]], tuple[object, ...]]:
    """Return where each actor begins, and what holds its place for it."""
    options = _cpu_options(slots)
    there = [at for at, slot in enumerate(slots) if wanted.gpus and alive_places([slot.place])]
    if not there:
        return options, ()
    group = _gpu_group([_bundle(slots[at]) for at in there])
    inside = load_ray().util.scheduling_strategies.PlacementGroupSchedulingStrategy
    for bundle, at in enumerate(there):
        options[at] = {"scheduling_strategy": inside(group, placement_group_bundle_index=bundle)}
    return options, (_HeldGroup(group),)


def _cpu_options(slots: Sequence[_Slot]) -> list[dict[str, Any]]:
    """Spread what any machine may serve: replicas of a shard to machines of their own, while there are enough."""
    nodes = [node["NodeID"] for node in alive_nodes()]
    near = load_ray().util.scheduling_strategies.NodeAffinitySchedulingStrategy
    options, replicas = [], Counter[int]()
    for slot in slots:
        node = nodes[(slot.number + replicas[slot.number]) % len(nodes)]
        replicas[slot.number] += 1
        anywhere = {"scheduling_strategy": near(node, soft=True)}
        options.append(anywhere if slot.place.node is None else at_node(slot.place.node))
    return options


def _bundle(slot: _Slot) -> dict[str, float]:
    where = {} if slot.place.node is None else at_node(slot.place.node)["resources"]
    return {"CPU": A_PLACE, "GPU": 1, **where}


def _gpu_group(bundles: list[dict[str, float]]) -> Any:
    ray = load_ray()
    group = ray.util.placement_group(bundles, strategy="SPREAD")
    if not _found_places(group):
        ray.util.remove_placement_group(group)
        raise UnavailableError(
            f"{len(bundles)} actors with a GPU each found no place within {OPEN_SECONDS:.0f} s",
            fix="`ray status` tells who holds the GPUs; --set device.kind=cpu does without",
        )
    return group


def _found_places(group: Any) -> bool:
    """Wait for the places of a group; raises UnavailableError once the head, which finds them, is lost."""
    head, ends = watched(load_ray()), time.monotonic() + OPEN_SECONDS
    while not group.wait(min(LOOK_SECONDS, max(0.0, ends - time.monotonic()))):
        if head is not None:
            head.check()
        if time.monotonic() >= ends:
            return False
    return True


class _HeldGroup:
    """Reserves GPUs for as long as it is referred to: Ray gives none back when the actors end."""

    def __init__(self, group: Any) -> None:
        weakref.finalize(self, _let_go, group).atexit = False


def _let_go(group: Any) -> None:
    ray = load_ray()
    if head_answers():
        with contextlib.suppress(ray.exceptions.RayError):
            ray.util.remove_placement_group(group)
