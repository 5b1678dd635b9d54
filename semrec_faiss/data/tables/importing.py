"""A table to a data folder: its vectors to content_vectors.npy, its other columns, as they are, to metadata.parquet."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from semrec_faiss.data.folder.layout import MEDIA_VECTORS, METADATA_TABLE, open_vectors
from semrec_faiss.data.folder.metadata_table import MetadataTable, checked_table
from semrec_faiss.data.folder.npy import GrowingNpy
from semrec_faiss.data.folder.recipe import PARTS, Recipe
from semrec_faiss.data.folder.relation import ParquetRelation, Relation
from semrec_faiss.data.mistakes import Mistakes
from semrec_faiss.data.tables.columns import find_columns, is_text, refuse_vectors, vector_column
from semrec_faiss.data.tables.files import BATCH_ROWS, Table, open_table
from semrec_faiss.data.tables.source import find_files
from semrec_faiss.data.tables.staged import staged_rows
from semrec_faiss.data.tables.vectors import VectorReader, note_unusable
from semrec_faiss.data.time_spans import refuse_time_spans
from semrec_faiss.errors import DataError, UsageError, quoted
from semrec_faiss.progress import Progress, silent

_NUMBERED = re.compile(r"(.*?)[0-9]+")
_LEAST_DIMENSIONS = 4
_IDS = ("media_id", "title")
_WITHOUT_VECTORS = (
    "vectors: none; semrec dataset embed makes them of texts, semrec dataset learn of what people did (--interactions)"
)


@dataclass(frozen=True)
class TableWish:
    """What is said about a table.

    Attributes:
        columns: the column of a part (media_id, title, year, genres, franchise), as ``--map`` names it.
        vector: the column of vectors, where it is named.
        vectors: a .npy with a vector per row, instead of a column.
        without_vectors: the table has none; `semrec dataset embed` or `semrec dataset learn` makes them.
        split: by column of texts that are lists, what separates their elements.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    vector: str | None = None
    vectors: Path | None = None
    without_vectors: bool = False
    split: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImportedTable:
    """What became of a table.

    Attributes:
        titles: rows.
        dim: dimensions of their vectors; 0 where there are none.
        dtype: of the vectors.
        fields: DuckDB's type of each field.
        notes: what was guessed, in sentences.
    """

    titles: int
    dim: int
    dtype: str
    fields: dict[str, str]
    notes: tuple[str, ...]


def import_table(source: Path, folder: Path, wish: TableWish, progress: Progress = silent) -> ImportedTable:
    """Write media/ of the data folder ``folder``, which is being made, of a table.

    Args:
        source: a file, a folder of parts, a glob, or a saved dataset; see `find_files`.
        folder: an empty folder.
        wish: what is said about the table's columns.
        progress: told the rows read.

    Raises:
        NotFoundError: there is nothing at ``source``.
        UsageError: a column is not there, or cannot be guessed.
        DataError: rows that cannot be used, the first ten with file, row and column.
    """
    files = find_files(source)
    table = open_table(files)
    if files.format in ("csv", "jsonl"):  # an id such as 00123 is a text, whatever it looks like
        found = find_columns(table.name, table.schema.names, wish.columns, _IDS, ())
        table = open_table(files, list(found.by_part.values()))
    made = write_media(table, folder, wish, beside=files.vectors, progress=progress)
    return replace(made, notes=(*made.notes, *files.notes()))


