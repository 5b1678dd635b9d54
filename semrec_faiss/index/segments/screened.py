"""The bounds of a base and its segments, opened as one."""

from __future__ import annotations

from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.screening.bounds import Rounding
from semrec_faiss.index.screening.screen import Screen
from semrec_faiss.index.screening.written import open_screen
from semrec_faiss.index.segments.opened import OpenSegments


def open_joined_screen(generation: Generation, segments: OpenSegments) -> Screen | None:
    """Open the bounds of what is left of a base and of its segments.

    Returns:
        None where there are none, or a segment has none: its vectors are too long for a float16, or an earlier version
        wrote it.

    Raises:
        DamagedIndexError: they are not as the manifest says.
    """
    screen, about = open_screen(generation), generation.manifest.screening
    parts = [part for part in segments.about.parts if part.titles]
    if screen is None or about is None or any(part.bounds_error is None for part in parts):
        return None
    rounding = Rounding(about.scale, 0.0, 0.0)
    for part in parts:
        rounding = rounding.with_others(Rounding(about.scale, part.bounds_error or 0.0, part.bounds_norm or 0.0))
    return screen.with_segments(segments.titles.within(0), segments.title_bounds(screen.width), rounding)
