"""Tasks of a cluster, one per shard: their results are gathered, and where one fails the others are ended."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from semrec_faiss.cluster.connection import finished, head_answers, load_ray, told_as_ours
from semrec_faiss.cluster.starting import at_node
from semrec_faiss.progress import Progress

Key = TypeVar("Key", bound=Hashable)

ATTEMPTS = 3
"""How often a shard is begun anew whose worker or machine is lost."""


def gathered(asked: Mapping[Any, Key], what: str, progress: Progress) -> dict[Key, Any]:
    """Wait for tasks, and return what each has given.

    Args:
        asked: what each task is of.
        what: is done, for progress.
        progress: told how many are done.

    Raises:
        UnavailableError: the head or a worker is lost, again and again.
        SemrecError: what a task raises.
    """
    ray = load_ray()
    found: dict[Key, Any] = {}
    left = list(asked)
    try:
        with told_as_ours():
            while left:
                progress(what, len(found), len(asked))
                done, left = finished(left)
                for one in done:
                    found[asked[one]] = ray.get(one)
    except BaseException:
        for one in left if head_answers() else ():
            ray.cancel(one, force=True)
        raise
    progress(what, len(found), len(asked))
    return found


def task_at(node: str | None, work: Callable[..., Any], gpus: int = 0) -> Any:
    """Return ``work`` as a task of one core on the machine with this address; without one, tasks spread over all."""
    where = {"scheduling_strategy": "SPREAD"} if node is None else at_node(node)
    return load_ray().remote(work).options(num_cpus=1, num_gpus=gpus, max_retries=ATTEMPTS, **where)
