"""How numbers are written in a report."""

from __future__ import annotations

from semrec_faiss.report.page.document import Cell, below_one


def as_ms(value: float | None) -> str:
    """Write milliseconds with about three figures: ``0.0422 ms``, ``0.262 ms``, ``14.7 ms``, ``1,250 ms``."""
    return "–" if value is None else f"{_figures(value)} ms"


def as_qps(value: float | None) -> str:
    """Write queries per second: ``702,104/s``."""
    return "–" if value is None else f"{value:,.0f}/s"


def as_gb(value: float | None) -> str:
    """Write gigabytes of 10⁹ bytes, small ones as megabytes: ``1.71 GB``, ``6.7 MB``."""
    if value is None:
        return "–"
    return f"{value:,.2f} GB" if value >= 1 else f"{value * 1e3:,.1f} MB"


def as_share(value: float | None) -> str:
    """Write a share: ``96%``, ``99.95%``, and ``> 99.99%`` for what would be rounded up to all."""
    if value is None:
        return "–"
    percent = 100 * value
    if 99.99 < percent < 100:
        return "> 99.99%"
    return f"{percent:.0f}%" if abs(percent - round(percent)) < 0.005 else f"{percent:.2f}%"


def as_recall(value: float | None, digits: int = 4) -> str:
    """Write a recall, or another number that is 1 at best: ``0.9998``; ``> 0.999`` rather than 1 that is none."""
    return "–" if value is None else below_one(value, f".{digits}f")


def as_times(value: float | None) -> str:
    """Write a ratio: ``81 ×``, ``2.4 ×``."""
    if value is None:
        return "–"
    return f"{value:,.0f} ×" if value >= 20 else f"{value:.1f} ×" if value >= 2 else f"{value:.2f} ×"


def as_change(value: float) -> str:
    """Write a relative change: ``+3.6%``, ``-0.2%``, and ``0.0%`` without a sign."""
    written = f"{value:+.1%}"
    return "0.0%" if written in ("-0.0%", "+0.0%") else written


def as_money(value: float | None, currency: str) -> str:
    """Write an amount, parts of a unit with two figures: ``1,408.00 USD``, ``0.0017 USD``."""
    if value is None:
        return "–"
    return f"{value:,.2f} {currency}" if value >= 1 else f"{value:.2g} {currency}"


def as_unit(value: float | None, unit: str) -> str:
    """Write a criterion's number in its unit."""
    written = {"ms": as_ms, "qps": as_qps, "gb": as_gb, "share": as_share, "x": as_times}
    if value is None or unit in written:
        return written.get(unit, as_ms)(value)
    return f"{value:,.0f}" if unit == "count" else below_one(value, ".3f")


def status(met: bool | None) -> Cell:
    """Say whether a criterion is met."""
    if met is None:
        return Cell("not measured", -1.0, "muted")
    return Cell("✓ met", 1.0, "good") if met else Cell("✗ not met", 0.0, "bad")


def _figures(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 1:
        return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return f"{value:.3f}" if value >= 0.1 or value <= 0 else f"{value:.3g}"
