"""Where the labels of points go, so that none covers another or a point, nor a line where there is room elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FONT_SIZE = 10
_LETTER = 0.57 * FONT_SIZE
"""Pixels of a letter on average, rather too many than too few."""

_RADIUS = 5.0
_GAP = 1.5
"""Pixels that stay free above and below a label; beside it twice as many."""

_NEAR = 9.0
# Offsets from the point to the near side of the label, the best ones first; the last ones get a thin line to the point.
_OFFSETS = [
    (_NEAR, 0.0),
    (-_NEAR, 0.0),
    (4.0, -13.0),
    (-4.0, -13.0),
    (4.0, 13.0),
    (-4.0, 13.0),
    *(
        (side * (_NEAR + away / 4), way * away)
        for away in (24.0, 36.0, 48.0, 60.0, 72.0)
        for side in (1.0, -1.0)
        for way in (1.0, -1.0)
    ),
]

_WORSE = 8
"""How many places further on a label rather stands than on a line."""

Box = tuple[float, float, float, float]
Point = tuple[float, float]


@dataclass(frozen=True)
class Label:
    """A label beside its point.

    Attributes:
        place: of the point among those given.
        dx: pixels from the point to the label's near side, to the right.
        dy: pixels from the point to the label's middle, downwards.
    """

    place: int
    dx: float
    dy: float

    @property
    def is_far(self) -> bool:
        """Whether it needs a line to its point."""
        return abs(self.dy) > 16


def place_labels(
    points: Sequence[Point],
    texts: Sequence[str],
    others: Sequence[Point],
    size: tuple[float, float],
    lines: Sequence[tuple[Point, Point]] = (),
) -> list[Label]:
    """Find a place for each label; those for which there is none are left out.

    Args:
        points: that are labelled, in pixels from the upper left corner.
        texts: of their labels; a point without text gets none.
        others: points that must not be covered either.
        size: width and height of the panel, in pixels.
        lines: from point to point, which a label covers only where its next places are no better.
    """
    taken = [(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for x, y in [*points, *others]]
    boxes: list[Box] = []
    found = []
    for place, ((x, y), text) in enumerate(zip(points, texts, strict=True)):
        free: list[tuple[int, Label, Box]] = []
        for order, (dx, dy) in enumerate(_OFFSETS if text else ()):
            box = box_of(x + dx, y + dy, text, to_right=dx > 0)
            inside = box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]
            label = Label(place, dx, dy)
            way = ((x, y), (x + dx, y + dy))
            crosses = label.is_far and any(_runs_through(way, other) for other in boxes)
            if inside and not crosses and not any(_overlap(box, other) for other in taken):
                covers = any(_runs_through(line, box) for line in lines)
                free.append((order + _WORSE * covers, label, box))
        if free:
            _, label, box = min(free, key=lambda one: one[0])
            found.append(label)
            boxes.append(box)
            taken.append((box[0] - 2 * _GAP, box[1] - _GAP, box[2] + 2 * _GAP, box[3] + _GAP))
    return found


def _runs_through(line: tuple[Point, Point], box: Box) -> bool:
    """Say whether a line runs through a box, looked at every 3 pixels or so."""
    (x, y), (to_x, to_y) = line
    steps = 2 + int(max(abs(to_x - x), abs(to_y - y)) / 3)
    way = ((x + (to_x - x) * step / steps, y + (to_y - y) * step / steps) for step in range(steps + 1))
    return any(box[0] <= right <= box[2] and box[1] <= down <= box[3] for right, down in way)


def box_of(x: float, y: float, text: str, *, to_right: bool) -> Box:
    """Return left, top, right and bottom of a label whose near side's middle is at (x, y)."""
    width = _LETTER * len(text)
    left = x if to_right else x - width
    return left, y - FONT_SIZE / 2, left + width, y + FONT_SIZE / 2


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
