"""Which processes hang: by a beat, which is left out while a search hangs.

A worker's is one of its event loop, which all requests go through, and which no other thread can make; before there is
one, while it opens the index, a beat says that it computes.

The process that they began with looks for it so often, and counts the looks that saw none: time in which it did not run
itself, as while the machine was suspended, counts for one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from semrec_faiss.serve.tallies import Tallies

LOOK_SECONDS = 1.0
"""Between two beats, and between two looks."""

MOST_LOOKS = 60
"""So many looks may see no beat. Loading 300,000 titles beside an event loop held it up for 0.04 s at most."""


LEAST_SECONDS = 0.001
"""So much a process has computed between two beats: to read a megabyte takes more, and to wait for ever none."""


def beat(loop: asyncio.AbstractEventLoop, tallies: Tallies, has_hanging_search: Callable[[], bool]) -> None:
    """Count a beat of this process now, and with each further second that its event loop runs, and no search hangs."""
    if not has_hanging_search():
        tallies.add(tallies.beats)
    loop.call_later(LOOK_SECONDS, beat, loop, tallies, has_hanging_search)


def beat_on(tallies: Tallies, has_hanging_search: Callable[[], bool]) -> None:
    """Count a beat now, and with each further second that no search hangs, for ever."""
    while True:
        if not has_hanging_search():
            tallies.add(tallies.beats)
        time.sleep(LOOK_SECONDS)


@contextmanager
def beating_at_work(tallies: Tallies, waits_for_owner: Callable[[], bool]) -> Iterator[None]:
    """Count a beat now, and with each second of the block in which this process computes, on whatever thread.

    So does a second in which it waits for the owner of the device, which has beats of its own.
    """
    ends = threading.Event()
    beats = threading.Thread(target=_beat_at_work, args=(tallies, waits_for_owner, ends), name="beats", daemon=True)
    beats.start()
    try:
        yield
    finally:
        ends.set()
        beats.join()


def _beat_at_work(tallies: Tallies, waits_for_owner: Callable[[], bool], ends: threading.Event) -> None:
    computed = -LEAST_SECONDS
    while not ends.is_set():
        by_others = time.process_time() - time.thread_time()
        if by_others - computed >= LEAST_SECONDS or waits_for_owner():
            tallies.add(tallies.beats)
            computed = by_others
        ends.wait(LOOK_SECONDS)


class Beats:
    """The beats of all processes, as far as they were seen."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies
        self._seen = tallies.each(tallies.beats)
        self._missed = [0] * len(self._seen)

    def look(self, beating: Collection[int]) -> list[int]:
        """Look once; return which of those that should beat hang."""
        now = self._tallies.each(self._tallies.beats)
        for number, beats in enumerate(now):
            has_missed = number in beating and beats == self._seen[number]
            self._missed[number] = self._missed[number] + 1 if has_missed else 0
        self._seen = now
        return [number for number in sorted(beating) if self._missed[number] >= MOST_LOOKS]
