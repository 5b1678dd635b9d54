"""Records of evaluated profiles as rows of charts, tables and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from semrec_faiss.measure.evaluate.evaluator import AS_GIVEN, CHANCE, KS, POPULAR, RECOMMENDER, TOGETHER, metric_of
from semrec_faiss.measure.evaluate.results import EvaluationResults
from semrec_faiss.measure.quality.held_out_metrics import PER_USER
from semrec_faiss.report.evaluate.charts import OTHERS, WINNER

Record = dict[str, Any]
Row = dict[str, Any]

METHOD_NAMES = {
    RECOMMENDER: "the winner",
    AS_GIVEN: "as the index serves",
    POPULAR: "most popular",
    TOGETHER: "liked together",
    CHANCE: "by chance",
}


def flat_row(record: Record) -> Row:
    """Return a measured record without anything nested, for a table and a CSV."""
    row: Row = {"index": record["index"]["name"], "label": record["label"], **record["profile"]}
    for k in KS:
        summary = record[f"at_{k}"]
        for name in PER_USER:
            row[f"{name}_at_{k}"] = summary[name]["mean"]
            row[f"{name}_at_{k}_low"], row[f"{name}_at_{k}_high"] = ends_of(summary[name])
        row[f"novelty_at_{k}"] = summary["novelty"]["mean"]
        row[f"coverage_at_{k}"] = summary["coverage"]
    row["users_evaluated"] = record["users_evaluated"]
    return row | {"elapsed_s": record["elapsed_s"], "digest": record["digest"]}


def csv_of(results: EvaluationResults) -> str:
    """Write all measured profiles as CSV, a line each; nothing stands for what was not measured."""
    rows = [flat_row(record) for record in results.measured]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def profile_rows(records: Sequence[Record], by: str, chosen: Record | None) -> list[Row]:
    """Return records as rows of the chart: the metric that chooses, and whether it is the one chosen."""
    return [
        _interval_row(record["label"], WINNER if record is chosen else OTHERS, metric_of(record, by))
        for record in records
    ]


def method_rows(methods: dict[str, Any], by: str) -> list[Row]:
    """Return the methods on the titles left out last as rows of the chart, the best first."""
    rows = [
        _interval_row(METHOD_NAMES.get(name, name), WINNER if name == RECOMMENDER else OTHERS,
                      metric_of(method, by))
        for name, method in methods.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -float(row["mean"]))


def ends_of(told: dict[str, Any]) -> tuple[float, float]:
    """Return both ends of a confidence interval."""
    return told["interval"]["low"], told["interval"]["high"]


def _interval_row(what: str, kind: str, told: dict[str, Any]) -> Row:
    low, high = ends_of(told)
    return {"what": what, "kind": kind, "mean": told["mean"], "low": low, "high": high}
