"""Work in blocks over a pool of actors: what a lost worker had is done again by another, and everything once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from semrec_faiss.cluster.connection import finished, head_answers, load_ray, told_as_ours
from semrec_faiss.errors import UnavailableError

Block = TypeVar("Block", bound=tuple[Any, ...])

ATTEMPTS = 4
"""How often one block may lose its worker: what ends every worker is no accident."""

AHEAD = 2
"""Blocks that a worker has at a time, so that it never waits for the next."""


def done_in_blocks(
    start: Callable[[int], Any], workers: int, method: str, blocks: Sequence[Block]
) -> Iterator[tuple[Block, Any]]:
    """Have a pool of actors do blocks; yield each with its result, once, as they are done.

    Args:
        start: starts the actor of this number; called again where it is lost.
        workers: how many there are.
        method: of the actors, which is given a block's values.
        blocks: what is to be done.

    Raises:
        SemrecError: what a worker raises; the others are ended.
        UnavailableError: one block has lost its worker too often.
    """
    pool = Pool(start, workers, method)
    try:
        yield from pool.done(blocks)
    finally:
        pool.end()


class Pool:
    """Actors that do one kind of block, for as long as there are any."""

    def __init__(self, start: Callable[[int], Any], workers: int, method: str) -> None:
        """Start the actors; see `done_in_blocks`."""
        self._ray = load_ray()
        self._start = start
        self._method = method
        self._waiting: deque[Any] = deque()
        self._actors = [start(number) for number in range(workers)]
        self._asked: dict[Any, tuple[int, Any]] = {}
        self._lost: dict[Any, int] = {}

    def done(self, blocks: Sequence[Block]) -> Iterator[tuple[Block, Any]]:
        """Do blocks; see `done_in_blocks`."""
        self._waiting.extend(blocks)
        self._lost.clear()
        for _ in range(AHEAD):
            for number in range(len(self._actors)):
                self._ask(number)
        while self._asked:
            done, _ = finished(list(self._asked))
            if done[0] not in self._asked:
                continue
            number, block = self._asked.pop(done[0])
            try:
                with told_as_ours():
                    result = self._ray.get(done[0])
            except UnavailableError as error:
                self._replace(number, block, error)
                continue
            self._ask(number)
            yield block, result

    def _ask(self, number: int) -> None:
        if self._waiting:
            block = self._waiting.popleft()
            self._asked[getattr(self._actors[number], self._method).remote(*block)] = (number, block)

    def _replace(self, number: int, block: Any, error: UnavailableError) -> None:
        """Start a worker in the place of a lost one, which begins with the blocks that it had."""
        self._lost[block] = self._lost.get(block, 0) + 1
        if self._lost[block] >= ATTEMPTS:
            raise UnavailableError(
                f"{self._lost[block]} workers were lost over the same block of work: {error.message}",
                fix="look whether they run out of memory; what is done is kept, and the same command goes on",
            ) from error
        had = [block, *(own for at, own in self._asked.values() if at == number)]
        self._asked = {reference: one for reference, one in self._asked.items() if one[0] != number}
        self._waiting.extendleft(reversed(had))
        self._ray.kill(self._actors[number], no_restart=True)
        self._actors[number] = self._start(number)
        for _ in range(AHEAD):
            self._ask(number)

    def end(self) -> None:
        """End the actors; without a head they end with their cluster."""
        for actor in self._actors if head_answers() else ():
            self._ray.kill(actor, no_restart=True)
