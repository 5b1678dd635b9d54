"""The sections of a comparison's report about memory, parity, cost and kernels."""

from __future__ import annotations

import re

from semrec_faiss.measure.guide.details import Certificate, MachineCost, MemoryDetails
from semrec_faiss.measure.guide.record import GuideResults
from semrec_faiss.measure.instruments.index_memory_record import GpuMemory
from semrec_faiss.report.guide.charts import cost_chart, memory_chart
from semrec_faiss.report.guide.test_sections import criteria_of, device_names, failure
from semrec_faiss.report.page.charts import Row
from semrec_faiss.report.page.document import Block, Cell, Column, Columns, Section, Table, Text, Value
from semrec_faiss.report.page.numbers import as_change, as_gb, as_money, as_share


def memory_section(results: GuideResults) -> Section:
    """Test 5: the six numbers, and predictions beside measurements."""
    title = "5 · Memory"
    details = results.details.memory
    if not isinstance(details, MemoryDetails):
        return Section(title, failure(results, "memory", details))
    memory, names = results.test_5_memory, device_names(results)
    named = {
        "allocated_gb": "taken by the index, between searches",
        "peak_allocated_gb": "taken by it at the peak",
        "reserved_gb": "with the CUDA context, or the whole process",
        "peak_reserved_gb": "with these at the peak",
        "free_gb": "free beside it",
        "total_gb": "in all",
    }
    rows: list[list[Value]] = [
        [what, *(_gb_cell(memory.of_side(kind, key)) for kind in names)] for key, what in named.items()
    ]
    judged: list[list[Value]] = []
    bars: list[Row] = []
    for kind, name in names.items():
        found = details.of_side(kind)
        for one in found.judged if found else ():
            label = f"{name}, {one.what}"
            held = Cell("✓ holds", 1.0, "good") if one.holds else Cell("✗ off", 0.0, "bad")
            sizes = {"predicted": one.predicted_bytes / 1e6, "measured": one.measured_bytes / 1e6}
            judged.append([label, *sizes.values(), Cell(as_change(one.error), one.error), held])
            bars += [{"what": label, "kind": part, "mb": size} for part, size in sizes.items()]
    columns: Columns = [
        "what",
        Column("predicted, MB", ",.1f"),
        Column("measured, MB", ",.1f"),
        Column("off by", right=True),
        "",
    ]
    blocks: list[Block] = [*criteria_of(results, 5)]
    blocks.append(Table(["", *(Column(name, right=True) for name in names.values())], rows, "Memory in use"))
    if judged:
        blocks += [memory_chart(bars), Table(columns, judged, "Prediction and measurement")]
    on_gpu = details.gpu.measured if details.gpu else None
    if isinstance(on_gpu, GpuMemory) and on_gpu.faiss_counts_bytes:
        kinds = ", ".join(f"{kind} {as_gb(size / 1e9)}" for kind, size in sorted(on_gpu.faiss_counts_bytes.items()))
        blocks.append(Text(f"What FAISS itself counts on the GPU, which leaves out the CUDA context: {kinds}."))
    said = (
        "Counted in a process of its own: by the driver on a GPU, by the resident set on a CPU, over what the process"
        " held before."
    )
    return Section(title, [*blocks, Text(said, "muted")])


def _gb_cell(value: float | None) -> Value:
    return None if value is None else Cell(as_gb(value), value)


def parity_section(results: GuideResults) -> Section:
    """The parity certificate: overlap, differences of scores, near-ties."""
    certificate = results.parity
    if not isinstance(certificate, Certificate):
        return Section("Parity", [])
    asked, by_float64 = certificate.queries, certificate.reference_queries
    pairs = (
        ("GPU and CPU", asked, certificate.gpu_to_cpu),
        ("GPU and float64", by_float64, certificate.gpu_to_float64),
        ("CPU and float64", by_float64, certificate.cpu_to_float64),
    )
    rows: list[list[Value]] = []
    for name, count, found in pairs:
        if found:
            shares = [as_share(share) for share in (found.overlap, found.queries_with_all, found.same_place)]
            rows.append([name, count, *shares, found.largest_score_difference])
    columns: Columns = [
        "compared",
        Column("queries", ",d"),
        Column("shared results", right=True),
        Column("queries that share all", right=True),
        Column("same title at same rank", right=True),
        Column("largest score difference", ".2e"),
    ]
    exact = "" if certificate.exact_index else " The index is approximate, so that overlap with float64 is its recall."
    said = Text(
        f"The same {certificate.queries:,} queries ({certificate.queries_are}), k = {certificate.k}; results"
        f" whose exact scores tie within {certificate.tie_tolerance:g} are credited.{exact}"
    )
    blocks: list[Block] = [*criteria_of(results, 0), said, Table(columns, rows)]
    near = certificate.gpu_to_cpu.differences if certificate.gpu_to_cpu else None
    if near:
        listed: list[list[Value]] = [
            [one.query, one.rank, one.gpu_title, one.cpu_title, one.gpu_score, one.cpu_score] for one in near
        ]
        heads: Columns = [
            Column("query", "d"),
            Column("rank", "d"),
            "GPU",
            "CPU",
            Column("GPU score", ".7f"),
            Column("CPU score", ".7f"),
        ]
        blocks.append(Table(heads, listed, "Places where GPU and CPU name another title"))
    return Section("Parity", blocks)


