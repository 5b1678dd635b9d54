"""Titles as files of metadata, for tests of catalogues and of names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semrec_faiss.data.titles.catalog import Catalog

Entry = dict[str, Any]


def write_lines(path: Path, lines: Sequence[str | bytes], end: bytes = b"\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + end for line in lines))
    return path


def catalog_of(folder: Path, entries: Sequence[Entry]) -> Catalog:
    return Catalog.read(write_lines(folder / "metadata.jsonl", [json.dumps(entry) for entry in entries]))


def titled(*titles: str, **more: Sequence[Any]) -> list[Entry]:
    columns = [dict(zip(more, values, strict=True)) for values in zip(*more.values(), strict=True)] or [{}] * len(
        titles
    )
    return [{"media_id": f"m{n}", "title": title, **columns[n]} for n, title in enumerate(titles)]
