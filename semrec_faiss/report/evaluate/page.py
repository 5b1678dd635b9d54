"""The report of evaluated recommendations: what each profile comes to, and the winner beside the baselines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from semrec_faiss.config.profile import PLAIN
from semrec_faiss.measure.evaluate.evaluator import KS, RECOMMENDER
from semrec_faiss.measure.evaluate.record import Mean, MeasuredProfile, Summary, Winner
from semrec_faiss.measure.evaluate.results import EvaluationResults
from semrec_faiss.measure.evaluate.run import ranked
from semrec_faiss.measure.quality.held_out_metrics import PER_USER
from semrec_faiss.report.evaluate.charts import interval_chart
from semrec_faiss.report.evaluate.rows import METHOD_NAMES, flat_row, method_rows, profile_rows
from semrec_faiss.report.page.charts import spec_of, titled
from semrec_faiss.report.page.document import (
    Block,
    Cell,
    Chart,
    Column,
    Document,
    Facts,
    Section,
    Table,
    Text,
    Tone,
    Value,
)
from semrec_faiss.report.page.files import save_report
from semrec_faiss.report.page.stamp import stamp_rows

MOST_DRAWN = 30
"""Profiles of a chart; the table holds all."""

PICTURE_WIDTH = 900

NO_WINNER = (
    "Profiles are left to try, so that none is chosen and measured beside the baselines yet; `semrec sweep` goes on."
)

NEVER = 1e9
"""Days that ratings without a half-life are sorted by."""


def write_evaluation_report(results: EvaluationResults, out: Path) -> list[Path]:
    """Write report.html, summary.csv and a picture of each chart.

    Returns:
        What was written, the page first.

    Raises:
        UsageError: nothing was measured.
        MissingPackageError: altair or vl-convert-python is not installed.
        StorageError: the folder cannot be written.
    """
    document = evaluation_page(results)
    pictures = {chart.name: spec_of(chart.spec) | {"width": PICTURE_WIDTH} for chart in document.charts()}
    return save_report(document, [flat_row(record) for record in results.measured], pictures, out)


def evaluation_page(results: EvaluationResults) -> Document:
    """Arrange what was measured.

    Raises:
        UsageError: nothing was measured.
        MissingPackageError: altair is not installed.
    """
    results.check_measured("no profile was tried")
    measured = results.measured
    by = results.plan.sweep.evaluate.by
    evaluations = {one.name: one for one in results.document.evaluations} if results.document else {}
    names = list(dict.fromkeys(record.index.name for record in measured))
    sections: list[Section] = []
    for name in names:
        here = ranked((record for record in measured if record.index.name == name), by)
        about = "" if len(names) == 1 else f": {name}"
        if name in evaluations:
            sections.append(_verdict(evaluations[name], name, by, about))
        sections.append(_profiles(here, evaluations.get(name), name, by, about))
    if not evaluations:
        sections.insert(0, Section("No winner yet", [Text(NO_WINNER)]))
    listed = _profiles_table(ranked(measured, by), several=len(names) > 1)
    sections.append(Section("All profiles", [listed], folded="narrow"))
    sections += [*_not_measured(results), _environment(results)]
    first = measured[0]
    users = sorted({one.protocol.users_evaluated for one in evaluations.values()})
    judged = f", the best judged on {' and '.join(map(str, users))}" if users else ""
    summary = (
        f"{len(measured)} profiles tried on {first.users_evaluated} users{judged}; {first.protocol.held_out} titles"
        f" left out of each, {_liked(measured)}; chosen by {_told(by)}."
    )
    return Document(f"Recommendations: {results.plan.name}", summary, sections)


def _liked(measured: Sequence[MeasuredProfile]) -> str:
    """Say from when on a title counts as liked, by what the indexes know."""
    rated = f"rated {measured[0].protocol.liked:g} or better"
    known = {record.index.has_ratings for record in measured}
    if known == {False}:
        return "where all that was seen counts as liked, as nothing is rated"
    return rated if known == {True} else f"{rated}, or merely seen where nothing is rated"


def _told(metric: str) -> str:
    return metric.replace("_", " ")


def _verdict(evaluation: Winner, name: str, by: str, about: str) -> Section:
    """Show the winner on the titles that it was not chosen by, beside the baselines."""
    methods, protocol = evaluation.methods, evaluation.protocol
    profile = evaluation.profile.describe()
    facts: list[tuple[str, str, str, Tone]] = [
        (f"{_told(by)} of the winner", f"{methods[RECOMMENDER].metric(by).mean:.3f}", profile, "plain")
    ]
    for other, values in evaluation.differences.items():
        mean, low, high = values[by].mean, values[by].interval.low, values[by].interval.high
        tone: Tone = "good" if low > 0 else "bad" if high < 0 else "plain"
        facts.append(
            (
                f"against {METHOD_NAMES.get(other, other)}",
                f"{mean:+.3f}",
                f"paired by user; {low:+.3f} to {high:+.3f}",
                tone,
            )
        )
    caption = (
        f"{_told(by)} on the {protocol.held_out} titles that each user liked last, with 95% confidence "
        "intervals over users."
    )
    drawn = interval_chart(method_rows(methods, by), _told(by))
    note = f"{_told(by)} on the titles that each user liked last; lines are 95% confidence intervals over users"
    blocks: list[Block] = [
        Facts(facts),
        Chart(_chart_name("methods", name), titled(drawn, f"The winner beside the baselines on {name}", note), caption),
        *(_methods_table(methods, k) for k in KS),
        Text(f"{protocol.users_evaluated} users; {protocol.users_with_too_few_liked} more like too few titles."),
        Text(f"The same again: {evaluation.command}", "muted"),
    ]
    return Section(f"The winner, on titles it was not chosen by{about}", blocks)


def _profiles(here: Sequence[MeasuredProfile], evaluation: Winner | None, name: str, by: str, about: str) -> Section:
    """Draw the best profiles, on the titles that they are chosen by."""
    chosen = next((one for one in here if evaluation is not None and one.profile == evaluation.profile), None)
    drawn = list(here[:MOST_DRAWN])
    # The defaults tell how much there is to win.
    drawn += [record for record in here[MOST_DRAWN:] if record.profile == PLAIN]
    told = "all" if len(drawn) == len(here) else f"the best {MOST_DRAWN} and the defaults, of {len(here)}"
    caption = (
        f"{_told(by)} of {told} profiles, on the titles liked before those left out last, with 95% confidence "
        "intervals over users. Profiles are compared on the same users, so that they differ more surely than "
        "their intervals tell."
    )
    note = f"{told} profiles, on titles liked before those left out last; lines are 95% confidence intervals over users"
    chart = titled(
        interval_chart(profile_rows(drawn, by, chosen), _told(by)), f"{_told(by)} by profile on {name}", note
    )
    return Section(f"What each profile comes to{about}", [Chart(_chart_name("profiles", name), chart, caption)])


def _chart_name(kind: str, index: str) -> str:
    return f"{kind}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', index)}"


def _spanned(told: Mean) -> Value:
    """Write a mean with its interval."""
    return Cell(f"{told.mean:.3f} [{told.interval.low:.3f}\u00a0{told.interval.high:.3f}]", told.mean)


def _methods_table(methods: Mapping[str, Summary], k: int) -> Table:
    rows: list[list[Value]] = [
        [
            METHOD_NAMES.get(name, name),
            *(_spanned(method.at(k).of_users(one)) for one in PER_USER),
            method.at(k).coverage,
            method.at(k).novelty.mean,
        ]
        for name, method in methods.items()
    ]
    columns: list[str | Column] = ["method", *(Column(one.replace("_", " "), right=True) for one in PER_USER)]
    return Table([*columns, Column("coverage", ".1%"), Column("novelty, bits", ".1f")], rows, f"Lists of {k}")


def _profiles_table(measured: Sequence[MeasuredProfile], *, several: bool) -> Table:
    """List every measured profile, in the order of ``measured``."""
    rows: list[list[Value]] = []
    for record in measured:
        row = flat_row(record)
        settings = [row[setting] for setting in ("interests", "merge", "popularity", "pool")]
        lives = (row["half_life"], row["half_life_days"])
        never = [Cell("none", NEVER) if life is None else Cell(f"{life:g}", life) for life in lives]
        cells: list[Value] = [row["weights"], *never, *settings]
        for k in KS:
            cells += [
                _spanned(record.at(k).ndcg),
                *(row[f"{name}_at_{k}"] for name in ("hit_rate", "recall", "mrr", "coverage", "novelty")),
            ]
        rows.append([*([row["index"]] if several else []), *cells, row["elapsed_s"]])
    columns: list[str | Column] = [
        "weights",
        Column("half-life", right=True),
        Column("half-life, days", right=True),
        Column("interests", "d"),
        "merge",
        Column("popularity", "g"),
        Column("pool", ",d"),
    ]
    for k in KS:
        columns += [
            Column(f"ndcg at {k}", right=True),
            Column(f"hit rate at {k}", ".3f"),
            Column(f"recall at {k}", ".3f"),
            Column(f"mrr at {k}", ".3f"),
            Column(f"coverage at {k}", ".1%"),
            Column(f"novelty at {k}", ".1f"),
        ]
    columns.append(Column("seconds", ".1f"))
    caption = "On the titles liked before those left out last; in brackets 95% confidence intervals over users"
    return Table(["index", *columns] if several else columns, rows, caption, name="profiles")


def _not_measured(results: EvaluationResults) -> list[Section]:
    """List profiles that failed or were not reached, and combinations that are none of their own."""
    rows: list[list[Value]] = [[record.what, "failed", record.reason] for record in results.failed]
    rows += [[trial.what, "not reached", ""] for trial in results.missing]
    rows += [[one.what, "no profile of its own", one.reason] for one in results.plan.invalid]
    return [Section("Not measured", [Table(["what", "", "why"], rows)], folded=len(rows) > 20)] if rows else []


def _environment(results: EvaluationResults) -> Section:
    indexes = {record.index.name: record.index for record in results.records}
    rows = stamp_rows(results.plan.environment)
    for name, index in indexes.items():
        kind = index.settings.get("type", "factory")
        rows.append(
            [
                f"index {name}",
                f"{kind}, {index.titles:,} titles, {index.users:,} users, "
                f"{index.ratings:,} ratings; {index.digest[:16]}…",
            ]
        )
    return Section("Environment", [Table(["", ""], rows)])
