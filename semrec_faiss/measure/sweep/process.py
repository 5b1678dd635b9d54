"""Trials in a process of their own, so that one that ends the process costs that trial and not the sweep."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

from semrec_faiss.errors import SemrecError
from semrec_faiss.measure.documents.stamp import Stamp
from semrec_faiss.measure.sweep.work import Emit, Message, SweepWork, failed
from semrec_faiss.measure.trials.record import Failed, Measured
from semrec_faiss.measure.trials.trial import Trial

Records = Mapping[str, Measured | Failed]

PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h."""

END_S = 10
"""How long a child that was told to end may take before it is killed."""


class WorkerProcess:
    """Measures in a child process, which is started anew when it has ended; used in a ``with`` block."""

    def __init__(self, cache: Path, stamp: Stamp) -> None:
        self._cache = cache
        self._stamp = stamp
        # A fork of a process that has used a GPU cannot use one: the child starts from nothing.
        self._context = multiprocessing.get_context("spawn")
        self._child: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> WorkerProcess:
        return self

    def run(self, trials: Sequence[Trial], known: Records, emit: Emit, *, prune: bool) -> None:
        """Measure the trials of one build; see `SweepWork.run`. Trials that a child died of become failed records."""
        left = list(trials)
        known = dict(known)
        while left:
            done, at_stake, ending = self._run_child(left, known, emit, prune=prune)
            known.update(done.records)
            left = [trial for trial in left if trial.digest not in done.digests]
            if ending is None:
                return
            for trial in (trial for trial in left if trial.digest in at_stake):
                emit(Message("record", record=failed(trial, ending, None)))
            left = [trial for trial in left if trial.digest not in at_stake]

    def _run_child(
        self, trials: list[Trial], known: Records, emit: Emit, *, prune: bool
    ) -> tuple[_Done, frozenset[str], str | None]:
        """Give trials to the child until they are done or it has died: what it did, what it died of, and how."""
        pipe = self._started()
        done, at_stake = _Done(), frozenset(trial.digest for trial in trials)
        try:
            pipe.send((trials, dict(known), prune))
            while True:
                message = pipe.recv()
                if message.kind == "done":
                    if message.what:
                        self._end_child()
                    return done, frozenset(), None
                if message.error is not None:
                    kind, text, fix = message.error
                    raise kind(text, fix=fix)
                if message.kind == "stage":
                    at_stake = frozenset(message.digests)
                done.note(message)
                emit(message)
        except (EOFError, ConnectionError, BrokenPipeError):
            return done, at_stake, self._ending()

    def _started(self) -> Connection:
        if self._child is not None and self._child.is_alive() and self._pipe is not None:
            return self._pipe
        ours, theirs = self._context.Pipe()
        self._child = self._context.Process(target=_serve, args=(theirs, self._cache, self._stamp), daemon=True)
        self._child.start()
        theirs.close()  # so that the child's end is the only one, and its death ends our reading
        self._pipe = ours
        return ours

    def _end_child(self) -> None:
        """Let the child end; the next trials start another."""
        if self._pipe is not None:
            self._pipe.close()
        if self._child is not None:
            self._child.join(END_S)
            self._child.kill()
            self._child.join()
        self._child = self._pipe = None

    def _ending(self) -> str:
        """Say how the child ended."""
        if self._child is None:
            return "the measuring process did not start"
        self._child.join(END_S)
        code = self._child.exitcode
        self._child = None
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            why = ": the system was out of memory, or somebody killed it" if name == "SIGKILL" else ""
            return f"the measuring process was ended by {name}{why}"
        return f"the measuring process ended with exit code {code}"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None and self._child is not None:
            self._child.terminate()
        self._end_child()


class _Done:
    """What a child has finished."""

    def __init__(self) -> None:
        self.digests: set[str] = set()
        self.records: dict[str, Measured | Failed] = {}

    def note(self, message: Message) -> None:
        if message.kind == "pruned":
            self.digests.update(message.digests)
        if message.record is not None:
            self.digests.add(message.record.digest)
            self.records[message.record.digest] = message.record


def _serve(pipe: Connection, cache: Path, stamp: Stamp) -> None:
    """Measure what the parent sends until it closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    _die_with_parent()
    work = SweepWork(cache, stamp)
    try:
        while True:
            trials, known, prune = pipe.recv()
            try:
                work.run(trials, known, pipe.send, prune=prune)
                # torch keeps GPU memory that other indexes' peaks would count: they get a process without it.
                pipe.send(Message("done", "torch" if "torch" in sys.modules else ""))
            except SemrecError as error:
                pipe.send(Message("refused", error=(type(error), error.message, error.fix)))
    except (EOFError, BrokenPipeError, ConnectionError):
        os._exit(0)  # nobody is left to tell


def _die_with_parent() -> None:
    """Ask Linux to end this process when its parent is killed, so that it disturbs no run that follows."""
    with contextlib.suppress(OSError, AttributeError):  # another system
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
