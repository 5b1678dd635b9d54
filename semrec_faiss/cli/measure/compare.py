"""compare: the guide's five tests, CPU and GPU side by side, and their report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from semrec_faiss.cli.numbers import WholeNumber
from semrec_faiss.cli.options import FilePath, index_argument, json_option, set_option
from semrec_faiss.cli.printing import print_json, print_table, progress_bars, say
from semrec_faiss.errors import UsageError, quoted

if TYPE_CHECKING:
    from semrec_faiss.measure.guide.config import CompareSettings
    from semrec_faiss.measure.guide.record import GuideResults

QUESTIONS = ("similarity", "personalization", "batch", "filtering", "memory", "parity", "repeats", "seed")
"""First keys of a compare file; other settings are of the index."""


@click.command(epilog="Example: semrec compare indexes/demo --out results --profile trace.json")
@index_argument
@click.option(
    "--only",
    multiple=True,
    metavar="1,3",
    help="Only these tests: 1 titles, 2 users, 3 batches, 4 filters, 5 memory; repeatable.",
)
@click.option("--users", multiple=True, metavar="ID,ID", help="These users in test 2, instead of a sample; repeatable.")
@click.option("--batch", "batches", multiple=True, type=WholeNumber(min=1), help="One more batch size; repeatable.")
@click.option("--config", type=FilePath(), help="Questions and targets; see configs/compare.yaml.")
@click.option("--costs", type=FilePath(), help="Prices of machines; see configs/costs.yaml.")
@click.option("--out", default="results", show_default=True, type=FilePath(), help="Where JSON and report go.")
@click.option("--profile", "trace", type=FilePath(), help="Write a Chrome trace of one query of each test here.")
@click.option("--check", is_flag=True, help="End with exit code 1 when a criterion is not met.")
@set_option
@json_option
def compare(
    index: Path,
    only: tuple[str, ...],
    users: tuple[str, ...],
    batches: tuple[int, ...],
    config: Path | None,
    costs: Path | None,
    out: Path,
    trace: Path | None,
    check: bool,
    settings: tuple[str, ...],
    as_json: bool,
) -> int:
    """Test INDEX on the CPU and, where there is one, on the GPU, and write results and a report to --out.

    Five tests: similar titles, recommendations, batches, filters, memory; each with its criteria, met or not. Then
    whether CPU and GPU give the same answers, and what searches cost. A test that fails does not end the others. --set
    takes the keys of a compare file, and search and device settings of the index.

    An index of type flat is searched as type fused where the GPU runs that; --set index.type=flat for FAISS's own.
    """
    from semrec_faiss.measure.documents.results import save_results
    from semrec_faiss.measure.guide.config import CompareSettings, Prices, load_settings
    from semrec_faiss.measure.guide.run import TESTS, GuideRun, run_guide
    from semrec_faiss.places import JSON, check_new_file, check_new_folder
    from semrec_faiss.report.guide.files import results_path, save_comparison
    from semrec_faiss.storage import one_run_into

    check_new_folder(out, "--out")
    if trace is not None:
        check_new_file(trace, "--profile", JSON)
    of_questions = _of_questions(settings)
    questions = load_settings(CompareSettings, config, of_questions)
    questions = _with_options(questions, users, batches)
    asked = GuideRun(
        index,
        tuple(one for one in settings if one not in of_questions),
        _numbers(only) if only else tuple(TESTS),
        questions,
        load_settings(Prices, costs),
        trace,
    )
    with one_run_into(out):
        with progress_bars() as progress:
            results = run_guide(
                asked, progress, keep=lambda so_far: save_results(so_far.as_json(), results_path(so_far, out))
            )
        written, missing = save_comparison(results, out)
    if as_json:
        print_json(results.as_json())
    else:
        _print(results)
    pictures = written[3:]
    more = f" and {len(pictures)} picture{'s' * (len(pictures) > 1)}" if pictures else ""
    say(f"wrote {', '.join(map(str, written[:3]))}{more}")
    if trace is not None and results.profile and results.profile.trace:
        say(f"wrote {trace}")
    for kind, heard in results.memory_ran_out().items():
        for line in heard:
            say(f"note: {kind.upper()}: {line}")
    if missing is not None:
        say(f"note: no report is written: {missing.message}; {missing.fix}")
    return 1 if check and any(one.met is False for one in results.criteria) else 0


def _of_questions(settings: tuple[str, ...]) -> list[str]:
    """Return those of --set that are of a compare file; a key of neither that nor an index is told with all keys."""
    from semrec_faiss.arguments import did_you_mean
    from semrec_faiss.config.schema import Config

    first = {one: one.split("=")[0].split(".")[0].strip() for one in settings}
    known = sorted([*QUESTIONS, "device", "index"])
    for one, key in first.items():
        if "=" in one and key not in (*QUESTIONS, *Config.model_fields):
            offer = f"{did_you_mean(key, known)}known here: {', '.join(known)}"
            raise UsageError(f"--set {quoted(one)}: unknown key {quoted(key)}; {offer}")
    return [one for one, key in first.items() if key in QUESTIONS]


def _numbers(only: tuple[str, ...]) -> tuple[int, ...]:
    """Put together what every --only says."""
    numbers: set[int] = set()
    for listed in only:
        try:
            numbers.update(int(number) for number in listed.split(","))
        except ValueError as error:
            raise UsageError(
                f"--only {quoted(listed)} is not a list of tests", fix="for example: --only 1,3"
            ) from error
    return tuple(sorted(numbers))


def _with_options(questions: CompareSettings, users: tuple[str, ...], batches: tuple[int, ...]) -> CompareSettings:
    """Put what the command line says about users and batches into the settings."""
    changes: dict[str, object] = {}
    if users:
        ids = tuple(dict.fromkeys(name.strip() for listed in users for name in listed.split(",") if name.strip()))
        if not ids:
            raise UsageError("--users names nobody", fix="for example: --users user_001,user_002")
        changes["personalization"] = questions.personalization.model_copy(update={"users": ids})
    if batches:
        sizes = tuple(sorted({*questions.batch.sizes, *batches}))
        changes["batch"] = questions.batch.model_copy(update={"sizes": sizes})
    return questions.model_copy(update=changes)


def _print(results: GuideResults) -> None:
    from semrec_faiss.report.page.numbers import as_unit

    index = results.index
    devices = "CPU" if index.gpu is None else f"CPU and {index.gpu.upper()}"
    click.echo(f"{index.type} index of {index.titles:,} titles × {index.dim} on {devices}:")
    marks = {True: "✓", False: "✗", None: "–"}
    rows = []
    for one in results.criteria:
        achieved, against = "not measured", one.reason or ""
        if one.met is not None:
            achieved = as_unit(one.measured, one.unit)
            against = ("at least " if one.at_least else "at most ") + as_unit(one.target, one.unit)
        rows.append([marks[one.met], str(one.test or ""), one.what, achieved, against])
    print_table(["", "test", "criterion", "achieved", "target"], rows, right=(3,))
    _print_numbers(results)


def _print_numbers(results: GuideResults) -> None:
    from semrec_faiss.report.guide.report import performance_table
    from semrec_faiss.report.page.document import shown

    table = performance_table(results)
    columns = [table.column(position) for position in range(len(table.columns))]
    rows = [[shown(value, column).text for value, column in zip(row, columns, strict=True)] for row in table.rows]
    click.echo("")
    print_table([column.name for column in columns], rows, right=(1, 2, 3, 4))
