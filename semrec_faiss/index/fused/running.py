"""A search under way on one GPU, and what it finds."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.errors import DeviceError
from semrec_faiss.index.fused.titles.gpu_titles import load_torch

Found = TypeVar("Found")


@dataclass(frozen=True)
class FusedResult:
    """What a fused search found.

    Attributes:
        rows: int64 (queries, k), by descending score, ties by row; -1 after the last where fewer titles are allowed.
        scores: float32 (queries, k); -inf where there is no title.
        repeated: queries that were searched again with more candidates.
        scanned: of these, compared with every title in float32 in the end.
    """

    rows: Rows
    scores: Scores
    repeated: int = 0
    scanned: int = 0

    @classmethod
    def empty(cls, queries: int, k: int) -> FusedResult:
        """Make room for the answers of so many queries."""
        return cls(np.empty((queries, k), np.int64), np.empty((queries, k), np.float32))

    def part(self, queries: slice, k: int | None = None) -> FusedResult:
        """Return the room of some of the queries, of their first ``k`` answers."""
        return FusedResult(self.rows[queries, :k], self.scores[queries, :k])

    def put(self, queries: Rows, again: FusedResult) -> FusedResult:
        """Write down what some of the queries, searched again, have found, and return all."""
        self.rows[queries], self.scores[queries] = again.rows, again.scores
        return FusedResult(self.rows, self.scores, self.repeated + len(queries), self.scanned + again.scanned)


class OneGpu(Protocol):
    """Where a search runs."""

    @property
    def name(self) -> str:
        """The GPU, for messages."""
        ...

    def current(self) -> AbstractContextManager[Any]:
        """Make the GPU the thread's current one."""
        ...


class Running(Generic[Found]):
    """A search under way on one GPU: while it computes, whoever started it may start others elsewhere."""

    def __init__(self, gpu: OneGpu, steps: Generator[bool, None, Found]) -> None:
        """Launch what comes first."""
        self._gpu, self._steps = gpu, steps
        self._found: list[Found] = []
        self._launching = False
        self.advance()

    def advance(self) -> bool:
        """Wait for what was launched, and launch what comes next; False where nothing did: it is found.

        Raises:
            DeviceError: the GPU failed, or its memory does not suffice.
        """
        if not self._found:
            try:
                with self._gpu.current():
                    self._launching = next(self._steps)
            except StopIteration as end:
                self._launching = False
                self._found.append(end.value)
            except RuntimeError as error:  # torch's and Triton's, of a GPU that failed
                raise failed(self._gpu, error) from error
        return not self._found

    def launch(self) -> bool:
        """Launch what comes next, unless all that need not be waited for is; False where nothing was."""
        return self._launching and self.advance()

    def result(self) -> Found:
        """Go on to the end."""
        while self.advance():
            pass
        return self._found[0]


def launched(running: Sequence[Running[Found]]) -> None:
    """Launch what searches on several GPUs have to launch, each a step a round."""
    while sum(one.launch() for one in running):
        pass


def advanced(running: Sequence[Running[FusedResult]]) -> list[tuple[int, int]]:
    """Go on with searches on several GPUs in one thread, each a step a round; return how much each had to repeat."""
    while sum(one.advance() for one in running):
        pass
    return [(found.repeated, found.scanned) for found in (one.result() for one in running)]


class Named:
    """Names the GPU in errors of what is done with it; a class, as a single question waits for a generator's making."""

    __slots__ = ("_gpu",)

    def __init__(self, gpu: OneGpu) -> None:
        """Name this one."""
        self._gpu = gpu

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """End; an error of torch's or Triton's becomes a `DeviceError`."""
        if isinstance(error, RuntimeError):
            raise failed(self._gpu, error) from error


def ran_out(error: DeviceError) -> bool:
    """Tell whether a GPU failed as its memory did not suffice."""
    return isinstance(error.__cause__, load_torch().cuda.OutOfMemoryError)


def failed(gpu: OneGpu, error: RuntimeError) -> DeviceError:
    """Return the error for a GPU that failed."""
    return DeviceError(f"{gpu.name} failed: {str(error).strip().splitlines()[0]}")
