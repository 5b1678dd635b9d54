"""The titles of a generation: written at a build, and opened without reading them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from semrec_faiss.data.folder.field_types import LEADING_FIELDS
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.columns import ColumnsWriter, StoredColumns
from semrec_faiss.data.titles.table import inspect_parquet
from semrec_faiss.data.titles.titles import Titles, stored_records
from semrec_faiss.data.titles.widened import WidenedTexts
from semrec_faiss.errors import DamagedIndexError, DataError, UsageError
from semrec_faiss.index.generations.file_names import RECORDS
from semrec_faiss.index.generations.generation import Generation, NewGeneration
from semrec_faiss.index.generations.manifest import damaged_by, unreadable
from semrec_faiss.index.generations.texts import read_texts, write_texts
from semrec_faiss.index.segments.joined import JoinedTexts
from semrec_faiss.index.segments.opened import OpenSegments
from semrec_faiss.paths import as_typed

ITEMS_NAME = "items.parquet"
FIELDS_NAME = "fields.json"
"""The fields' types, so that they are known without the catalogue."""
COLUMNS_NAME = "columns.arrow"
"""The fields by column, for tables of answers."""


def write_titles(new: NewGeneration, catalog: Catalog) -> None:
    """Write items.parquet for filters, and the records with their look-up for everything else."""
    catalog.write_parquet(new.path(ITEMS_NAME))
    new.adopt(ITEMS_NAME)
    write_fields(new, catalog.fields)
    fields = {**LEADING_FIELDS, **catalog.fields}
    with ColumnsWriter(new.path(COLUMNS_NAME), fields) as columns:
        write_texts(new, RECORDS, stored_records(catalog, columns.add))
    new.adopt(COLUMNS_NAME)


def write_fields(new: NewGeneration, fields: Mapping[str, str]) -> None:
    """Write fields.json: the DuckDB type of every metadata field."""
    with new.create(FIELDS_NAME) as file:
        file.write(json.dumps(fields, ensure_ascii=False).encode())


def open_titles(generation: Generation, segments: OpenSegments | None = None) -> Titles:
    """Open the titles of a generation; one that an earlier version wrote has no records, and is read whole.

    Args:
        generation: where they are.
        segments: what updates have brought since they were written.

    Raises:
        DamagedIndexError: a file is not as it was written.
    """
    if not generation.has(FIELDS_NAME):
        return Titles(lambda: load_catalog(generation))
    fields = _read_fields(generation)
    stored = read_texts(generation, RECORDS, generation.manifest.base_count)
    if segments is not None:
        joined = segments.records(stored)
        texts = joined if segments.about.fields == fields else WidenedTexts(joined, segments.about.fields)
        return Titles(lambda: _load_joined(generation, segments, joined), texts, segments.about.fields)
    columns = None
    if generation.has(COLUMNS_NAME):  # an earlier version wrote none
        count = generation.manifest.base_count
        columns = StoredColumns(lambda: generation.file(COLUMNS_NAME), {**LEADING_FIELDS, **fields}, count)
    return Titles(lambda: load_catalog(generation), stored, fields, columns)


def fields_of(generation: Generation) -> dict[str, str]:
    """Return the DuckDB type of every metadata field.

    Raises:
        UsageError: an earlier version wrote the index, which does not keep them apart from the titles.
    """
    if generation.manifest.segments is not None:
        return generation.manifest.segments.fields
    if not generation.has(FIELDS_NAME):
        raise UsageError(
            f"{generation.folder.parent} was built by an earlier version of semrec and cannot be updated as it is",
            fix=f"semrec build {as_typed(generation.folder.parent)} builds it again of its data folder",
        )
    return _read_fields(generation)


def known_fields(generation: Generation) -> dict[str, str]:
    """Return what `fields_of` does; of an index of an earlier version the titles tell. Raises as `open_titles`."""
    if generation.manifest.segments is not None or generation.has(FIELDS_NAME):
        return fields_of(generation)
    try:
        return inspect_parquet(generation.file(ITEMS_NAME))[1]
    except DataError as error:
        raise damaged_by(error) from error


def parts_of(generation: Generation) -> dict[str, str]:
    """Return the field of the data by the part that it plays under another name."""
    return generation.manifest.config.dataset.fields.parts


def _read_fields(generation: Generation) -> dict[str, str]:
    try:
        fields: dict[str, str] = json.loads(generation.file(FIELDS_NAME).read_bytes())
    except (OSError, ValueError) as error:
        raise unreadable(generation.folder / FIELDS_NAME, error) from error
    return fields


def _load_joined(generation: Generation, segments: OpenSegments, records: JoinedTexts) -> Catalog:
    """Load the catalogue of a generation with segments; raises as `load_catalog`."""
    base = segments.titles.within(0)
    lines = (line.decode() for line in records.lines(range(len(base), records.count)))
    try:
        parts = parts_of(generation)
        return Catalog.from_parts(generation.file(ITEMS_NAME), base, lines, segments.about.fields, parts)
    except DataError as error:
        raise damaged_by(error) from error


def load_catalog(generation: Generation) -> Catalog:
    """Load the catalogue of a generation; raises DamagedIndexError where it is none, or of another length."""
    try:
        catalog = Catalog.from_parquet(generation.file(ITEMS_NAME), parts_of(generation))
    except DataError as error:
        raise damaged_by(error) from error
    _check_count(generation, catalog.count)
    return catalog


def check_catalog(generation: Generation) -> None:
    """Raise as `load_catalog` does, of a generation without segments, and load nothing."""
    try:
        count, _ = inspect_parquet(generation.file(ITEMS_NAME))
    except DataError as error:
        raise damaged_by(error) from error
    _check_count(generation, count)


def _check_count(generation: Generation, count: int) -> None:
    if count != generation.manifest.count:
        raise DamagedIndexError(f"{ITEMS_NAME} holds {count} titles, the manifest says {generation.manifest.count}")
