"""What a GPU can do for type fused: its compute capability, and the shared memory that tiles have to fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from semrec_faiss.errors import DeviceError
from semrec_faiss.index.fused.plan import LEAST_CAPABILITY, FusedPlan

COPY_ENGINE = (9, 0)
"""From Hopper on tiles are loaded by a copy engine; before, by all threads, some stages ahead."""

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
    stages = plan.stages
    while stages > 1 and stages * stage_bytes(plan) > card.shared_bytes:
        stages -= 1
    return replace(plan, stages=stages, pointers=card.capability < COPY_ENGINE)


def stage_bytes(plan: FusedPlan) -> int:
    """Return the shared memory of a tile of queries and one of titles."""
    component = 1 if plan.planes else 2
    return component * (plan.tile_queries + plan.tile_titles) * plan.tile_dim
