"""Which text model made a folder's vectors, and from what text: the side file that `dataset embed` writes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from semrec_faiss.storage import read_small, sha256_of_file


class Embedding(BaseModel):
    """How vectors were made of texts.

    Attributes:
        model: the text model, as it was asked for.
        model_sha256: of its folder's files; None where it was a name on the hub.
        recipe: how a title becomes a text; see :func:`semrec_faiss.data.text.embed.item_text`.
        fields: the metadata fields in the text, beside title, genres and tags.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    model_sha256: str | None
    recipe: str
    fields: tuple[str, ...]


def read_embedding(vectors: Path) -> Embedding | None:
    """Read the side file of content_vectors.npy; None where there is none, or it tells of other vectors.

    The vectors are hashed, so that a file that somebody has put in their place is not taken for the model's.

    Args:
        vectors: media/content_vectors.npy; content_vectors.json stands beside it.
    """
    side = vectors.with_suffix(".json")
    try:
        told: Any = json.loads(read_small(side))
        embedding = Embedding.model_validate(told)
        digest = told["vectors_sha256"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        problem = str(error).splitlines()[0]
        warnings.warn(f"{side} cannot be used ({problem}): texts cannot be searched for", RuntimeWarning, stacklevel=2)
        return None
    if digest != sha256_of_file(vectors):
        warnings.warn(
            f"{side} was written for other vectors than {vectors.name}: texts cannot be searched for",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return embedding
