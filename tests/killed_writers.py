"""Kills a writer before each change that it makes to the disk, and looks at what is left; run by test_storage.py.

    python killed_writers.py HOW FOLDER

Prints one JSON list: for every kill, what lay in the place, and what lay in FOLDER after the same writer ran again.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss import storage
from semrec_faiss.data.text import embed

CHANGES = frozenset(("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "os.truncate"))


def killed_before(number: int, work: Callable[[], object]) -> bool:
    """Run ``work`` in a fork that kills itself before its ``number``-th change; whether it came to that."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if event in CHANGES or writes:
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def write_folder(place: Path) -> None:
    with storage.new_folder(place) as folder:
        (folder / "a").write_text("new")
        (folder / "b").write_text("new")


def write_file(place: Path) -> None:
    with storage.new_file(place) as file:
        file.write(b"new")


class _Encoder:
    device, batch_size = "cpu", 4

    def __init__(self, sign: float) -> None:
        self._sign = sign

    def encode(self, texts: Any) -> Any:
        return np.full((len(texts), 3), self._sign, np.float32)


def embedded(place: Path, fields: tuple[str, ...] = ()) -> None:
    encoder: Any = _Encoder(-1.0 if fields else 1.0)
    embed.embed_folder(place, model="made up", fields=fields, block_rows=4, overwrite=True, encoder=encoder)


def content(place: Path) -> Any:
    """What a reader sees: None where there is nothing."""
    if place.is_file():
        return place.read_text()
    if (place / "media").is_dir():
        vectors = place / "media" / "content_vectors.npy"
        return float(np.sign(np.load(vectors)[0, 0])) if vectors.is_file() else None
    return sorted(f"{path.name} {path.read_text()}" for path in place.iterdir()) if place.is_dir() else None


def remains(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def prepared(how: str, folder: Path) -> Path:
    """Lay out what stood there before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    place = folder / "place"
    if how == "file":
        place.write_text("old")
    elif how.startswith("folder"):
        place.mkdir()
        (place / "a").write_text("old")
    else:
        (place / "media").mkdir(parents=True)
        lines = [json.dumps({"media_id": str(row), "title": f"Film {row}", "note": "x"}) + "\n" for row in range(10)]
        (place / "media" / "metadata.jsonl").write_text("".join(lines))
        embedded(place)
    return place


def main() -> None:
    """Kill at every change until the writer gets through."""
    how, folder = sys.argv[1], Path(sys.argv[2]) / "work"
    if how == "folder-in-two-steps":
        storage.exchange = lambda one, other: False
    writers: dict[str, Callable[[Path], None]] = {
        "file": write_file,
        "embed": lambda place: embedded(place, ("note",)),
        "embed-then-other": lambda place: embedded(place, ("note",)),
    }
    write = writers.get(how, write_folder)
    again = embedded if how == "embed-then-other" else write
    outcomes = []
    for number in range(1, 200):
        place = prepared(how, folder)
        if not killed_before(number, lambda: write(place)):  # noqa: B023 - called at once
            break
        found = content(place)
        again(place)
        outcomes.append({"killed": found, "again": content(place), "files": remains(folder)})
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
