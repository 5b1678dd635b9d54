"""A browser that opens a report without the network, for tests of what it draws."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG_SECONDS

from semrec_faiss.measure.documents.results import save_text
from semrec_faiss.report.page.document import Document
from semrec_faiss.report.page.html import html_page

FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync "
    "--disable-component-update --enable-logging=stderr --virtual-time-budget=20000 --hide-scrollbars"
)


@dataclass(frozen=True)
class OpenedPage:
    """A page as a browser has it once its scripts have run.

    Attributes:
        dom: its HTML.
        complaints: what the browser's console says.
    """

    dom: str
    complaints: list[str]

    def chart(self, name: str) -> str:
        """Return the figure of a chart."""
        (drawn,) = re.findall(rf'id="chart-{re.escape(name)}".*?</figure>', self.dom, flags=re.DOTALL)
        return str(drawn)

    def assert_drawn(self, document: Document) -> None:
        """Hold the page against the document: every chart is drawn, and nothing is complained of."""
        assert not self.complaints
        for chart in document.charts():
            drawn = self.chart(chart.name)
            assert "<svg" in drawn, f"{chart.name} is not drawn"
            assert "could not be drawn" not in drawn


def section(document: Document, title: str) -> list[Any]:
    """Return what stands under a heading."""
    (found,) = [one.blocks for one in document.sections if one.title == title]
    return list(found)


@pytest.fixture
def open_page(tmp_path: Path) -> Callable[..., OpenedPage]:
    """Opens a document as a page, ``width`` pixels wide."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium")

    def opened(document: Document, width: int = 1280) -> OpenedPage:
        page = tmp_path / "page.html"
        save_text(html_page(document), page)
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [browser, *FLAGS.split(), f"--window-size={width},900", profile, "--dump-dom", page.as_uri()]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=HANG_SECONDS)
        return OpenedPage(done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line])

    return opened
