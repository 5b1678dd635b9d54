"""``semrec compare``: the guide's five tests, CPU and GPU side by side, as one results document."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semrec_faiss.errors import SemrecError, UsageError
from semrec_faiss.index.device import Device, choose_device
from semrec_faiss.index.saved import SavedIndex
from semrec_faiss.measure.documents.criterion import Criterion
from semrec_faiss.measure.documents.results import NotMeasured, settle
from semrec_faiss.measure.guide.batches import KEYS as BATCH_KEYS
from semrec_faiss.measure.guide.batches import batch_queries, batches_test
from semrec_faiss.measure.guide.config import CompareSettings, Costs
from semrec_faiss.measure.guide.cost import costs_of
from semrec_faiss.measure.guide.filtering import filtering_test, genre_title
from semrec_faiss.measure.guide.memory import KEYS as MEMORY_KEYS
from semrec_faiss.measure.guide.memory import memory_test
from semrec_faiss.measure.guide.parity import parity_certificate
from semrec_faiss.measure.guide.personalization import chosen_users, personalization_test
from semrec_faiss.measure.guide.sides import Outcome, Sides, open_sides, why_no_gpu
from semrec_faiss.measure.guide.similarity import query_titles, similarity_test
from semrec_faiss.measure.instruments.environment import environment, load_average, usable_cores
from semrec_faiss.measure.instruments.other_programs import OtherPrograms
from semrec_faiss.measure.instruments.trace import profile
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.filter import Filter

Document = dict[str, Any]
Test = Callable[[Sides, CompareSettings, Progress], Outcome]

TESTS: dict[int, tuple[str, str, Test | None]] = {
    1: ("test_1_similarity", "similarity", similarity_test),
    2: ("test_2_personalization", "personalization", personalization_test),
    3: ("test_3_batch", "batch", batches_test),
    4: ("test_4_filtering", "filtering", filtering_test),
    5: ("test_5_memory", "memory", None),
}
"""Number → the guide's key, the key of its details, and what runs it; memory is measured in processes of their own."""

GUIDE_KEYS: dict[str, tuple[str, ...]] = {
    "test_1_similarity": ("gpu_time_ms", "cpu_time_ms", "results"),
    "test_2_personalization": ("avg_gpu_time_ms", "cpu_avg_time_ms", "user_results"),
    "test_4_filtering": ("gpu_time_ms", "gpu_search_time_ms", "gpu_host_time_ms", "cpu_time_ms", "results"),
    "test_5_memory": (*MEMORY_KEYS, *(f"cpu_{key}" for key in MEMORY_KEYS)),
}
"""Of every test but the batches, whose keys are their sizes."""


@dataclass(frozen=True)
class Comparison:
    """What to run.

    Attributes:
        index: the index directory.
        settings: search and device settings, as for `SavedIndex`.
        only: numbers of the tests to run; all by default.
        questions: what is asked, and the targets.
        costs: the prices.
        trace: where a Chrome trace of one query of each test goes; None makes none.
    """

    index: Path
    settings: tuple[str, ...] = ()
    only: tuple[int, ...] = tuple(TESTS)
    questions: CompareSettings = field(default_factory=CompareSettings)
    costs: Costs = field(default_factory=Costs)
    trace: Path | None = None