def write_media(
    table: Table, folder: Path, wish: TableWish, *, beside: Path | None = None, progress: Progress = silent
) -> ImportedTable:
    """Write media/ of a table that is open; ``beside`` is a .npy (n, dim) that lies beside it; see `import_table`.

    Raises:
        UsageError: columns that cannot be guessed, or do not exist; vectors in none or in two places.
        DataError: rows that cannot be used, the first ten with their place.
    """
    plan = plan_media(table, wish, beside)
    schema, chosen = table.schema, plan.recipe.vector
    npy = None if chosen is not None or wish.without_vectors else wish.vectors or beside
    mistakes = Mistakes()
    (folder / MEDIA_VECTORS).parent.mkdir()
    with ExitStack() as stack:
        vectors = _Vectors(stack.enter_context((folder / MEDIA_VECTORS).open("w+b")), chosen, npy, mistakes)
        kept = schema.remove(schema.get_field_index(chosen)) if chosen is not None else schema
        stored = kept.with_metadata({**(kept.metadata or {}), **plan.recipe.metadata()})
        write = stack.enter_context(staged_rows(table.name, folder / METADATA_TABLE, stored))
        rows = 0
        for batch in table.batches(mistakes):
            vectors.take(batch, rows)
            rest = batch.select(kept.names)
            write(rest.replace_schema_metadata(stored.metadata))
            rows += batch.num_rows
            progress("reading rows", rows, rows)
        vectors.finish(rows)
    if not rows:
        mistakes.raise_all(table.name)
        raise DataError(f"{table.name} has no rows", fix="give a table that has some")
    stored_rows = ParquetRelation(folder / METADATA_TABLE, table.name)
    checked = check_media(stored_rows, plan.recipe, kept.names, mistakes)
    if vectors.dim == 0:
        (folder / MEDIA_VECTORS).unlink()
    return ImportedTable(rows, vectors.dim, vectors.dtype, checked.fields, plan.notes)


@dataclass(frozen=True)
class MediaPlan:
    """What becomes of a table's columns.

    Attributes:
        recipe: which plays which part, and which holds the vectors.
        notes: what was guessed, in sentences.
    """

    recipe: Recipe
    notes: tuple[str, ...]


def plan_media(table: Table, wish: TableWish, beside: Path | None = None) -> MediaPlan:
    """Say what becomes of a table's columns; raises UsageError, and DataError for types that are none of fields."""
    refuse_time_spans(table.name, table.schema)
    chosen, notes = _vectors_of(table, wish, beside)
    names = [name for name in table.schema.names if name != chosen]
    columns = find_columns(table.name, names, wish.columns, PARTS, _IDS)
    split, split_notes = _split(table.schema, columns.by_part, wish)
    recipe = Recipe(dict(columns.by_part), split, chosen).with_schema(table.schema)
    return MediaPlan(recipe, (*columns.notes, *notes, *split_notes))


def check_media(rows: Relation, recipe: Recipe, names: list[str], mistakes: Mistakes) -> MetadataTable:
    """Check the columns of a table that are not vectors; raises DataError with these and earlier ``mistakes``."""
    noted = mistakes.count
    checked, count = checked_table(rows, recipe, names, mistakes.note)
    mistakes.add(count - (mistakes.count - noted))
    mistakes.raise_all(str(rows.name))
    return checked


def _vectors_of(table: Table, wish: TableWish, beside: Path | None) -> tuple[str | None, tuple[str, ...]]:
    if wish.without_vectors:
        refuse_vectors(table.name, table.schema, "--without-vectors")
        return None, (_WITHOUT_VECTORS,)
    if wish.vectors is not None:
        refuse_vectors(table.name, table.schema, "--vectors")
        return None, ()
    chosen, notes = vector_column(table.name, table.schema, wish.vector)
    if chosen is not None and wish.vector is None and beside is not None:
        raise UsageError(
            f"{table.name} has vectors in the column {chosen!r}, and {beside} lies beside it",
            fix=f"say which are meant: --vector {chosen}, or --vectors {beside}",
        )
    if chosen is None and beside is None:
        raise UsageError(
            f"{table.name} has no column of lists or tensors of floats, and no .npy of its name lies beside it; its"
            f" columns are {', '.join(f'{one.name} ({one.type})' for one in table.schema)}",
            fix=_of_columns(table.schema)
            or "name the column with --vector, a .npy with --vectors, or give --without-vectors and then make them:"
            " semrec dataset embed of texts, semrec dataset learn of what people did",
        )
    return chosen, notes if chosen is not None else (f"vectors: {beside}, which lies beside the table",)


