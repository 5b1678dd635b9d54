"""The largest values of a row, listed by one program or by several that share the work."""

from __future__ import annotations

import numpy as np
import pytest
from fused_worlds import PLACE, needs_kernels


@needs_kernels
@pytest.mark.parametrize("values", ["apart", "mostly alike"])
def test_several_programs_list_at_least_the_largest(values: str) -> None:
    import torch

    from semrec_faiss.index.fused.kernels.selecting import find_groups, list_reaching

    rng, count, keep, capacity = np.random.default_rng(3), 900, 20, 64
    given = rng.normal(size=(3, count)).astype(np.float16)
    if values == "mostly alike":
        given[:] = np.where(rng.random(given.shape) < 0.02, 2.0, 1.0)
        given[2] = -np.inf
    held = torch.from_numpy(given).to(PLACE)
    groups = torch.empty((3, 4 * 64), dtype=torch.float16, device=PLACE)
    chosen = torch.empty((3, capacity), dtype=torch.int32, device=PLACE)
    found = torch.empty(3, dtype=torch.int32, device=PLACE)
    dropped = torch.empty((3, 4), dtype=torch.float32, device=PLACE)
    options = {"BLOCK": 256, "CAPACITY": capacity, "num_warps": 4}
    find_groups[(4, 3)](held, count, count, groups, chosen, found, GROUPS=64, **options)
    list_reaching[(4, 3)](held, count, count, keep, groups, 256, chosen, found, dropped, 4, WIDTH=128, **options)
    for row, listed, lost in zip(given, chosen.cpu().numpy(), dropped.cpu().numpy().max(axis=1), strict=True):
        at = listed[listed >= 0]
        assert len(set(at)) == len(at)
        left = np.delete(row, at).astype(np.float32)
        assert lost == left.max(), "what is not listed is told, where there is no room for all either"
        if values == "apart":
            assert keep <= len(at) < capacity
            assert row[at].min() > left.max()
