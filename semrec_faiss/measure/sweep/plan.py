"""From a sweep file to its trials: what is measured, under which digest, in an order that builds each index once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semrec_faiss.config.index_types import FactoryIndex, IndexConfig
from semrec_faiss.config.schema import DeviceConfig
from semrec_faiss.config.yaml_source import YamlSource
from semrec_faiss.data.folder.layout import DataFolder, find_data_folder, open_vectors
from semrec_faiss.data.folder.parquet import parquet_parts
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.filters.matching import matching_rows
from semrec_faiss.errors import ConfigError, DeviceError
from semrec_faiss.index.build.source import check_lengths_stay
from semrec_faiss.index.factory import empty_index, resolve
from semrec_faiss.index.hardware.device import Device, choose_device, load_faiss
from semrec_faiss.measure.documents.results import device_name
from semrec_faiss.measure.documents.stamp import Stamp
from semrec_faiss.measure.instruments.environment import Processor, stamp_of_this_run
from semrec_faiss.measure.quality.truth import digest_of_array
from semrec_faiss.measure.sweep.config import Sweep
from semrec_faiss.measure.sweep.grid import Combination, expand
from semrec_faiss.measure.trials.plan_record import InvalidOne, SweepPlan
from semrec_faiss.measure.trials.questions import check_slice
from semrec_faiss.measure.trials.settings import QuerySettings
from semrec_faiss.measure.trials.trial import DataRef, Trial, TrialProtocol, describe
from semrec_faiss.progress import Progress, silent

SAME_OVER_DATA = "over this data it is the same as another of the grid"


@dataclass(frozen=True)
class TrialsPlan:
    """All of a sweep's trials and the combinations that are none.

    Attributes:
        sweep: what was asked for.
        trials: in the order in which they run.
        invalid: with the reason why.
        stamp: when, with what and by which command it is measured.
    """

    sweep: Sweep
    trials: tuple[Trial, ...]
    invalid: tuple[InvalidOne, ...]
    stamp: Stamp

    def record(self, pruned: Mapping[str, str]) -> SweepPlan:
        """Return it as plan.json holds it.

        Args:
            pruned: why trials were passed over, by digest.
        """
        trials = [{"digest": one.digest, "what": one.what, "pruned": pruned.get(one.digest)} for one in self.trials]
        return SweepPlan.model_validate(
            {
                "name": self.sweep.name,
                "sweep": self.sweep.model_dump(mode="json"),
                "environment": self.stamp,
                "trials": trials,
                "invalid": list(self.invalid),
            }
        )

    def groups(self, wanted: frozenset[str]) -> Iterator[list[Trial]]:
        """Yield the trials whose digest is wanted, those of one build at a time."""
        groups: dict[str, list[Trial]] = {}
        for trial in self.trials:
            if trial.digest in wanted:
                groups.setdefault(trial.build_key, []).append(trial)
        yield from groups.values()


def make_plan(sweep: Sweep, source: YamlSource, progress: Progress = silent, stamp: Stamp | None = None) -> TrialsPlan:
    """Multiply out the grid over the data and hold every combination against data and devices.

    Args:
        sweep: what is asked for.
        source: the file it was read from, for lines in messages.
        progress: told the data folders read.
        stamp: of the run; made now by default.

    Raises:
        ConfigError: mistakes in the grid, or more queries than the data has.
        UsageError: a filter is not understood, or there is no field to slice by.
        NotFoundError: a data folder does not exist.
        DataError: one is inconsistent.
    """
    combinations, invalid = expand(sweep.grid, source)
    trials: list[Trial] = []
    for number, folder in enumerate(sweep.dataset):
        progress("hashing data", number, len(sweep.dataset))
        data = data_ref(folder, sweep.queries)
        _check_questions(sweep, folder)
        ours, theirs = _trials_over(sweep, data, combinations)
        trials += ours
        invalid += theirs
    progress("hashing data", len(sweep.dataset), len(sweep.dataset))
    return TrialsPlan(sweep, tuple(trials), tuple(invalid), stamp or stamp_of_this_run())


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
            fix=f"lower queries.titles to {count // 2}; to tune, --titles {count // 2}",
        )
    users = 0 if folder.user_vectors is None else len(open_vectors(folder.user_vectors, expect_dim=dim))
    if queries.users > users:
        raise ConfigError(
            f"queries.users is {queries.users}, but {path} has vectors of {users} users",
            fix=f"lower queries.users to {users}",
        )
    return DataRef(path, path.name or str(path), count - queries.titles, dim, _data_digest(folder))


def _check_questions(sweep: Sweep, path: Path) -> None:
    """Refuse filters and a slice that the titles of a folder do not have, before anything is measured.

    Raises:
        UsageError: a filter is not understood, or there is no field to slice by.
    """
    if not sweep.filters and sweep.slice is None:
        return
    folder = find_data_folder(path)
    catalog = Catalog.read(folder.metadata, expect_count=len(open_vectors(folder.media_vectors)))
    for where in sweep.filters:
        matching_rows(catalog, where)
    if sweep.slice is not None:
        check_slice(catalog, sweep.slice)


def _data_digest(folder: DataFolder) -> str:
    hashed = hashlib.sha256(digest_of_array(open_vectors(folder.media_vectors)).encode())
    if folder.user_vectors is not None:
        hashed.update(digest_of_array(open_vectors(folder.user_vectors)).encode())
    for paths in ([folder.metadata], [] if folder.seen is None else parquet_parts(folder.seen)):
        for path in paths:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    hashed.update(block)
        hashed.update(b"\n")
    return hashed.hexdigest()


def _trials_over(
    sweep: Sweep, data: DataRef, combinations: Sequence[Combination]
) -> tuple[list[Trial], list[InvalidOne]]:
    protocol = TrialProtocol(sweep.queries, sweep.repeats, sweep.warmup, sweep.slice)
    faiss = str(load_faiss().__version__)
    found: dict[str, Trial] = {}
    invalid: list[InvalidOne] = []
    for combination in combinations:
        what = f"{data.name}: {describe(combination.index, combination.device)}"
        try:
            index, device = _settle(combination.index, combination.device, data)
        except (ConfigError, DeviceError) as error:
            invalid.append(InvalidOne(what=what, reason=error.message))
            continue
        hardware = device_name(device)
        processor = None if device.gpus else Processor.of_this_machine()
        for where in (None, *sweep.filters):
            for k in sweep.k:
                for batch in sweep.batch:
                    trial = Trial(data, index, device, hardware, processor, where, k, batch, protocol, faiss)
                    if trial.digest in found:
                        if (where, k, batch) == (None, sweep.k[0], sweep.batch[0]):
                            invalid.append(InvalidOne(what=what, reason=SAME_OVER_DATA))
                    else:
                        found[trial.digest] = trial
    ordered = sorted(found.values(), key=_order(list(found.values()), sweep))
    return ordered, invalid


def _settle(index: IndexConfig, wanted: DeviceConfig, data: DataRef) -> tuple[IndexConfig, Device]:
    """Resolve what is automatic and refuse what does not fit the data or this machine."""
    resolved = resolve(index, data.titles, data.dim)
    check_lengths_stay(data.path, resolved)
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
