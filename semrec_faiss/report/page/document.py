"""What a report says, whichever way it is shown: sections of text, facts, tables and charts.

`page.html_page` and `markdown.markdown_page` show the same `Document`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

Value = Union[str, int, float, bool, None, "Cell"]
"""What a table's cell holds. None is shown as a dash; True and False as met and not met."""

Tone = Literal["plain", "good", "bad", "muted"]


@dataclass(frozen=True)
class Cell:
    """A cell that is shown otherwise than it sorts, or that stands out.

    Attributes:
        text: what is shown.
        sort: what a reader sorts it by; the text by default.
        tone: ``good`` and ``bad`` stand out, ``muted`` stands back.
    """

    text: str
    sort: float | str | None = None
    tone: Tone = "plain"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its heading.
        spec: how its numbers are written, as Python's format does: ``,.3f``.
        right: whether it is aligned to the right; by default, whether it has a ``spec``.
        wide: whether it holds sentences or lists, and must keep some width on the page.
        at_most_one: whether its numbers are shares, such as recall: one below 1 is never shown rounded up to 1.
    """

    name: str
    spec: str = ""
    right: bool | None = None
    wide: bool = False
    at_most_one: bool = False

    @property
    def is_right(self) -> bool:
        """Whether it is aligned to the right."""
        return bool(self.spec) if self.right is None else self.right


Columns = list[str | Column]


@dataclass(frozen=True)
class Text:
    """A paragraph; ``tone`` muted is for remarks."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Facts:
    """Few numbers that matter most, each with what it is and a remark.

    Attributes:
        facts: (what, number as text, remark, tone).
    """

    facts: Sequence[tuple[str, str, str, Tone]]


@dataclass(frozen=True)
class Table:
    """A table, sortable on the page.

    Attributes:
        columns: names, or `Column` where more is to be said.
        rows: as many cells as there are columns each.
        caption: said above it.
        name: of the file or anchor it is referred to by; none by default.
    """

    columns: Sequence[str | Column]
    rows: Sequence[Sequence[Value]]
    caption: str = ""
    name: str = ""

    def column(self, position: int) -> Column:
        """Return a column, a bare name made one."""
        given = self.columns[position]
        return given if isinstance(given, Column) else Column(given)


@dataclass(frozen=True)
class Chart:
    """A chart: interactive on the page, a picture in Markdown.

    Attributes:
        name: of its picture's file, without the ending.
        spec: an altair chart, or a Vega-Lite specification.
        caption: what it shows, which is also its description for those who cannot see it.
    """

    name: str
    spec: Any
    caption: str


Block = Text | Facts | Table | Chart


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it.

    Attributes:
        title: the heading.
        blocks: in order.
        folded: whether it opens on a click; ``narrow`` on a narrow screen only.
    """

    title: str
    blocks: Sequence[Block]
    folded: bool | Literal["narrow"] = False


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        title: its name.
        summary: a sentence or two under the title.
        sections: in order.
    """

    title: str
    summary: str
    sections: Sequence[Section]

    def charts(self) -> list[Chart]:
        """Return every chart, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Chart)]


def shown(value: Value, column: Column) -> Cell:
    """Turn what a table holds into what is shown and sorted by."""
    if isinstance(value, Cell):
        return value
    if value is None:
        return Cell("–", tone="muted")
    if isinstance(value, bool):
        return Cell("✓", 1.0, "good") if value else Cell("✗", 0.0, "bad")
    if isinstance(value, (int, float)):
        written = below_one(value, column.spec) if column.at_most_one else format(value, column.spec)
        return Cell(written, float(value))
    return Cell(value)


def below_one(value: float, spec: str) -> str:
    """Format a number that is 1 at best; one that is less and would be rounded up becomes ``> 0.999``."""
    written = format(value, spec)
    if value >= 1 or written != format(1.0, spec):
        return written
    digits = int(spec.rstrip("f%").rpartition(".")[2])
    step = 10.0 ** -(digits + (2 if spec.endswith("%") else 0))
    return f"> {format(1 - step, spec)}"
