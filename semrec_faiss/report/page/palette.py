"""Which colour and shape stands for what, in every report: an index type looks the same wherever it is drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from semrec_faiss.config.index_types import INDEX_TYPES

TYPE_COLOURS = {
    "flat": "#303744",
    "ivf_flat": "#2f62d0",
    "ivf_sq": "#0f958c",
    "ivf_pq": "#dc7819",
    "hnsw": "#85307f",
    "fused": "#c0261c",
    "factory": "#a974fa",
}
"""Told apart with colour-blind eyes, and on white; see tests/report/page/test_palette.py."""

TYPE_COLOURS_ON_DARK = {
    "flat": "#eef0f4",
    "ivf_flat": "#4c8bf5",
    "ivf_sq": "#39dca4",
    "ivf_pq": "#eab922",
    "hnsw": "#b67fc4",
    "fused": "#e2574a",
    "factory": "#c3bdff",
}

TYPE_SHAPES = {
    "flat": "square",
    "ivf_flat": "circle",
    "ivf_sq": "triangle-up",
    "ivf_pq": "triangle-down",
    "hnsw": "diamond",
    "fused": "cross",
    "factory": "triangle-right",
}

DEVICE_COLOURS = {"gpu": "#3569b2", "cpu": "#b8650f"}
DEVICE_COLOURS_ON_DARK = {"gpu": "#6fa3ea", "cpu": "#f0a053"}
"""For charts that compare devices, not types."""

GREYS = ("#55637a", "#8f9bad", "#c3ccd8")
GREYS_ON_DARK = ("#c3ccd8", "#8490a3", "#4d586b")
"""For parts of a whole, marks and limits, which are neither types nor devices."""

PAPER = "#fffffe"
PAPER_ON_DARK = "#14171e"
"""Around labels, so that lines do not cross their letters."""

# How far the second, third and fourth index of one type are drawn from the type's colour towards the paper.
_FADES = (0.0, 0.45, 0.22, 0.6)


@dataclass(frozen=True)
class Look:
    """How an index is drawn.

    Attributes:
        colour: on white.
        shape: of its points, by Vega's name.
    """

    colour: str
    shape: str


def type_of(series: str) -> str:
    """Return the index type that a series' name starts with, ``factory`` for FAISS's factory strings."""
    first = series.split(maxsplit=1)[0] if series.strip() else ""
    return first if first in INDEX_TYPES else "factory"


def looks_of(series: Iterable[str]) -> dict[str, Look]:
    """Give every index the colour and shape of its type; further ones of the same type get lighter shades of it.

    Args:
        series: the names of all indexes of a report, so that each chart of it, with some or all, draws them alike.
    """
    looks: dict[str, Look] = {}
    seen: dict[str, int] = {}
    for name in series:
        if name not in looks:
            kind = type_of(name)
            looks[name] = Look(_faded(TYPE_COLOURS[kind], "#ffffff", seen.get(kind, 0)), TYPE_SHAPES[kind])
            seen[kind] = seen.get(kind, 0) + 1
    return looks


def on_dark() -> dict[str, str]:
    """Return what each colour of a chart becomes on dark paper."""
    pairs = dict(zip(GREYS, GREYS_ON_DARK, strict=True)) | {PAPER: PAPER_ON_DARK}
    pairs |= {DEVICE_COLOURS[kind]: DEVICE_COLOURS_ON_DARK[kind] for kind in DEVICE_COLOURS}
    for kind, colour in TYPE_COLOURS.items():
        for number in range(len(_FADES)):
            pairs[_faded(colour, "#ffffff", number)] = _faded(TYPE_COLOURS_ON_DARK[kind], "#14171d", number)
    return pairs


def _faded(colour: str, paper: str, number: int) -> str:
    share = _FADES[number % len(_FADES)]
    mixed = (
        round((1 - share) * int(colour[at : at + 2], 16) + share * int(paper[at : at + 2], 16)) for at in (1, 3, 5)
    )
    return "#" + "".join(f"{part:02x}" for part in mixed)
