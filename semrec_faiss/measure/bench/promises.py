"""The promises about speed and memory: the limit, what was measured, and whether it was kept."""

from __future__ import annotations

from semrec_faiss.measure.bench.search_record import ReadPeak, SearchResults
from semrec_faiss.measure.documents.criterion import Criterion, Unit

MB = 1_000_000

RATIO_1000_QUERIES = 1.05
ADDED_MS_1_QUERY = 0.2
RATIO_TO_FAISS_DEFAULTS = 0.35
RATIO_TO_FAISS_AS_IT_COMES = 1.0
HELP_S = 0.25
SIMILAR_S = 1.5
BUILD_TIMES_VECTORS = 2.2
BUILD_MORE_BYTES = 250 * MB
READ_USERS_MORE_BYTES = 300 * MB

PROMISED_TITLES, PROMISED_DIM = 62_423, 384
"""The size that the promises are made for."""


def build_limit_bytes(titles: int, dim: int) -> float:
    """Return the most memory that building a flat index may hold."""
    return BUILD_TIMES_VECTORS * titles * dim * 4 + BUILD_MORE_BYTES


def judge(results: SearchResults) -> list[Criterion]:
    """Hold the results of a search benchmark against every promise."""
    reasons, processes, memory = results.not_measured, results.processes, results.memory
    defaults, build = results.faiss_defaults, memory.build_flat
    return [
        *_search_promises(results),
        _kept(
            "hundred_queries",
            "100 queries on the CPU, to FAISS at its defaults",
            defaults.ratio if defaults else None,
            RATIO_TO_FAISS_DEFAULTS,
            "x",
            reasons.get("faiss_defaults"),
        ),
        _kept(
            "faiss_as_it_comes",
            "any batch on the CPU, to FAISS as it comes, the worst of them",
            max(row.ratio for row in defaults.batches) if defaults and defaults.batches else None,
            RATIO_TO_FAISS_AS_IT_COMES,
            "x",
            reasons.get("faiss_defaults"),
        ),
        _kept("help", "semrec --help, whole process", processes.help.median_ms / 1e3, HELP_S, "s", None),
        _kept(
            "similar",
            "semrec similar on the CPU, whole process",
            processes.similar_cpu.median_ms / 1e3,
            SIMILAR_S,
            "s",
            None,
        ),
        _kept(
            "build_memory",
            "peak memory of building flat from the titles",
            build.peak_bytes if build else None,
            build_limit_bytes(results.data.titles, results.data.dim),
            "bytes",
            reasons.get("memory.build_flat"),
        ),
        _read_users_promise(memory.read_users, reasons.get("memory.read_users")),
    ]


def _kept(
    name: str, what: str, measured: float | None, limit: float | None, unit: Unit, reason: str | None
) -> Criterion:
    """Hold a measurement against its limit; the reason is told only of one that is missing."""
    return Criterion.judge(0, name, what, measured, limit, unit, reason=reason if measured is None else None)


def _search_promises(results: SearchResults) -> list[Criterion]:
    search = results.index.get("search")
    refined = isinstance(search, dict) and bool(search.get("refine"))
    reason = "no batch of that size was searched"
    if refined:
        reason = "the index rescores more candidates exactly, so that raw FAISS does other work"
    one, thousand = (None if refined else results.batch(count) for count in (1, 1000))
    rows = (
        ("vector_index", "VectorIndex.search", one and one.vector_index, thousand and thousand.vector_index),
        ("recommender", "Recommender.search", one and one.recommender, thousand and thousand.recommender),
    )
    promises = []
    for name, spelled, single, many in rows:
        ratio, added = many.ratio if many else None, single.added_ms if single else None
        of_many, of_one = f"1,000 queries by {spelled}, to raw FAISS", f"added to 1 query by {spelled}"
        promises += [
            _kept(f"thousand_queries_{name}", of_many, ratio, RATIO_1000_QUERIES, "x", reason),
            _kept(f"one_query_{name}", of_one, added, ADDED_MS_1_QUERY, "ms", reason),
        ]
    return promises


def _read_users_promise(read: ReadPeak | None, reason: str | None) -> Criterion:
    peak = limit = None
    if read is not None and read.dtype != "float64":
        reason = f"the promise is about float64 users; these are {read.dtype}"
    elif read is not None:
        peak, limit = read.peak_bytes, read.file_bytes + READ_USERS_MORE_BYTES
    return _kept("read_users_memory", "peak memory of reading the float64 users", peak, limit, "bytes", reason)
