"""The process that a service of several begins with: starts them, hands signals on, and starts again who has fallen."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

from semrec_faiss import errors
from semrec_faiss.errors import DeviceError, SemrecError, UsageError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.serve import server
from semrec_faiss.serve.keys import Keys
from semrec_faiss.serve.log import set_up_log, write_stderr_in_a_thread
from semrec_faiss.serve.settings import ServeConfig
from semrec_faiss.serve.tallies import Tallies
from semrec_faiss.serve.tls import check_tls
from semrec_faiss.serve.workers.child import Part
from semrec_faiss.serve.workers.doors import Doors
from semrec_faiss.serve.workers.hanging import LOOK_SECONDS, MOST_LOOKS, Beats
from semrec_faiss.serve.workers.restarting import Restarts

log = logging.getLogger("semrec.serve")

MARGIN_SECONDS = 5.0
"""Beyond the grace, before a worker that does not end is killed."""


def run(config: ServeConfig, listening: Callable[[str], None]) -> None:
    """Serve with as many processes as the config says until a signal ends it; see `server.run` for one."""
    write_stderr_in_a_thread()
    check_tls(config)
    if config.workers == 1:
        server.run(config, listening)
    else:
        _Supervisor(config, listening).run()


class _Supervisor:
    def __init__(self, config: ServeConfig, listening: Callable[[str], None]) -> None:
        IndexDirectory(config.index).current()
        if config.keys is not None:
            Keys.read(config.keys)
        self._listening = listening
        self._has_owner = _needs_owner(config)
        self._processes = config.workers + self._has_owner
        server.door(config.model_copy(update={"workers": 1})).close()  # workers of another service would share theirs
        self._place = server.door(config)  # keeps the port for the workers, and listens to nobody itself
        self._config = config.model_copy(update={"port": self._place.getsockname()[1]})
        self._counts = Tallies.new_file(self._processes)
        self._tallies = Tallies.in_file(self._counts.fileno(), self._processes, 0, config.workers)
        self._doors = Doors() if self._has_owner else None
        self._events: SimpleQueue[tuple[int, dict[str, Any] | None]] = SimpleQueue()
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._running = set(range(config.workers))  # or to be started again
        self._restarts = Restarts()
        self._why: dict[int, str] = {}  # a worker is about to fall
        self._opening_workers: set[int] = set()
        self._listening_workers: set[int] = set()
        self._to_reload: set[int] = set()
        self._serving: str | None = None  # what workers answer from, as the last one that took something has told
        self._is_ending = False

    def run(self) -> None:
        """Start everybody, and wait until all have ended."""
        set_up_log(self._config)
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda *_: self._end())
        with contextlib.suppress(AttributeError):  # Windows has no SIGHUP
            signal.signal(signal.SIGHUP, lambda *_: self._reload())
        try:
            if self._has_owner:
                self._begin(self._config.workers)
                self._wait_for({self._config.workers})
            for number in self._running:
                self._begin(number)
            threading.Thread(target=self._look_for_hanging, daemon=True).start()
            address = self._wait_for(self._running)
            if not self._is_ending:
                self._listening(address)
            self._watch()
        finally:
            self._close()
        for number in set(self._children) - {self._config.workers}:
            if self._children[number].returncode not in (0, -signal.SIGTERM):  # which ends one that is being started
                raise DeviceError(f"worker {number} did not end as it should ({self._code(number)})")

    def _begin(self, number: int) -> None:
        is_owner = number == self._config.workers
        config, counts = self._config.model_dump(mode="json"), self._counts.fileno()
        with contextlib.ExitStack() as ours:
            door = self._door_of(number)
            device = None if door is None else ours.enter_context(door).fileno()
            part = Part(config, number, self._processes, counts, device, is_owner, self._serving)
            child = subprocess.Popen(
                [sys.executable, "-m", "semrec_faiss.serve.workers.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[file for file in (counts, device) if file is not None],
                start_new_session=True,  # Ctrl-C is handed on once, not twice
            )
        self._children[number] = child
        if self._is_ending:  # which it was not told
            child.terminate()
        threading.Thread(target=self._listen_to, args=(number, child), daemon=True).start()
        assert child.stdin is not None
        with contextlib.suppress(OSError):  # it has fallen, which is told by its end
            child.stdin.write(msgspec.json.encode(part) + b"\n")
            child.stdin.flush()

    def _door_of(self, number: int) -> socket.socket | None:
        """Return a worker's connection to the owner of the device, or by what that gets them; None without one."""
        if self._doors is None:
            return None
        return self._doors.for_owner() if number == self._config.workers else self._doors.for_worker()

    def _listen_to(self, number: int, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            told = json.loads(line)
            if "serving" in told:
                self._serving = told["serving"]
                continue
            if "opening" in told:
                self._opening_workers.add(number)
                continue
            if "listening" in told:
                self._listens(number)
            self._events.put((number, told))
        child.wait()
        self._opening_workers.discard(number)
        self._listening_workers.discard(number)
        self._events.put((number, None))

    def _wait_for(self, numbers: set[int]) -> str:
        """Wait until all of ``numbers`` listen, and return the address; raises what one says that cannot."""
        waiting, address = set(numbers), ""
        while waiting and not self._is_ending:
            number, told = self._events.get()
            if told is None:
                if not self._is_ending:
                    raise self._fallen(number)
                self._events.put((number, None))  # it was told to end, for which `_watch` waits
            elif "error" in told:
                raise _error(told)
            elif "listening" in told:
                waiting.discard(number)
                address = told["listening"]
        return address

    def _watch(self) -> None:
        """Wait until all workers have ended; start again who falls before it is told to end."""
        while self._running:
            with contextlib.suppress(Empty):
                self._hear(*self._events.get(timeout=self._restarts.seconds_left()))
            if self._is_ending:
                self._running.difference_update(self._restarts.take_all())
            else:
                self._begin_again()

    def _hear(self, number: int, told: dict[str, Any] | None) -> None:
        if number == self._config.workers:
            if not self._is_ending and (told is None or "error" in told):
                self._kill()  # workers can answer nothing any more, and the sooner the next service begins the better
                raise self._fallen(number) if told is None else _error(told)
        elif told is not None:
            if "error" in told:
                self._why[number] = f"cannot go on: {told['message']}"
        elif self._is_ending:
            self._running.discard(number)
        else:
            self._tallies.add(self._tallies.fallen)
            self._start_later(number, self._why.pop(number, f"has fallen ({self._code(number)})"))

    def _start_later(self, number: int, reason: str) -> None:
        """Have another worker take the place of one that fell, and say why, unless that was said before."""
        self._children.pop(number, None)
        if not self._restarts.fell(number, reason):
            log.error("worker %d %s; another takes its place", number, reason)

    def _begin_again(self) -> None:
        for number in self._restarts.take_due():
            try:
                self._begin(number)
            except OSError as error:  # no memory for a process, say
                self._start_later(number, f"cannot be started: {error.strerror or error}")

    def _look_for_hanging(self) -> None:
        """Kill a worker that hangs, but none while another is not back: a disk that all wait for would end them all.

        The owner of the device, whose end is that of the service, is looked at once a worker has opened the index.
        """
        beats, owner = Beats(self._tallies), self._config.workers
        while not self._is_ending:
            time.sleep(LOOK_SECONDS)
            workers = self._listening_workers - {owner}
            hanging = beats.look(self._listening_workers | self._opening_workers if workers else workers)
            if self._is_ending or not hanging:
                continue
            if owner in hanging:
                self._end_hanging(owner)
            elif len(workers | {hanging[0]}) == self._config.workers:
                self._end_hanging(hanging[0])

    def _end_hanging(self, number: int) -> None:
        why = f"hangs: for {MOST_LOOKS * LOOK_SECONDS:.0f} s its event loop has not run, or a search has hung"
        if number in self._opening_workers:
            why = f"hangs: for {MOST_LOOKS * LOOK_SECONDS:.0f} s it has computed nothing, though it opens the index"
        if number == self._config.workers:
            told = {"error": "DeviceError", "message": f"the owner of the device {why}", "fix": "start it again"}
            self._events.put((number, told))
        else:
            self._why[number] = why
        self._tallies.add(self._tallies.hung)
        self._opening_workers.discard(number)
        self._listening_workers.discard(number)
        self._send(number, signal.SIGKILL)

    def _code(self, number: int) -> str:
        code = self._children[number].returncode
        return signal.Signals(-code).name if code and code < 0 else f"exit code {code}"

    def _fallen(self, number: int) -> DeviceError:
        what = "the owner of the device" if number == self._config.workers else f"worker {number}"
        why = self._why.get(number, f"has fallen ({self._code(number)})")
        return DeviceError(f"{what} {why}", fix="the log above says more; start it again")

    def _end(self) -> None:
        self._is_ending = True
        self._wake()
        self._hand_on(signal.SIGTERM)
        timer = threading.Timer(self._config.grace_seconds + MARGIN_SECONDS, self._kill)
        timer.daemon = True
        timer.start()

    def _hand_on(self, number: int) -> None:
        for worker in range(self._config.workers):
            self._send(worker, number)

    def _send(self, worker: int, number: int) -> None:
        child = self._children.get(worker)
        if child is not None and child.poll() is None:
            child.send_signal(number)

    def _reload(self) -> None:
        """Hand SIGHUP on; whom it would end, as it does not listen yet, is sent it later."""
        self._restarts.all_now()
        self._wake()
        for worker in range(self._config.workers):
            self._to_reload.add(worker)
            self._catch_up(worker)

    def _wake(self) -> None:
        """Have the main thread, which this may be, look at once what there is to do."""
        self._events.put((0, {}))

    def _listens(self, worker: int) -> None:
        self._restarts.answers(worker)
        self._opening_workers.discard(worker)
        self._listening_workers.add(worker)
        self._catch_up(worker)

    def _catch_up(self, worker: int) -> None:
        if worker in self._listening_workers and worker in self._to_reload:
            self._to_reload.discard(worker)
            self._send(worker, signal.SIGHUP)

    def _kill(self) -> None:
        for child in list(self._children.values()):
            if child.poll() is None:
                child.kill()

    def _close(self) -> None:
        """End everybody who still runs, the owner last."""
        for child in self._children.values():
            if child.poll() is None:
                child.terminate()
        for child in self._children.values():
            try:
                child.wait(self._config.grace_seconds + MARGIN_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
        self._place.close()
        self._counts.close()
        if self._doors is not None:
            self._doors.close()


def _needs_owner(config: ServeConfig) -> bool:
    """Tell whether one process is to own the device: a GPU holds an index once, and answers one batch best."""
    if not hasattr(socket, "SO_REUSEPORT"):
        raise UsageError("this system lets only one process listen at a port", fix="leave --workers out")
    if config.owner == "auto":
        return bool(SavedIndex(config.index, config.settings).device.gpus)
    return config.owner == "always"


def _error(told: dict[str, Any]) -> SemrecError:
    kind = getattr(errors, told["error"], None)
    if isinstance(kind, type) and issubclass(kind, SemrecError):
        return kind(told["message"], fix=told["fix"])
    return DeviceError(told["message"], fix=told["fix"])
