"""A trial: one index, searched one way, and how it is measured."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from semrec_faiss.config.index_types import IndexConfig
from semrec_faiss.config.schema import DeviceConfig
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.measure.instruments.environment import Processor
from semrec_faiss.measure.trials.record import FORMAT, Questions, TestedData, TestedDevice, TrialSettings
from semrec_faiss.measure.trials.settings import QuerySettings

SEARCH_EFFORT = ("nprobe", "efSearch", "refine")
"""Search settings of which more is never less recall, in the order in which trials vary them."""


@dataclass(frozen=True)
class DataRef:
    """A data folder as a sweep sees it.

    Attributes:
        path: where it lies.
        name: the folder's name.
        titles: how many are in the index: all but those that are asked.
        dim: dimensions of a vector.
        digest: SHA-256 in hex of vectors, users and metadata.
    """

    path: Path
    name: str
    titles: int
    dim: int
    digest: str


@dataclass(frozen=True)
class TrialProtocol:
    """How a trial is measured; see `Sweep`."""

    queries: QuerySettings
    repeats: int
    warmup: int
    slice: str | None


@dataclass(frozen=True)
class Trial:
    """One index with one set of search settings, one filter, one k and one batch size on one device.

    Attributes:
        data: what is searched.
        index: its settings, autos resolved.
        device: where it is searched.
        hardware: the device's name, such as ``cpu`` or ``h200``.
        processor: where it is searched on the CPU; None on a GPU.
        where: the filter, a SQL expression; None for none.
        k: titles returned per query.
        batch: queries searched at once.
        protocol: how it is measured.
        faiss: FAISS's version.
    """

    data: DataRef
    index: IndexConfig
    device: Device
    hardware: str
    processor: Processor | None
    where: str | None
    k: int
    batch: int
    protocol: TrialProtocol
    faiss: str

    @cached_property
    def settings(self) -> TrialSettings:
        """What is measured, as the ledger holds it."""
        processor = self.processor or Processor(None, None, None)
        return TrialSettings(
            data=TestedData(name=self.data.name, titles=self.data.titles, dim=self.data.dim, digest=self.data.digest),
            index=self.index,
            device=TestedDevice(
                kind=self.device.kind,
                name=self.hardware,
                gpus=list(self.device.gpus),
                float16=self.device.float16,
                temp_memory_mb=self.device.temp_memory_mb,
                processor=processor.model,
                cores=processor.cores,
                threads=processor.threads,
                **self._placed,
            ),
            filter=self.where,
            k=self.k,
            batch=self.batch,
            queries=Questions.model_validate(self.protocol.queries.model_dump()),
            repeats=self.protocol.repeats,
            warmup=self.protocol.warmup,
            slice=self.protocol.slice,
            faiss=self.faiss,
        )

    @property
    def _placed(self) -> dict[str, Any]:
        """What a record tells of a device only where it matters: records without it keep their digests."""
        layout = {"layout": self.device.layout} if len(self.device.gpus) > 1 else {}
        return layout | ({} if self.device.originals == "auto" else {"originals": self.device.originals})

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex of what is measured; the data's folder and name are not part of it."""
        return self.settings.digest_in(FORMAT)

    @cached_property
    def build_key(self) -> str:
        """What trials that search the same saved index share."""
        settings = self.settings.settings_as_json()
        index = {key: value for key, value in settings["index"].items() if key != "search"}
        where = [self.device.kind, list(self.device.gpus[:1])]
        return _digest([settings["data"], index, where, settings["queries"]])

    @cached_property
    def search_key(self) -> str:
        """What trials that differ in k, batch and filter alone share."""
        settings = self.settings.settings_as_json()
        return _digest([self.build_key, settings["index"], settings["device"]])

    @cached_property
    def load_key(self) -> str:
        """What trials that search the same loaded index share: they differ in search settings of effort alone."""
        settings = self.settings.settings_as_json()
        search = {key: value for key, value in settings["index"]["search"].items() if key not in SEARCH_EFFORT}
        return _digest([self.build_key, settings["device"], search])

    @cached_property
    def effort(self) -> tuple[int, ...]:
        """The search settings of which more is never less recall, as numbers to order by."""
        return tuple(int(getattr(self.index.search, name, None) or 0) for name in SEARCH_EFFORT)

    @property
    def label(self) -> str:
        """The index's settings and where it is searched, short."""
        half = " float16" if self.device.float16 else ""
        layout = f" as {self.device.layout}" if len(self.device.gpus) > 1 and self.device.layout != "auto" else ""
        beside = "" if self.device.originals == "auto" else f" originals={self.device.originals}"
        return f"{describe(self.index)}{half}{beside} on {self.hardware}{layout}"

    @property
    def what(self) -> str:
        """All that tells this trial from the others of its sweep."""
        restricted = f" where {self.where}" if self.where else ""
        return f"{self.data.name}: {self.label}, k={self.k}, batch={self.batch}{restricted}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _is_told(name: str, value: object) -> bool:
    """Tell whether a setting tells trials apart: no seed, and no directions that a build chooses by the vectors."""
    return value is not None and name != "seed" and (name, value) != ("directions", "auto")


def describe(index: IndexConfig, device: DeviceConfig | None = None) -> str:
    """Name an index by its settings, short: ``ivf_flat nlist=64 nprobe=8 on cpu``."""
    parts = [getattr(index, "factory", None) or index.type]
    for group in (getattr(index, "build", None), index.search):
        values = {} if group is None else group.model_dump(mode="json")
        parts += [f"{name}={value}" for name, value in values.items() if _is_told(name, value)]
    if not index.normalize:
        parts.append("unnormalised")
    if device is not None:
        parts += ["float16"] if device.float16 else []
        parts.append(f"on {device.kind}")
    return " ".join(parts)
