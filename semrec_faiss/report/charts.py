"""Charts by altair: one look in light and dark, and pictures without a browser."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from typing import Any

from semrec_faiss.errors import DeviceError

WIDTH, HEIGHT = 640, 320
"""Pixels of a picture whose chart takes the width of the page."""

COLOURS = ("#3569b2", "#d9791f", "#2f9970", "#b0477c", "#7b62c4", "#4f8796", "#a38421", "#8a5a44")
"""Told apart with colour-blind eyes; charts that name no colours of their own take them in this order …"""

COLOURS_ON_DARK = ("#6fa3ea", "#f0a053", "#5cc79b", "#e07fb0", "#a893ec", "#83bccb", "#d4b757", "#c4937a")
"""… or these, in the dark look."""

_INK = {"light": ("#1f2430", "#5b6472", "#e2e6ec"), "dark": ("#e6e9ef", "#9aa4b2", "#333a46")}


def load_altair() -> Any:
    """Import altair.

    Raises:
        DeviceError: it is not installed.
    """
    return _load("altair")


def _load(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise DeviceError(
            f"{module.replace('_', '-')} is not installed, which charts and pages need ({error})",
            fix="pip install 'semrec-faiss[report]'",
        ) from error


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
    axis = {
        "labelColor": muted, "titleColor": ink, "domainColor": line, "gridColor": line, "tickColor": line,
        "titleFontWeight": 500, "labelFontSize": 11, "titleFontSize": 12, "titlePadding": 10, "labelPadding": 6,
    }  # fmt: skip
    return {
        "background": "transparent" if scheme == "dark" else "#ffffff",
        "font": font,
        "view": {"stroke": None},
        "axis": axis,
        "axisX": {"grid": False},
        "axisY": {"domain": False, "ticks": False},
        "legend": {"labelColor": ink, "titleColor": muted, "labelFontSize": 12, "titleFontSize": 11, "orient": "top",
                   "titleFontWeight": 500, "symbolSize": 90},
        "title": {"color": ink, "subtitleColor": muted, "fontSize": 14, "fontWeight": 600, "anchor": "start"},
        "header": {"labelColor": ink, "titleColor": muted, "labelFontSize": 12, "labelFontWeight": 600},
        "text": {"color": ink, "fontSize": 11},
        "rule": {"color": muted},
        "range": {"category": list(COLOURS if scheme == "light" else COLOURS_ON_DARK)},
        "padding": 8,
        "bar": {"cornerRadiusEnd": 2},
        "line": {"strokeWidth": 2.5},
        "point": {"size": 60, "filled": True, "opacity": 1},
    }  # fmt: skip


def decades(values: Iterable[float]) -> list[float]:
    """Return the powers of ten around positive values: the ticks of a logarithmic axis, whose ends are its domain."""
    exponents = [math.log10(value) for value in values if value > 0] or [0.0]
    first, last = math.floor(min(exponents)), math.ceil(max(exponents))
    return [10.0**exponent for exponent in range(first, max(last, first + 1) + 1)]


def log_ticks(values: Iterable[float]) -> list[float]:
    """Return ticks that enclose positive values: 1, 2 and 5 times powers of ten, the powers alone over two of them."""
    known = [value for value in values if value > 0] or [1.0]
    steps = [factor * power for power in decades(known) for factor in (1.0, 2.0, 5.0)]
    first = max(step for step in steps if step <= min(known) * 1.0001)
    last = min((step for step in steps if step >= max(known) * 0.9999 and step > first), default=2 * first)
    within = [step for step in steps if first <= step <= last]
    return within if last / first <= 100 else decades(known)


def png(chart: Any, *, scale: float = 2.0) -> bytes:
    """Draw a chart in the light look.

    Args:
        chart: an altair chart or a Vega-Lite specification.
        scale: pixels of the picture a pixel of the chart.

    Raises:
        DeviceError: vl-convert-python is not installed.
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
        DeviceError: vl-convert-python is not installed.
    """
    bundle: str = _load("vl_convert").javascript_bundle(vl_version=vega_lite_version())
    return bundle.replace("</script", "<\\/script")


def vega_lite_version() -> str:
    """Return the Vega-Lite version that altair writes, as vl-convert names it: ``v6.4``."""
    version: str = load_altair().SCHEMA_VERSION
    return ".".join(version.split(".")[:2])
