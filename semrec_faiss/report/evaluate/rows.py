"""Records of evaluated profiles as rows of charts, tables and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from semrec_faiss.measure.evaluate.evaluator import AS_GIVEN, CHANCE, KS, POPULAR, RECOMMENDER, TOGETHER
from semrec_faiss.measure.evaluate.record import Mean, MeasuredProfile, Summary
from semrec_faiss.measure.quality.held_out_metrics import PER_USER
from semrec_faiss.report.evaluate.charts import OTHERS, WINNER
from semrec_faiss.report.page.charts import Row

METHOD_NAMES = {
    RECOMMENDER: "the winner",
    AS_GIVEN: "as the index serves",
    POPULAR: "most popular",
    TOGETHER: "liked together",
    CHANCE: "by chance",
}


def flat_row(record: MeasuredProfile) -> Row:
    """Return a measured record without anything nested, for a table and a CSV."""
    row: Row = {"index": record.index.name, "label": record.label, **record.profile.model_dump()}
    for k in KS:
        lists = record.at(k)
        for name in PER_USER:
            told = lists.of_users(name)
            row[f"{name}_at_{k}"] = told.mean
            row[f"{name}_at_{k}_low"], row[f"{name}_at_{k}_high"] = told.interval.low, told.interval.high
        row[f"novelty_at_{k}"] = lists.novelty.mean
        row[f"coverage_at_{k}"] = lists.coverage
    row["users_evaluated"] = record.users_evaluated
    return row | {"elapsed_s": record.elapsed_s, "digest": record.digest}


def profile_rows(records: Sequence[MeasuredProfile], by: str, chosen: MeasuredProfile | None) -> list[Row]:
    """Return records as rows of the chart: the metric that chooses, and whether it is the one chosen."""
    return [
        _interval_row(record.label, WINNER if record is chosen else OTHERS, record.metric(by)) for record in records
    ]


def method_rows(methods: Mapping[str, Summary], by: str) -> list[Row]:
    """Return the methods on the titles left out last as rows of the chart, the best first."""
    rows = [
        _interval_row(METHOD_NAMES.get(name, name), WINNER if name == RECOMMENDER else OTHERS, method.metric(by))
        for name, method in methods.items()
    ]
    return sorted(rows, key=lambda row: -float(row["mean"]))


def _interval_row(what: str, kind: str, told: Mean) -> Row:
    return {"what": what, "kind": kind, "mean": told.mean, "low": told.interval.low, "high": told.interval.high}