def cost_section(results: GuideResults) -> Section:
    """What a million queries and a month cost, and from where on a GPU pays."""
    cost = results.cost
    if not cost.machines:
        return Section("Cost", [])
    currency, monthly = cost.currency, cost.monthly_queries
    other = _other_prices(results)
    priced_as = {"gpu": f", at {other} prices" if other else "", "cpu": ""}
    names = [one.name + priced_as[_kind(one.name)] for one in cost.machines]
    rows = [_machine_row(name, one, currency) for name, one in zip(names, cost.machines, strict=True)]
    columns: Columns = [
        "machine",
        Column(f"{currency} an hour", ",.2f"),
        Column("queries a second", ",.0f"),
        Column("a million queries", right=True),
        Column(f"{monthly / 1e6:,.0f} million a month, busy hours only", right=True),
        Column("the same, rented all month", right=True),
    ]
    said = [f"From the throughput of {cost.batch:,} queries at once."]
    gpu = (results.index.gpu or "").upper()
    if other:
        said.append(
            f"The costs file has no price of {gpu}, which was measured: its costs are at {other} prices, and too low"
            f" by as much as {gpu} costs more, so that they are not drawn. Give your own prices with --costs FILE."
        )
    blocks: list[Block] = [Text(" ".join(said), "plain" if other else "muted"), Table(columns, rows)]
    if not other:
        bars = [{"name": one.name, "kind": _kind(one.name), "cost": one.cost_a_million} for one in cost.machines]
        blocks.insert(0, cost_chart(bars, currency))
    named = dict(zip((one.name for one in cost.machines), names, strict=True))
    pays: list[list[Value]] = [
        [named.get(one.name, one.name), _volume(one.monthly_queries)] for one in cost.break_even or ()
    ]
    if pays:
        caption = "The month's queries from which GPU machines cost no more than CPU machines, all rented all month"
        blocks.append(Table(["GPU", Column("queries a month", right=True)], pays, caption))
    return Section("Cost", blocks)


def _machine_row(name: str, one: MachineCost, currency: str) -> list[Value]:
    month = f"{as_money(one.cost_of_the_month, currency)} for {_machines(one.machines_for_the_month)}"
    return [
        name,
        one.price_an_hour,
        one.throughput_qps,
        Cell(as_money(one.cost_a_million, currency), one.cost_a_million),
        Cell(as_money(one.cost_of_busy_hours, currency), one.cost_of_busy_hours),
        Cell(month, one.cost_of_the_month),
    ]


def _machines(count: int) -> str:
    return "1 machine" if count == 1 else f"{count:,} machines"


def _other_prices(results: GuideResults) -> str | None:
    """Return the GPU whose prices stand for the measured one's, None where it has its own."""
    priced, gpu = results.cost.prices_of, results.index.gpu
    alone = re.sub(r"-x\d+$", "", gpu or "")
    return None if not priced or not gpu or priced == alone else priced.upper()


def _kind(machine: str) -> str:
    return "cpu" if machine.startswith("CPU") else "gpu"


def _volume(queries: float | None) -> Value:
    if queries is None:
        return Cell("never at these prices", tone="muted")
    return Cell("any" if queries == 0 else f"{queries / 1e6:,.0f} million", queries)


def profile_section(results: GuideResults) -> Section:
    """The largest kernels, and CUDA's clock beside the wall's; nothing without --profile."""
    profile = results.profile
    if not profile or not profile.trace:
        return Section("Profile", [])
    blocks: list[Block] = [Text(f"One query of each test, traced by {profile.traced_by} into {profile.trace}.")]
    if profile.kernels:
        rows: list[list[Value]] = [
            [one.name, one.calls, one.total_ms, Cell(as_share(one.share), one.share)] for one in profile.kernels
        ]
        columns: Columns = [
            "kernel or copy",
            Column("calls", ",d"),
            Column("in all, ms", ",.4f"),
            Column("share", right=True),
        ]
        blocks.append(Table(columns, rows, "Largest on the GPU"))
    else:
        blocks.append(Text(f"Kernels are missing: {results.not_measured.get('profile.kernels')}.", "muted"))
    times: list[list[Value]] = [[name, one.cuda_ms, one.wall_ms] for name, one in (profile.events or {}).items() if one]
    if times:
        clocks: Columns = ["question", Column("CUDA events, ms", ",.4f"), Column("wall clock, ms", ",.4f")]
        blocks.append(Table(clocks, times, "By CUDA's clock and by the caller's"))
    return Section("Profile", blocks)