def compare(
    plan: Comparison, progress: Progress = silent, keep: Callable[[Document], None] = lambda document: None
) -> Document:
    """Run the tests.

    A test that fails does not end the others: its numbers are None, and ``not_measured`` says why.

    Args:
        plan: what to run.
        progress: told the steps of each test.
        keep: given the document so far after every test, so that nothing is lost if the process dies.

    Returns:
        The guide's five objects, then ``criteria``, ``parity``, ``cost``, ``profile``, ``details`` and
        ``environment``. What was not measured is None, and ``not_measured`` says why.

    Raises:
        SemrecError: the index cannot be opened.
        UsageError: there is no such test.
        NotFoundError: a title or user that ``questions`` name does not exist.
        DeviceError: the settings ask for a GPU, and there is none.
    """
    unknown = [number for number in plan.only if number not in TESTS]
    if unknown or not plan.only:
        raise UsageError(f"there is no test {unknown or 'asked for'}", fix=f"tests: {', '.join(map(str, TESTS))}")
    started, load, others = time.perf_counter(), load_average(), OtherPrograms()
    saved = SavedIndex(plan.index, plan.settings)
    if saved.config.device.kind == "gpu":  # asked for by name: to go on without would be no answer
        choose_device(saved.config.device, saved.config.index)
    _check_names(saved, plan)
    outcomes: dict[str, Outcome] = {}
    if 5 in plan.only:  # first: a GPU that already holds an index would show less free memory
        devices = memory_devices(saved, plan.settings)
        search = [one for one in plan.settings if not one.startswith("device.")]
        outcomes["memory"] = _outcome(
            5, lambda: memory_test(plan.index, devices, plan.questions, progress, search), plan
        )
    sides = open_sides(plan.index, plan.settings, progress)

    def document() -> Document:
        return _document(
            plan,
            saved,
            sides,
            outcomes,
            {
                "seconds": round(time.perf_counter() - started, 1),
                "load_average_at_start": load,
                "others_used_cores": others.cores_used(),
            },
        )

    for number in plan.only:
        _, name, test = TESTS[number]
        if test is not None:
            outcomes[name] = _run(number, test, sides, plan, progress)
            keep(document())
    outcomes["parity"] = _run(0, parity_certificate, sides, plan, progress)
    if plan.trace is not None:
        outcomes["profile"] = _profiled(sides, plan, progress)
    return document()


def _check_names(saved: SavedIndex, plan: Comparison) -> None:
    """Refuse titles and users that somebody named and that do not exist, before anything takes time."""
    questions = plan.questions
    titles = [*(questions.similarity.titles or ()), *filter(None, [questions.filtering.title])]
    for title in titles:
        saved.catalog.find(title)
    users = questions.personalization.users
    if not isinstance(users, int) and saved.users is not None:
        saved.users.rows_of(users)


def _run(number: int, test: Test, sides: Sides, plan: Comparison, progress: Progress) -> Outcome:
    return _outcome(number, lambda: test(sides, plan.questions, progress), plan)


def _outcome(number: int, work: Callable[[], Outcome], plan: Comparison) -> Outcome:
    """Run one test; whatever it raises becomes the reason why its numbers are missing."""
    try:
        return work()
    except Exception as error:
        said = _said(error, plan)
        name = TESTS[number][1] if number else "parity"
        ran = Criterion(number, "ran", f"the {name} test ran", None, 1.0, True, "count", said)
        return Outcome(_gaps(number, NotMeasured(f"the test failed: {said}"), plan), {"failed": said}, [ran])


def _said(error: Exception, plan: Comparison) -> str:
    """Return what an error says, without the place of the index on this machine."""
    said = error.message if isinstance(error, SemrecError) else f"{type(error).__name__}: {error}"
    return said.replace(str(plan.index.absolute()), plan.index.name)


def _gaps(number: int, reason: NotMeasured, plan: Comparison) -> dict[str, Any]:
    """Return the guide's keys of a test, each with the reason why it is missing."""
    if number == 3:
        keys = (*BATCH_KEYS, *(f"cpu_{key}" for key in BATCH_KEYS))
        return {f"batch_{size}": dict.fromkeys(keys, reason) for size in plan.questions.batch.sizes}
    return dict.fromkeys(GUIDE_KEYS[TESTS[number][0]], reason) if number else {}


def memory_devices(saved: SavedIndex, settings: Sequence[str]) -> dict[str, Device | NotMeasured]:
    """Return the devices whose memory is measured: the GPU where there is one that the index runs on, and the CPU."""
    reason = why_no_gpu(settings)
    gpu: Device | NotMeasured
    try:
        wanted = saved.config.device.model_copy(update={"kind": "gpu"})
        gpu = choose_device(wanted, saved.config.index) if reason is None else NotMeasured(reason)
    except SemrecError as error:
        gpu = NotMeasured(error.message)
    return {"gpu": gpu, "cpu": Device()}


