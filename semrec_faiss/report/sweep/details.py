"""What stands at the end of a sweep's report: every trial, what was not measured and why, and the environment."""

from __future__ import annotations

from collections.abc import Sequence

from semrec_faiss.measure.trials.record import Measured
from semrec_faiss.measure.trials.results import SweepResults
from semrec_faiss.report.page.document import Cell, Column, Section, Table, Text, Value
from semrec_faiss.report.page.names import device_label
from semrec_faiss.report.page.numbers import as_recall
from semrec_faiss.report.page.stamp import stamp_rows
from semrec_faiss.report.sweep.rows import row_of

NOT_REACHED = ("not reached", "the sweep ended first, at its time budget or by hand; the same command goes on")
_SHOWN_QUALITY = ("recall", "recall_interval", "ndcg", "fill_rate")


def trials_table(measured: Sequence[Measured]) -> Table:
    """List every measured trial."""
    rows: list[list[Value]] = []
    several = len({record.data.name for record in measured}) > 1
    for record in measured:
        row = row_of(record)
        ends = [as_recall(row[end], 3) for end in ("recall_low", "recall_high")]
        interval = "–" if row["recall_low"] is None else "\u00a0to\u00a0".join(ends)
        cells: list[Value] = [
            row["series"],
            row["setting"],
            device_label(row["device"]),
            row["filter"] or "",
            row["k"],
            row["batch"],
            row["recall"],
            Cell(interval, row["recall_low"]),
            row["ndcg"],
            row["fill_rate"],
            row["p50_ms"],
            row["p95_ms"],
            row["p99_ms"],
            row["mean_ms"],
            row["qps"],
            _megabytes(row["memory_bytes"]),
            _megabytes(row["index_bytes"]),
            row["train_s"] + row["add_s"],
            row["load_s"],
            row["cold_query_ms"],
            _others_used(record),
        ]
        rows.append([row["data"], *cells] if several else cells)
    columns: list[str | Column] = [
        "index",
        "setting",
        "device",
        "filter",
        Column("k", ","),
        Column("batch", ","),
        Column("recall", ".4f", at_most_one=True),
        Column("95% interval", right=True),
        Column("nDCG", ".4f", at_most_one=True),
        Column("fill rate", ".4f", at_most_one=True),
        Column("p50 ms", ",.3f"),
        Column("p95 ms", ",.3f"),
        Column("p99 ms", ",.3f"),
        Column("mean ms", ",.3f"),
        Column("queries/s", ",.0f"),
        Column("memory MB", ",.1f"),
        Column("index MB", ",.1f"),
        Column("build s", ",.2f"),
        Column("load s", ",.3f"),
        Column("cold ms", ",.2f"),
        Column("cores others used", ".2f"),
    ]
    return Table(["data", *columns] if several else columns, rows, name="trials")


def _others_used(record: Measured) -> Value:
    """Write the cores that other programs kept busy, marked where that shows in the times."""
    cores = record.others_used_cores
    return Cell(f"{cores:.2f}", cores, "bad") if record.is_disturbed else cores


def _megabytes(count: int | None) -> Value:
    """Write a size; 0 is less than the system shows, which is not the same as not measured."""
    return count / 1e6 if count else None if count is None else Cell("< 1", 0.0)


def gaps_text(measured: Sequence[Measured]) -> list[Text]:
    """Say what dashes in the table of trials stand for; nothing where there is none."""
    reasons: dict[str, list[str]] = {}
    for record in measured:
        for place, reason in record.not_measured.items():
            part, _, name = place.partition(".")
            # What the table shows; a GPU's memory is none of a search on the CPU.
            memory = "gpu_peak_bytes" if record.device.kind == "gpu" else "host_peak_bytes"
            shown = part in ("latency", "load") or place == f"memory.{memory}" or name in _SHOWN_QUALITY
            if shown and name not in reasons.setdefault(reason, []):
                reasons[reason].append(name)
    told = [f"{', '.join(name.replace('_', ' ') for name in names)}: {why}" for why, names in reasons.items() if names]
    return [Text(f"Dashes are what was not measured. {'; '.join(told)}.", "muted")] if told else []


def not_measured_section(results: SweepResults) -> list[Section]:
    """List trials that failed, were pruned or not reached, and combinations that are none; no section for nothing."""
    rows: list[list[Value]] = [[record.what, "failed", record.reason] for record in results.failed]
    for trial in results.missing:
        rows.append([trial.what, *(("pruned", trial.pruned) if trial.pruned else NOT_REACHED)])
    rows += [[one.what, "cannot be", one.reason] for one in results.plan.invalid]
    return [Section("Not measured", [Table(["what", "", "why"], rows)], folded=len(rows) > 20)] if rows else []


def environment_section(results: SweepResults) -> Section:
    """Tell when, with what and on what the sweep was run."""
    sweep = results.plan.sweep
    asked = f"{sweep.queries.titles} titles, left out of the index, and {sweep.queries.users} users"
    data = {record.data.digest: record.data.name for record in results.records}
    rows: list[list[Value]] = [
        *stamp_rows(results.plan.environment),
        ["queries", f"{asked}; seed {sweep.queries.seed}"],
        ["timing", f"at least {sweep.repeats} repeats after {sweep.warmup} or more that do not count"],
        ["data", "; ".join(f"{name} {digest[:16]}…" for digest, name in data.items())],
    ]
    return Section("Environment", [Table(["", ""], rows)])
