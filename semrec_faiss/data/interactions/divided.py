"""Work that divides into blocks, and who does it: this process one after the other, or workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Block = TypeVar("Block")
Shared = TypeVar("Shared")
Result = TypeVar("Result")

USERS_A_BLOCK = 65_536
OVERSAMPLES = 10


class Workers:
    """This process; those of a cluster do the same and give the same bits, as blocks and their order are the same."""

    def hold(self, block: Block) -> Block:
        """Return what stands for a block that is worked on again and again."""
        return block

    def each(
        self, work: Callable[[Block, Shared], Result], blocks: Iterable[Block], shared: Shared
    ) -> Iterator[Result]:
        """Do work on every block, each beside what all of them share, and yield the results in order."""
        return (work(block, shared) for block in blocks)


HERE = Workers()


class DividedRatings:
    """Ratings as a matrix that is multiplied by blocks of users: as much of one as a decomposition asks for."""

    __array_ufunc__ = None  # `array @ ratings` is asked of the ratings

    def __init__(self, ratings: csr_matrix[Any], workers: Workers) -> None:
        """Divide a sparse float32 (users, titles) among ``workers``."""
        self.shape = ratings.shape
        self.dtype = ratings.dtype
        self._workers = workers
        self._bounds = [*range(0, self.shape[0], USERS_A_BLOCK), self.shape[0]]
        self._blocks = [workers.hold(ratings[first:last]) for first, last in self._spans]
        self._is_turned = False

    @property
    def T(self) -> DividedRatings:  # noqa: N802 - as arrays call it
        """The same, transposed."""
        turned = object.__new__(DividedRatings)
        vars(turned).update(vars(self), shape=self.shape[::-1], _is_turned=not self._is_turned)
        return turned

    def __matmul__(self, right: NDArray[Any]) -> NDArray[Any]:
        if not self._is_turned:
            return np.concatenate(list(self._workers.each(_times, self._blocks, right)))
        parts = zip(self._blocks, (right[first:last] for first, last in self._spans), strict=True)
        found = np.zeros((self.shape[0], right.shape[1]), np.result_type(self.dtype, right.dtype))
        for part in self._workers.each(_turned_times, parts, None):
            found += part
        return found

    def __rmatmul__(self, left: NDArray[Any]) -> NDArray[Any]:
        return np.asarray((self.T @ left.T).T)

    def svd(self, size: int, iterations: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the strongest singular values (size,) and right vectors (size, titles).

        Scikit-learn's ``randomized_svd`` step by step, which takes nothing but arrays (Halko, Martinsson, Tropp 2011).
        """
        from scipy.linalg import lu, qr, svd
        from sklearn.utils.extmath import svd_flip

        matrix = self.T if self.shape[0] < self.shape[1] else self
        basis = np.random.RandomState(seed).normal(size=(matrix.shape[1], size + OVERSAMPLES)).astype(self.dtype)
        for _ in range(iterations):
            basis = lu(matrix @ basis, permute_l=True)[0]
            basis = lu(matrix.T @ basis, permute_l=True)[0]
        basis = qr(matrix @ basis, mode="economic")[0]
        inner, strengths, right = svd(basis.T @ matrix, full_matrices=False)
        left, right = svd_flip(basis @ inner, right, u_based_decision=matrix is self)
        return strengths[:size], (right if matrix is self else left.T)[:size]

    @property
    def _spans(self) -> Iterator[tuple[int, int]]:
        return zip(self._bounds[:-1], self._bounds[1:], strict=True)


def _times(block: csr_matrix[Any], right: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(block @ right)


def _turned_times(part: tuple[csr_matrix[Any], NDArray[Any]], _: None) -> NDArray[Any]:
    block, right = part
    return np.asarray(block.T @ right)
