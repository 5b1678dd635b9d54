"""Proving that an index is what was built: files, counts, and its known answers asked again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semrec_faiss.errors import DamagedIndexError
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.generations.manifest import MANIFEST_DIGEST_NAME, MANIFEST_NAME, KnownAnswer, damaged
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.titles import check_catalog
from semrec_faiss.index.saved.users import SavedUsers
from semrec_faiss.index.vector_index import VectorIndex

SCORE_TOLERANCE = 1e-4
"""Known answers may differ by this much: FAISS and BLAS versions sum in other orders."""


def verify(path: str | Path) -> Generation:
    """Hash every file of the index in use, cross-check all counts and replay its known answers on the CPU.

    Raises:
        NotFoundError: there is no index.
        DamagedIndexError: anything is not as it was built.
    """
    saved = SavedIndex(path)
    _verify(saved)
    if saved.segments is None:
        check_catalog(saved.generation)
    else:
        _load_titles(saved)
    return saved.generation


def verify_opened(saved: SavedIndex) -> None:
    """Do for an index that will be asked what `verify` does, and load its titles; raises DamagedIndexError likewise."""
    _verify(saved)
    _load_titles(saved)


def _verify(saved: SavedIndex) -> None:
    """Do all but hold the titles for filters against the manifest."""
    saved.generation.check_all()
    check_nothing_omitted(saved.generation)
    index = saved.load_base()
    for number, answer in enumerate(saved.generation.manifest.known_answers, start=1):
        _replay(index, answer, number)
    if saved.segments is not None and saved.load(index.config, Device()).count != saved.generation.manifest.count:
        raise DamagedIndexError("the vectors of the base and its segments are not as many as the titles")
    _ = saved.transformation
    if saved.users is not None:
        check_users(saved.users, saved.titles.count)


def _load_titles(saved: SavedIndex) -> None:
    if saved.catalog.count != saved.generation.manifest.count:
        raise DamagedIndexError(f"{saved.catalog.count} titles, the manifest says {saved.generation.manifest.count}")


def check_nothing_omitted(generation: Generation) -> None:
    """Refuse files that the manifest does not name: without its seen.parquet an index recommends what was seen."""
    known = {*generation.manifest.files, MANIFEST_NAME, MANIFEST_DIGEST_NAME}
    omitted = sorted(path.name for path in generation.folder.iterdir() if path.name not in known)
    if omitted:
        raise damaged(generation.folder / omitted[0], "is not named in the manifest beside it")


def check_users(users: SavedUsers, titles: int) -> None:
    """Hold users' ids, vectors and histories against each other; raises DamagedIndexError."""
    if len(users.vectors) != len(users.ids):
        raise DamagedIndexError(f"{len(users.vectors)} user vectors and {len(users.ids)} user ids")
    if users.has_seen and len(users.seen[1]) and int(users.seen[1].max()) >= titles:
        raise DamagedIndexError(f"a user has seen title row {int(users.seen[1].max())}, there are {titles} titles")


def _replay(index: VectorIndex, answer: KnownAnswer, number: int) -> None:
    """Ask a known-answer query again: the same scores, and the same titles unless scores tie."""
    if len(answer.rows) > index.count or len(answer.rows) != len(answer.scores) or len(answer.query) != index.dim:
        raise DamagedIndexError(
            f"known answer {number} names {len(answer.rows)} titles with {len(answer.scores)} scores for a query of"
            f" {len(answer.query)} dimensions; the index holds {index.count} titles of {index.dim}",
            fix="build the index again",
        )
    query = np.array([answer.query], dtype=np.float32)
    found = index.search(query, len(answer.rows), prepared=True)
    expected = np.array(answer.scores, dtype=np.float32)
    largest = float(np.abs(found.scores[0] - expected).max())
    if index.exact:  # whose scores are made anew for its answers
        largest = max(largest, float(np.abs(index.unsettled(query, len(answer.rows))[0][0] - expected).max()))
    tolerance = SCORE_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    swapped = found.rows[0] != np.array(answer.rows)
    own = np.einsum("ij,j->i", index.vectors(found.rows[0][swapped]), query[0])
    if largest > tolerance or not np.allclose(own, expected[swapped], atol=tolerance, rtol=0):
        raise DamagedIndexError(
            f"known answer {number} comes out differently: scores are off by {largest:.3g}, allowed is {tolerance:.3g}",
            fix="build the index again; if that does not help, the FAISS build computes wrongly",
        )
