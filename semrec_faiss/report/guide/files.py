"""The files that a comparison leaves: results as JSON, the report as Markdown and as a page, charts as pictures."""

from __future__ import annotations

from pathlib import Path

from semrec_faiss.errors import MissingPackageError
from semrec_faiss.measure.documents.results import save_files, save_results
from semrec_faiss.measure.guide.record import GuideResults
from semrec_faiss.report.guide.report import guide_document
from semrec_faiss.report.page.charts import png
from semrec_faiss.report.page.html import html_page
from semrec_faiss.report.page.markdown import markdown_page


def results_path(results: GuideResults, folder: Path) -> Path:
    """Return where the results of a comparison go: ``h200_test_results.json``."""
    return folder / f"{results.index.device}_test_results.json"


def save_comparison(
    results: GuideResults, folder: Path, *, with_json: bool = True
) -> tuple[list[Path], MissingPackageError | None]:
    """Write everything there is to write.

    Args:
        results: of a comparison.
        folder: where to.
        with_json: write the results themselves too, before the report is drawn; this is written whole or not at all.

    Returns:
        The files written, and why the charts and the page are not among them where they are not.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = results_path(results, folder)
    if with_json:
        save_results(results.as_json(), path)
    report = folder / f"{results.index.device.upper()}_TEST_RESULTS.md"
    try:
        document = guide_document(results)
        drawn = {chart.name: png(chart.spec) for chart in document.charts()}
        page = html_page(document)
    except MissingPackageError as error:
        return [path] if with_json else [], error
    pictures = {name: path.with_suffix("") / f"{name}.png" for name in drawn}
    shown = {name: picture.relative_to(folder).as_posix() for name, picture in pictures.items()}
    texts = {report: markdown_page(document, shown), path.with_suffix(".html"): page}
    files = {place: text.encode("utf-8") for place, text in texts.items()}
    files |= {picture: drawn[name] for name, picture in pictures.items()}
    save_files(files)
    return [*([path] if with_json else []), *files], None
