"""Compile what type fused launches ahead of time, for cards that need not be there.

``python tests/index/fused/compiled.py [--every] [CAPABILITY ...]`` compiles the heaviest launch of each way that each
kernel is compiled, a minute a card, or every launch of every plan, half an hour a card. It prints a line of JSON for
each: the card, the kernel and what was compiled in, the shared memory and registers that it takes, and the bytes of
registers that it spills. In a process of its own: where Triton's interpreter is in use, nothing can be compiled.

Launches are those that `FusedPass` makes: it is run over titles without memory (torch's device ``meta``), with kernels
that note what they are launched with.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from semrec_faiss.index.fused.cards import Card, fitted
from semrec_faiss.index.fused.filters.shelves import list_rows, listing_programs
from semrec_faiss.index.fused.kernels import ARITHMETIC
from semrec_faiss.index.fused.one_pass import FusedPass
from semrec_faiss.index.fused.plan import (
    CODED_K,
    CODED_QUERIES_OF_MANY,
    CODED_TITLES,
    MANY_QUERIES,
    SCREENED_TITLES,
    FusedPlan,
    Masking,
    bitmap_words,
    plan_search,
    through_codes,
)
from semrec_faiss.index.fused.repeating import RepeatAtOnce, at_once, plan_repeat
from semrec_faiss.index.fused.room import code_width, copy_width
from semrec_faiss.index.fused.titles.codes import TitleCodes
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles
from semrec_faiss.index.fused.titles.left_out import Lists, leave_out

SHARED_KIB = {(8, 0): 164, (8, 6): 100, (8, 9): 100, (9, 0): 228, (10, 0): 228, (12, 0): 100}
"""Shared memory of a multiprocessor by compute capability; a program may have all but one KiB of it."""

CARDS = [Card(capability, (kib - 1) << 10) for capability, kib in SHARED_KIB.items()]

DIM, WIDTH = 384, 208
"""Dimensions of a vector, and the width of a bound."""

Kept = str
"""How titles are kept: ``rounded`` with float32 originals, ``halves`` that came so, ``bounds``, ``float16`` alone."""

KEPT = ("rounded", "halves", "bounds", "float16")


@dataclass(frozen=True)
class Search:
    """One kind of block: over which titles, and for what."""

    titles: int
    queries: int
    k: int
    masking: Masking
    coded: bool
    kept: Kept
    shelved: bool = False
    dim: int = DIM

    @property
    def plan(self) -> FusedPlan:
        """What it is searched with."""
        return plan_search(
            self.titles, self.width, self.queries, self.k, coded=self.coded, screened=self.kept == "bounds"
        )

    @property
    def width(self) -> int:
        """How wide copies are, or bounds."""
        return WIDTH if self.kept == "bounds" else copy_width(self.dim)


def searches() -> Iterator[Search]:
    """Every kind of block whose plans differ."""
    sizes = (
        (1000, 62_423, CODED_TITLES, 4_000_000),
        (1, 16, 32, 64, CODED_QUERIES_OF_MANY, 256, 1000),
        (10, 200, 2000),
    )
    for (titles, queries, k), masking, coded in itertools.product(
        itertools.product(*sizes), get_args(Masking), (False, True)
    ):
        if coded and (k > CODED_K or titles < CODED_TITLES or not through_codes(titles, queries, k)):
            continue
        if k > titles:
            continue
        for kept in KEPT:
            if (kept == "bounds" and titles < SCREENED_TITLES) or (kept == "float16" and coded):
                continue
            if coded and not through_codes(titles, queries, k, screened=kept == "bounds"):
                continue
            yield Search(titles, queries, k, masking, coded, kept)
            if masking != "none" and not (
                coded and queries > MANY_QUERIES
            ):  # of a shelf a bitmap tells how far its titles go
                yield Search(titles, queries, k, masking, coded, kept, shelved=True)


def plans() -> Iterator[tuple[FusedPlan, Masking]]:
    """Every score pass that there is, each once."""
    seen = set()
    for search in searches():
        plan = search.plan
        shape = (plan.span, plan.planes, plan.tile_queries, plan.tile_titles, plan.tile_dim, plan.warps)
        if (shape, plan.stages, search.masking) not in seen:
            seen.add((shape, plan.stages, search.masking))
            yield plan, search.masking


@dataclass(frozen=True)
class Launch:
    """What has to be compiled: a kernel, the kinds of its arguments, what is compiled in, and Triton's options."""

    kernel: Any
    kinds: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    multiples: tuple[str, ...]
    options: tuple[tuple[str, int | bool], ...]

    @property
    def name(self) -> str:
        """The kernel's."""
        return str(self.kernel.__name__)


