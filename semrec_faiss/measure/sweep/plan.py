"""From a sweep file to its trials: what is measured, under which digest, in an order that builds each index once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from semrec_faiss.config.index_types import FactoryIndex, IndexConfig
from semrec_faiss.config.schema import DeviceConfig
from semrec_faiss.config.yaml_source import YamlSource
from semrec_faiss.data.folder.layout import DataFolder, find_data_folder, open_vectors
from semrec_faiss.errors import ConfigError, DeviceError
from semrec_faiss.index.device import Device, choose_device, load_faiss
from semrec_faiss.index.factory import empty_index, resolve
from semrec_faiss.measure.documents.results import device_name
from semrec_faiss.measure.instruments.environment import Processor
from semrec_faiss.measure.quality.truth import digest_of_array
from semrec_faiss.measure.sweep.config import QuerySettings, Sweep
from semrec_faiss.measure.sweep.grid import Combination, Invalid, describe, expand
from semrec_faiss.measure.sweep.record import FORMAT, digest_of
from semrec_faiss.progress import Progress, silent

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
class Protocol:
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
        k: titles returned a query.
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
    protocol: Protocol
    faiss: str

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What is measured, as the ledger holds it."""
        return {
            "data": {
                "name": self.data.name,
                "titles": self.data.titles,
                "dim": self.data.dim,
                "digest": self.data.digest,
            },
            "index": self.index.model_dump(mode="json"),
            "device": {
                "kind": self.device.kind,
                "name": self.hardware,
                "gpus": list(self.device.gpus),
                "float16": self.device.float16,
                "temp_memory_mb": self.device.temp_memory_mb,
                **(self.processor or Processor(None, None, None)).as_dict(),
            },
            "filter": self.where,
            "k": self.k,
            "batch": self.batch,
            "queries": self.protocol.queries.model_dump(mode="json"),
            "repeats": self.protocol.repeats,
            "warmup": self.protocol.warmup,
            "slice": self.protocol.slice,
            "faiss": self.faiss,
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex of what is measured; the data's folder and name are not part of it."""
        return digest_of({"format": FORMAT, **self.settings})

    @cached_property
    def build_key(self) -> str:
        """What trials that search the same saved index share."""
        index = {key: value for key, value in self.settings["index"].items() if key != "search"}
        where = [self.device.kind, list(self.device.gpus[:1])]
        return _digest([self.settings["data"], index, where, self.protocol.queries.model_dump(mode="json")])

    @cached_property
    def search_key(self) -> str:
        """What trials that differ in k, batch and filter alone share."""
        return _digest([self.build_key, self.settings["index"], self.settings["device"]])

    @cached_property
    def load_key(self) -> str:
        """What trials that search the same loaded index share: they differ in search settings of effort alone."""
        search = {key: value for key, value in self.settings["index"]["search"].items() if key not in SEARCH_EFFORT}
        return _digest([self.build_key, self.settings["device"], search])

    @cached_property
    def effort(self) -> tuple[int, ...]:
        """The search settings of which more is never less recall, as numbers to order by."""
        return tuple(int(getattr(self.index.search, name, None) or 0) for name in SEARCH_EFFORT)

    @property
    def label(self) -> str:
        """The index's settings and where it is searched, short."""
        half = " float16" if self.device.float16 else ""
        return f"{describe(self.index)}{half} on {self.hardware}"

    @property
    def what(self) -> str:
        """All that tells this trial from the others of its sweep."""
        restricted = f" where {self.where}" if self.where else ""
        return f"{self.data.name}: {self.label}, k={self.k}, batch={self.batch}{restricted}"


@dataclass(frozen=True)
class Plan:
    """All of a sweep's trials and the combinations that are none.

    Attributes:
        sweep: what was asked for.
        trials: in the order in which they run.
        invalid: with the reason why.
    """

    sweep: Sweep
    trials: tuple[Trial, ...]
    invalid: tuple[Invalid, ...]

    def groups(self, wanted: frozenset[str]) -> Iterator[list[Trial]]:
        """Yield the trials whose digest is wanted, those of one build at a time."""
        groups: dict[str, list[Trial]] = {}
        for trial in self.trials:
            if trial.digest in wanted:
                groups.setdefault(trial.build_key, []).append(trial)
        yield from groups.values()


def make_plan(sweep: Sweep, source: YamlSource, progress: Progress = silent) -> Plan:
    """Multiply out the grid over the data and hold every combination against data and devices.

    Args:
        sweep: what is asked for.
        source: the file it was read from, for lines in messages.
        progress: told the data folders read.

    Raises:
        ConfigError: mistakes in the grid, or more queries than the data has.
        NotFoundError: a data folder does not exist.
        DataError: one is inconsistent.
    """
    combinations, invalid = expand(sweep.grid, source)
    trials: list[Trial] = []
    for number, folder in enumerate(sweep.dataset):
        progress("hashing data", number, len(sweep.dataset))
        data = data_ref(folder, sweep.queries)
        ours, theirs = _trials_over(sweep, data, combinations)
        trials += ours
        invalid += theirs
    progress("hashing data", len(sweep.dataset), len(sweep.dataset))
    return Plan(sweep, tuple(trials), tuple(invalid))


def data_ref(path: Path, queries: QuerySettings) -> DataRef:
    """Look at a data folder.

    Raises:
        NotFoundError: it does not exist.
        DataError: it is inconsistent.
        ConfigError: it has fewer titles or users than are to be asked.
    """
    folder = find_data_folder(path)
    vectors = open_vectors(folder.media_vectors)
    count, dim = vectors.shape
    if queries.titles > count // 2:
        raise ConfigError(
            f"queries.titles is {queries.titles}, but {path} has {count} titles, of which at most half can be asked",
            fix=f"lower queries.titles to {count // 2}",
        )
    users = 0 if folder.user_vectors is None else len(open_vectors(folder.user_vectors, expect_dim=dim))
    if queries.users > users:
        raise ConfigError(
            f"queries.users is {queries.users}, but {path} has {users} users", fix=f"lower queries.users to {users}"
        )
    return DataRef(path, path.name or str(path), count - queries.titles, dim, _data_digest(folder))


def _data_digest(folder: DataFolder) -> str:
    hashed = hashlib.sha256(digest_of_array(open_vectors(folder.media_vectors)).encode())
    if folder.user_vectors is not None:
        hashed.update(digest_of_array(open_vectors(folder.user_vectors)).encode())
    for path in (folder.metadata, folder.seen):
        if path is not None:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    hashed.update(block)
        hashed.update(b"\n")
    return hashed.hexdigest()


def _trials_over(sweep: Sweep, data: DataRef, combinations: Sequence[Combination]) -> tuple[list[Trial], list[Invalid]]:
    protocol = Protocol(sweep.queries, sweep.repeats, sweep.warmup, sweep.slice)
    faiss = str(load_faiss().__version__)
    found: dict[str, Trial] = {}
    invalid: list[Invalid] = []
    for combination in combinations:
        what = f"{data.name}: {describe(combination.index, combination.device)}"
        try:
            index, device = _settle(combination.index, combination.device, data)
        except (ConfigError, DeviceError) as error:
            invalid.append(Invalid(what, error.message))
            continue
        hardware = device_name(device)
        processor = None if device.gpus else Processor.of_this_machine()
        for where in (None, *sweep.filters):
            for k in sweep.k:
                for batch in sweep.batch:
                    trial = Trial(data, index, device, hardware, processor, where, k, batch, protocol, faiss)
                    if trial.digest in found:
                        if (where, k, batch) == (None, sweep.k[0], sweep.batch[0]):
                            invalid.append(Invalid(what, "over this data it is the same as another of the grid"))
                    else:
                        found[trial.digest] = trial
    ordered = sorted(found.values(), key=_order(list(found.values()), sweep))
    return ordered, invalid


def _settle(index: IndexConfig, wanted: DeviceConfig, data: DataRef) -> tuple[IndexConfig, Device]:
    """Resolve what is automatic and refuse what does not fit the data or this machine."""
    resolved = resolve(index, data.titles, data.dim)
    if isinstance(resolved, FactoryIndex):
        empty_index(resolved, data.dim)  # FAISS says whether it knows the string
    device = choose_device(wanted, resolved)
    nlist = getattr(getattr(resolved, "build", None), "nlist", None)
    nprobe = getattr(resolved.search, "nprobe", None)
    if isinstance(nlist, int) and nprobe is not None and nprobe > nlist:
        raise ConfigError(f"nprobe {nprobe} is more than the {nlist} lists: it is the same as {nlist}")
    return resolved, device


def _order(trials: Sequence[Trial], sweep: Sweep) -> Any:
    """Keep the grid's order of indexes and of what is loaded; within that, cheaper search settings come first."""
    builds = {key: number for number, key in enumerate(dict.fromkeys(trial.build_key for trial in trials))}
    loads = {key: number for number, key in enumerate(dict.fromkeys(trial.load_key for trial in trials))}
    filters = {where: number for number, where in enumerate((None, *sweep.filters))}

    def key(trial: Trial) -> tuple[Any, ...]:
        return (
            builds[trial.build_key],
            loads[trial.load_key],
            trial.effort,
            filters[trial.where],
            trial.k,
            trial.batch,
        )

    return key


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
