"""One pass of a fused search: the kernels in order."""

from __future__ import annotations

from typing import Any

from semrec_faiss.index.fused.kernels import ARITHMETIC
from semrec_faiss.index.fused.listing import SEGMENT, groups_of, power_of_two
from semrec_faiss.index.fused.pass_buffers import PassBuffers
from semrec_faiss.index.fused.plan import FEW_QUERIES, MANY_QUERIES, MOST_KEPT, SORTED_APART, FusedPlan
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles, load_torch

ROWS_A_PROGRAM = 64

PROJECTED_ROWS = 8
"""Directions that one program multiplies with a query, where those are few."""

MOST_PROGRAMS = 1056
"""Programs that read the titles for one query: more take turns."""

MOST_WRITTEN_OUT = 768
"""Components that one query is multiplied with by a kernel that has all steps written out: of 1,024 it would spill, by
card and Triton, hundreds or thousands of bytes of registers a thread."""

LEAST_DROPPED = 64
"""Numbers of what was dropped that are looked at together, so that catalogues of most sizes share a kernel."""

MOST_PLACED = 64
"""Titles that are ranked without sorting them, as `kernels.ranking` does, by as many warps as one likes."""

LEAST_LOOKED_AT, MAXIMA_A_WARP = 256, 256
"""Chunks that are looked at together where their pieces are listed: one a thread at least."""


