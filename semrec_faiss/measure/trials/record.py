"""What a line of a sweep's ledger must hold before anything is chosen, drawn or judged by it.

A ledger is a text file that is kept, merged and passed on. A number that is none would not fail where it is read but
win a choice or pass a comparison, since NaN is neither more nor less than a limit; so every record is checked whole.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from semrec_faiss.config.index_types import INDEX_TYPES, IndexConfig
from semrec_faiss.config.schema import DeviceConfig, device_problems
from semrec_faiss.measure.documents.fields import (
    Amount,
    Count,
    Part,
    Positive,
    Share,
    Text,
    Time,
    mistake_told,
    mistakes_by,
    unsound_values,
)

Record = dict[str, Any]

FORMAT = "trial-2"
"""Part of every digest: another way of measuring gets another name."""

FIRST_FORMAT: Literal["trial-1"] = "trial-1"
"""Of records that do not name theirs: without the CPU's cores, and after a fixed number of searches to warm up."""

SETTINGS = (
    "data", "index", "device", "filter", "k", "batch", "queries", "repeats", "warmup", "slice", "faiss",
)  # fmt: skip
"""The keys of a record that say what was measured; its digest is theirs."""


class _Data(Part):
    name: Text
    titles: Positive
    dim: Positive
    digest: Text


class _Device(Part):
    kind: Literal["cpu", "gpu"]
    name: Text
    gpus: list[Count]
    float16: bool
    temp_memory_mb: Count | None
    processor: str | None
    cores: Positive | None = None
    threads: Positive | None = None

    @model_validator(mode="after")
    def _gpus_are_those_of_a_gpu(self) -> _Device:
        if bool(self.gpus) != (self.kind == "gpu"):
            raise ValueError(f"kind is {self.kind}, but gpus is {self.gpus}")
        return self


class _Queries(Part):
    titles: Count
    users: Count
    seed: Count


class _Build(Part):
    train_s: Amount
    add_s: Amount
    index_bytes: Positive
    originals_bytes: Count
    host_peak_bytes: Count | None
    gpu_peak_bytes: Count | None
    notes: list[str]


class _Load(Part):
    load_s: Amount
    cold_query_ms: Amount


class _Interval(Part):
    low: Share
    high: Share
    level: Share
    method: str


class _Places(Part):
    places: Count
    recall: Share | None

    @model_validator(mode="after")
    def _recall_of_places_alone(self) -> _Places:
        if (self.recall is None) != (self.places == 0):
            raise ValueError(f"recall is {self.recall} of {self.places} places")
        return self


class _Decile(_Places):
    decile: Positive


class _SliceValue(_Places):
    value: str


class _Slices(Part):
    field: Text
    values: list[_SliceValue]


class _Quality(Part):
    recall: Share | None
    recall_interval: _Interval | None
    recall_titles: Share | None
    recall_users: Share | None
    ndcg: Annotated[float, Field(ge=0, le=1.001)] | None  # a quotient of two rounded sums
    fill_rate: Share | None
    matching: Count
    selectivity: Share
    coverage: Share
    coverage_exact: Share
    by_popularity: Annotated[list[_Decile], Field(min_length=1)] | None
    by_slice: _Slices | None
    strategy: str


class _Latency(Part):
    mean_ms: Time
    p50_ms: Time
    p95_ms: Time
    p99_ms: Time
    qps: Time
    warmups: Count | None = None
    times_ms: Annotated[list[Amount], Field(min_length=1)]


class _Memory(Part):
    host_peak_bytes: Count | None
    gpu_peak_bytes: Count | None


class _Asked(Part):
    title: str | None = None
    user: str | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> _Asked:
        if (self.title is None) == (self.user is None):
            raise ValueError("must name a title or a user")
        return self


class _ExactTitle(Part):
    title: str
    found: bool


class _Example(Part):
    query: _Asked
    exact: list[_ExactTitle]
    instead: list[str]


class _Trial(Part):
    """What every record holds."""

    digest: Text
    format: Literal["trial-1", "trial-2"] = FIRST_FORMAT
    status: Literal["measured", "failed"]
    reason: str | None
    label: Text
    data: _Data
    index: dict[str, Any]
    device: _Device
    filter: Text | None
    k: Positive
    batch: Positive
    queries: _Queries
    repeats: Positive
    warmup: Count
    slice: Text | None
    faiss: Text
    environment: dict[str, Any] | None = None


