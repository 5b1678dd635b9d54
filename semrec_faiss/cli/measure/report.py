"""report, check-regression: a sweep to look at, and to hold against an earlier one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from semrec_faiss.cli.numbers import FiniteRange
from semrec_faiss.cli.options import FilePath, json_option
from semrec_faiss.cli.printing import print_json, print_table, say
from semrec_faiss.errors import DataError
from semrec_faiss.paths import as_typed


@click.command(epilog="Example: semrec report results/sweep-demo")
@click.argument("results", required=False, type=FilePath())
@click.option("--compare", nargs=2, metavar="A B", type=FilePath(), help="Compare sweep B with sweep A instead.")
@click.option("--out", type=FilePath(), help="The folder to write to. [default: RESULTS, or B]")
@json_option
def report(results: Path | None, compare: tuple[Path, Path] | None, out: Path | None, as_json: bool) -> None:
    """Make a page that works offline, with pictures of its charts, of what was measured before.

    RESULTS is the folder of a sweep of either kind, which gets a summary.csv too; or the JSON file of a comparison, or
    of bench gpu, that was measured on a machine without the packages that charts need.
    """
    from semrec_faiss.measure.documents.results import save_text
    from semrec_faiss.measure.evaluate.results import EvaluationResults
    from semrec_faiss.measure.trials.kind import kind_of
    from semrec_faiss.measure.trials.results import SweepResults
    from semrec_faiss.places import check_new_folder
    from semrec_faiss.report.evaluate.page import write_evaluation_report
    from semrec_faiss.report.page.html import html_page
    from semrec_faiss.report.sweep.page import write_report
    from semrec_faiss.report.sweep.two_sweeps import compare_document

    if (results is None) == (compare is None):
        raise click.UsageError("give the results of one sweep, or --compare A B for two")
    if out is not None:
        check_new_folder(out, "--out")
    if compare is not None:
        first, second = (SweepResults.read(folder) for folder in compare)
        written = [(out or compare[1]) / "compare.html"]
        save_text(html_page(compare_document(first, second)), written[0])
    elif results is not None and results.suffix == ".json":
        written = _of_file(results, out or results.parent)
    elif results is not None and kind_of(results) == "evaluation":
        written = write_evaluation_report(EvaluationResults.read(results), out or results)
    elif results is not None:
        written = write_report(SweepResults.read(results), out or results)
    if as_json:
        print_json({"written": [str(path) for path in written]})
        return
    for path in written:
        click.echo(path)
    page = next((path for path in written if path.suffix == ".html"), None)
    if page is not None:
        say(f"open {page} in a browser")


def _of_file(path: Path, out: Path) -> list[Path]:
    """Draw a results file for what it holds; return what was written."""
    from semrec_faiss.measure.bench.gpu.record import GPU_RESULTS
    from semrec_faiss.measure.documents.fields import Unsound, checked
    from semrec_faiss.measure.documents.results import read_results, save_bytes
    from semrec_faiss.measure.guide.record import GUIDE_RESULTS
    from semrec_faiss.report.bench.gpu_chart import gpu_chart
    from semrec_faiss.report.guide.files import save_comparison
    from semrec_faiss.report.page.charts import png

    document = read_results(path)
    _refuse_another(path, document)
    try:
        if "test_1_similarity" in document:
            written, missing = save_comparison(checked(GUIDE_RESULTS, document), out, with_json=False)
            if missing is not None:
                raise missing
            return written
        picture = out / path.with_suffix(".png").name
        save_bytes(png(gpu_chart(checked(GPU_RESULTS, document))), picture)
        return [picture]
    except Unsound as error:
        raise DataError(
            f"{path} is not a whole results file of `semrec compare` or `semrec bench gpu`: {error}",
            fix="give one of these files, or the folder of a sweep",
        ) from error


def _refuse_another(path: Path, document: dict[str, Any]) -> None:
    """Refuse a file that is whole, but of a command whose measurements no page is made of."""
    stamp = document.get("environment")
    words = str(stamp.get("command")).split() if isinstance(stamp, dict) else []
    fix = "give a file of `semrec compare` or `semrec bench gpu`, or the folder of a sweep"
    if "evaluations" in document:
        told, fix = "the winners of a sweep", f"give their folder: semrec report {as_typed(path.parent)}"
    elif "methods" in document and "protocol" in document:
        told = "what `semrec evaluate` writes of one index"
        fix = "give the folder of `semrec sweep` with a file that has the key evaluate, such as sweep-evaluate"
    elif words[:2] == ["semrec", "bench"] and words[2:3] not in ([], ["gpu"]):
        told = f"what `{' '.join(words[:3])}` writes"
    else:
        return
    raise DataError(f"{path} is {told}, of which no page is made", fix=fix)


@click.command("check-regression", epilog="Example: semrec check-regression results/main results/mine --tolerance 10%")
@click.argument("baseline", type=FilePath())
@click.argument("new", type=FilePath())
@click.option(
    "--tolerance",
    default="10%",
    show_default=True,
    metavar="SHARE",
    help="How much a median latency, an index or its GPU memory may grow.",
)
@click.option(
    "--recall-tolerance", default=0.005, show_default=True, type=FiniteRange(0, 1), help="How much recall may fall."
)
@json_option
def check_regression(baseline: Path, new: Path, tolerance: str, recall_tolerance: float, as_json: bool) -> int:
    """Compare the sweep in NEW with the one in BASELINE, trial by trial.

    Ends with exit code 1 when a trial got worse by more than is tolerated, or fails now.
    """
    from semrec_faiss.measure.choose.regression import compare, parse_share
    from semrec_faiss.measure.trials.results import SweepResults

    share = parse_share(tolerance)
    found = compare(SweepResults.read(baseline), SweepResults.read(new), share, recall_tolerance)
    if found.other_hardware:
        say(f"note: the hardware differs: {found.other_hardware[0]} and {found.other_hardware[1]}")
    if as_json:
        print_json(
            {
                "compared": len(found.pairs),
                "regressions": [asdict(change) for change in found.regressions],
                "lost": found.lost,
                "added": found.added,
            }
        )
        return 1 if found.regressions else 0
    if found.regressions:
        rows = [
            [
                change.what,
                change.number,
                f"{change.before:.6g}",
                "failed" if change.after is None else f"{change.after:.6g}",
                f"{change.limit:.6g}",
            ]
            for change in found.regressions
        ]
        print_table(["trial", "", "before", "now", "limit"], rows, right=(2, 3, 4))
    parts = [f"{len(found.pairs)} trials compared, {len(found.regressions)} numbers worse by over {tolerance}"]
    parts += [f"{len(found.lost)} not in {new}"] if found.lost else []
    parts += [f"{len(found.added)} not in {baseline}"] if found.added else []
    click.echo("; ".join(parts))
    return 1 if found.regressions else 0
