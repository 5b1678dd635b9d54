"""Text vectors to the part of a title that says what it is about: centred, of unit length, their main directions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Vectors
from semrec_faiss.data.interactions.divided import HERE, Workers

BLOCK_ROWS = 65_536
"""Vectors projected at once: bounds the float32 copies."""

LEAST_LENGTH = 1e-9


@dataclass(frozen=True)
class TextProjection:
    """What brings text vectors into the text part of titles.

    All texts of a collection have much in common, "a film with these genres", which makes any two of them alike;
    without their mean they differ by what tells them apart.

    Attributes:
        mean: float32 (dim,), of the text vectors that it was fitted to.
        components: float32 (directions, dim), orthonormal, the strongest first.
    """

    mean: Vectors
    components: Vectors

    @classmethod
    def fit(cls, texts: NDArray[Any], directions: int, workers: Workers = HERE) -> TextProjection:
        """Fit to float (titles, dim); as many directions as there are dimensions at most."""
        mean = np.zeros(texts.shape[1])
        for part in workers.each(_sum, _blocks(texts), None):
            mean += part
        mean /= len(texts)
        products = np.zeros((texts.shape[1], texts.shape[1]))
        for own in workers.each(_products, _blocks(texts), mean.astype(np.float32)):
            products += own
        _, vectors = np.linalg.eigh(products)
        strongest = vectors[:, ::-1][:, : min(directions, texts.shape[1])].T
        # An eigenvector's sign is a matter of the library; ours does not depend on it.
        signs = np.sign(strongest[np.arange(len(strongest)), np.abs(strongest).argmax(axis=1)])
        return cls(mean.astype(np.float32), np.ascontiguousarray(strongest * signs[:, None], dtype=np.float32))

    @property
    def directions(self) -> int:
        """How many dimensions the text part has."""
        return len(self.components)

    def project(self, texts: NDArray[Any], workers: Workers = HERE) -> Vectors:
        """Return the text part of titles by float (n, dim) text vectors: float32 (n, directions); 0 for the mean."""
        parts = workers.each(_projected, _blocks(texts), self)
        return np.concatenate([np.empty((0, self.directions), np.float32), *parts])


def _blocks(texts: NDArray[Any]) -> Iterator[Vectors]:
    for first in range(0, len(texts), BLOCK_ROWS):
        yield np.asarray(texts[first : first + BLOCK_ROWS], dtype=np.float32)


def _sum(block: Vectors, _: None) -> NDArray[np.float64]:
    return np.asarray(block.sum(axis=0, dtype=np.float64))


def _products(block: Vectors, mean: Vectors) -> Vectors:
    centred = _unit(block - mean)
    return np.asarray(centred.T @ centred)


def _projected(block: Vectors, by: TextProjection) -> Vectors:
    return np.asarray(_unit(block - by.mean) @ by.components.T)


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, LEAST_LENGTH), dtype=np.float32)
