"""Colours and shapes: one a type, told apart by everybody, the same in all charts of a report."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.config.index_types import INDEX_TYPES
from semrec_faiss.report.bench.gpu_chart import COLOURS, LABELS
from semrec_faiss.report.page.names import device_label, one_percent_sign
from semrec_faiss.report.page.palette import (
    DEVICE_COLOURS,
    TYPE_COLOURS,
    TYPE_COLOURS_ON_DARK,
    TYPE_SHAPES,
    looks_of,
    on_dark,
    type_of,
)

# Machado, Oliveira and Fernandes 2009: what is seen without one kind of cone, in linear RGB.
SEEN = {
    "all cones": np.eye(3),
    "no red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no blue": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
# Ottosson 2020: linear RGB to the Oklab space, where distances are those that eyes see.
TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def linear(colour: str) -> NDArray[np.float64]:
    parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(light: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(TO_LAB @ np.cbrt(TO_CONES @ np.clip(light, 0, 1)))


def contrast(one: str, other: str) -> float:
    weights = np.array([0.2126, 0.7152, 0.0722])
    low, high = sorted(float(linear(colour) @ weights) + 0.05 for colour in (one, other))
    return high / low


def test_every_type_has_a_colour_on_both_papers_and_a_shape() -> None:
    for given in (TYPE_COLOURS, TYPE_COLOURS_ON_DARK, TYPE_SHAPES):
        assert set(given) == set(INDEX_TYPES)
        assert len(set(given.values())) == len(INDEX_TYPES)


@pytest.mark.parametrize("colours", [TYPE_COLOURS, TYPE_COLOURS_ON_DARK])
@pytest.mark.parametrize("eyes", SEEN)
def test_types_are_told_apart_by_all_eyes(colours: dict[str, str], eyes: str) -> None:
    seen = {kind: lab(SEEN[eyes] @ linear(colour)) for kind, colour in colours.items()}
    distances = {(a, b): float(np.linalg.norm(seen[a] - seen[b])) for a, b in combinations(seen, 2)}
    pair = min(distances, key=lambda both: distances[both])
    assert distances[pair] > 0.07, pair  # 0.02 is what is just noticed side by side


def test_types_stand_out_from_the_paper() -> None:
    assert min(contrast(colour, "#ffffff") for colour in TYPE_COLOURS.values()) >= 3.0
    assert min(contrast(colour, "#14171d") for colour in TYPE_COLOURS_ON_DARK.values()) >= 4.5


def test_an_index_looks_the_same_whatever_else_is_drawn() -> None:
    report = looks_of(["flat", "flat float16", "ivf_flat nlist=32", "ivf_flat nlist=64", "fused", "IVF4,PQ8"])
    assert report["flat"].colour == TYPE_COLOURS["flat"]
    assert report["fused"].colour == TYPE_COLOURS["fused"] == looks_of(["fused"])["fused"].colour
    assert report["IVF4,PQ8"].colour == TYPE_COLOURS["factory"]
    assert report["flat float16"].shape == report["flat"].shape == TYPE_SHAPES["flat"]
    assert len({look.colour for look in report.values()}) == 6, "two indexes of one type are two shades"


def test_type_of_a_series() -> None:
    assert [type_of(name) for name in ("ivf_sq nlist=8", "flat", "IVF4,PQ8x12", "")] == [
        "ivf_sq",
        "flat",
        "factory",
        "factory",
    ]


def test_every_colour_of_a_chart_has_one_on_dark_paper() -> None:
    dark = on_dark()
    four = looks_of([f"{kind} nlist={number}" for kind in INDEX_TYPES for number in range(4)])
    assert {look.colour for look in four.values()} <= set(dark)
    assert set(DEVICE_COLOURS.values()) <= set(dark)
    assert dark[TYPE_COLOURS["fused"]] == TYPE_COLOURS_ON_DARK["fused"]


def test_the_bench_draws_types_in_their_colours() -> None:
    assert COLOURS["fused"] == TYPE_COLOURS["fused"]
    assert COLOURS["faiss_float32"] == TYPE_COLOURS["flat"]
    assert set(COLOURS) == set(LABELS)
    others = {COLOURS[name] for name in ("cuvs_float32", "cuvs_float16", "torch_float16", "limit")}
    assert not others & set(TYPE_COLOURS.values())


def test_devices_are_named_for_readers() -> None:
    assert [device_label(name) for name in ("cpu", "h200", "h100-80gb-hbm3", "h200-x8")] == [
        "CPU",
        "H200",
        "H100 80GB HBM3",
        "8 × H200",
    ]


def test_percentages_are_written_one_way() -> None:
    assert one_percent_sign("off by more than 10 % and 3 MB, 95% of it") == "off by more than 10% and 3 MB, 95% of it"
