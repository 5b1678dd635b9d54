"""What a GPU can do for type fused: its compute capability, its speed, and the shared memory that tiles have to fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from semrec_faiss.errors import DeviceError
from semrec_faiss.index.fused.plan import LARGEST_TILE, LEAST_CAPABILITY, FusedPlan

READ_BYTES_A_MS, MULTIPLIED_A_MS = 2.5e9, 5e11
"""What a pass reads of the titles, and multiplies and adds, a millisecond: an H100's, other cards' in proportion."""

COPY_ENGINE = (9, 0)
"""From Hopper on tiles are loaded by a copy engine; before, by all threads, some stages ahead."""

LEAST_STAGES, STAGES_OF_LARGEST = 3, 4
"""Of tiles that all threads load: one less of them is in shared memory, and the largest lie there half as deep."""

SMALLEST_SHARED_BYTES = 99 << 10
"""Shared memory that a program may have on the smallest of the cards that will do."""


@dataclass(frozen=True)
class Card:
    """A GPU as a plan sees it.

    Attributes:
        capability: its compute capability, (9, 0) for Hopper.
        shared_bytes: shared memory that one program may have.
    """

    capability: tuple[int, int]
    shared_bytes: int

    @classmethod
    def of(cls, torch: Any, device: Any) -> Card:
        """Look at a GPU; where there is none, Triton's interpreter plays one of Hopper's.

        Raises:
            DeviceError: it cannot run the kernels.
        """
        if device.type != "cuda":
            return cls(COPY_ENGINE, 227 << 10)
        found = torch.cuda.get_device_properties(device)
        capability = (int(found.major), int(found.minor))
        if capability < LEAST_CAPABILITY:
            raise DeviceError(
                f"type fused needs a GPU of compute capability {'.'.join(map(str, LEAST_CAPABILITY))} or later;"
                f" {found.name} has {found.major}.{found.minor}",
                fix="take type flat, or set device.kind=cpu",
            )
        return cls(capability, int(getattr(found, "shared_memory_per_block_optin", SMALLEST_SHARED_BYTES)))


@lru_cache(maxsize=1024)
def fitted(plan: FusedPlan, card: Card) -> FusedPlan:
    """Return the plan as a card runs it: as many stages as its shared memory has room for, loaded as it can."""
    its = plan if card.capability >= COPY_ENGINE else _loaded_by_threads(plan)
    if card.capability != COPY_ENGINE:  # others would spill them
        its = replace(its, most_registers=0)
    while its.stages > 1 and tile_bytes(its) > card.shared_bytes:
        its = replace(its, stages=its.stages - 1)
    return its


def _loaded_by_threads(plan: FusedPlan) -> FusedPlan:
    """Return a plan whose tiles every thread loads, which takes registers: the largest tiles would spill them.

    Those are half as deep, so that less of one is in registers at once, and two programs fit the smallest card; where
    a program has several to multiply, more threads share them.
    """
    if plan.tile_queries < LARGEST_TILE:
        return replace(plan, pointers=True, stages=max(LEAST_STAGES, plan.stages))
    warps = plan.warps if plan.parts == 1 else 8
    return replace(plan, pointers=True, tile_dim=plan.tile_dim // 2, stages=STAGES_OF_LARGEST, warps=warps)


def tile_bytes(plan: FusedPlan) -> int:
    """Return the shared memory of the tiles of queries and titles that are there at once."""
    component = 1 if plan.planes else 2
    at_once = plan.stages - 1 if plan.pointers else plan.stages
    return at_once * component * (plan.tile_queries + plan.tile_titles) * plan.tile_dim
