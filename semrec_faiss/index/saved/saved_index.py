"""Opening an index from disk, and proving that it is what was built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.config.index_types import FlatIndex, FusedIndex, IndexConfig
from semrec_faiss.config.reading import config_from_dict, load_config
from semrec_faiss.config.schema import Config, known_keys
from semrec_faiss.data.interactions.hybrid import Transformation
from semrec_faiss.data.interactions.transformation_file import ARRAYS_NAME, JSON_NAME, read_transformation
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.filters.matching import matching_rows
from semrec_faiss.data.titles.titles import Titles
from semrec_faiss.errors import DamagedIndexError, DataError, UsageError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.file_names import VECTORS_NAME
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.generations.manifest import damaged_by
from semrec_faiss.index.generations.shards import read_shards
from semrec_faiss.index.hardware.ahead import beside, torch_for
from semrec_faiss.index.hardware.device import Device, choose_device, first_line, load_faiss
from semrec_faiss.index.saved.titles import open_titles
from semrec_faiss.index.saved.users import SavedUsers
from semrec_faiss.index.screening.written import open_directions, open_screen
from semrec_faiss.index.segments.joined import gathered
from semrec_faiss.index.segments.opened import OpenSegments
from semrec_faiss.index.segments.screened import open_joined_screen
from semrec_faiss.index.segments.segmented_index import SegmentedIndex
from semrec_faiss.index.vector_index import VectorIndex

INDEX_NAME = "index.faiss"
SAME_FILES = {"flat", "fused"}
"""Types that differ in how they are searched alone."""

ON_DISK = "build it with an output: semrec_faiss.build(…, output=INDEX), and open that"


class SavedIndex:
    """One generation of an index, opened; vectors are mapped, titles and users are read when first used.

    Attributes:
        generation: what was opened.
        config: as it was built with, search and device settings overridden.
        settings: what overrides them, as given.
    """

    def __init__(self, path: str | Path, overrides: Sequence[str] = ()) -> None:
        """Open the generation in use.

        Args:
            path: the index directory.
            overrides: search and device settings such as ``index.search.nprobe=32`` or ``device.kind=cpu``; and
                ``index.type`` of types that have the same files, flat and fused.

        Raises:
            NotFoundError: there is no index at ``path``.
            DamagedIndexError: a file is not as it was written.
            UsageError: an override of anything but search and device settings.
            ConfigError: a setting is unknown or out of range.
            MissingPackageError: FAISS is missing.
            DeviceError: a GPU is asked for and there is none.
        """
        self._open(IndexDirectory(path).current(), overrides)

    def _open(self, generation: Generation, overrides: Sequence[str]) -> None:
        self._check_kind(generation)
        self.generation = generation
        self.settings = tuple(overrides)
        self.config: Config = _overridden(generation.manifest.config, overrides)

    def _check_kind(self, generation: Generation) -> None:
        """Raise UsageError where titles lie in shards, which other machines may hold."""
        shards = read_shards(generation)
        if shards is not None:
            index = generation.folder.parent
            raise UsageError(
                f"index {index} is in {len(shards.shards)} shards, which a cluster answers for together",
                fix=f"open ray://auto{index.absolute()} on a machine of the cluster, or give --ray ADDRESS",
            )

    @classmethod
    def of(cls, generation: Generation, overrides: Sequence[str] = ()) -> SavedIndex:
        """Open a generation that need not be the one in use; raises UsageError and ConfigError as opening does."""
        opened = object.__new__(cls)
        opened._open(generation, overrides)
        return opened

    def __reduce__(self) -> tuple[type[SavedIndex], tuple[Path, tuple[str, ...]]]:
        """Pickle as path and settings: what is in use there is opened, in another process or later.

        Raises:
            UsageError: it is one for now, which no other process has.
        """
        if self.generation.for_now:
            raise UsageError("an index in memory cannot be pickled", fix=ON_DISK)
        return type(self), (self.generation.folder.parent, self.settings)

    def opened_anew(self) -> SavedIndex:
        """Return the same generation with nothing read yet, for a process that was forked since."""
        fresh = object.__new__(type(self))
        vars(fresh).update(generation=self.generation, config=self.config, settings=self.settings)
        return fresh

    def newest(self) -> SavedIndex | None:
        """Return the generation in use now, nothing of it read, with the same settings; None where it is this one.

        What it shares with this one, which was held against its digests, is not hashed again.

        Raises:
            NotFoundError: there is no index any more.
            DamagedIndexError: its manifest is not as it was written.
        """
        if self.generation.for_now:
            return None
        directory = IndexDirectory(self.generation.folder.parent)
        if directory.current_ref() == self.generation.ref:
            return None
        newest = directory.current()
        newest.trust(self.generation)
        return SavedIndex.of(newest, self.settings)

    @cached_property
    def device(self) -> Device:
        """Where it is searched."""
        return choose_device(self.config.device, self.config.index)

    @cached_property
    def segments(self) -> OpenSegments | None:
        """What updates have brought since the last build; None where there were none."""
        about = self.generation.manifest.segments
        return None if about is None else OpenSegments(self.generation, about)

    @cached_property
    def vectors(self) -> VectorIndex:
        """The searchable index."""
        with beside(torch_for(self.config)):
            return self.load(self.config.index, self.device)

    def load(self, config: IndexConfig, device: Device) -> VectorIndex:
        """Read the vectors for a search with other settings or on another device than those of `vectors`."""
        index, originals = self._read_base(config, device)
        if self.segments is None:
            return VectorIndex(index, config, device, originals=originals, **self._screening(config, device))
        left, fresh = self.segments.titles.within(0), self.segments.title_vectors
        parts: dict[str, Any] = {"base_rows": left, "fresh": fresh, "originals": originals}
        return SegmentedIndex(index, config, device, **parts, **self._screening(config, device))

    def _screening(self, config: IndexConfig, device: Device) -> dict[str, Any]:
        """Open what a search leaves titles out by: on a CPU their bounds, which type fused makes itself on a GPU."""
        if not device.gpus:
            segments = self.segments
            return {
                "screen": open_screen(self.generation)
                if segments is None
                else open_joined_screen(self.generation, segments)
            }
        return {"directions": open_directions(self.generation)} if isinstance(config, FusedIndex) else {}

    def load_base(self) -> VectorIndex:
        """Read the vectors of the last build alone, searched on the CPU as built: its known answers are theirs."""
        config = self.generation.manifest.config.index
        index, originals = self._read_base(config, Device())
        return VectorIndex(index, config, Device(), originals=originals)

    def _read_base(self, config: IndexConfig, device: Device) -> tuple[Any, Vectors | None]:
        manifest = self.generation.manifest
        # On GPUs, what is left of a flat base is copied from where it lies.
        is_gathered = self.segments is not None and isinstance(config, FlatIndex)
        index = read_for_search(self.generation.file(INDEX_NAME), config, Device() if is_gathered else device)
        if (index.ntotal, index.d) != (manifest.base_count, manifest.dim):
            raise DamagedIndexError(
                f"{INDEX_NAME} holds {index.ntotal} vectors of {index.d} dimensions, "
                f"the manifest says {manifest.base_count} of {manifest.dim}"
            )
        originals = None
        if self.generation.has(VECTORS_NAME):
            originals = np.load(self.generation.file(VECTORS_NAME), mmap_mode="r", allow_pickle=False)
            if originals.shape != (manifest.base_count, manifest.dim):
                raise DamagedIndexError(
                    f"{VECTORS_NAME} is {originals.shape}, the manifest says {(manifest.base_count, manifest.dim)}"
                )
        return index, originals

    def vectors_to_compare(self, rows: Rows) -> Vectors:
        """Return vectors of ``rows``, float32 (n, dim), without hashing the files of the base, which may take seconds.

        So they are good for telling whether vectors have changed, and for nothing else.
        """
        held = self._unhashed_base
        if self.segments is None:
            return held(rows)
        return gathered(rows, self.segments.titles.within(0), self.segments.title_vectors, held)

    @cached_property
    def _unhashed_base(self) -> Callable[[Rows], Vectors]:
        if self.generation.has(VECTORS_NAME):
            originals = np.load(self.generation.mapped(VECTORS_NAME), mmap_mode="r", allow_pickle=False)
            return lambda rows: np.asarray(originals[rows], dtype=np.float32)
        config = self.generation.manifest.config.index
        return VectorIndex(read_for_search(self.generation.mapped(INDEX_NAME), config, Device()), config).vectors

    @cached_property
    def titles(self) -> Titles:
        """The titles, in row order."""
        return open_titles(self.generation, self.segments)

    @property
    def catalog(self) -> Catalog:
        """The titles in DuckDB, loaded when this is first used."""
        return self.titles.catalog

    def matching(self, where: str) -> Rows:
        """Return the rows of titles for which a SQL expression holds, ascending; raises UsageError for a mistake."""
        return matching_rows(self.catalog, where)

    @cached_property
    def transformation(self) -> Transformation | None:
        """What titles' vectors were learned by; None where not; raises DamagedIndexError where it cannot be read."""
        if not self.generation.has(JSON_NAME):
            return None
        try:
            found = read_transformation(self.generation.file(JSON_NAME), self.generation.file(ARRAYS_NAME))
        except DataError as error:
            raise damaged_by(error) from error
        if found.dim != self.generation.manifest.dim:
            raise DamagedIndexError(f"{JSON_NAME} is of {found.dim} dimensions, not {self.generation.manifest.dim}")
        return found

    @cached_property
    def users(self) -> SavedUsers | None:
        """The users, or None when the index was built without."""
        return SavedUsers(self.generation, self.segments) if self.generation.manifest.users else None