class Noting:
    """A kernel that notes its launches."""

    def __init__(self, kernel: Any, launches: list[Launch]) -> None:
        self._kernel, self._launches = kernel, launches

    def __getitem__(self, _: Any) -> Callable[..., None]:
        return self._launched

    def _launched(self, *arguments: Any, **named: Any) -> None:
        names = self._kernel.arg_names
        options = {
            name: named.pop(name) for name in ("num_warps", "num_stages", "maxnreg", *ARITHMETIC) if name in named
        }
        given = dict(zip(names, arguments, strict=False)) | named
        constants = {name: value for name, value in given.items() if name.isupper()}
        fixed = _unspecialized(self._kernel)
        kinds, multiples = {}, []
        for name in names:
            if name in constants:
                continue
            value = given[name]
            if value is None or (isinstance(value, int) and value == 1 and name not in fixed):
                constants[name] = value  # as Triton does
                continue
            kinds[name] = kind = _kind(value)
            if kind.startswith("*") or (isinstance(value, int) and value % 16 == 0 and name not in fixed):
                multiples.append(name)
        self._launches.append(
            Launch(
                self._kernel,
                tuple(kinds.items()),
                tuple(constants.items()),
                tuple(multiples),
                tuple(options.items()),
            )
        )


def _unspecialized(kernel: Any) -> set[str]:
    """Return the arguments whose values nothing is compiled for."""
    if not hasattr(kernel, "params"):  # the interpreter's
        return set(kernel.kwargs["do_not_specialize"] or ())
    free = {kernel.params[position].name for position in kernel.do_not_specialize_on_alignment}
    return {one.name for one in kernel.params if one.do_not_specialize} | free


def _kind(value: Any) -> str:
    """Return Triton's name of an argument's type."""
    import torch

    floats = {torch.float16: "fp16", torch.float32: "fp32", torch.float64: "fp64"}
    names = floats | {torch.int8: "i8", torch.int16: "i16", torch.int32: "i32", torch.int64: "i64"}
    if isinstance(value, torch.Tensor):
        return f"*{names[value.dtype]}"
    if isinstance(value, bool | int):
        return "i32"
    if isinstance(value, float):
        return "fp32"
    return f"tensordesc<{names[value.base.dtype]}{list(value.block_shape)}>"


@contextmanager
def noted() -> Iterator[list[Launch]]:
    """Note what is launched instead of launching it."""
    from semrec_faiss.index.fused.kernels import codes, gathering, queries, ranking, scoring, selecting

    launches: list[Launch] = []
    own = {
        gathering: ("count_rows", "list_rows"),
        queries: ("prepare_queries", "project_queries", "leave_out_rows"),
        scoring: ("chunk_maxima", "chunk_maxima_of_some", "query_maxima"),
        codes: ("coded_chunk_maxima", "coded_piece_maxima"),
        selecting: ("select_largest", "find_groups", "list_reaching", "select_pieces", "list_unproven", "put_again"),
        ranking: ("rescore_chunks", "score_rows", "rank_rows", "find_rows"),
    }
    real = [(module, name, getattr(module, name)) for module, names in own.items() for name in names]
    for module, name, kernel in real:
        setattr(module, name, Noting(kernel, launches))
    try:
        yield launches
    finally:
        for module, name, kernel in real:
            setattr(module, name, kernel)


def launches_of(search: Search, card: Card) -> list[Launch]:
    """Return what a block launches, its repetition and the bitmaps of its queries' lists included."""
    import torch

    def made(*shape: int, dtype: Any) -> Any:
        return torch.empty(shape, dtype=dtype, device="meta")

    titles, queries, plan = _titles(search, made), search.queries, fitted(search.plan, card)
    words, stride = bitmap_words(search.titles), 0
    allowed = None if search.masking == "none" else made(words, dtype=torch.int32)
    with noted() as launches:
        if search.shelved:
            counts = made(listing_programs(search.titles), dtype=torch.int32)
            list_rows(made(words, dtype=torch.int32), counts, titles.origins)
        if search.masking == "own":
            shared, stride = allowed, words
            allowed = made(queries, words, dtype=torch.int32)
            offsets, rows = made(queries + 1, dtype=torch.int64), made(queries, dtype=torch.int32)
            for which in (None, made(queries, dtype=torch.int64)):
                leave_out(titles, allowed, shared, Lists(offsets, rows, which))
        work = FusedPass(titles, plan, queries, search.k)
        work.run(made(queries, search.dim, dtype=torch.float32), allowed, stride)
        room = at_once(plan, titles.count, queries)
        if room:
            RepeatAtOnce(work, room).launch(allowed, stride)
        else:
            again = FusedPass(titles, plan_repeat(plan, titles.count), min(queries, 16), search.k)
            again.resume(work, made(min(queries, 16), dtype=torch.int64), allowed, stride)
    return launches


