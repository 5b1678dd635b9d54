"""A report as Markdown, for a repository: tables as GitHub draws them, charts as pictures beside it."""

from __future__ import annotations

from collections.abc import Mapping

from semrec_faiss.report.page.document import Block, Chart, Document, Facts, Section, Table, Text, shown


def markdown_page(document: Document, pictures: Mapping[str, str] | None = None) -> str:
    """Write a document as Markdown.

    Args:
        document: what to say.
        pictures: the path of each chart's picture by the chart's name, relative to the Markdown file; charts without
            one are left out.
    """
    parts = [f"# {_plain(document.title)}", _plain(document.summary)]
    for section in document.sections:
        parts += _section(section, pictures or {})
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: Section, pictures: Mapping[str, str]) -> list[str]:
    blocks = [_block(block, pictures) for block in section.blocks]
    if section.folded is not True:
        return [f"## {_plain(section.title)}", *blocks]
    return [f"<details>\n<summary>{_plain(section.title)}</summary>", *blocks, "</details>"]


def _block(block: Block, pictures: Mapping[str, str]) -> str:
    if isinstance(block, Text):
        return _plain(block.text)
    if isinstance(block, Facts):
        return "\n".join(
            f"- **{_plain(what)}: {_plain(number)}**{_remark(note)}" for what, number, note, _ in block.facts
        )
    if isinstance(block, Table):
        return markdown_table(block)
    return _picture(block, pictures)


def _remark(note: str) -> str:
    return f" – {_plain(note)}" if note else ""


def _picture(chart: Chart, pictures: Mapping[str, str]) -> str:
    return f"![{_plain(chart.caption)}]({pictures[chart.name]})" if chart.name in pictures else ""


def markdown_table(table: Table) -> str:
    """Write a table, its caption above; columns of numbers are aligned to the right."""
    columns = [table.column(position) for position in range(len(table.columns))]
    lines = [[_cell(column.name) for column in columns], ["--:" if column.is_right else "---" for column in columns]]
    lines += [
        [_cell(shown(value, column).text) for value, column in zip(row, columns, strict=True)] for row in table.rows
    ]
    drawn = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{_plain(table.caption)}\n\n{drawn}" if table.caption else drawn


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|").replace("\n", "<br>")


def _plain(text: str) -> str:
    """Keep what titles may hold from being read as markup."""
    for sign in ("\\", "*", "_", "`", "<", "[", "]"):
        text = text.replace(sign, "&lt;" if sign == "<" else f"\\{sign}")
    return text