def _profiled(sides: Sides, plan: Comparison, progress: Progress) -> Outcome:
    progress("profile", 0, 1)
    try:
        found = profile(one_query_of_each(sides, plan.questions), sides.main.recommender.index, plan.trace or Path())
    except Exception as error:  # as for tests
        found = {"trace": NotMeasured(_said(error, plan))}
    progress("profile", 1, 1)
    return Outcome({}, found)


def one_query_of_each(sides: Sides, questions: CompareSettings) -> Mapping[str, Callable[[], object]]:
    """Return one question of each test that the index can be asked, by name."""
    recommender = sides.main.recommender
    title = (questions.similarity.titles or query_titles(recommender.catalog, 1))[0]
    work: dict[str, Callable[[], object]] = {
        "test 1: one title": lambda: recommender.similar(title, questions.similarity.k)
    }
    if recommender.saved.users is not None:
        user = chosen_users(recommender, questions.personalization.users)[0]
        work["test 2: one user"] = lambda: recommender.recommend(user, questions.personalization.k)
    queries, _ = batch_queries(recommender, 1000, questions.seed)
    work["test 3: 1,000 queries"] = lambda: recommender.search(queries, questions.batch.k)
    if "genres" in recommender.catalog.fields:
        only = Filter(genres=(questions.filtering.genre,))
        try:
            filtered = questions.filtering.title or genre_title(recommender, questions.filtering.genre)
        except UsageError:
            return work
        work["test 4: one genre"] = lambda: recommender.similar(filtered, questions.filtering.k, where=only)
    return work


def _document(
    plan: Comparison, saved: SavedIndex, sides: Sides, outcomes: Mapping[str, Outcome], run: Mapping[str, Any]
) -> Document:
    manifest = saved.generation.manifest
    left_out = NotMeasured(f"not asked for (--only {','.join(map(str, plan.only))})")
    waiting = NotMeasured("the run ended before it")
    tests, details = {}, {}
    for number, (key, name, _) in TESTS.items():
        missing = waiting if number in plan.only else left_out
        tests[key] = outcomes[name].guide if name in outcomes else _gaps(number, missing, plan)
        details[name] = outcomes[name].details if name in outcomes else missing
    criteria = [
        one.as_dict() for outcome in outcomes.values() for one in outcome.criteria if isinstance(one, Criterion)
    ]
    profiled = outcomes["profile"].details if "profile" in outcomes else NotMeasured("--profile was not given")
    return settle(
        {
            **tests,
            "criteria": sorted(criteria, key=lambda one: one["test"] or len(TESTS) + 1),
            "parity": outcomes["parity"].details if "parity" in outcomes else waiting,
            "cost": _costs(plan, sides, tests["test_3_batch"]),
            "profile": profiled,
            "details": details,
            "index": {
                "titles": manifest.count,
                "dim": manifest.dim,
                "users": manifest.users,
                "config": saved.config.index.model_dump(mode="json"),
                "device": sides.main.name,
                "gpu": sides.gpu.name if sides.gpu else sides.no_gpu,
            },
            "environment": {**environment(), "data_digest": data_digest(saved), **run},
        }
    )


def data_digest(saved: SavedIndex) -> str:
    """Return one SHA-256 over the digests of all files of the index."""
    whole = hashlib.sha256()
    for name, entry in sorted(saved.generation.manifest.files.items()):
        whole.update(f"{name} {entry.sha256}\n".encode())
    return whole.hexdigest()


def _costs(plan: Comparison, sides: Sides, batches: Mapping[str, Any]) -> dict[str, Any]:
    """Work out costs from the largest batch of up to 1,000."""
    sizes: Sequence[int] = [size for size in plan.questions.batch.sizes if size <= 1000] or plan.questions.batch.sizes
    row = batches.get(f"batch_{max(sizes)}", {})

    def qps(key: str) -> float | None:
        found = row.get(key)
        return None if found is None or isinstance(found, NotMeasured) else float(found)

    cores = usable_cores() or 1
    gpu = sides.gpu.name if sides.gpu else None
    found = costs_of(gpu, qps("throughput_qps"), qps("cpu_throughput_qps"), cores, plan.costs)
    return {"batch": max(sizes), **found}
