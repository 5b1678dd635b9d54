"""Text models: where a model is, and what makes vectors of texts. Loads sentence-transformers only when asked to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arguments import path_of
from semrec_faiss.errors import DeviceError, MissingModelError, MissingPackageError
from semrec_faiss.storage import sha256_of_file

DEFAULT_MODEL = "paraphrase-multilingual-MiniLM-L12-v2"
"""The guide's text model: 384 dimensions, fifty languages."""

CPU_BATCH, GPU_BATCH = 64, 512
"""Texts in a batch: beyond these more of them gain nothing on a CPU, and little on a GPU."""

_HUB_OWNER = "sentence-transformers"  # of models that are named without an owner


class Encoder(Protocol):
    """Whatever turns texts into vectors.

    Attributes:
        device: where it computes, such as ``cpu`` or ``cuda:0``.
        batch_size: texts that go through it at a time.
    """

    device: str
    batch_size: int

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a vector for each of n ``texts``, shape (n, d); they need not have unit length."""


@dataclass(frozen=True)
class ModelSource:
    """A text model before it is loaded.

    Attributes:
        name: as it was asked for.
        location: a folder, or a name for sentence-transformers to look up.
        sha256: of the folder's files; None for a name.
    """

    name: str
    location: str
    sha256: str | None


class EncoderLoader(Protocol):
    """What `load_encoder` is."""

    def __call__(self, source: ModelSource, *, batch_size: int | None, device: str | None) -> Encoder:
        """Load a model."""


def find_model(name: str) -> ModelSource:
    """Say what ``name`` stands for: a folder, an installed Python package that carries a model, or a hub name."""
    given = path_of(name, "the model")
    folder = given if given.is_dir() else _packaged_model(name)
    if folder is None:
        return ModelSource(name, name, None)
    return ModelSource(name, str(folder), _folder_sha256(folder))


def check_available(source: ModelSource) -> None:
    """Look whether a model can be loaded, without loading it: so that hours of other work do not end in its lack.

    Raises:
        MissingPackageError: sentence-transformers is not installed.
        MissingModelError: the model is on no disk, and the hub has none of that name or cannot be reached.
    """
    if find_spec("sentence_transformers") is None:
        raise _missing_package("it is not installed")
    if Path(source.location).is_dir():
        return
    _be_quiet()
    from huggingface_hub import hf_hub_download

    name = source.location if "/" in source.location else f"{_HUB_OWNER}/{source.location}"
    try:
        hf_hub_download(name, "config.json")
    except Exception as error:  # the hub and the network raise whatever they like
        raise _missing_model(source, error) from error


def _be_quiet() -> None:
    """Keep the hub's progress bars and warnings from mixing with ours; called before it is imported."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _missing_package(what: object) -> MissingPackageError:
    return MissingPackageError(
        f"making vectors of texts needs sentence-transformers, which cannot be imported: {what}",
        fix="pip install 'semrec-faiss[embed]'",
    )


def _missing_model(source: ModelSource, error: Exception) -> MissingModelError:
    return MissingModelError(
        f"cannot load the text model {source.name!r}: {_first_line(error)}",
        fix="give a model's folder, an installed package that carries one, or a name on the Hugging Face hub "
        "(which needs the network the first time)",
    )


def _packaged_model(name: str) -> Path | None:
    """Return the ``model`` folder inside the installed package of that name, if there is one."""
    module = name.replace("-", "_")
    spec = find_spec(module) if module.isidentifier() else None
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "model"
        if (folder / "modules.json").is_file():
            return folder
    return None


def _folder_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(sha256_of_file(path).encode())
    return digest.hexdigest()


def load_encoder(source: ModelSource, *, batch_size: int | None = None, device: str | None = None) -> Encoder:
    """Load a sentence-transformers model.

    Args:
        source: from :func:`find_model`.
        batch_size: texts that go through the model at a time; None takes 64 on a CPU and 512 on a GPU.
        device: "cpu", "cuda", "cuda:1", …; None takes a GPU when there is one.

    Raises:
        MissingPackageError: sentence-transformers is not installed.
        DeviceError: there is no such device.
        MissingModelError: no such model, or it cannot be fetched.
    """
    _be_quiet()
    try:
        import torch
        from sentence_transformers import SentenceTransformer
    except (ImportError, OSError) as error:  # OSError: a shared library of torch is missing
        raise _missing_package(error) from error
    _check_device(torch, device)
    import_module("transformers").utils.logging.disable_progress_bar()
    try:
        model = SentenceTransformer(source.location, device=device)
    except Exception as error:  # the hub, the network and the file formats raise whatever they like
        raise _missing_model(source, error) from error
    used = str(model.device)
    return _SentenceTransformerEncoder(model, used, batch_size or (CPU_BATCH if used == "cpu" else GPU_BATCH))


def _check_device(torch: Any, device: str | None) -> None:
    if device is None:
        return
    try:
        torch.empty(1, device=device)
    except Exception as error:  # an unknown name, a build without CUDA, no such GPU: each its own type
        raise DeviceError(
            f"the device {device!r} cannot be used: {_first_line(error)}", fix="give none, or cpu"
        ) from error


class _SentenceTransformerEncoder:
    """A loaded model as an :class:`Encoder`."""

    def __init__(self, model: Any, device: str, batch_size: int) -> None:
        self._model = model
        self.device = device
        self.batch_size = batch_size

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a vector for each of n ``texts``, float32 (n, d); raises DeviceError where the model fails."""
        try:
            vectors = self._model.encode(list(texts), batch_size=self.batch_size, show_progress_bar=False)
        except RuntimeError as error:
            raise DeviceError(
                f"the text model failed on {self.device}: {_first_line(error)}",
                fix=f"try batches of {max(1, self.batch_size // 4)} texts, not of {self.batch_size}, or the device cpu",
            ) from error
        return np.asarray(vectors, dtype=np.float32)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
