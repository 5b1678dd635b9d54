"""One of several processes, as the supervisor starts it: a worker, or the owner of the device.

It is told what to be by a line of JSON on stdin, whose end is the supervisor's end, and says how it goes on stdout.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from semrec_faiss.errors import DeviceError, SemrecError
from semrec_faiss.search.batching.batcher import Batcher
from semrec_faiss.serve.api.handlers import HUNG_SECONDS
from semrec_faiss.serve.asking.serving import Serving
from semrec_faiss.serve.log import set_up_log, write_stderr_in_a_thread
from semrec_faiss.serve.metrics import Metrics
from semrec_faiss.serve.server import Service, run
from semrec_faiss.serve.settings import ServeConfig
from semrec_faiss.serve.tallies import Tallies
from semrec_faiss.serve.tls import check_tls
from semrec_faiss.serve.workers.doors import handed_over
from semrec_faiss.serve.workers.hanging import beat, beat_on, beating_at_work
from semrec_faiss.serve.workers.owner import DeviceOwner
from semrec_faiss.serve.workers.remote import RemoteDevice
from semrec_faiss.serve.workers.serving import RemoteServing

log = logging.getLogger("semrec.serve")

Say = Callable[[dict[str, Any]], None]


class Part(msgspec.Struct):
    """What a child is told.

    Attributes:
        config: the service's, as JSON.
        number: which of ``processes`` it is.
        processes: workers, and the owner of the device where there is one, which is the last.
        counts: a file of as many numbers for each, open already.
        device: a file, open already: a connection to the owner, or by what the owner is handed its own; None where each
            worker searches by itself.
        is_owner: whether it is that.
        joins: the generation that other workers answer from; None for the first.
    """

    config: dict[str, Any]
    number: int
    processes: int
    counts: int
    device: int | None
    is_owner: bool
    joins: str | None = None


def main() -> int:
    """Be what stdin says, until a signal."""
    say = _teller()
    part = msgspec.json.decode(sys.stdin.buffer.readline(), type=Part)
    config = ServeConfig.model_validate_json(json.dumps(part.config))
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    write_stderr_in_a_thread()
    set_up_log(config)
    # Until the server drains instead; DuckDB makes an error of its own of what is raised amid a query of it.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        (_own if part.is_owner else _work)(part, config, say)
    except SemrecError as error:
        say({"error": type(error).__name__, "message": error.message, "fix": error.fix})
        return error.exit_code
    except Exception as error:  # no memory, say: a traceback each time that it is tried again would tell no more
        log.debug("what ends this process was raised here", exc_info=error)
        fix = "run it with --log-level debug, which shows where that was raised"
        say({"error": type(error).__name__, "message": f"{type(error).__name__}: {error}", "fix": fix})
        return DeviceError.exit_code
    return 0


def _work(part: Part, config: ServeConfig, say: Say) -> None:
    check_tls(config)  # which may not be any more what it was when the service began
    tallies = _tallies(part)
    tallies.set(tallies.in_flight, 0)  # as who fell in this place has left it
    metrics = Metrics(tallies)
    if part.device is None:
        serving = Serving(config.index, config.settings, Batcher(metrics.batch))
    else:
        serving = RemoteServing(config.index, config.settings, RemoteDevice(socket.socket(fileno=part.device)))
    service = Service(config, metrics, serving)
    service.handlers.after_reload = lambda: os.kill(os.getppid(), signal.SIGHUP)  # and so the other workers
    serving.after_taking = lambda name: say({"serving": name})
    is_owned = part.device is not None
    with beating_at_work(tallies, lambda: is_owned and serving.waiting > 0):
        say({"opening": True})
        _load(serving, part.joins)  # before the door is opened, so that who gets in is answered

    def listening(address: str) -> None:
        beat(asyncio.get_running_loop(), tallies, lambda: service.handlers.seconds_overdue > HUNG_SECONDS)
        say({"listening": address})

    run(config, listening, service)


def _load(serving: Serving, joins: str | None) -> None:
    """Take what is published, or where that is refused what the others answer from; raises what `Serving.load` does."""
    try:
        serving.load()
    except Exception as error:  # such as a lack of memory, which those who answer already may not need
        if joins is None:
            raise
        try:
            serving.join(joins)
        except Exception:
            raise error from None
        log.error("what was published is refused; as the others do, this worker serves %s", joins)


def _own(part: Part, config: ServeConfig, say: Say) -> None:
    assert part.device is not None
    say({"listening": "workers"})
    tallies = _tallies(part)
    batcher = Batcher(Metrics(tallies).batch)
    longest = config.limits.deadline_ms / 1e3 + HUNG_SECONDS
    beats = threading.Thread(target=beat_on, args=(tallies, lambda: batcher.seconds_searching > longest), daemon=True)
    beats.start()
    DeviceOwner(config.index, config.settings, batcher, config.threads).serve(
        handed_over(socket.socket(fileno=part.device))
    )


def _tallies(part: Part) -> Tallies:
    workers = part.processes - (part.device is not None)
    return Tallies.in_file(part.counts, part.processes, part.number, workers)


def _end_with_supervisor() -> None:
    while os.read(sys.stdin.fileno(), 1 << 16):  # not through the buffer, which is locked while the process ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _teller() -> Say:
    """Return what tells the supervisor something; what packages print is no part of that, and goes to stderr."""
    told = os.dup(sys.stdout.fileno())
    if sys.stderr is not None:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(what: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # the supervisor has fallen, which stdin's end tells
            os.write(told, json.dumps(what).encode() + b"\n")

    return say


if __name__ == "__main__":
    sys.exit(main())
