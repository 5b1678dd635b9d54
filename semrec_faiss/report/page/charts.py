"""Charts by altair: one look in light and dark, and pictures without a browser."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

from semrec_faiss.errors import MissingPackageError

WIDTH, HEIGHT = 640, 320
"""Pixels of a picture whose chart takes the width of the page."""

WIDE = 960
"""Pixels that the panels of a row share, their axes included; a page makes it as many as it has."""

_AXIS = 76

COLOURS = ("#3569b2", "#d9791f", "#2f9970", "#b0477c", "#7b62c4", "#4f8796", "#a38421", "#8a5a44")
"""Told apart with colour-blind eyes; charts that name no colours of their own take them in this order …"""

COLOURS_ON_DARK = ("#6fa3ea", "#f0a053", "#5cc79b", "#e07fb0", "#a893ec", "#83bccb", "#d4b757", "#c4937a")
"""… or these, in the dark look."""

_INK = {"light": ("#1f2430", "#5b6472", "#e2e6ec"), "dark": ("#e6e9ef", "#9aa4b2", "#333a46")}


Row = dict[str, Any]
"""What a chart draws as one mark or more: values by the names of its fields."""


def load_altair() -> Any:
    """Import altair.

    Raises:
        MissingPackageError: it is not installed.
    """
    return _load("altair")


def _load(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{module.replace('_', '-')} is not installed, which charts and pages need ({error})",
            fix="pip install 'semrec-faiss[report]'",
        ) from error


@dataclass(frozen=True)
class Panels:
    """How a chart's panels stand side by side.

    Attributes:
        columns: panels of a row.
        width: of each without its axis, in pixels.
    """

    columns: int
    width: int


def panels_of(count: int) -> Panels:
    """Return how so many panels stand: as many side by side as fill the rows."""
    columns = 3 if count == 3 else min(2, count)
    return Panels(columns, WIDE // columns - _AXIS)


def legend_columns(names: Sequence[str], width: int) -> int:
    """Return in how many columns a legend's names fit; pages do the same in page.js for the width they have."""
    if sum(7 * len(name) + 30 for name in names) <= width:
        return len(names)
    longest = max((len(name) for name in names), default=1)
    return max(1, min(len(names), width // (7 * longest + 30)))


def titled(chart: Any, title: str, subtitle: str = "") -> Any:
    """Give a chart a title that says what is seen, and a subtitle that says of what."""
    parts = {"text": title, "offset": 14} | ({"subtitle": subtitle} if subtitle else {})
    return chart.properties(title=load_altair().TitleParams(**parts))


def spec_of(chart: Any) -> dict[str, Any]:
    """Return the Vega-Lite specification of an altair chart, or a copy of the one given, without its config."""
    given = chart if isinstance(chart, dict) else chart.to_dict()
    spec: dict[str, Any] = copy.deepcopy(given)
    spec.pop("config", None)
    if spec.get("width") == "container":
        spec.setdefault("autosize", {"type": "fit-x", "contains": "padding"})
    return spec


def config(scheme: str) -> dict[str, Any]:
    """Return the Vega-Lite config of the ``light`` or ``dark`` look."""
    ink, muted, line = _INK[scheme]
    font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
    return {
        "background": "transparent" if scheme == "dark" else "#ffffff",
        "font": font,
        "view": {"stroke": None},
        "axis": {
            "labelColor": muted,
            "titleColor": ink,
            "domainColor": line,
            "gridColor": line,
            "tickColor": line,
            "titleFontWeight": 500,
            "labelFontSize": 11,
            "titleFontSize": 12,
            "titlePadding": 10,
            "labelPadding": 6,
        },
        "axisX": {"grid": False},
        "axisY": {"domain": False, "ticks": False},
        "legend": {
            "labelColor": ink,
            "titleColor": muted,
            "labelFontSize": 12,
            "titleFontSize": 11,
            "titleFontWeight": 500,
            "symbolSize": 90,
            "orient": "top",
            # From the left edge of the whole chart, not of its panel: beside long names little room is left.
            "layout": {"top": {"anchor": "start", "bounds": "full"}},
        },
        "title": {
            "color": ink,
            "fontSize": 14,
            "fontWeight": 600,
            "subtitleColor": muted,
            "subtitleFontSize": 12,
            "subtitlePadding": 4,
            "anchor": "start",
            "frame": "bounds",
        },
        "header": {"labelColor": ink, "titleColor": muted, "labelFontSize": 12, "labelFontWeight": 600},
        "text": {"color": ink, "fontSize": 11},
        "rule": {"color": muted},
        "range": {"category": list(COLOURS if scheme == "light" else COLOURS_ON_DARK)},
        "padding": 8,
        "bar": {"cornerRadiusEnd": 2},
        "line": {"strokeWidth": 2.5},
        "point": {"size": 60, "filled": True, "opacity": 1},
    }


def png(chart: Any, *, scale: float = 2.0) -> bytes:
    """Draw a chart in the light look.

    Args:
        chart: an altair chart or a Vega-Lite specification.
        scale: pixels of the picture a pixel of the chart.

    Raises:
        MissingPackageError: vl-convert-python is not installed.
    """
    spec = spec_of(chart)
    if spec.get("width") == "container":
        spec["width"] = WIDTH
    spec.setdefault("height", HEIGHT)
    drawn: bytes = _load("vl_convert").vegalite_to_png(
        json.dumps(spec), vl_version=vega_lite_version(), scale=scale, config=config("light")
    )
    return drawn


@lru_cache(maxsize=1)
def javascript() -> str:
    """Return Vega, Vega-Lite and vega-embed as one script for a page that works offline; about 900 KB.

    Raises:
        MissingPackageError: vl-convert-python is not installed.
    """
    bundle: str = _load("vl_convert").javascript_bundle(vl_version=vega_lite_version())
    return bundle.replace("</script", "<\\/script")


def vega_lite_version() -> str:
    """Return the Vega-Lite version that altair writes, as vl-convert names it: ``v6.4``."""
    version: str = load_altair().SCHEMA_VERSION
    return ".".join(version.split(".")[:2])