def config_at(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """Return the config in a file, or that which an index was built with, to build it again in its place.

    Args:
        path: the file, the name of a config that semrec ships, or an index directory; None takes every key's default.
            Another folder does not hide the shipped config of its name.
        overrides: each ``KEY.KEY=VALUE``, the value as YAML.

    Raises:
        NotFoundError: there is none of these.
        DamagedIndexError: an index's manifest is not as it was written.
        ConfigError: a setting is unknown or out of range.
        UsageError: an override is not of the form KEY=VALUE.
    """
    if path is None or not path.is_dir() or not IndexDirectory(path).holds_an_index:
        return load_config(path, overrides)
    config = IndexDirectory(path).current().manifest.config
    return config_from_dict(config.model_dump(mode="json") | {"output": str(path)}, overrides)


def read_for_search(path: Path, config: IndexConfig, device: Device) -> Any:
    """Read a FAISS file whose digest is right, as an index of ``config`` that is searched on ``device`` needs it.

    Raises:
        DamagedIndexError: FAISS cannot read it.
    """
    is_copied = bool(device.gpus) and not isinstance(config, FusedIndex)  # which reads the file block by block
    return _read_faiss(path, mapped=not is_copied)


def _read_faiss(path: Path, *, mapped: bool) -> Any:
    """Read a FAISS file whose digest is right; ``mapped`` leaves the vectors on disk until they are needed."""
    faiss = load_faiss()
    try:
        if not mapped:
            return faiss.read_index(str(path))
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        if faiss.try_extract_index_ivf(index) is not None:  # inverted lists are mapped by the older flag only
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        return index
    except RuntimeError as error:
        raise DamagedIndexError(
            f"{path.resolve()} is as it was written, but FAISS {faiss.__version__} cannot read it: {first_line(error)}",
            fix="install the FAISS version that the manifest names, or build the index again",
        ) from error


def _overridden(config: Config, overrides: Sequence[str]) -> Config:
    values = config.model_dump(mode="json")
    for assignment in overrides:
        key, _, value = (part.strip() for part in assignment.partition("="))
        if key == "index.type" and {value, config.index.type} <= SAME_FILES:
            if value != config.index.type:
                values["index"] |= {"type": value, "search": {}}
        elif key != "device" and not key.startswith(("index.search.", "device.")) and key in known_keys():
            raise UsageError(
                f"--set {assignment!r}: {key!r} is fixed when the index is built",
                fix="index.search.… and device.… may be set again, and index.type from flat to fused and back; for the"
                " rest, build the index anew",
            )
    if values["device"]["kind"] == "gpu":  # where it was built; it opens wherever it is
        values["device"]["kind"] = "auto"
    if any(assignment.replace(" ", "") == "device.kind=cpu" for assignment in overrides):
        values["device"]["float16"] = False  # was for a GPU, and would be refused
    return config_from_dict(values, overrides)
