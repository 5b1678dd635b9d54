"""Compile type fused's score kernels ahead of time, for cards that need not be there.

``python tests/fused_compiled.py [CAPABILITY ...]`` compiles every plan, which takes minutes, and prints a line of JSON
for each: the card, the plan's sizes, and the shared memory that it takes. In a process of its own: where Triton's
interpreter is in use, nothing can be compiled.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any, get_args

from semrec_faiss.index.fused.cards import Card, fitted, stage_bytes
from semrec_faiss.index.fused.plan import (
    CODED_K,
    CODED_QUERIES_OF_MANY,
    CODED_TITLES,
    FusedPlan,
    Masking,
    plan_search,
    through_codes,
)

SHARED_KIB = {(8, 0): 164, (8, 6): 100, (8, 9): 100, (9, 0): 228, (10, 0): 228, (12, 0): 100}
"""Shared memory of a multiprocessor by compute capability; a program may have all but one KiB of it."""

CARDS = [Card(capability, (kib - 1) << 10) for capability, kib in SHARED_KIB.items()]


def plans() -> Iterator[tuple[FusedPlan, Masking]]:
    """Every score pass that there is, each once."""
    seen = set()
    sizes = (
        (1000, 62_423, CODED_TITLES, 4_000_000),
        (1, 16, 32, 64, CODED_QUERIES_OF_MANY, 256, 1000),
        (10, 200, 2000),
    )
    for titles, queries, k in itertools.product(*sizes):
        for masking in get_args(Masking):
            for coded in (False, True):
                if coded and (k > CODED_K or titles < CODED_TITLES or not through_codes(titles, queries, k)):
                    continue
                plan = plan_search(titles, 384, queries, k, masking, coded=coded)
                shape = (plan.span, plan.planes, plan.tile_queries, plan.tile_titles, plan.tile_dim, plan.warps)
                if (shape, plan.stages, masking) not in seen:
                    seen.add((shape, plan.stages, masking))
                    yield plan, masking


def shared_bytes(plan: FusedPlan, masking: Masking, card: Card) -> int:
    """Compile the score pass of a plan that fits a card, and return the shared memory that it takes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from semrec_faiss.index.fused.kernels.codes import coded_chunk_maxima
    from semrec_faiss.index.fused.kernels.scoring import chunk_maxima

    kernel: Any = coded_chunk_maxima if plan.planes else chunk_maxima
    component = "i8" if plan.planes else "fp16"
    kinds = dict.fromkeys(kernel.arg_names, "i32") | {"allowed": "*i32", "maxima": "*fp16"}
    kinds |= (
        {"steps": "*fp16", "rests": "*fp16", "factors": "*fp32"}
        if plan.planes
        else {"factors": "*fp64", "scale": "fp32"}
    )
    for name, rows in (("queries", plan.tile_queries), ("titles", plan.tile_titles)):
        kinds[name] = f"*{component}" if plan.pointers else f"tensordesc<{component}[{rows}, {plan.tile_dim}]>"
    tile = {"BM": plan.tile_queries, "BN": plan.tile_titles, "BK": plan.tile_dim, "GROUP": plan.group}
    masks = {"MASKED": masking != "none", "SHARED": masking != "own"}
    form = {"PLANES": plan.planes} if plan.planes else {"FACTORED": True}
    constants = masks | {"SPAN": plan.span} | tile | {"POINTERS": plan.pointers} | form
    at = kernel.arg_names.index
    multiples = [name for name, kind in kinds.items() if kind.startswith("*")] + ["width" if plan.planes else "dim"]
    source = ASTSource(
        kernel,
        kinds | dict.fromkeys(constants, "constexpr"),
        {(at(name),): value for name, value in constants.items()},
        {(at(name),): [["tt.divisibility", 16]] for name in multiples},
    )
    target = GPUTarget("cuda", 10 * card.capability[0] + card.capability[1], 32)
    made = triton.compile(source, target=target, options={"num_warps": plan.warps, "num_stages": plan.stages})
    return int(made.metadata.shared)


def main() -> None:
    """Compile all plans for the cards that are named, all cards by default."""
    wanted = {(int(name[:-1]), int(name[-1])) for name in sys.argv[1:]}
    for card in CARDS:
        if wanted and card.capability not in wanted:
            continue
        for plan, masking in plans():
            its = fitted(plan, card)
            print(
                json.dumps([card.capability, masking, its.stages * stage_bytes(its), shared_bytes(its, masking, card)])
            )


if __name__ == "__main__":
    main()
