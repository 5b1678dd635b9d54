"""Learning vectors by workers of a cluster: what divides into blocks of users or texts is done by whoever is free."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from semrec_faiss.cluster.connection import OWN, alive_nodes, connect, finished, load_ray, told_as_ours
from semrec_faiss.data.interactions.divided import Block, Result, Shared, Workers

ATTEMPTS = 3
"""How often a block is begun anew whose worker or machine is lost."""

AHEAD = 2
"""Blocks for each worker that are on their way, so that no machine holds more of them at a time."""


class ClusterWorkers(Workers):
    """The workers of a cluster, a core each; a lost one's block is done again by another."""

    def __init__(self, address: str = OWN) -> None:
        """Join the cluster at ``address``; raises as `connect`."""
        connect(address)
        self._ahead = AHEAD * sum(max(1, int(node["Resources"].get("CPU", 1))) for node in alive_nodes())

    def hold(self, block: Block) -> Block:
        """Return a reference to a block, which each machine takes once."""
        held: Block = load_ray().put(block)
        return held

    def each(
        self, work: Callable[[Block, Shared], Result], blocks: Iterable[Block], shared: Shared
    ) -> Iterator[Result]:
        """Do work on every block, and yield the results in order; raises what work does, and UnavailableError."""
        ray = load_ray()
        task = ray.remote(_done).options(num_cpus=1, max_retries=ATTEMPTS, scheduling_strategy="SPREAD")
        given = ray.put(shared)
        waiting: deque[Any] = deque()
        with told_as_ours():
            for block in blocks:
                parts = block if isinstance(block, tuple) else (block,)  # references that Ray is to follow
                waiting.append(task.remote(work, given, isinstance(block, tuple), *parts))
                if len(waiting) >= self._ahead:
                    yield self._first(waiting)
            while waiting:
                yield self._first(waiting)

    def _first(self, waiting: deque[Any]) -> Any:
        reference = waiting.popleft()
        finished([reference])
        return load_ray().get(reference)


def _done(work: Callable[[Any, Any], Any], shared: Any, are_several: bool, *parts: Any) -> Any:
    return work(parts if are_several else parts[0], shared)
