"""The promises about speed and memory: the limit, what was measured, and whether it was kept."""

from __future__ import annotations

from typing import Any

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


def judge(document: dict[str, Any]) -> list[Criterion]:
    """Hold the sections of a search benchmark against every promise.

    Args:
        document: ``data``, ``index``, ``search``, ``faiss_defaults``, ``processes``, ``memory`` and ``not_measured``
            as `semrec_faiss.measure.bench.search.bench_search` makes them.
    """
    reasons: dict[str, str] = document["not_measured"]
    return [
        *_search_promises(document),
        _promise(
            "hundred_queries",
            "100 queries on the CPU, to FAISS at its defaults",
            _at(document, "faiss_defaults", "ratio"),
            RATIO_TO_FAISS_DEFAULTS,
            "x",
            reasons.get("faiss_defaults"),
        ),
        _promise(
            "faiss_as_it_comes",
            "any batch on the CPU, to FAISS as it comes, the worst of them",
            _worst_batch(document),
            RATIO_TO_FAISS_AS_IT_COMES,
            "x",
            reasons.get("faiss_defaults"),
        ),
        _promise(
            "help",
            "semrec --help, whole process",
            _seconds(document, "help"),
            HELP_S,
            "s",
            reasons.get("processes.help"),
        ),
        _promise(
            "similar",
            "semrec similar on the CPU, whole process",
            _seconds(document, "similar_cpu"),
            SIMILAR_S,
            "s",
            reasons.get("processes.similar_cpu"),
        ),
        _promise(
            "build_memory",
            "peak memory of building flat from the titles",
            _at(document, "memory", "build_flat", "peak_bytes"),
            build_limit_bytes(document["data"]["titles"], document["data"]["dim"]),
            "bytes",
            reasons.get("memory.build_flat"),
        ),
        _read_users_promise(document, reasons.get("memory.read_users")),
    ]


def _worst_batch(document: dict[str, Any]) -> float | None:
    batches = _at(document, "faiss_defaults", "batches")
    return None if batches is None else max(row["ratio"] for row in batches)


def _search_promises(document: dict[str, Any]) -> list[Criterion]:
    refined = "the index rescores more candidates exactly, so that raw FAISS does other work"
    reason = refined if document["index"]["search"].get("refine") else "no batch of that size was searched"
    rows = {} if reason is refined else {row["queries"]: row for row in document["search"]}
    promises = []
    for name, spelled in (("vector_index", "VectorIndex.search"), ("recommender", "Recommender.search")):
        thousand, one = _at(rows, 1000, name, "ratio"), _at(rows, 1, name, "added_ms")
        promises += [
            _promise(
                f"thousand_queries_{name}",
                f"1,000 queries by {spelled}, to raw FAISS",
                thousand,
                RATIO_1000_QUERIES,
                "x",
                reason,
            ),
            _promise(f"one_query_{name}", f"added to 1 query by {spelled}", one, ADDED_MS_1_QUERY, "ms", reason),
        ]
    return promises


def _read_users_promise(document: dict[str, Any], reason: str | None) -> Criterion:
    read = _at(document, "memory", "read_users")
    peak = limit = None
    if read is not None and read["dtype"] != "float64":
        reason = f"the promise is about float64 users; these are {read['dtype']}"
    elif read is not None:
        peak, limit = read["peak_bytes"], read["file_bytes"] + READ_USERS_MORE_BYTES
    return _promise("read_users_memory", "peak memory of reading the float64 users", peak, limit, "bytes", reason)


def _promise(
    name: str, what: str, measured: float | None, limit: float | None, unit: Unit, reason: str | None
) -> Criterion:
    return Criterion(0, name, what, measured, limit, False, unit, reason if measured is None else None)


def _seconds(document: dict[str, Any], process: str) -> float | None:
    median_ms = _at(document, "processes", process, "median_ms")
    return None if median_ms is None else median_ms / 1e3


def _at(values: Any, *path: Any) -> Any:
    """Follow keys down a document; None where one is missing or null."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values
