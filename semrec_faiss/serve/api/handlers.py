"""What each route does: a request in, a reply out; whoever waits does so without holding up the others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET
from numpy.typing import NDArray

from semrec_faiss.deadline import TooLateError, due_at
from semrec_faiss.errors import NotFoundError, SemrecError, UnavailableError, UsageError
from semrec_faiss.index.saved.facts import facts_of
from semrec_faiss.search.batching.batcher import Batch
from semrec_faiss.serve.api.deadlines import by_deadline, late
from semrec_faiss.serve.asking.afar import Afar, NotPlainError
from semrec_faiss.serve.asking.answering import ask, rendered, seconds_of
from semrec_faiss.serve.asking.plain import LookedUp, plain
from semrec_faiss.serve.asking.served import Served
from semrec_faiss.serve.asking.serving import Serving
from semrec_faiss.serve.asking.together import Together
from semrec_faiss.serve.metrics import CONTENT_TYPE, Metrics
from semrec_faiss.serve.settings import Limits
from semrec_faiss.serve.wire.arrow import arrow_question, vectors_of
from semrec_faiss.serve.wire.media import body_kind, reply_kind
from semrec_faiss.serve.wire.messages import ARROW, Reply, Request
from semrec_faiss.serve.wire.parameters import parameters_of, whole_number, yes_or_no
from semrec_faiss.serve.wire.problems import Refused, without_path
from semrec_faiss.serve.wire.questions import Explain, Recommend, Search, Similar, question_in

log = logging.getLogger("semrec.serve")

Result = TypeVar("Result")

LISTS = {Similar: ("titles",), Recommend: ("users",), Search: ("texts",)}
"""The fields of a question that hold a query each."""

_AGAIN = "ask again after the seconds of Retry-After"
_RAISE = "have whoever runs the service raise"

HUNG_SECONDS = 60.0
"""So long a search may go on when nobody can be waiting for it any more: after that it is taken for one that hangs."""

MOST_TITLES = 50
"""Of a look-up as one types."""


class Handlers:
    """The routes' work.

    Attributes:
        serving: the generation in use.
        in_flight: questions accepted and not answered.
        is_draining: whether the service is about to end; it is not ready then, and still answers.
        after_reload: called when a caller has asked to take the published generation, be it taken or refused.
    """

    def __init__(self, serving: Serving, limits: Limits, metrics: Metrics, threads: int) -> None:
        self.serving = serving
        self.is_draining = False
        self.after_reload: Callable[[], None] = lambda: None
        self._limits = limits
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(threads, "question")
        self._loader = ThreadPoolExecutor(1, "loader")
        self._state = ThreadPoolExecutor(1, "state")  # is told at once, however many questions wait for a thread
        self._facts = ThreadPoolExecutor(1, "facts")  # reads shards' files, from disks that may hang
        self._together = Together(self._looked_up, self._batch)
        self._afar = Afar(self._batch)
        self._tallies = metrics.tallies
        self.in_flight = 0

    @property
    def waiting(self) -> int:
        """How many callers wait for a search that has not begun."""
        return len(self._together) + len(self._afar) + self.serving.waiting

    @property
    def seconds_overdue(self) -> float:
        """For how long a search has gone on that nobody can be waiting for any more; 0 where there is none."""
        if self.serving.current is None:
            return 0.0  # it is warmed, and a device's kernels are compiled
        searching = max(self._together.seconds_searching, self.serving.batcher.seconds_searching)
        return max(0.0, searching - self._limits.deadline_ms / 1e3)

    def _batch(self, batch: Batch, render_seconds: float) -> None:
        self._metrics.batch(batch)
        tallies = self._tallies
        tallies.observe_all(tallies.parts["search"], [waited + batch.seconds for waited in batch.waited_seconds])
        tallies.observe(tallies.parts["render"], render_seconds / batch.callers, batch.callers)

    def close(self) -> None:
        """End the threads; what they have begun is finished."""
        self._together.close()
        self._afar.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._loader.shutdown(wait=True, cancel_futures=True)
        self._state.shutdown(wait=True, cancel_futures=True)
        self._facts.shutdown(wait=True, cancel_futures=True)

    def similar(self, request: Request) -> Awaitable[Reply]:
        """``POST /v1/similar``."""
        return self._answer(request, Similar)

    def recommend(self, request: Request) -> Awaitable[Reply]:
        """``POST /v1/recommend``."""
        return self._answer(request, Recommend)

    def search(self, request: Request) -> Awaitable[Reply]:
        """``POST /v1/search``."""
        return self._answer(request, Search)

    def explain(self, request: Request) -> Awaitable[Reply]:
        """``POST /v1/explain``."""
        return self._answer(request, Explain)

    async def titles(self, request: Request) -> Reply:
        """``GET /v1/titles?q=…&k=…&near=…``."""
        served = self._in_use()
        parameters = parameters_of(request, ("q", "k", "near"))
        typed, count = parameters.get("q", ""), whole_number("k", parameters.get("k", "10"), MOST_TITLES)
        may_be_near = yes_or_no("near", parameters.get("near", "false"))

        def found() -> bytes:
            titles = served.recommender.titles
            rows, seen = served.type_ahead.looked_at(typed, count)
            near = may_be_near and not rows
            rows = titles.nearest(typed, count) if near else rows
            share = b',"titles_seen":%.4f' % seen if titles.is_partial else b""
            return b'{"titles":[%s]%s%s}' % (b",".join(titles.lines(rows)), b',"near":true' if near else b"", share)

        self._accept()
        try:
            return Reply(await self._in_thread(found, request), generation=served.name)
        finally:
            self._answered()

    async def index(self, request: Request) -> Reply:
        """``GET /v1/index``: what `semrec info --json` says, of the index's path its name."""
        served = self._in_use()
        asked = (self.serving.index.absolute().name, served.recommender.saved.generation)
        facts, detail = await by_deadline(self._facts.submit(facts_of, *asked), request.due)
        return Reply(msgspec.json.encode(facts | detail), generation=served.name)

    async def live(self, _: Request) -> Reply:
        """``GET /livez``: the process runs and answers; it does not where a search hangs."""
        if (overdue := self.seconds_overdue) > HUNG_SECONDS:
            raise Refused(
                503,
                f"a search hangs: it has gone on for {overdue:.0f} seconds beyond the deadline of any question",
                fix="for whoever runs the service: start it again",
            )
        return Reply(b'{"live":true}')

    async def ready(self, _: Request) -> Reply:
        """``GET /readyz``: a generation is warm, no shutdown has begun, shards answer; also what was refused."""
        serving = self.serving
        current, refused = serving.current, serving.refused
        shards = await asyncio.get_running_loop().run_in_executor(self._state, serving.shards)
        answering = [shard["answering"] > 0 for shard in shards or ()]
        enough = any(answering) if serving.is_partial else all(answering)
        is_ready = current is not None and not self.is_draining and (shards is None or enough)
        reason = refused and without_path(refused.reason, serving.index)
        document = {
            "ready": is_ready,
            "draining": self.is_draining,
            "generation": current.name if current else None,
            "refused": {"generation": refused.generation, "reason": reason} if refused else None,
            **({} if shards is None else {"shards": shards}),
        }
        return Reply(msgspec.json.encode(document), 200 if is_ready else 503)

    async def metrics(self, _: Request) -> Reply:
        """``GET /metrics``."""
        text = await asyncio.get_running_loop().run_in_executor(self._state, self._metrics.text)
        return Reply(text, kind=CONTENT_TYPE)

    async def reload(self, _: Request) -> Reply:
        """``POST /v1/reload``: take the generation that is published now; refused, the one in use stays."""
        try:
            served = await self.load()
        except (NotFoundError, UsageError) as error:  # of whoever runs the service: of the index, or of its settings
            raise UnavailableError(error.message, fix=error.fix) from error
        finally:
            self.after_reload()
        return Reply(msgspec.json.encode({"generation": served.name}), generation=served.name)

    async def load(self) -> Served:
        """Take what is published, in a thread of its own; raises what `Serving.load` does."""
        try:
            served = await asyncio.get_running_loop().run_in_executor(self._loader, self.serving.load)
        except Exception as error:
            self._tallies.add(self._tallies.refused)
            known = isinstance(error, SemrecError)
            log.error("what was published is refused: %s", error, exc_info=None if known else error)
            raise
        self._tallies.add(self._tallies.taken)
        after = self._limits.deadline_ms / 1e3 + 1  # when nothing is left that was asked of the one before
        asyncio.get_running_loop().call_later(after, self._let_go)
        return served

    def _let_go(self) -> None:
        with contextlib.suppress(RuntimeError):  # the service has ended
            self._loader.submit(self.serving.let_go)

    async def watch(self, seconds: float) -> None:
        """Look for a new generation every so many seconds, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(seconds)
            if await loop.run_in_executor(self._loader, self.serving.has_news):
                with contextlib.suppress(Exception):  # which is told, by the log, /readyz and a metric
                    await self.load()

    def _in_use(self) -> Served:
        if self.serving.current is None:
            raise Refused(503, "the index is being opened", fix=_AGAIN, headers={"retry-after": "1"})
        return self.serving.current

    async def _answer(self, request: Request, kind: type[msgspec.Struct]) -> Reply:
        """Answer a question from one generation, the one in use when it came."""
        self._accept()
        try:
            served = self._in_use()
            started = time.perf_counter()
            asked = await self._asked(request, kind, served)
            if isinstance(asked, Reply):
                return asked
            reply, seconds = await self._in_thread(lambda: self._slowly(served, asked, request.due), request)
            seconds["thread"] = time.perf_counter() - started
            for part, took in seconds.items():  # here, as threads would count over one another
                self._tallies.observe(self._tallies.parts[part], took)
        finally:
            self._answered()
        reply.generation = served.name
        return reply

    async def _asked(self, request: Request, kind: type[msgspec.Struct], served: Served) -> Reply | LookedUp:
        """Have a plain question answered; any other is returned as it was looked up."""
        try:
            if not served.in_cluster:
                return await self._together.ask(request, kind, served)
            asked = self._looked_up(request, kind, served)
            if asked.plain is not None:
                with contextlib.suppress(NotPlainError):
                    return await self._afar.ask(asked.plain, request.due, as_arrow=asked.as_arrow)
            return asked
        except TooLateError as error:
            raise late() from error

    def _looked_up(self, request: Request, kind: type[msgspec.Struct], served: Served) -> LookedUp:
        as_arrow = reply_kind(request, kind) == ARROW
        question, vectors = self._decoded(request, kind, served)
        self._check(question, vectors)
        started = time.perf_counter()
        found = plain(served, question, vectors)
        self._tallies.observe(self._tallies.parts["look_up"], time.perf_counter() - started)
        return LookedUp(question, vectors, as_arrow, found)

    def _accept(self) -> None:
        """Count what will wait for a search or a thread; raises Refused (429) where as many wait as may."""
        if self.in_flight >= self._limits.max_waiting:
            raise Refused(
                429,
                f"{self.in_flight} questions wait already, the most that may",
                fix=_AGAIN,
                headers={"retry-after": "1"},
            )
        self.in_flight += 1
        self._tallies.set(self._tallies.in_flight, self.in_flight)

    def _answered(self) -> None:
        self.in_flight -= 1
        self._tallies.set(self._tallies.in_flight, self.in_flight)

    def _decoded(
        self, request: Request, kind: type[msgspec.Struct], served: Served
    ) -> tuple[msgspec.Struct, NDArray[Any] | None]:
        if body_kind(request, kind) == ARROW:
            return arrow_question(request, served.recommender.index.dim)
        question = question_in(request, kind)
        if not isinstance(question, Search):
            return question, None
        return question, vectors_of(question, served.recommender.index.dim)

    def _check(self, question: msgspec.Struct, vectors: NDArray[Any] | None) -> None:
        """Refuse (422) what is over the limits."""
        limits = self._limits
        k: int = question.k  # type: ignore[attr-defined]
        if k > limits.max_k:
            raise Refused(
                422, f"k is {k}; this service gives at most {limits.max_k}", fix=f"ask for fewer, or {_RAISE} max_k"
            )
        queries = 0 if vectors is None else len(vectors)
        for name in LISTS.get(type(question), ()):
            several = getattr(question, name)
            if several is not UNSET:
                queries = max(queries, len(several))
        if queries > limits.max_queries:
            raise Refused(
                422,
                f"{queries} queries in one request; this service takes at most {limits.max_queries}",
                fix=f"send several requests, or {_RAISE} max_queries",
            )
        if (results := max(1, queries) * k) > limits.max_results:
            raise Refused(
                422,
                f"{max(1, queries)} queries of k {k} are {results} results; this service gives at most"
                f" {limits.max_results} a request",
                fix=f"send fewer queries, a smaller k or several requests, or {_RAISE} max_results",
            )

    def _slowly(self, served: Served, asked: LookedUp, due: float) -> tuple[Reply, dict[str, float]]:
        """Answer in a thread; also tell how many seconds its parts took."""
        with due_at(due):
            found = ask(served, asked.question, asked.vectors)
        if time.monotonic() > due:  # a million titles take seconds to write
            raise late()
        started, seconds = time.perf_counter(), seconds_of(found)
        reply = rendered(found, as_arrow=asked.as_arrow)
        return reply, seconds | {"render": time.perf_counter() - started}

    async def _in_thread(self, work: Callable[[], Result], request: Request) -> Result:
        return await by_deadline(self._threads.submit(work), request.due)
