"""``semrec compare``: the guide's five tests, CPU and GPU side by side, as one results document."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from semrec_faiss.cores import usable_cores
from semrec_faiss.errors import SemrecError, UsageError
from semrec_faiss.index.hardware.device import Device, choose_device
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.measure.documents.criterion import Criterion
from semrec_faiss.measure.documents.gaps import WithGaps
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.guide.batches import batch_queries, batches_test
from semrec_faiss.measure.guide.config import CompareSettings, Prices
from semrec_faiss.measure.guide.cost import costs_of
from semrec_faiss.measure.guide.details import Cost, Details, FailedTest, Kind
from semrec_faiss.measure.guide.filtering import filtering_test, genre_title
from semrec_faiss.measure.guide.gpu_and_cpu import Outcome, Sides, as_fused, open_sides, why_no_gpu
from semrec_faiss.measure.guide.memory import memory_test
from semrec_faiss.measure.guide.parity import parity_certificate
from semrec_faiss.measure.guide.personalization import chosen_users, personalization_test
from semrec_faiss.measure.guide.record import (
    BatchNumbers,
    FilteringTest,
    GuideResults,
    GuideStamp,
    MemoryTest,
    PersonalizationTest,
    SimilarityTest,
    TestedIndex,
)
from semrec_faiss.measure.guide.similarity import query_titles, similarity_test
from semrec_faiss.measure.instruments.environment import load_average, stamp_of_this_run
from semrec_faiss.measure.instruments.other_programs import OtherPrograms
from semrec_faiss.measure.instruments.trace import Trace, traced
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.filters.filter import Filter

Test = Callable[[Sides, CompareSettings, Progress], Outcome]

TESTS: dict[int, tuple[str, str, Test | None]] = {
    1: ("test_1_similarity", "similarity", similarity_test),
    2: ("test_2_personalization", "personalization", personalization_test),
    3: ("test_3_batch", "batch", batches_test),
    4: ("test_4_filtering", "filtering", filtering_test),
    5: ("test_5_memory", "memory", None),
}
"""Number → the guide's key, the key of its details, and what runs it; memory is measured in processes of their own."""

GUIDE_OBJECTS: dict[str, type[WithGaps]] = {
    "test_1_similarity": SimilarityTest,
    "test_2_personalization": PersonalizationTest,
    "test_4_filtering": FilteringTest,
    "test_5_memory": MemoryTest,
}
"""Of every test but the batches, which have one a size."""


@dataclass(frozen=True)
class GuideRun:
    """What to run.

    Attributes:
        index: the index directory.
        settings: search and device settings, as for `SavedIndex`.
        only: numbers of the tests to run; all by default.
        questions: what is asked, and the targets.
        prices: of machines.
        trace: where a Chrome trace of one query of each test goes; None makes none.
    """

    index: Path
    settings: tuple[str, ...] = ()
    only: tuple[int, ...] = tuple(TESTS)
    questions: CompareSettings = field(default_factory=CompareSettings)
    prices: Prices = field(default_factory=Prices)
    trace: Path | None = None


def run_guide(
    asked: GuideRun, progress: Progress = silent, keep: Callable[[GuideResults], None] = lambda results: None
) -> GuideResults:
    """Run the tests.

    A test that fails does not end the others: its numbers are None, and ``not_measured`` says why. An index of type
    flat is searched as type fused where there is a GPU that runs it, unless the settings name a type.

    Args:
        asked: what to run.
        progress: told the steps of each test.
        keep: given the results so far after every test, so that nothing is lost if the process dies.

    Raises:
        SemrecError: the index cannot be opened.
        UsageError: there is no such test.
        NotFoundError: a title or user that ``questions`` name does not exist.
        DeviceError: the settings ask for a GPU, and there is none.
    """
    unknown = [number for number in asked.only if number not in TESTS]
    if unknown or not asked.only:
        told = " nor ".join(map(str, unknown)) or "asked for"
        raise UsageError(f"there is no test {told}", fix=f"tests: {', '.join(map(str, TESTS))}")
    started, load, others = time.perf_counter(), load_average(), OtherPrograms()
    saved = SavedIndex(asked.index, asked.settings)
    if fused := as_fused(saved, asked.settings):
        asked = replace(asked, settings=(*asked.settings, *fused))
        saved = SavedIndex(asked.index, asked.settings)
    if saved.config.device.kind == "gpu":  # asked for by name: to go on without would be no answer
        choose_device(saved.config.device, saved.config.index)
    _check_names(saved, asked)
    outcomes: dict[str, Outcome] = {}
    trace: Trace | NotMeasured = NotMeasured("--profile was not given")
    if 5 in asked.only:  # first: a GPU that already holds an index would show less free memory
        devices = memory_devices(saved, asked.settings)
        search = [one for one in asked.settings if not one.startswith("device.")]
        outcomes["memory"] = _outcome(
            5, lambda: memory_test(asked.index, devices, asked.questions, progress, search), asked
        )
    sides = open_sides(asked.index, asked.settings, progress)

    def results() -> GuideResults:
        stamp = GuideStamp(
            **dict(stamp_of_this_run()),
            data_digest=data_digest(saved),
            seconds=round(time.perf_counter() - started, 1),
            load_average_at_start=load,
            others_used_cores=others.cores_used(),
        )
        return _results(asked, saved, sides, outcomes, stamp, trace)

    for number in asked.only:
        _, name, test = TESTS[number]
        if test is not None:
            outcomes[name] = _run(number, test, sides, asked, progress)
            keep(results())
    outcomes["parity"] = _run(0, parity_certificate, sides, asked, progress)
    if asked.trace is not None:
        trace = _traced(sides, asked, progress)
    return results()


