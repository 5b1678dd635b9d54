"""How many values a program looks through, in how many parts, and what it has room to list."""

from __future__ import annotations

SEGMENT, SHORT_SEGMENT, SHORT_QUERIES, SHORT_VALUES = 4096, 1024, 4, 1 << 18
"""Values that one program looks through where a few queries have to keep the whole GPU busy: fewer, which are looked
through sooner, of so few queries with no more values than that."""

LEAST_GROUPS, MOST_GROUPS = 8, 1024
"""Groups of a segment, of whose largest values as many are looked at as are kept, for a bound of those."""

READ_AT_ONCE = 16
"""Maxima that a thread reads together, where their number is known to be a multiple of that."""


def segments_of(values: int, keep: int, segment: int) -> int:
    """Return how many programs look through so many values of one query, of which some are kept."""
    return 1 if values <= max(SEGMENT, 16 * power_of_two(keep)) else -(-values // segment)


def groups_of(keep: int, segments: int) -> int:
    """Return how many groups each of so many segments has: so many that seldom two of what is kept are in one."""
    return min(MOST_GROUPS, max(LEAST_GROUPS, power_of_two(-(-8 * keep // segments))))


def width_of(keep: int, *, many: bool) -> int:
    """Return how many maxima selection holds at once, to keep so many."""
    if keep > 512:
        return min(8192, 4 * power_of_two(keep))
    return 2048 if keep > 128 else 1024 if keep > 32 or not many else 256


def capacity_of(keep: int) -> int:
    """Return the room for chunks of which so many are kept."""
    return max(16, power_of_two(keep + keep // 8 + 2))


def picks_of(keep: int, keep_rows: int) -> int:
    """Return the room for titles of which so many are kept, of so many chunks."""
    return max(16, power_of_two(keep_rows + (keep_rows // 8 if keep > 32 else 1)))


def power_of_two(least: int) -> int:
    """Return the smallest power of two that is at least ``least``."""
    return 1 << max(0, (least - 1).bit_length())
