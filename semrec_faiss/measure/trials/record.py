"""A line of a sweep's ledger: what was measured and what came of it, checked whole before anything is done by it.

A ledger is a text file that is kept, merged and passed on. A number that is none would not fail where it is read but
win a choice or pass a comparison, since NaN is neither more nor less than a limit; one that contradicts another is as
bad. So a record is a model that refuses both.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails

from semrec_faiss.config.index_types import IndexConfig
from semrec_faiss.config.schema import DeviceConfig, device_problems
from semrec_faiss.cores import BUSY
from semrec_faiss.errors import quoted
from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Count, Part, Text, check_digest
from semrec_faiss.measure.trials.record_parts import (
    ROUNDED_MS,
    BuildCosts,
    Example,
    LatencyOf,
    LoadCosts,
    MemoryOf,
    Quality,
)

FORMAT: Literal["trial-2"] = "trial-2"
"""Part of every digest: another way of measuring gets another name."""

FIRST_FORMAT: Literal["trial-1"] = "trial-1"
"""Of records that do not name theirs: without the CPU's cores, and after a fixed number of searches to warm up."""


class Questions(Part):
    """How many titles and users are asked, and the seed that they were drawn by."""

    titles: Count
    users: Count
    seed: Count


class TestedData(Part):
    """The data folder, less the titles that are asked."""

    name: Text
    titles: AtLeastOne
    dim: AtLeastOne
    digest: Text


class TestedDevice(Part):
    """Where the index is searched; several GPUs have a layout."""

    kind: Literal["cpu", "gpu"]
    name: Text
    gpus: list[Count]
    float16: bool
    temp_memory_mb: Count | None
    processor: str | None
    cores: AtLeastOne | None = None
    threads: AtLeastOne | None = None
    layout: Literal["auto", "shards", "replicas"] | None = None
    originals: Literal["gpu", "host"] | None = None

    @model_validator(mode="after")
    def _gpus_are_those_of_a_gpu(self) -> TestedDevice:
        if bool(self.gpus) != (self.kind == "gpu"):
            raise ValueError(f"kind is {self.kind}, but gpus is {self.gpus}")
        return self


def _whole_index(value: Any, handler: ValidatorFunctionWrapHandler) -> IndexConfig:
    """Take an index that is whole: nothing is left to defaults, since `semrec pick` writes it out to be built."""
    if not isinstance(value, BaseModel | dict):
        raise ValueError(f"should be a group of settings, not {quoted(value)}")
    if isinstance(value, dict):
        for section in ("build", "search"):
            if section in value and not isinstance(value[section], dict):
                told = f"should be a group of settings, not {quoted(value[section])}"
                raise _mistake("value_error", (section,), told)
        value = _before_directions(value)
    index: IndexConfig = handler(value)
    if isinstance(value, dict):
        for place in _missing(index.model_dump(mode="json"), value):
            raise _mistake("missing", place, "")
    return index


def _before_directions(index: dict[str, Any]) -> dict[str, Any]:
    """Return settings with no principal directions where an exact index was measured before there were any."""
    if index.get("type") in ("flat", "fused") and index.get("build") == {}:
        return index | {"build": {"directions": 0}}
    return index


def _mistake(kind: str, place: tuple[str, ...], message: str) -> ValidationError:
    details: InitErrorDetails = {"type": kind, "loc": place, "input": None}
    if message:
        details["ctx"] = {"error": message}
    return ValidationError.from_exception_data("index", [details])


