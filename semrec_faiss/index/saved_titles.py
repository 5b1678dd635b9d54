"""The titles of a generation: written at a build, and opened without reading them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.stored import StoredTexts, write_stored
from semrec_faiss.data.titles.titles import Titles, stored_records
from semrec_faiss.errors import DamagedIndexError, DataError
from semrec_faiss.index.generations.generation import Generation, NewGeneration

ITEMS_NAME = "items.parquet"
RECORDS = "records"
FIELDS_NAME = "fields.json"
"""The fields' types, so that they are known without the catalogue."""


def write_titles(new: NewGeneration, catalog: Catalog) -> None:
    """Write items.parquet for filters, and the records with their look-up for everything else."""
    catalog.write_parquet(new.folder / ITEMS_NAME)
    new.adopt(ITEMS_NAME)
    with new.create(FIELDS_NAME) as file:
        file.write(json.dumps(catalog.fields, ensure_ascii=False).encode())
    write_texts(new, RECORDS, stored_records(catalog))


def write_texts(new: NewGeneration, name: str, texts: Iterable[tuple[bytes, Iterable[str]]]) -> None:
    """Write NAME.jsonl, NAME.index and NAME.lookup; see `write_stored`."""
    with (
        new.create(f"{name}.jsonl") as lines,
        new.create(f"{name}.index") as index,
        new.create(f"{name}.lookup") as lookup,
    ):
        write_stored(texts, lines, index, lookup)


def read_texts(generation: Generation, name: str, count: int) -> StoredTexts:
    """Map what `write_texts` wrote; lines are held against their sums when read, the look-up when it is first used."""
    return StoredTexts(
        generation.mapped(f"{name}.jsonl"),
        generation.mapped(f"{name}.index"),
        lambda: generation.file(f"{name}.lookup"),
        count,
    )


def open_titles(generation: Generation) -> Titles:
    """Open the titles of a generation; one that an earlier version wrote has no records, and is read whole.

    Raises:
        DamagedIndexError: a file is not as it was written.
    """
    if not generation.has(FIELDS_NAME):
        return Titles(lambda: load_catalog(generation))
    try:
        fields = json.loads(generation.file(FIELDS_NAME).read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedIndexError(f"{FIELDS_NAME} cannot be read: {error}", fix="build the index again") from error
    stored = read_texts(generation, RECORDS, generation.manifest.count)
    return Titles(lambda: load_catalog(generation), stored, fields)


def load_catalog(generation: Generation) -> Catalog:
    """Load the catalogue of a generation; raises DamagedIndexError where it is none, or of another length."""
    try:
        catalog = Catalog.from_parquet(generation.file(ITEMS_NAME))
    except DataError as error:
        raise DamagedIndexError(error.message, fix="build the index again") from error
    if catalog.count != generation.manifest.count:
        raise DamagedIndexError(
            f"{ITEMS_NAME} holds {catalog.count} titles, the manifest says {generation.manifest.count}"
        )
    return catalog