class FusedPass(PassBuffers):
    """The kernels over buffers of their own; one thread at a time."""

    def run(self, queries: Any, allowed: Any = None, allowed_stride: int = 0) -> None:
        """Search; the answers are in ``scores``, ``rows`` and ``needed`` when the GPU has come to the end of it.

        Args:
            queries: float32 (queries, `vector_dim`) on the GPU, at most as many as there are buffers for.
            allowed: int32 bitmap of the rows that may be returned, `plan.bitmap_words` words for each query, or
                once for all with ``allowed_stride`` 0.
            allowed_stride: words from one query's bitmap to the next one's.
        """
        self.score(queries, allowed, allowed_stride)
        self.rank(len(queries), allowed, allowed_stride)

    def resume(self, earlier: FusedPass, which: Any, allowed: Any = None, allowed_stride: int = 0) -> None:
        """Search some of an earlier pass's queries again; of the titles' scores the maxima that it left are enough.

        Args:
            earlier: a pass over the same titles with chunks of the same size, just run.
            which: int64, on the GPU, as many of its queries as there are buffers for.
            allowed, allowed_stride: what it was run with.
        """
        torch = load_torch()
        kept = ("rounded", "scaled", "bounds", "maxima", *(["_others"] if self.plan.piece else []))
        for mine, its in ((getattr(self, name), getattr(earlier, name)) for name in kept):
            torch.index_select(its, 0, which, out=mine)
        if allowed_stride:
            allowed = allowed.index_select(0, which)
        self.rank(len(which), allowed, allowed_stride)

    def rank(self, count: int, allowed: Any = None, allowed_stride: int = 0) -> None:
        """Second half of `run`: the best of ``count`` queries by the maxima that `score` has left."""
        if self.plan.piece == 1:
            self._find(count, allowed, allowed_stride)
            return
        if self.plan.piece:
            self._select_pieces(count, allowed, allowed_stride)
        else:
            self._select(count)
        self._rescore(count, allowed, allowed_stride)

    def score(self, queries: Any, allowed: Any = None, allowed_stride: int = 0) -> None:
        """First half of `run`, which takes the GPU longest."""
        import triton

        from semrec_faiss.index.fused.kernels import scoring

        plan, titles, count = self.plan, self.titles, len(queries)
        if not titles.screened and not reads_once(titles, plan, len(self.rows)):
            self._score_one(queries, allowed)
            return
        self._prepare(queries)
        codes = titles.codes if plan.planes else None
        queries_a_tile = plan.tile_queries // max(1, plan.planes)
        grid = (triton.cdiv(count, queries_a_tile) * plan.tiles(titles.count),)
        mask = (self.bounds if allowed is None else allowed, self.maxima)
        width = titles.dim if codes is None else codes.width
        sizes = (count, titles.count, width, self._chunks, allowed_stride)
        factored = titles.score_factors is not None
        options = ARITHMETIC | {
            "MASKED": allowed is not None,
            "SHARED": allowed_stride == 0,
            "SPAN": plan.span,
            "BM": plan.tile_queries,
            "BN": plan.tile_titles,
            "BK": plan.tile_dim,
            "GROUP": plan.group,
            "POINTERS": plan.pointers,
            "num_warps": plan.warps,
            "num_stages": plan.stages,
        }
        if codes is None:
            factors = titles.score_factors if factored else self.bounds
            tables = (factors, *mask, self._others if plan.piece else self.maxima)
            some = titles.origins is not None
            skipping = some and allowed is not None and allowed_stride == 0
            options |= {"FACTORED": factored, "PIECE": plan.piece, "PARTS": plan.parts, "SKIPPING": skipping}
            options["EIGHTS"] = plan.pointers and titles.dim % 16 > 0
            kernel = scoring.chunk_maxima_of_some if some else scoring.chunk_maxima
            kernel[grid](self._query_tiles, self._title_tiles, *tables, *sizes, titles.scale, **options)
            return
        from semrec_faiss.index.fused.kernels.codes import coded_chunk_maxima, coded_piece_maxima

        its = (self._query_tiles, self._title_tiles, codes.steps, codes.rests, self.code_factors, *mask)
        if plan.piece:
            pieces = {"PIECE": plan.piece, "PARTS": plan.parts}
            pieces |= {"maxnreg": plan.most_registers} if plan.most_registers else {}
            coded_piece_maxima[grid](*its, self._others, *sizes, **pieces, **options)
        else:
            coded_chunk_maxima[grid](*its, *sizes, PLANES=plan.planes, **options)

    def _score_one(self, queries: Any, allowed: Any) -> None:
        """Make a single query ready and score it, by one kernel."""
        from semrec_faiss.index.fused.kernels import scoring

        plan, titles = self.plan, self.titles
        factored, tiles = titles.score_factors is not None, plan.tiles(titles.count)
        tables = (titles.score_factors if factored else self.bounds, self.bounds if allowed is None else allowed)
        into = (self.rounded, self.scaled, self.bounds, self.maxima, self._others if plan.piece else self.maxima)
        errors = (titles.norm, titles.error, 3.0 * titles.dim * 2.0**-23)
        options = {"FACTORED": factored, "MASKED": allowed is not None, "SPAN": plan.span, "PIECE": plan.piece}
        scoring.query_maxima[(min(tiles, MOST_PROGRAMS),)](
            *(queries, titles.halves, *tables, *into, titles.count, tiles, titles.scale, *errors),
            **options,
            DIM=titles.dim,
            VECTOR_DIM=titles.vector_dim,
            BN=plan.tile_titles,
            BK=128,
            num_warps=4,
            **ARITHMETIC,
        )

    def _prepare(self, queries: Any) -> None:
        """Round the queries, or their side of bounds, and their codes."""
        from semrec_faiss.index.fused.kernels import queries as kernels

        plan, titles, count = self.plan, self.titles, len(queries)
        codes = titles.codes if plan.planes else None
        kept = 0
        if titles.screened:
            kept = len(titles.directions)
            if count <= FEW_QUERIES:
                kernels.project_queries[(-(-kept // PROJECTED_ROWS), count)](
                    queries,
                    titles.directions,
                    self._along,
                    titles.vector_dim,
                    kept,
                    ROWS=PROJECTED_ROWS,
                    BK=128,
                    num_warps=4,
                    **ARITHMETIC,
                )
            else:
                load_torch().matmul(queries.double(), titles.directions.T, out=self._along[:count])
        along = self._along if titles.screened else queries
        into = (self.rounded, self.scaled, self.bounds, self.codes, self.code_factors)
        width, coded = (codes.width, codes.cut or 0) if codes else (0, 0)
        sizes = (titles.dim, titles.vector_dim, kept, width, coded)
        errors = (titles.norm, titles.error, codes.norm if codes else 0.0, 3.0 * titles.dim * 2.0**-23)
        options = ARITHMETIC | {"SCREENED": titles.screened, "PLANES": plan.planes, "CUT": coded > 0, "D_BLOCK": 128}
        kernels.prepare_queries[(count,)](queries, along, *into, *sizes, *errors, **options, num_warps=1)

    def _select(self, count: int) -> None:
        """List the chunks to rescore."""
        plan = self.plan
        self._largest(self.maxima, self._chunks, plan.keep, self.chosen, plan.segments, self.dropped, count)

    def _largest(
        self, values: Any, length: int, keep: int, chosen: Any, segments: int, dropped: Any, count: int
    ) -> None:
        """List the ``keep`` largest values of each row, of many by several programs a row."""
        from semrec_faiss.index.fused.kernels import selecting

        given, stride = (values, values.shape[1], length), self.dropped.shape[1]
        options = ARITHMETIC | {"CAPACITY": chosen.shape[-1]}
        if segments == 1:
            width = min(self.plan.width, power_of_two(length))
            limit, options["LIMITED"] = self.limit
            options |= {"WIDTH": width, "num_warps": _selecting_warps(width, count)}
            selecting.select_largest[(count,)](*given, keep, chosen, dropped, stride, limit, **options)
            return
        block, groups = -(-length // segments), groups_of(keep, segments)
        options |= {"BLOCK": power_of_two(block), "GROUPS": groups, "num_warps": 4}
        its = (self._groups, segments * groups, chosen, self._found)
        selecting.find_groups[(segments, count)](*given, self._groups, chosen, self._found, **options)
        width = min(SEGMENT if keep <= MOST_KEPT else 4 * SEGMENT, power_of_two(segments * groups))
        options["num_warps"] = max(4, width // 1024)
        selecting.list_reaching[(segments, count)](*given, keep, *its, dropped, stride, WIDTH=width, **options)

    def _select_pieces(self, count: int, allowed: Any, allowed_stride: int) -> None:
        from semrec_faiss.index.fused.kernels import selecting

        given, options = self._listing(allowed, allowed_stride)
        limit, options["LIMITED"] = self.limit
        into = (self.chosen, self.dropped, self.dropped.shape[1], limit)
        options |= {"PIECE": self.plan.piece, "CAPACITY": self.plan.capacity}
        selecting.select_pieces[(count,)](*given, *into, **options)

    def _listing(self, allowed: Any, allowed_stride: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what the kernels that list pieces take."""
        plan = self.plan
        width = max(LEAST_LOOKED_AT, min(plan.width, power_of_two(self._chunks)))
        given = (self.maxima, self._others, self._chunks, self._chunks, plan.keep)
        masking = (self.bounds if allowed is None else allowed, allowed_stride, self.titles.count, self._columns)
        steps = min(16, power_of_two(-(-self._chunks // width)))
        options = {"MASKED": allowed is not None, "SPAN": plan.span, "WIDTH": width, "COLUMNS": plan.columns}
        warps = max(2 if plan.piece == 1 else 1, width // MAXIMA_A_WARP)
        options |= ARITHMETIC | {"AT_ONCE": 1 if warps == 1 else 2, "num_warps": warps}
        return (*given, *masking), options | {"STEPS": max(steps, LEAST_LOOKED_AT // plan.columns)}

    def _find(self, count: int, allowed: Any, allowed_stride: int) -> None:
        """List the chunks' best titles and rank them."""
        from semrec_faiss.index.fused.kernels import ranking

        titles = self.titles
        given, options = self._listing(allowed, allowed_stride)
        vectors, scale, ways = self._ranked_by()
        limit, options["LIMITED"] = self.limit
        options |= ways | {"PICKS": self.plan.picks, "BK": 32 if count > MANY_QUERIES else 128}
        ranking.find_rows[(count,)](
            *given,
            self.chosen,
            self.scaled,
            *vectors,
            self.bounds,
            self.scores,
            self.rows,
            self.needed,
            limit,
            titles.vector_dim,
            vectors[0].shape[1],
            self.k,
            scale,
            1.0 / titles.scale,
            **options,
        )

    def _ranked_by(self) -> tuple[tuple[Any, Any, Any], float, dict[str, Any]]:
        """Return titles' vectors, factors and rows as ranking takes them, their scale, and what is compiled in."""
        titles = self.titles
        factored, mapped, beside = (given is not None for given in (titles.factors, titles.origins, titles.originals))
        vectors = (
            titles.originals if beside else titles.halves,
            titles.factors if factored else self.bounds,
            titles.origins if mapped else self.chosen,
        )
        ways = ARITHMETIC | {"FACTORED": factored, "MAPPED": mapped, "ORIGINALS": beside}
        return vectors, titles.scale if titles.proves else 1.0, ways

    def _rescore(self, count: int, allowed: Any, allowed_stride: int) -> None:
        from semrec_faiss.index.fused.kernels import ranking

        plan, titles, factored = self.plan, self.titles, self.titles.score_factors is not None
        members = plan.capacity * plan.listed
        given = (titles.score_factors if factored else self.bounds, self.bounds if allowed is None else allowed)
        tables = (self.rounded, titles.halves, *given)
        sizes = (titles.count, titles.dim, allowed_stride, titles.scale)
        options: dict[str, Any] = ARITHMETIC | {"FACTORED": factored, "MASKED": allowed is not None}
        limit, options["LIMITED"] = self.limit
        options |= {"SPAN": plan.listed // 2, "CAPACITY": plan.capacity, "ROWS": plan.rescore_rows, "BK": 128}
        options["EIGHTS"] = titles.dim % 16 > 0
        ranking.rescore_chunks[(members // plan.rescore_rows, count)](
            *tables, self.chosen, self.candidates, limit, *sizes, **options, num_warps=4
        )
        dropped = self.dropped[:, plan.segments :]
        self._largest(self.candidates, members, plan.keep_rows, self.picked, plan.row_segments, dropped, count)
        self._rank(count)

    def _rank(self, count: int) -> None:
        from semrec_faiss.index.fused.kernels import ranking

        plan, titles = self.plan, self.titles
        vectors, scale, ways = self._ranked_by()
        picked = (self.scaled, *vectors, self.chosen, self.picked)
        dims = (titles.vector_dim, vectors[0].shape[1])
        at_once = plan.picks <= 32 or (count <= FEW_QUERIES and plan.picks <= MOST_PLACED)
        options: dict[str, Any] = ways | {
            "SPAN": plan.listed // 2,
            "CAPACITY": plan.capacity,
            "PICKS": plan.picks,
            "BK": 64 if at_once else 32,
        }
        limit, options["LIMITED"] = self.limit
        keys, apart = self._keys, plan.picks > SORTED_APART
        if apart:
            blocks = (plan.picks // ROWS_A_PROGRAM, count)
            ranking.score_rows[blocks](*picked, keys, limit, *dims, scale, ROWS=ROWS_A_PROGRAM, num_warps=4, **options)
            keys = keys[:count].sort(dim=1, descending=True).values
        dropped = self.dropped.shape[1]
        options |= {"SORTED": apart, "DROPPED": max(LEAST_DROPPED, power_of_two(dropped))}
        options["num_warps"] = 4 if count <= FEW_QUERIES and plan.picks <= MOST_PLACED else _warps(plan.picks)
        tables = (self.bounds, self.dropped, keys, self.scores, self.rows, self.needed, limit)
        ranking.rank_rows[(count,)](*picked, *tables, *dims, dropped, self.k, scale, 1.0 / titles.scale, **options)


def reads_once(titles: GpuTitles, plan: FusedPlan, queries: int) -> bool:
    """Tell whether each query is read by a program of its own, and not by all those that score."""
    at_once = queries == 1 and titles.dim <= MOST_WRITTEN_OUT and not plan.planes
    return not titles.screened and not at_once


def _warps(elements: int) -> int:
    """Return as many warps as have an element each: Triton sorts wrongly what several warps hold copies of."""
    return max(1, min(8, elements // 32))


def _selecting_warps(width: int, queries: int) -> int:
    return max(width // 1024 if width > 2048 else 1, 1 if queries > MANY_QUERIES else min(4, _warps(width)))
