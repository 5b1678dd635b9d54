"""Titles as what people did with them beside what their texts say: one vector, compared by one inner product.

A title is [v ; √c · t]: v from the ratings (`factors`), t from the text (`text_part`), and c such that text says
``text_weight`` times as much as the ratings in the scores of a sample of users. A user is a weighted mean of titles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from semrec_faiss.arrays import Vectors
from semrec_faiss.config.profile import LEARNED, Profile
from semrec_faiss.data.interactions.divided import HERE, DividedRatings, Workers
from semrec_faiss.data.interactions.factors import new_title_map, rating_matrix, title_factors
from semrec_faiss.data.interactions.limits import MOST_DIMENSIONS, MOST_SEED, MOST_TEXT_WEIGHT
from semrec_faiss.data.interactions.profiles import profile_weights, weight_matrix
from semrec_faiss.data.interactions.text_part import TextProjection
from semrec_faiss.data.users import History
from semrec_faiss.progress import Progress, silent

SAMPLE_USERS = 512
SAMPLE_TITLES = 16_384
"""The scores that the two parts are weighed by are those of so many users for so many titles."""


class LearnSettings(BaseModel):
    """What can be chosen; the defaults did best on titles that were held out for choosing.

    Attributes:
        rank: dimensions of the collaborative part.
        iterations: power iterations of the randomised decomposition.
        shrinkage: of weak directions; see `title_factors`.
        directions: dimensions of the text part.
        text_weight: the spread of its scores in proportion to that of the collaborative part's.
        profile: how users are made of titles.
        seed: of the decomposition and the sample.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: Annotated[int, Field(ge=1, le=MOST_DIMENSIONS)] = 256
    iterations: Annotated[int, Field(ge=0, le=100)] = 4
    shrinkage: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.03
    directions: Annotated[int, Field(ge=1, le=MOST_DIMENSIONS)] = 128
    text_weight: Annotated[float, Field(ge=0, le=MOST_TEXT_WEIGHT, allow_inf_nan=False)] = 0.8
    profile: Profile = LEARNED
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 7


@dataclass(frozen=True)
class Transformation:
    """What gives titles vectors that nobody has rated, without learning again.

    Attributes:
        settings: what was learned with.
        projection: of texts into their part; None where there were none.
        to_factors: float32 (directions + 1, r): [t, 1] · it is the collaborative part.
        text_scale: √c, what the text part is multiplied by.
    """

    settings: LearnSettings
    projection: TextProjection | None
    to_factors: Vectors
    text_scale: float

    @property
    def rank(self) -> int:
        """Dimensions of the collaborative part, which come first."""
        return int(self.to_factors.shape[1])

    @property
    def dim(self) -> int:
        """Dimensions of a title's vector."""
        return self.rank + len(self.to_factors) - 1

    def title_vectors(self, texts: NDArray[Any]) -> Vectors:
        """Return vectors of titles that nobody has rated: float32 (n, dim).

        Args:
            texts: float (n, text dim), of the model that made the others' text vectors; (n, 0) where there were none.
        """
        text_part = self.projected(texts)
        return self.assemble(self.factors_of(text_part), text_part)

    def projected(self, texts: NDArray[Any]) -> Vectors:
        """Return the text part of titles by their text vectors: float32 (n, directions); see `title_vectors`."""
        return np.empty((len(texts), 0), np.float32) if self.projection is None else self.projection.project(texts)

    def factors_of(self, text_part: Vectors) -> Vectors:
        """Return the collaborative part of titles by their text part alone: float32 (n, rank)."""
        return np.asarray(text_part @ self.to_factors[:-1] + self.to_factors[-1], dtype=np.float32)

    def assemble(self, factors: Vectors, text_part: Vectors) -> Vectors:
        """Put both parts of titles together: float32 (n, dim)."""
        return np.concatenate((factors, text_part * np.float32(self.text_scale)), axis=1)

    def text_part_of(self, vectors: Vectors) -> Vectors:
        """Return the text part of finished vectors (n, dim), as `TextProjection.project` gave it: float32 (n, …)."""
        text_part = vectors[:, self.rank :]
        return text_part if not self.text_scale else np.asarray(text_part / np.float32(self.text_scale))


def learn(
    history: History,
    texts: NDArray[Any] | int,
    settings: LearnSettings,
    progress: Progress = silent,
    workers: Workers = HERE,
) -> tuple[Vectors, Transformation]:
    """Learn the vectors of all titles.

    Args:
        history: what people did.
        texts: float (titles, text dim), or only how many titles there are.
        settings: how.
        progress: told the steps.
        workers: who does what divides into blocks.

    Returns:
        float32 (titles, dim), and what new titles get theirs by.
    """
    progress("text directions", 0, 3)
    projection = None if isinstance(texts, int) else TextProjection.fit(texts, settings.directions, workers)
    text_part = np.empty((texts, 0), np.float32) if isinstance(texts, int) else _projected(projection, texts, workers)
    vectors, transformation = learn_beside(history, text_part, settings, projection, progress, workers)
    progress("learning", 3, 3)
    return vectors, transformation


def _projected(projection: TextProjection | None, texts: NDArray[Any], workers: Workers) -> Vectors:
    assert projection is not None
    return projection.project(texts, workers)


def learn_beside(
    history: History,
    text_part: Vectors,
    settings: LearnSettings,
    projection: TextProjection | None = None,
    progress: Progress = silent,
    workers: Workers = HERE,
) -> tuple[Vectors, Transformation]:
    """Learn what depends on people, beside text parts that are there already; see `learn`.

    Args:
        history: what people did.
        text_part: float32 (titles, directions).
        settings: how.
        projection: what made the text part, to be kept.
        progress: told the steps.
        workers: who does what divides into blocks of users; sums of several machines' round otherwise than here.
    """
    titles = len(text_part)
    progress("collaborative directions", 1, 3)
    ratings = rating_matrix(history, titles)
    divided = ratings if workers is HERE else DividedRatings(ratings, workers)
    factors = title_factors(divided, settings.rank, settings.iterations, settings.shrinkage, settings.seed)
    counts = np.bincount(history.rows, minlength=titles)
    progress("collaborative directions", 2, 3)
    to_factors = new_title_map(text_part, factors, counts).astype(np.float32)
    unrated = counts == 0
    factors[unrated] = text_part[unrated] @ to_factors[:-1] + to_factors[-1]
    scale = _text_scale(history, factors, text_part, settings)
    transformation = Transformation(settings, projection, to_factors, scale)
    return transformation.assemble(factors, text_part), transformation


def _text_scale(history: History, factors: Vectors, text_part: Vectors, settings: LearnSettings) -> float:
    """Return √c, c = text_weight · std of collaborative scores / std of text scores, over a sample; 0 without texts."""
    random = np.random.default_rng(settings.seed)
    matrix = weight_matrix(history, profile_weights(history, settings.profile), len(text_part))
    users = np.flatnonzero(np.diff(matrix.indptr))
    users = np.sort(random.permutation(users)[:SAMPLE_USERS])
    titles = np.sort(random.permutation(len(text_part))[:SAMPLE_TITLES])
    spread = [
        float(np.std((matrix[users] @ part) @ part[titles].T)) if part.shape[1] and len(users) else 0.0
        for part in (factors, text_part)
    ]
    return float(np.sqrt(settings.text_weight * spread[0] / spread[1])) if min(spread) > 0 else float(spread[1] > 0)