def _of_columns(schema: Any) -> str:
    """Say how vectors are taken whose dimensions are columns of their own, where some look so: dim_0, dim_1, ...."""
    named = [_NUMBERED.fullmatch(one.name) for one in schema if pa.types.is_floating(one.type)]
    stems = Counter(found[1] for found in named if found)
    stem, count = max(stems.items(), key=lambda one: one[1], default=("", 0))
    if count < _LEAST_DIMENSIONS:
        return ""
    return (
        f"are {stem}… the dimensions? numpy.save('vectors.npy', frame.filter(regex=r'^{stem}\\d+$').to_numpy()) makes"
        " vectors of them in pandas; then give the table without these columns, and --vectors vectors.npy"
    )


def _split(schema: Any, parts: Mapping[str, str], wish: TableWish) -> tuple[dict[str, str], tuple[str, ...]]:
    """Say which columns of texts are lists: those named, and genres."""
    unknown = [name for name in wish.split if name not in schema.names]
    if unknown:
        raise UsageError(f"there is no column {quoted(unknown[0])} to split", fix=f"columns: {', '.join(schema.names)}")
    split = dict(wish.split)
    genres = parts.get("genres")
    if genres is None or genres in split or not is_text(schema.field(genres).type):
        return split, ()
    return split | {genres: "|"}, (f"genres: the texts of column {genres!r}, split at '|'; --split says otherwise",)


class _Vectors:
    """Writes the vectors of a table batch by batch, from its column or from a .npy beside it."""

    def __init__(self, file: BinaryIO, column: str | None, npy: Path | None, mistakes: Mistakes) -> None:
        self._npy = GrowingNpy(file)
        self._mistakes = mistakes
        self._reader = None if column is None else VectorReader(column, mistakes)
        self._path = npy
        self._mapped: NDArray[Any] | None = None if npy is None else open_vectors(npy)

    @property
    def dim(self) -> int:
        return self._npy.shape[1]

    @property
    def dtype(self) -> str:
        return self._npy.dtype_name

    def take(self, batch: Any, first: int) -> None:
        if self._reader is not None:
            found = self._reader.read(batch.column(self._reader.column), first)
            if len(found):
                self._npy.write(found)

    def finish(self, rows: int) -> None:
        """Copy the .npy where that has the vectors, and write the header."""
        if self._mapped is not None:
            self._copy(self._mapped, rows)
        self._npy.finish()

    def _copy(self, mapped: NDArray[Any], rows: int) -> None:
        if len(mapped) != rows:
            counted = f"{self._path} has {len(mapped):,} vectors, the table has {rows:,} rows that can be read"
            told = f"{counted}; they must be of the same titles in the same order"
            if not self._mistakes.count:
                turned = " numpy.save(path, vectors.T) turns these" * (mapped.shape[1] == rows)
                raise DataError(told, fix=f"give an array with a row for each row of the table;{turned}".rstrip(";"))
            self._mistakes.note_text(told)
            return
        beside = Mistakes()
        beside.begin_array(str(self._path))
        for first in range(0, rows, BATCH_ROWS):
            block = np.asarray(mapped[first : first + BATCH_ROWS])
            note_unusable(block, first, None, beside)
            self._npy.write(block)
        self._mistakes.take(beside)


def parse_split(assignments: Sequence[str]) -> dict[str, str]:
    """Read ``COLUMN=SEPARATOR`` as ``--split`` gives it; raises UsageError for another form."""
    found = {}
    for text in assignments:
        column, equals, separator = text.partition("=")
        if not equals or not column or not separator:
            raise UsageError(f"--split {quoted(text)} is not of the form COLUMN=SEPARATOR", fix="--split genres=,")
        found[column] = separator
    return found
