"""Titles made to break exact answers on a CPU, held against float64: every score is the true one, rounded once."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.screening.bounds import power_of_two_below_one, write_bounds
from semrec_faiss.index.screening.screen import Screen
from semrec_faiss.index.screening.spectrum import principal_directions
from semrec_faiss.index.vector_index import VectorIndex
from tests.index.adversaries import ADVERSARIES, check_rounded_once

BATCHES = (1, 3, 40, 300)
"""One query, a few, and as many as products in blocks are made for."""


@pytest.mark.slow
@pytest.mark.parametrize("dim", [96, 768])
@pytest.mark.parametrize("kind", ADVERSARIES)
def test_type_flat(kind: str, dim: int, make_index: Callable[..., VectorIndex]) -> None:
    rng = np.random.default_rng(9)
    titles = ADVERSARIES[kind](rng, 700, dim).astype(np.float32)
    index = make_index(titles, {"type": "flat", "normalize": False})
    queries = np.concatenate((titles[:1], rng.normal(size=(max(BATCHES) - 1, dim)))).astype(np.float32)
    for size in BATCHES:
        found = index.search(queries[:size], 10, prepared=True)
        check_rounded_once(titles, queries[:size], found.rows, found.scores)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [96, 768])
@pytest.mark.parametrize("kind", ADVERSARIES)
def test_screened_by_a_few_directions(kind: str, dim: int, make_index: Callable[..., Any]) -> None:
    rng = np.random.default_rng(9)
    titles = ADVERSARIES[kind](rng, 2000, dim).astype(np.float32)
    plain = make_index(titles, {"type": "flat", "normalize": False})
    directions = np.ascontiguousarray(principal_directions(titles)[0][:15])
    longest = float(np.linalg.norm(titles.astype(np.float64), axis=1).max())
    file = io.BytesIO()
    rounding = write_bounds(file, directions, lambda: [(0, titles)], len(titles), power_of_two_below_one(longest))
    file.seek(0)
    screen = Screen(directions, np.load(file), rounding)
    index = VectorIndex(plain.cpu_index, plain.config, Device(), screen=screen)
    for query in (titles[:1], rng.normal(size=(1, dim)).astype(np.float32)):
        found = index.search(query, 10, prepared=True)
        assert len(titles) == 1 or found.exact == "proven"
        check_rounded_once(titles, query, found.rows, found.scores)
        expected = plain.search(query, 10, prepared=True)
        np.testing.assert_array_equal(found.rows, expected.rows)
