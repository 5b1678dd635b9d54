"""Plain questions on their way, and the replies to them, which are written together."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from semrec_faiss.deadline import TooLateError
from semrec_faiss.search.answers.answer_json import answers_json
from semrec_faiss.search.answers.batch import Answers
from semrec_faiss.search.batching.joined import part_of
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.serve.asking.answering import titles_asked
from semrec_faiss.serve.asking.plain import Plain
from semrec_faiss.serve.wire.arrow import arrow_stream
from semrec_faiss.serve.wire.messages import ARROW, Reply, scores_json


class Waiting(msgspec.Struct, eq=False):
    """A plain question on its way: its deadline and since when, both by `time.monotonic`, and the reply."""

    plain: Plain
    due: float
    reply: asyncio.Future[Any]
    since: float
    as_arrow: bool

    def give_up_in_time(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be told TooLateError when the time is up, whatever is on its way then."""
        timer = loop.call_later(self.due - self.since, self._give_up)
        self.reply.add_done_callback(lambda _: timer.cancel())

    def _give_up(self) -> None:
        tell([(self, too_late(self))])


def too_late(waiting: Waiting) -> TooLateError:
    """Make the error for who waited until the time was up."""
    waited_ms = (time.monotonic() - waiting.since) * 1e3
    return TooLateError(f"the search had not begun when its time was up, after {waited_ms:.0f} ms")


def soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Have the loop's thread do something, unless the loop is closed, where nobody waits any more."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


def tell(replies: Sequence[tuple[Waiting, Reply | BaseException]]) -> None:
    """Hand callers their replies, or what was raised; who has given up is not told."""
    for one, reply in replies:
        if one.reply.done():
            continue
        if isinstance(reply, BaseException):
            one.reply.set_exception(reply)
        else:
            one.reply.set_result(reply)


def written(batch: Sequence[Waiting], found: TopK, seconds: float) -> list[tuple[Waiting, Reply | BaseException]]:
    """Write the replies to all; where something cannot be written, all but those whose it is.

    Args:
        batch: questions of one kind.
        found: what they have found.
        seconds: how long that took.
    """
    try:
        return list(_written(batch, found, seconds))
    except Exception as error:
        if len(batch) == 1:
            return [(batch[0], error)]
        stops = np.cumsum([one.plain.size for one in batch]).tolist()
        parts = (([one], part_of(found, stop - one.plain.size, stop)) for one, stop in zip(batch, stops, strict=True))
        return [told for own, part in parts for told in written(own, part, seconds)]


def _written(batch: Sequence[Waiting], found: TopK, seconds: float) -> Iterator[tuple[Waiting, Reply]]:
    """Write what was found, the JSON of all at once."""
    plains = [one.plain for one in batch]
    first = plains[0]
    asked = {name: list(chain.from_iterable(one.asked[name] for one in plains)) for name in first.asked}
    if "position" in asked:
        asked["position"] = [place for one in plains for place in range(one.size)]
    answers = Answers(found, first.k, asked, first.served.recommender.titles, seconds * 1e3)
    all_arrow = all(one.as_arrow for one in batch)
    told = [query for one in plains for query in one.told] if first.told else None
    lines = [] if all_arrow else answers_json(answers, scores_json, first.served.titles.records, told)
    is_short = found.rows[:, -1] < 0 if found.rows.shape[1] == first.k else np.ones(len(found.rows), np.bool_)
    any_short = bool(is_short.any())
    start = 0
    for one in batch:
        stop = start + one.plain.size
        if not one.reply.done():
            reply = _reply(one, found, lines, start, stop, seconds)
            reply.short = int(is_short[start:stop].sum()) if any_short else 0
            yield one, reply
        start = stop


def _reply(one: Waiting, found: TopK, lines: list[bytes], start: int, stop: int, seconds: float) -> Reply:
    plain = one.plain
    generation = plain.served.name
    if one.as_arrow:
        part = part_of(found, start, stop)
        answers = Answers(part, plain.k, _asked_of(plain), plain.served.recommender.titles, seconds * 1e3)
        return Reply(arrow_stream(answers[0] if plain.is_single else answers), kind=ARROW, generation=generation)
    if plain.is_single:
        return Reply(lines[start], generation=generation)
    return Reply(b'{"answers":[' + b",".join(lines[start:stop]) + b"]}", generation=generation)


def _asked_of(plain: Plain) -> Mapping[str, Sequence[Any]]:
    if not isinstance(plain.queries, tuple):
        return plain.asked
    return titles_asked(plain.served.recommender, plain.queries)