def _missing(whole: dict[str, Any], given: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in whole.items():
        if name not in given:
            yield (*place, name)
        elif isinstance(value, dict):
            yield from _missing(value, given[name], (*place, name))


class TrialSettings(Part):
    """What a trial measures; its digest is that of these."""

    data: TestedData
    index: Annotated[IndexConfig, WrapValidator(_whole_index)]
    device: TestedDevice
    filter: Text | None
    k: AtLeastOne
    batch: AtLeastOne
    queries: Questions
    repeats: AtLeastOne
    warmup: Count
    slice: Text | None
    faiss: Text

    @field_serializer("index")
    def _with_defaults(self, index: IndexConfig) -> dict[str, Any]:
        return index.model_dump(mode="json")

    def settings_as_json(self) -> dict[str, Any]:
        """Return the settings alone, as a line of the ledger holds them."""
        return self.model_dump(mode="json", exclude_unset=True, include=set(TrialSettings.model_fields))

    def digest_in(self, form: str) -> str:
        """SHA-256 in hex of the settings in a format.

        Left out are the data's name, which is nobody's concern, and that there are no principal directions, which
        trials from before there were any do not say.
        """
        values = self.settings_as_json()
        del values["data"]["name"]
        build = values["index"].get("build", {})
        if build.get("directions") == 0:
            del build["directions"]
        hashed = json.dumps({"format": form, **values}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(hashed.encode()).hexdigest()


class RecordHead(Part):
    """What every record begins with."""

    digest: Text
    format: Literal["trial-1", "trial-2"] = FIRST_FORMAT
    status: Literal["measured", "failed"]
    reason: str | None
    label: Text


class TrialBase(TrialSettings, RecordHead):
    """What the records of measured and of failed trials have in common."""

    environment: dict[str, JsonValue] | None = None

    @model_validator(mode="after")
    def _index_fits_the_device(self) -> TrialBase:
        on = self.device
        wanted = DeviceConfig(
            kind=on.kind,
            gpus=tuple(on.gpus) or (0,),
            layout=on.layout or "auto",
            originals=on.originals or "auto",
            float16=on.float16,
            temp_memory_mb=on.temp_memory_mb,
        )
        for problem in device_problems(self.index, wanted):
            raise ValueError(f"device: {problem}")
        return self

    @model_validator(mode="after")
    def _digest_is_that_of_the_settings(self) -> TrialBase:
        check_digest(self.digest, self.digest_in(self.format))
        return self

    @property
    def what(self) -> str:
        """All that tells this trial from the others of its sweep."""
        restricted = f" where {self.filter}" if self.filter else ""
        return f"{self.data.name}: {self.label}, k={self.k}, batch={self.batch}{restricted}"

    @property
    def hardware(self) -> str:
        """The device, and where that is a CPU its model and the threads that FAISS searched with, as far as told."""
        if not self.device.processor:
            return self.device.name
        threads = self.device.threads or (self.environment or {}).get("faiss_threads")
        told = "" if threads is None else f", {threads} thread{'' if threads == 1 else 's'}"
        return f"{self.device.name} ({self.device.processor}{told})"


class Failed(TrialBase):
    """A trial that could not be measured, and why."""

    status: Literal["failed"] = "failed"
    reason: str


class Measured(TrialBase):
    """A trial that was measured."""

    status: Literal["measured"] = "measured"
    build: BuildCosts
    load: LoadCosts
    quality: Quality
    latency: LatencyOf
    memory: MemoryOf
    examples: list[Example]
    others_used_cores: Amount | None = None
    not_measured: dict[str, str]
    elapsed_s: Amount

    @model_validator(mode="after")
    def _numbers_agree(self) -> Measured:
        if not math.isclose(
            1e3 * self.batch / self.latency.qps, self.latency.mean_ms, rel_tol=1e-3, abs_tol=ROUNDED_MS
        ):
            raise ValueError(
                f"latency.qps is {self.latency.qps}, but batches of {self.batch} take {self.latency.mean_ms} ms"
            )
        share = self.quality.matching / self.data.titles
        if abs(self.quality.selectivity - share) > 1e-6:
            raise ValueError(
                f"quality.selectivity is {self.quality.selectivity}, but {self.quality.matching} of "
                f"{self.data.titles} titles match"
            )
        return self

    @model_validator(mode="after")
    def _nulls_have_their_reason(self) -> Measured:
        for place in NULL_WITH_REASON:
            part, _, name = place.partition(".")
            if getattr(getattr(self, part), name) is None and place not in self.not_measured:
                raise ValueError(f"{place} is null, and not_measured does not say why")
        return self

    @model_validator(mode="after")
    def _nothing_is_lost_since_the_first_format(self) -> Measured:
        if self.format == FIRST_FORMAT:
            return self
        if self.latency.warmups is None:
            raise ValueError("latency.warmups is missing or null")
        if "others_used_cores" not in self.model_fields_set:
            raise ValueError("others_used_cores is missing")
        if self.others_used_cores is None and "others_used_cores" not in self.not_measured:
            raise ValueError("others_used_cores is null, and not_measured does not say why")
        return self

    @property
    def recall_or_0(self) -> float:
        """The recall, to be compared: 0 where no title matches the filter."""
        return self.quality.recall or 0.0

    @property
    def is_disturbed(self) -> bool:
        """Whether other programs kept so many cores busy that its times are longer for it."""
        return (self.others_used_cores or 0.0) > BUSY

    @property
    def memory_bytes(self) -> int | None:
        """The most memory that searching took where it ran: the GPU's, or the host's; None if not measured.

        On a host it is the index's size at least: of a small one the system shows nothing, as its pages were there.
        """
        if self.device.kind == "gpu":
            return self.memory.gpu_peak_bytes
        peak = self.memory.host_peak_bytes
        return None if peak is None else max(peak, self.build.index_bytes)

    @property
    def build_s(self) -> float:
        """Seconds that training and filling took."""
        return self.build.train_s + self.build.add_s


NULL_WITH_REASON = (
    *("build.host_peak_bytes", "build.gpu_peak_bytes", "memory.host_peak_bytes", "memory.gpu_peak_bytes"),
    *("quality.recall", "quality.recall_interval", "quality.recall_titles", "quality.recall_users", "quality.ndcg"),
    *("quality.fill_rate", "quality.by_popularity", "quality.by_slice"),
)
"""Null here has a reason in ``not_measured``, or else it is a number that was lost."""

TrialRecord = Annotated[Measured | Failed, Field(discriminator="status")]
TRIAL_RECORD: TypeAdapter[Measured | Failed] = TypeAdapter(TrialRecord)
