"""Texts of a generation, by row and by key: see `semrec_faiss.data.titles.stored`."""

from __future__ import annotations

from collections.abc import Iterable

from semrec_faiss.data.titles.stored import StoredTexts, write_stored
from semrec_faiss.index.generations.generation import Generation, NewGeneration


def write_texts(new: NewGeneration, name: str, texts: Iterable[tuple[bytes, Iterable[str]]]) -> None:
    """Write NAME.jsonl, NAME.index and NAME.lookup; see `write_stored`."""
    with (
        new.create(f"{name}.jsonl") as lines,
        new.create(f"{name}.index") as index,
        new.create(f"{name}.lookup") as lookup,
    ):
        write_stored(texts, lines, index, lookup)


def read_texts(generation: Generation, name: str, count: int) -> StoredTexts:
    """Map what `write_texts` wrote; lines are held against their sums when read, the look-up when it is first used."""
    return StoredTexts(
        generation.mapped(f"{name}.jsonl"),
        generation.mapped(f"{name}.index"),
        lambda: generation.file(f"{name}.lookup"),
        count,
        named=generation.folder / f"{name}.jsonl",
    )
