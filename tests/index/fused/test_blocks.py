"""Blocks of a large batch: how many there are, two under way at once, and what is left when one fails."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from semrec_faiss.index.fused.blocks import Blocks, Lane, in_blocks
from semrec_faiss.index.fused.pass_buffers import LAUNCHED, LAUNCHING
from semrec_faiss.index.fused.plan import LARGEST_TILE

PARTS = [slice(0, 4), slice(4, 8), slice(8, 10)]


class Told:
    """Searches of blocks that note what is done of each, and fail where they are told to."""

    def __init__(self, fails: int = -1) -> None:
        self.events: list[tuple[str, int, int]] = []
        self._fails = fails

    def begin(self, part: slice, lane: int) -> Generator[bool, None, tuple[int, int]]:
        try:
            self.events.append(("begin", part.start, lane))
            yield LAUNCHING
            self.events.append(("launch", part.start, lane))
            yield LAUNCHED
            if part.start == self._fails:
                raise MemoryError
            self.events.append(("repeat", part.start, lane))
            yield LAUNCHED
            self.events.append(("end", part.start, lane))
            return 2, 1
        except GeneratorExit:
            self.events.append(("left", part.start, lane))
            raise


def test_a_block_is_launched_whole_before_the_last_ones_answers_are_waited_for() -> None:
    blocks, told = Blocks(), Told()
    yielded = list(blocks.search(PARTS, [Lane(0), Lane(1)], told.begin))
    assert told.events == [
        ("begin", 0, 0),
        ("launch", 0, 0),
        ("begin", 4, 1),
        ("launch", 4, 1),
        ("repeat", 0, 0),
        ("end", 0, 0),
        ("begin", 8, 0),
        ("launch", 8, 0),
        ("repeat", 4, 1),
        ("end", 4, 1),
        ("repeat", 8, 0),
        ("end", 8, 0),
    ]
    its = [LAUNCHING, LAUNCHED]
    assert yielded == [*its, *its, LAUNCHED, *its, LAUNCHED, LAUNCHED], "whenever something is launched"
    assert (blocks.done, blocks.repeated, blocks.scanned) == (10, 6, 3)


def test_in_one_lane_they_follow_one_another() -> None:
    told = Told()
    list(Blocks().search(PARTS[:2], [Lane(0)], told.begin))
    assert [(what, start) for what, start, _ in told.events] == [
        (what, start) for start in (0, 4) for what in ("begin", "launch", "repeat", "end")
    ]


def test_what_is_under_way_beside_one_that_fails_is_left_and_searched_when_one_goes_on() -> None:
    blocks, told = Blocks(), Told(fails=4)
    with pytest.raises(MemoryError):
        list(blocks.search(PARTS, [Lane(0), Lane(1)], told.begin))
    assert told.events[-1] == ("left", 8, 0)
    assert (blocks.done, blocks.repeated) == (4, 2)
    list(blocks.search(PARTS[1:], [Lane(0), Lane(1)], Told().begin))
    assert (blocks.done, blocks.repeated, blocks.scanned) == (10, 6, 3)


@pytest.mark.parametrize(
    ("titles", "queries", "most", "block", "lanes"),
    [
        (62_423, 10_000, 16_384, 10_000, 1),  # 1 ms: not worth it
        (62_423, 119_743, 16_384, 8_064, 2),  # 15 blocks of 63 tiles
        (62_423, 20_000, 16_384, 6_784, 2),
        (4_000_000, 10_000, 16_384, 3_456, 1),  # 25 ms a block of 4,096: the host has time enough for one behind it
        (1_000_000, 10_000, 16_384, 10_000, 1),
        (4_000_000, 500, 16_384, 500, 2),
        (62_423, 300, 256, 128, 2),  # after memory ran out
        (62_423, 300, 1, 1, 1),
        (500, 8, 16_384, 8, 1),
    ],
)
def test_how_a_batch_is_divided(titles: int, queries: int, most: int, block: int, lanes: int) -> None:
    assert in_blocks(titles, 384, queries, 10, "none", screened=False, most=most) == (block, lanes)
    assert block == queries or block % LARGEST_TILE == 0 or most < LARGEST_TILE