def _check_names(saved: SavedIndex, asked: GuideRun) -> None:
    """Refuse titles and users that somebody named and that do not exist, before anything takes time."""
    questions = asked.questions
    titles = [*(questions.similarity.titles or ()), *filter(None, [questions.filtering.title])]
    for title in titles:
        saved.catalog.find(title)
    users = questions.personalization.users
    if not isinstance(users, int) and saved.users is not None:
        saved.users.rows_of(users)


def _run(number: int, test: Test, sides: Sides, asked: GuideRun, progress: Progress) -> Outcome:
    return _outcome(number, lambda: test(sides, asked.questions, progress), asked)


def _outcome(number: int, work: Callable[[], Outcome], asked: GuideRun) -> Outcome:
    """Run one test; whatever it raises becomes the reason why its numbers are missing."""
    try:
        return work()
    except Exception as error:
        said = _said(error, asked)
        name = TESTS[number][1] if number else "parity"
        ran = Criterion.judge(number, "ran", f"the {name} test ran", None, 1.0, "count", at_least=True, reason=said)
        gaps = _gaps(number, NotMeasured(f"the test failed: {said}"), asked)
        return Outcome(gaps, FailedTest(failed=said), [ran])


def _said(error: Exception, asked: GuideRun) -> str:
    """Return what an error says, without the place of the index on this machine."""
    said = error.message if isinstance(error, SemrecError) else f"{type(error).__name__}: {error}"
    return said.replace(str(asked.index.absolute()), asked.index.name)


def _gaps(number: int, reason: NotMeasured, asked: GuideRun) -> WithGaps | dict[str, BatchNumbers] | None:
    """Return the guide's object of a test that has no numbers; of parity, which is number 0, there is none."""
    if number == 3:
        return {f"batch_{size}": BatchNumbers.missing(reason) for size in asked.questions.batch.sizes}
    return GUIDE_OBJECTS[TESTS[number][0]].missing(reason) if number else None


def memory_devices(saved: SavedIndex, settings: Sequence[str]) -> dict[Kind, Device | NotMeasured]:
    """Return the devices whose memory is measured: the GPU where there is one that the index runs on, and the CPU."""
    reason = why_no_gpu(settings)
    gpu: Device | NotMeasured
    try:
        wanted = saved.config.device.model_copy(update={"kind": "gpu"})
        gpu = choose_device(wanted, saved.config.index) if reason is None else NotMeasured(reason)
    except SemrecError as error:
        gpu = NotMeasured(error.message)
    return {"gpu": gpu, "cpu": Device()}


def _traced(sides: Sides, asked: GuideRun, progress: Progress) -> Trace:
    progress("profile", 0, 1)
    try:
        found = traced(one_query_of_each(sides, asked.questions), sides.main.recommender.index, asked.trace or Path())
    except Exception as error:  # as for tests
        found = Trace.of(trace=NotMeasured(_said(error, asked)))
    progress("profile", 1, 1)
    return found


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


def _results(
    asked: GuideRun,
    saved: SavedIndex,
    sides: Sides,
    outcomes: Mapping[str, Outcome],
    stamp: GuideStamp,
    trace: Trace | NotMeasured,
) -> GuideResults:
    left_out = NotMeasured(f"not asked for (--only {','.join(map(str, asked.only))})")
    waiting = NotMeasured("the run ended before it")
    tests: dict[str, object] = {}
    details: dict[str, object] = {}
    for number, (key, name, _) in TESTS.items():
        missing = waiting if number in asked.only else left_out
        tests[key] = outcomes[name].guide if name in outcomes else _gaps(number, missing, asked)
        details[name] = outcomes[name].details if name in outcomes else missing
    criteria = [one for outcome in outcomes.values() for one in outcome.criteria]
    manifest = saved.generation.manifest
    return GuideResults.whole(
        **tests,
        criteria=sorted(criteria, key=lambda one: one.test or len(TESTS) + 1),
        parity=outcomes["parity"].details if "parity" in outcomes else waiting,
        cost=_cost(asked, sides, outcomes.get("batch")),
        profile=trace,
        details=Details.of(**details),
        index=TestedIndex.of(
            titles=manifest.count,
            dim=manifest.dim,
            users=manifest.users,
            config=saved.config.index.model_dump(mode="json"),
            device=sides.main.name,
            gpu=sides.gpu.name if sides.gpu else sides.no_gpu,
        ),
        environment=stamp,
    )


def data_digest(saved: SavedIndex) -> str:
    """Return one SHA-256 over the digests of all files of the index."""
    whole = hashlib.sha256()
    for name, entry in sorted(saved.generation.manifest.files.items()):
        whole.update(f"{name} {entry.sha256}\n".encode())
    return whole.hexdigest()


def _cost(asked: GuideRun, sides: Sides, batches: Outcome | None) -> Cost:
    """Work out costs from the largest batch of up to 1,000."""
    size = max([size for size in asked.questions.batch.sizes if size <= 1000] or asked.questions.batch.sizes)
    row = batches.guide.get(f"batch_{size}") if batches and isinstance(batches.guide, Mapping) else None
    gpu_qps, cpu_qps = (row.throughput_qps, row.cpu_throughput_qps) if row else (None, None)
    gpu = sides.gpu.name if sides.gpu else None
    return costs_of(size, gpu, gpu_qps, cpu_qps, usable_cores(), asked.prices)