class _Failed(_Trial):
    reason: str


class _Measured(_Trial):
    build: _Build
    load: _Load
    quality: _Quality
    latency: _Latency
    memory: _Memory
    examples: list[_Example]
    not_measured: dict[str, str]
    elapsed_s: Amount
    others_used_cores: Amount | None = None


NULL_WITH_REASON = (
    "build.host_peak_bytes", "build.gpu_peak_bytes", "memory.host_peak_bytes", "memory.gpu_peak_bytes",
    "quality.recall", "quality.recall_interval", "quality.recall_titles", "quality.recall_users", "quality.ndcg",
    "quality.fill_rate", "quality.by_popularity", "quality.by_slice",
)  # fmt: skip
"""Null here has a reason in ``not_measured``, or else it is a number that was lost."""

_INDEX: TypeAdapter[Any] = TypeAdapter(IndexConfig)


def digest_of(record: Record) -> str:
    """SHA-256 in hex of what a record says that it measures; the data's name, which is nobody's concern, left out."""
    settings = {name: record[name] for name in SETTINGS}
    settings["data"] = {key: value for key, value in settings["data"].items() if key != "name"}
    hashed = json.dumps({"format": record.get("format", FIRST_FORMAT), **settings}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(hashed.encode()).hexdigest()


def mistake_in(record: Record) -> str | None:
    """Say which field of a record is not as it must be, and why; None where all is well."""
    return next(_mistakes(record), None)


def _mistakes(record: Record) -> Iterator[str]:
    """Yield what is wrong, what later checks rely on first."""
    yield from unsound_values(record)
    yield from mistakes_by(_Failed if record.get("status") == "failed" else _Measured, record)
    yield from _mistakes_of_index(record["index"], record["device"])
    if record["status"] == "measured":
        yield from _nulls_without_reason(record)
        if record.get("format", FIRST_FORMAT) != FIRST_FORMAT:
            yield from _lost_since_the_first_format(record)
    if digest_of(record) != record["digest"]:
        yield "digest is not that of the settings beside it: one of them was changed after it was measured"


def _mistakes_of_index(index: dict[str, Any], device: dict[str, Any]) -> Iterator[str]:
    """Check that the index is whole and one that the device takes: `semrec pick` writes it out to be built."""
    for section in ("build", "search"):
        if section in index and not isinstance(index[section], dict):
            yield f"index.{section}: should be a group of settings, not {reprlib.repr(index[section])}"
    try:
        known = _INDEX.validate_python(index)
    except ValidationError as error:
        for mistake in error.errors():
            place = tuple(part for part in mistake["loc"] if part not in INDEX_TYPES)
            yield mistake_told(dict(mistake), ("index", *place))
        return
    for name in _missing(known.model_dump(mode="json"), index):
        yield f"index.{name} is missing"
    on = {name: device[name] for name in ("kind", "float16", "temp_memory_mb")}
    wanted = DeviceConfig.model_validate(on | {"gpus": tuple(device["gpus"]) or (0,)})
    for problem in device_problems(known, wanted):
        yield f"device: {problem}"


def _missing(whole: dict[str, Any], given: dict[str, Any], place: str = "") -> Iterator[str]:
    """Yield the keys that were left to their defaults: a record tells what was measured and not what is usual."""
    for name, value in whole.items():
        if name not in given:
            yield place + name
        elif isinstance(value, dict):
            yield from _missing(value, given[name], f"{place}{name}.")


def _lost_since_the_first_format(record: Record) -> Iterator[str]:
    """Yield what the first format did not have and every later one has."""
    if record["latency"].get("warmups") is None:
        yield "latency.warmups is missing or null"
    name = "others_used_cores"
    if name not in record:
        yield f"{name} is missing"
    elif record[name] is None and name not in record["not_measured"]:
        yield f"{name} is null, and not_measured does not say why"


def _nulls_without_reason(record: Record) -> Iterator[str]:
    for place in NULL_WITH_REASON:
        part, name = place.split(".")
        if record[part][name] is None and place not in record["not_measured"]:
            yield f"{place} is null, and not_measured does not say why"


MEASURED, FAILED = "measured", "failed"
