"""``semrec bench answers``: what a caller waits for, from the question to titles, and what of that is not search.

Titles and users are drawn at random and asked once each, so that nothing is answered from what is kept.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.errors import AmbiguousTitleError, UsageError
from semrec_faiss.measure.bench.answers_record import (
    AnswersResults,
    AnswersSettings,
    AskedIndex,
    BatchOfUsers,
    BatchOfVectors,
    FormCosts,
    HeldMemory,
    SingleQuestions,
    Spread,
    Threads,
)
from semrec_faiss.measure.bench.every_user import every_user
from semrec_faiss.measure.bench.record import SEED
from semrec_faiss.measure.documents.results import NotMeasured, device_name
from semrec_faiss.measure.instruments.environment import load_average, stamp_of_this_run
from semrec_faiss.measure.instruments.host_memory import status_bytes
from semrec_faiss.measure.instruments.timing import Work
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.answers.answer import Answer
from semrec_faiss.search.batching.batcher import Batcher
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.warming import TIMES_GPU, WARM_BATCHES

UNTOLD = NotMeasured("only Linux tells what of a process's memory is mapped files (/proc/self/status)")

BATCH = 1000
THREADS = 16
EACH_THREAD = 500
"""Users that each thread asks for, one after the other, at most."""

FEW_CORES = 2
"""Cores that threads are kept on for a second measurement: who is woken there does not wait for an idle one to wake."""

THREADS_SECONDS = 20.0
"""When threads stop to ask, where a question takes long: on a slow machine the command is to end, too."""

WARMUP = 5
FIRST_ROUNDS, ROUNDS = 3, 15
"""Batches of other users each: the first ones compile and record what the others take, and are told apart."""

VECTORS, VECTORS_SECONDS = 10_000, 20.0
"""Vectors that are searched at once; and when no further round of them begins."""

BESIDE_LIMIT_MS = 0.25
"""What may be spent beside the search on one question …"""

TITLE_LIMIT_MS = 0.010
"""… and for each title that is returned, on a CPU."""


@dataclass(frozen=True)
class AnswersBench:
    """What to measure.

    Attributes:
        questions: titles, and users, that are asked one by one.
        k: titles an answer.
    """

    questions: int = 200
    k: int = 10


def bench_answers(recommender: Recommender, bench: AnswersBench, progress: Progress = silent) -> AnswersResults:
    """Time single questions, batches and threads on an open index.

    Raises:
        UsageError: the index has fewer users or titles than are to be asked.
    """
    load, opened = load_average(), held_memory()
    rng = np.random.default_rng(SEED)
    users, titles = recommender.users, recommender.titles
    if min(users.count, titles.count) < bench.questions + WARMUP:
        raise UsageError(
            f"{users.count} users and {titles.count} titles are too few for {bench.questions} questions of each",
            fix="lower --questions",
        )
    drawn = rng.choice(users.count, bench.questions + WARMUP, replace=False)
    by_id, by_title = (rng.choice(titles.count, bench.questions + WARMUP, replace=False) for _ in range(2))
    ids = [users.ids[row] for row in drawn]
    singles: dict[str, tuple[Sequence[Any], Vectors, Callable[[Any], Answer]]] = {
        "recommend_user": (ids, users.vectors[drawn], lambda one: recommender.recommend(one, bench.k)),
        "similar_media_id": (
            [record["media_id"] for record in titles.records(by_id)],
            recommender.index.vectors(by_id),
            lambda one: recommender.similar(one, bench.k),
        ),
        "similar_title": _named(recommender, by_title, bench),
    }
    questions = {}
    for number, (name, (asked, vectors, ask)) in enumerate(singles.items()):
        progress("asking one by one", number, len(singles))
        questions[name] = _one_by_one(recommender, asked, np.ascontiguousarray(vectors), ask, bench.k)
    progress("asking one by one", len(singles), len(singles))
    asked_all = held_memory()
    batches = _batches(recommender, rng, bench, progress)
    return AnswersResults.whole(
        environment=stamp_of_this_run(),
        load_average_at_start=load,
        device=device_name(recommender.index.device),
        index=AskedIndex(type=recommender.index.config.type, titles=titles.count, users=users.count),
        settings=AnswersSettings(questions=bench.questions, k=bench.k, seed=SEED, batch=BATCH),
        questions=questions,
        memory={"opened": opened, "asked": asked_all} if opened and asked_all else UNTOLD,
        batches=batches,
        vectors=_vectors(recommender, rng, bench),
        threads=_batched_threads(recommender, rng, bench),
        threads_on_two_cores=_on_few_cores(recommender, rng, bench),
        threads_alone=_threads(recommender, rng, bench),
        every_user=every_user(recommender, bench.k, progress),
    )


def held_memory() -> HeldMemory | None:
    """Count what this process holds; None where the system does not tell."""
    own, mapped, shared = (status_bytes(name) for name in ("RssAnon", "RssFile", "RssShmem"))
    if own is None or mapped is None or shared is None:
        return None
    return HeldMemory(own_bytes=own, mapped_bytes=mapped + shared)  # shared: mapped from a file system in memory


def _named(recommender: Recommender, rows: Rows, bench: AnswersBench) -> tuple[list[str], Vectors, Any]:
    """Titles by their whole names; those that several share are left out."""
    titles = [record["title"] for record in recommender.titles.records(rows)]
    alone = [position for position, title in enumerate(titles) if _is_alone(recommender, title)]
    vectors = recommender.index.vectors(rows[alone])
    fresh = Recommender(recommender.saved)  # which has not looked any of them up
    return [titles[position] for position in alone], vectors, lambda one: fresh.similar(one, bench.k)


def _is_alone(recommender: Recommender, title: str) -> bool:
    try:
        recommender.titles.find(title)
    except AmbiguousTitleError:
        return False
    return True


def _one_by_one(
    recommender: Recommender, asked: Sequence[Any], vectors: Vectors, ask: Callable[[Any], Answer], k: int
) -> SingleQuestions:
    """Ask one after the other, each in turn with the bare search of the same vector."""
    times: dict[str, list[float]] = {name: [] for name in ("whole", "bare_search", "search", "results", "beside")}
    returned = 0
    for number, one in enumerate(asked):
        query = vectors[number : number + 1]
        started = time.perf_counter()
        answer = ask(one)
        answered = time.perf_counter()
        returned += len(answer.results)
        ended = time.perf_counter()
        recommender.index.search(query, k, prepared=True)
        bare = time.perf_counter() - ended
        if number >= WARMUP:
            times["whole"].append(ended - started)
            times["bare_search"].append(bare)
            times["search"].append(answer.elapsed_ms / 1e3)
            times["results"].append(ended - answered)
            times["beside"].append(ended - started - answer.elapsed_ms / 1e3)
    beside = float(np.median(times["beside"])) * 1e3
    limit = BESIDE_LIMIT_MS + TITLE_LIMIT_MS * returned / len(asked)
    spreads = {name: Spread.of(values) for name, values in times.items()}
    judged = {"beside_limit_ms": round(limit, 4), "met": beside <= limit}
    return SingleQuestions.model_validate({"asked": len(times["whole"]), **spreads, **judged})


def _batches(recommender: Recommender, rng: Any, bench: AnswersBench, progress: Progress) -> BatchOfUsers:
    """Time a batch of users, and each form that its answers may be wanted in; other users each time."""
    users = recommender.users
    size, genre = min(BATCH, users.count), _usual_genre(recommender)
    times: dict[str, list[float]] = {}
    first: dict[str, list[float]] = {}
    for number in range(FIRST_ROUNDS + ROUNDS):
        progress("asking in batches", number, FIRST_ROUNDS + ROUNDS)
        rows = rng.choice(users.count, size, replace=False)
        ids, vectors = [users.ids[row] for row in rows], np.ascontiguousarray(users.vectors[rows])
        for name, seconds in _round(recommender, ids, vectors, genre, bench.k).items():
            (first if number < FIRST_ROUNDS else times).setdefault(name, []).append(seconds)
    progress("asking in batches", FIRST_ROUNDS + ROUNDS, FIRST_ROUNDS + ROUNDS)
    each = {name: round(float(np.median(times[name])) * 1e6 / (size * bench.k), 3) for name in FormCosts.model_fields}
    told = {name: Spread.of(times[name]) if name in times else None for name in _FORMS}
    first_ms = {name: [round(1e3 * seconds, 3) for seconds in values] for name, values in first.items()}
    return BatchOfUsers.model_validate(
        {"users": size, "genre": genre, **told, "us_a_title": FormCosts(**each), "first_ms": first_ms}
    )


_FORMS = ("bare_search", "rows_and_scores", "one_genre", "to_arrow", "as_table", "as_json_bytes", "results", "titles")


def _round(
    recommender: Recommender, ids: Sequence[str], vectors: Vectors, genre: str | None, k: int
) -> dict[str, float]:
    """Time everything once, for the same users."""
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        done = work()
        seconds[name] = time.perf_counter() - started
        return done

    timed("bare_search", lambda: recommender.index.search(vectors, k, prepared=True))
    answers = timed("rows_and_scores", lambda: recommender.recommend(ids, k))
    if genre is not None:
        timed("one_genre", lambda: recommender.recommend(ids, k, where=Filter(genres=(genre,))))
    timed("to_arrow", answers.to_arrow)
    seconds["as_table"] = seconds["rows_and_scores"] + seconds["to_arrow"]
    timed("as_json_bytes", answers.as_json_bytes)
    timed("results", lambda: [answer.results for answer in answers])
    timed("titles", lambda: [[one.title for one in answer] for answer in answers])
    return seconds


def _vectors(recommender: Recommender, rng: Any, bench: AnswersBench) -> BatchOfVectors:
    """Time a large batch of vectors, each of two users together: others each time, and like what users ask by."""
    vectors, times = recommender.users.vectors, list[float]()
    end = time.perf_counter() + VECTORS_SECONDS
    while len(times) <= FIRST_ROUNDS or (len(times) < FIRST_ROUNDS + ROUNDS and time.perf_counter() < end):
        one, other = (np.asarray(vectors[rng.choice(len(vectors), VECTORS)], np.float32) for _ in range(2))
        queries = one + other
        started = time.perf_counter()
        recommender.search(queries, bench.k)
        times.append(time.perf_counter() - started)
    first_ms = [round(1e3 * seconds, 3) for seconds in times[:FIRST_ROUNDS]]
    counted = times[FIRST_ROUNDS:]
    return BatchOfVectors(**dict(Spread.of(counted)), queries=VECTORS, rounds=len(counted), first_ms=first_ms)


def _usual_genre(recommender: Recommender) -> str | None:
    """Return a genre that a good share of the titles has; None where there are no genres."""
    known = [record["genres"] or [] for record in recommender.titles.records(range(min(500, recommender.titles.count)))]
    genres = [genre for some in known for genre in some]
    return max(set(genres), key=lambda genre: (genres.count(genre), genre)) if genres else None


def _batched_threads(recommender: Recommender, rng: Any, bench: AnswersBench, begin: Work | None = None) -> Threads:
    """Let threads ask together; see `Batcher`."""
    with Batcher() as batcher:
        return _threads(Recommender(recommender.saved, batcher), rng, bench, begin)


def _on_few_cores(recommender: Recommender, rng: Any, bench: AnswersBench) -> Threads | NotMeasured:
    """Let threads ask together that are kept on few cores, as whoever starts them can do."""
    if not hasattr(os, "sched_setaffinity"):
        return NotMeasured("this system does not let threads choose their cores")
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) <= FEW_CORES:
        return NotMeasured(f"there are no more than {FEW_CORES} cores")
    return _batched_threads(recommender, rng, bench, partial(os.sched_setaffinity, 0, usable[:FEW_CORES]))


def _threads(recommender: Recommender, rng: Any, bench: AnswersBench, begin: Work | None = None) -> Threads:
    """Let several threads ask for one user after the other at the same time, each once for what is done once.

    Batches of every size that so many threads can make have been asked before, as `semrec warm` does: a GPU records
    each. What was measured before leaves nothing for Python's garbage collector to find.
    Each thread does ``begin`` first.
    """
    ids = np.array(recommender.users.ids, object)
    for size in (size for size in WARM_BATCHES if size <= THREADS):
        for _ in range(TIMES_GPU):
            recommender.recommend(ids[:size].tolist(), bench.k)
    gc.collect()

    def ask(mine: Sequence[str], end: float) -> list[float]:
        times: list[float] = []
        for user in mine:
            started = time.perf_counter()
            if times and started > end:
                break
            _ = recommender.recommend(user, bench.k).results
            times.append(time.perf_counter() - started)
        return times

    with ThreadPoolExecutor(THREADS, initializer=begin) as pool:
        for each in (max(1, EACH_THREAD // 5), EACH_THREAD):
            drawn = [ids[rng.choice(len(ids), each)].tolist() for _ in range(THREADS)]
            started = time.perf_counter()
            times = [
                seconds for some in pool.map(ask, drawn, [started + THREADS_SECONDS] * THREADS) for seconds in some
            ]
            whole = time.perf_counter() - started
    return Threads(
        **dict(Spread.of(times)), threads=THREADS, asked=len(times), users_per_second=round(len(times) / whole, 1)
    )
