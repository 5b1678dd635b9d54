"""Numbers that are counted in microseconds, and summed over processes: one array of float64, a row per process."""

from __future__ import annotations

import mmap
import os
import tempfile
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import IO, Any

import numpy as np

ROUTES = (
    "/v1/similar",
    "/v1/recommend",
    "/v1/search",
    "/v1/explain",
    "/v1/titles",
    "/v1/index",
    "/v1/reload",
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/",
    "/fixed",
    "unknown",
)
STATUSES = (200, 400, 401, 403, 404, 405, 406, 413, 415, 422, 429, 500, 501, 503, 504)
PARTS = ("look_up", "filter", "search", "render", "thread")
SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Spread:
    """A histogram's place in the array: its buckets, one for what is over the last bound, and the sum."""

    def __init__(self, first: int, bounds: Sequence[float]) -> None:
        self.first = first
        self.bounds = tuple(bounds)
        self.sum_at = first + len(bounds) + 1
        self.slots = len(bounds) + 2


class Tallies:
    """The counts of this process, and the sums over all.

    Attributes:
        requests: (route, status) → place.
        seconds: route → spread of seconds.
        parts: part of a question → spread of seconds.
        callers, queries, batch_seconds, wait_seconds: spreads of batches.
        short, taken, refused, in_flight: places.
        beats: place; see `workers.hanging`.
        fallen, hung: places of workers that another took the place of, and of those among them that hung.
        workers: processes that answer.
    """

    def __init__(self, shared: Any = None, processes: int = 1, number: int = 0, workers: int = 1) -> None:
        """Count in row ``number`` of ``shared``, `places()` float64 for each of ``processes``; None counts alone."""
        self._size = 0
        self.requests = {(route, status): self._place() for route in ROUTES for status in STATUSES}
        self.seconds = {route: self._spread(SECONDS) for route in ROUTES}
        self.parts = {part: self._spread(SECONDS) for part in PARTS}
        self.callers, self.queries = self._spread(SIZES), self._spread(SIZES)
        self.batch_seconds, self.wait_seconds = self._spread(SECONDS), self._spread(SECONDS)
        self.short, self.taken, self.refused, self.in_flight = (self._place() for _ in range(4))
        self.beats, self.fallen, self.hung = (self._place() for _ in range(3))
        self.workers = workers
        held = bytearray(8 * self._size * processes) if shared is None else shared
        self._all = np.frombuffer(held, np.float64, self._size * processes).reshape(processes, self._size)
        self._own = memoryview(self._all[number]).cast("B").cast("d")

    @classmethod
    def in_file(cls, file: int, processes: int, number: int, workers: int) -> Tallies:
        """Count in an open file that ``processes`` share; see `__init__`."""
        return cls(mmap.mmap(file, 8 * cls.places() * processes), processes, number, workers)

    @classmethod
    def new_file(cls, processes: int) -> IO[bytes]:
        """Return an open file that ``processes`` can count in, of memory where the system has such files.

        On a disk that is full, a page that is first counted in later would end its process (SIGBUS).
        """
        made = os.memfd_create("semrec-counts") if hasattr(os, "memfd_create") else None
        file = tempfile.TemporaryFile() if made is None else open(made, "w+b")  # noqa: SIM115, PTH123 - it is returned
        file.write(bytes(8 * cls.places() * processes))
        file.flush()
        return file

    @classmethod
    def places(cls) -> int:
        """Return how many numbers a process counts."""
        return cls()._size

    def _place(self, slots: int = 1) -> int:
        self._size += slots
        return self._size - slots

    def _spread(self, bounds: Sequence[float]) -> Spread:
        return Spread(self._place(len(bounds) + 2), bounds)

    def add(self, place: int, amount: float = 1.0) -> None:
        """Count."""
        self._own[place] += amount

    def set(self, place: int, value: float) -> None:
        """Hold a number of now."""
        self._own[place] = value

    def observe(self, spread: Spread, value: float, times: int = 1) -> None:
        """Count a value in its bucket."""
        self._own[spread.first + bisect_left(spread.bounds, value)] += times
        self._own[spread.sum_at] += value * times

    def observe_all(self, spread: Spread, values: Sequence[float]) -> None:
        """Count several."""
        own, first, bounds = self._own, spread.first, spread.bounds
        for value in values:
            own[first + bisect_left(bounds, value)] += 1
        own[spread.sum_at] += sum(values)

    def total(self, place: int) -> float:
        """Return the sum over all processes."""
        return float(self._all[:, place].sum())

    def each(self, place: int) -> list[float]:
        """Return the number of each process."""
        held: list[float] = self._all[:, place].tolist()
        return held

    def buckets(self, spread: Spread) -> tuple[list[tuple[str, float]], float]:
        """Return a histogram over all processes as Prometheus has it: upper bound and how many up to it; the sum."""
        counts = self._all[:, spread.first : spread.sum_at].sum(axis=0).tolist()
        names = [*(repr(float(bound)) for bound in spread.bounds), "+Inf"]
        return list(zip(names, accumulate(counts), strict=True)), self.total(spread.sum_at)
