"""Where the labels of points go, so that none covers another or a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FONT_SIZE = 10
_LETTER = 0.57 * FONT_SIZE
"""Pixels of a letter on average, rather too many than too few."""

_RADIUS = 5.0
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

Box = tuple[float, float, float, float]


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
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    others: Sequence[tuple[float, float]],
    size: tuple[float, float],
) -> list[Label]:
    """Find a place for each label; those for which there is none are left out.

    Args:
        points: that are labelled, in pixels from the upper left corner.
        texts: of their labels; a point without text gets none.
        others: points that must not be covered either.
        size: width and height of the panel, in pixels.
    """
    taken = [(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for x, y in [*points, *others]]
    boxes: list[Box] = []
    found = []
    for place, ((x, y), text) in enumerate(zip(points, texts, strict=True)):
        for dx, dy in _OFFSETS if text else ():
            box = box_of(x + dx, y + dy, text, to_right=dx > 0)
            inside = box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]
            label = Label(place, dx, dy)
            if inside and not any(_overlap(box, other) for other in taken) and not _crosses(x, y, label, boxes):
                found.append(label)
                taken.append(box)
                boxes.append(box)
                break
    return found


def _crosses(x: float, y: float, label: Label, boxes: Sequence[Box]) -> bool:
    """Say whether the line from a point to its label runs through another label."""
    steps = [step / 12 for step in range(13)] if label.is_far else []
    way = [(x + step * label.dx, y + step * label.dy) for step in steps]
    return any(box[0] <= right <= box[2] and box[1] <= down <= box[3] for right, down in way for box in boxes)


def box_of(x: float, y: float, text: str, *, to_right: bool) -> Box:
    """Return left, top, right and bottom of a label whose near side's middle is at (x, y)."""
    width = _LETTER * len(text)
    left = x if to_right else x - width
    return left, y - FONT_SIZE / 2, left + width, y + FONT_SIZE / 2


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
