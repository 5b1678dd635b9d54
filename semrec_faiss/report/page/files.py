"""The files that a report of a sweep leaves: the page, its table as CSV, and pictures of its charts."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semrec_faiss.measure.documents.results import save_files
from semrec_faiss.report.page.charts import png
from semrec_faiss.report.page.document import Document
from semrec_faiss.report.page.html import html_page


def save_report(
    document: Document, rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, Any], out: Path
) -> list[Path]:
    """Write report.html, summary.csv and a PNG for each picture, all of them or none.

    Args:
        document: the report.
        rows: of the CSV, all with the same keys.
        pictures: charts by the names of their files, without the ending.
        out: the folder.

    Returns:
        What was written, the page first.

    Raises:
        MissingPackageError: altair or vl-convert-python is not installed.
        StorageError: the folder cannot be written.
    """
    texts = {"report.html": html_page(document), "summary.csv": csv_of(rows)}
    files = {out / name: text.encode("utf-8") for name, text in texts.items()}
    files |= {out / f"{name}.png": png(chart) for name, chart in pictures.items()}
    save_files(files)
    return list(files)


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as CSV, a header first; None is left empty, and no rows are an empty text."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()
