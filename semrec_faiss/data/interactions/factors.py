"""Ratings to collaborative vectors: a truncated singular value decomposition, its weak directions shrunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Vectors
from semrec_faiss.data.interactions.divided import DividedRatings
from semrec_faiss.data.users import History
from semrec_faiss.errors import MissingPackageError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MOST_STARS = 5.0
UNRATED = 3.0
"""The stars of a title that was seen and not rated, where others are: the middle of the scale."""


def check_installed() -> None:
    """Raise MissingPackageError where scipy or scikit-learn, the extra ``learn``, is missing."""
    try:
        import scipy.sparse  # noqa: F401
        import sklearn.utils.extmath  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"{error.name} is not installed, which vectors are learned with", fix='pip install "semrec-faiss[learn]"'
        ) from error


def rating_matrix(history: History, titles: int) -> csr_matrix[Any]:
    """Return what people did as a sparse float32 (users, titles): rating / 5; 1 where nothing is known of ratings."""
    from scipy.sparse import csr_matrix

    if history.ratings is None:
        values = np.ones(len(history.rows), np.float32)
    else:
        values = np.nan_to_num(history.ratings, nan=UNRATED).astype(np.float32) / np.float32(MOST_STARS)
    return csr_matrix((values, history.rows, history.offsets), shape=(len(history.offsets) - 1, titles))


def title_factors(
    ratings: csr_matrix[Any] | DividedRatings, rank: int, iterations: int, shrinkage: float, seed: int
) -> Vectors:
    """Return the titles' collaborative vectors: float32 (titles, r), r at most ``rank``.

    With ratings ≈ U S Vᵀ (Halko, Martinsson and Tropp 2011), title j is V_j · √(s² / (s² + shrinkage · s₁²)): the inner
    product of two titles is then what a ridge regression on the strongest r directions says of one by the other.

    Args:
        ratings: from `rating_matrix`, whole or divided.
        rank: directions to keep; fewer where the matrix has fewer, or some of no weight.
        iterations: power iterations.
        shrinkage: in proportion to the largest squared singular value; more trusts the strongest directions only.
        seed: of the random projection.
    """
    from sklearn.utils.extmath import randomized_svd

    wanted = min(rank, *ratings.shape)
    if isinstance(ratings, DividedRatings):
        strengths, directions = ratings.svd(wanted, iterations, seed)
    else:
        _, strengths, directions = randomized_svd(ratings, wanted, n_iter=iterations, random_state=seed)
    kept = strengths > strengths[0] * 1e-6
    squares = strengths[kept].astype(np.float64) ** 2
    scales = np.sqrt(squares / (squares + shrinkage * squares[0]))
    return np.ascontiguousarray(directions[kept].T * scales, dtype=np.float32)


def new_title_map(inputs: NDArray[Any], factors: Vectors, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return B (inputs + 1, r), with which [t, 1] · B is the collaborative vector of a title of input t.

    Ridge regression, weighted by how much is known of a title: (AᵀDA + 5 · mean(D) · I)⁻¹ AᵀDV, D = n / (n + 20).

    Args:
        inputs: (titles, inputs), what is known of titles that nobody has rated.
        factors: float32 (titles, r), from `title_factors`.
        counts: int64 (titles,), how many people have rated each.
    """
    known = np.column_stack((inputs, np.ones(len(inputs)))).astype(np.float64)
    trust = counts / (counts + TRUST_COUNT)
    gram = (known * trust[:, None]).T @ known
    gram[np.diag_indices_from(gram)] += RIDGE * trust.mean()
    return np.asarray(np.linalg.solve(gram, (known * trust[:, None]).T @ factors.astype(np.float64)))


TRUST_COUNT = 20
"""A title that so many have rated is trusted half."""

RIDGE = 5.0
"""Of `new_title_map`, in proportion to the mean trust; chosen on titles held out of ratings before the latest."""
