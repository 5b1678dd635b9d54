"""How devices and percentages are named in a report."""

from __future__ import annotations

import re


def device_label(name: str) -> str:
    """Write a device's short name for readers: ``CPU``, ``H100 80GB HBM3``, ``2 × H200``."""
    number = re.search(r"-x(\d+)$", name)
    alone = name[: number.start()] if number else name
    label = alone.upper().replace("-", " ")
    return f"{number[1]} × {label}" if number else label


def one_percent_sign(text: str) -> str:
    """Write percentages in a text the one way of all reports, without a space: ``95%``."""
    return re.sub(r"(?<=\d)[ \u00a0\u202f]%", "%", text)
