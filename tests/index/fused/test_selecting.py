"""The largest values of a row, listed by one program or by several that share the work."""

from __future__ import annotations

import numpy as np
import pytest

from semrec_faiss.index.fused.one_pass import FusedPass
from semrec_faiss.index.fused.plan import plan_search
from tests.index.fused.worlds import PLACE, needs_kernels


@needs_kernels
@pytest.mark.parametrize(("values", "groups_each"), [("apart", 64), ("mostly alike", 64), ("the best together", 16)])
def test_several_programs_list_at_least_the_largest(values: str, groups_each: int) -> None:
    """Where the best lie in one program's block, more than it has groups, it does not list all that is good in it."""
    import torch

    from semrec_faiss.index.fused.kernels.selecting import find_groups, list_reaching

    rng, count, keep, capacity = np.random.default_rng(3), 900, 20, 64
    given = rng.normal(size=(3, count)).astype(np.float16)
    if values == "mostly alike":
        given[:] = np.where(rng.random(given.shape) < 0.02, 2.0, 1.0)
        given[2] = -np.inf
    if values == "the best together":
        given[:, 256:512] += 10
    held = torch.from_numpy(given).to(PLACE)
    groups = torch.empty((3, 4 * groups_each), dtype=torch.float16, device=PLACE)
    chosen = torch.empty((3, capacity), dtype=torch.int32, device=PLACE)
    found = torch.empty(3, dtype=torch.int32, device=PLACE)
    dropped = torch.empty((3, 4), dtype=torch.float32, device=PLACE)
    options = {"BLOCK": 256, "GROUPS": groups_each, "CAPACITY": capacity, "num_warps": 4}
    find_groups[(4, 3)](held, count, count, groups, chosen, found, **options)
    list_reaching[(4, 3)](
        *(held, count, count, keep, groups, 4 * groups_each, chosen, found, dropped, 4),
        WIDTH=2 * groups_each,
        **options,
    )
    for row, listed, lost in zip(given, chosen.cpu().numpy(), dropped.cpu().numpy().max(axis=1), strict=True):
        at = listed[listed >= 0]
        assert len(set(at)) == len(at)
        left = np.delete(row, at).astype(np.float32)
        assert lost == left.max(), "what is not listed is told, where there is no room for all either"
        if values != "mostly alike":
            assert keep <= len(at) < (2 * keep if values == "the best together" else capacity)
            assert np.sort(row)[-keep] >= left.max()


@needs_kernels
@pytest.mark.parametrize("k", [100, 1024, 1500, 2048])
def test_there_is_room_for_what_several_programs_list(k: int) -> None:
    """Otherwise a query of a million titles would have to be compared with all of them, whatever they are."""
    import torch

    plan = plan_search(1_000_000, 64, 1, k)
    chunks = plan.chunks(1_000_000)
    assert plan.segments > 1
    given = np.random.default_rng(k).normal(size=(1, chunks)).astype(np.float16)
    work = object.__new__(FusedPass)
    work.plan = plan
    work._groups = torch.empty((1, plan.groups), dtype=torch.float16, device=PLACE)
    work._found = torch.empty(1, dtype=torch.int32, device=PLACE)
    work.dropped = torch.empty((1, plan.segments), dtype=torch.float32, device=PLACE)
    chosen = torch.empty((1, plan.capacity), dtype=torch.int32, device=PLACE)
    work._largest(torch.from_numpy(given).to(PLACE), chunks, plan.keep, chosen, plan.segments, work.dropped, 1)
    listed = chosen.cpu().numpy()[0]
    listed = listed[listed >= 0]
    assert plan.keep <= len(listed) < plan.capacity
    assert given[0, listed].min() > work.dropped.cpu().numpy().max()