def _titles(search: Search, made: Callable[..., Any]) -> GpuTitles:
    import torch

    count, dim, bounds = search.titles, search.dim, search.kept == "bounds"
    kept = GpuTitles(made(count, search.width, dtype=torch.float16), None, dim, 1.0, 1.0, 0.1)
    if search.kept in ("rounded", "bounds"):
        kept = replace(kept, originals=made(count, dim, dtype=torch.float32))
    if search.kept == "halves":
        kept = replace(kept, factors=made(count, dtype=torch.float64))
    if bounds:
        kept = replace(kept, directions=made(WIDTH - 1, dim, dtype=torch.float64))
    if search.coded:
        steps = made(count, dtype=torch.float16)
        kept = replace(
            kept, codes=TitleCodes(made(count, code_width(search.width), dtype=torch.int8), steps, steps, 1.0)
        )
    return replace(kept, origins=made(count, dtype=torch.int32)) if search.shelved else kept


@dataclass(frozen=True)
class Compiled:
    """What a compiled kernel takes: bytes of shared memory, registers of a thread, bytes of them that it spills."""

    shared: int
    registers: int
    spilled: int


def compiled(launch: Launch, card: Card) -> Compiled:
    """Compile a launch for a card."""
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    at = launch.kernel.arg_names.index
    constants = dict(launch.constants)
    kinds = {name: "constexpr" if name in constants else dict(launch.kinds)[name] for name in launch.kernel.arg_names}
    source = ASTSource(
        launch.kernel,
        kinds,
        {(at(name),): value for name, value in constants.items()},
        {(at(name),): [["tt.divisibility", 16]] for name in launch.multiples},
    )
    target = GPUTarget("cuda", 10 * card.capability[0] + card.capability[1], 32)
    made = triton.compile(source, target=target, options=dict(launch.options))
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(made.asm["cubin"])
        told = subprocess.run(
            [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", binary],
            capture_output=True,
            encoding="utf-8",
            check=True,
        ).stdout
    numbers = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", told)}
    return Compiled(int(made.metadata.shared), numbers["REG"], numbers["STACK"] + numbers["LOCAL"])


def every_launch(card: Card) -> Iterator[Launch]:
    """Everything that is launched on a card, each once."""
    seen = set()
    for search in searches():
        for launch in launches_of(search, card):
            if launch not in seen:
                seen.add(launch)
                yield launch


def heaviest(card: Card) -> Iterator[Launch]:
    """Of each way that a kernel is compiled, what it does and for which arguments, the launch with most at once."""
    chosen: dict[tuple[Any, ...], Launch] = {}
    for launch in every_launch(card):
        way = (launch.name, tuple(one for one in launch.constants if isinstance(one[1], bool)))
        if way not in chosen or _size(launch) > _size(chosen[way]):
            chosen[way] = launch
    yield from chosen.values()


def _size(launch: Launch) -> float:
    sizes = dict(launch.constants)
    at_once = math.prod(sizes.get(name, 1) for name in ("BM", "BN", "PICKS", "WIDTH", "ROWS"))
    return float(at_once / dict(launch.options)["num_warps"])


SAMPLES = (
    Search(4_000_000, 1000, 10, "none", coded=False, kept="halves"),  # the widest tile
    Search(1_000_000, 1000, 10, "own", coded=False, kept="bounds"),
    Search(62_423, 1000, 200, "shared", coded=False, kept="rounded"),
    Search(62_423, 1, 10, "own", coded=False, kept="rounded"),  # ranked at once
    Search(62_423, 1, 10, "shared", coded=False, kept="rounded", shelved=True),
    Search(4_000_000, CODED_QUERIES_OF_MANY, 10, "own", coded=True, kept="rounded"),
    Search(4_000_000, 1000, 10, "own", coded=True, kept="rounded"),
)
"""What the test compiles: masked, screened, coded, each query's own lists."""

UNEVEN = Search(62_423, 1000, 200, "shared", coded=False, kept="rounded", dim=100)
"""Copies of a multiple of 8 components that is none of 16: once multiplying and rescoring them spilled."""

SCORING = ("chunk_maxima", "coded_chunk_maxima", "coded_piece_maxima")


def samples(card: Card) -> Iterator[Launch]:
    """Return the score passes of the samples, and for the smallest card of every other kernel the heaviest launch."""
    every = dict.fromkeys(launch for search in SAMPLES for launch in launches_of(search, card))
    yield from (launch for launch in every if launch.name in SCORING)
    if card.capability == (8, 6):
        yield from {one.name: one for one in sorted(every, key=_size) if one.name not in SCORING}.values()
        yield from (launch for launch in launches_of(UNEVEN, card) if launch.name in ("chunk_maxima", "rescore_chunks"))


def main() -> None:
    """Compile the heaviest launches for the cards that are named, all cards by default; or --every, or --samples."""
    named = [name for name in sys.argv[1:] if not name.startswith("--")]
    wanted = {(int(name[:-1]), int(name[-1])) for name in named}
    chosen = every_launch if "--every" in sys.argv else samples if "--samples" in sys.argv else heaviest
    for card in CARDS:
        if wanted and card.capability not in wanted:
            continue
        for launch in chosen(card):
            its = compiled(launch, card)
            sizes = dict(launch.constants) | dict(launch.options)
            print(json.dumps([card.capability, launch.name, sizes, its.shared, its.registers, its.spilled]), flush=True)


if __name__ == "__main__":
    main()
