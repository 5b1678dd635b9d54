"""HDF5 read by a process of its own: what the library makes of a damaged file may end that one, and not this one.

    python -m semrec_faiss.data.exchange.hdf5_process FILE

tells what the file holds as a line of JSON, and answers each line ``[name, first, last]`` with a line and the bytes of
these rows. The line of an error is ``{"error": [message, fix]}``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.exchange.formats import AnnVectors, load_h5py, open_hdf5
from semrec_faiss.errors import DataError

ANSWER_S = 120
"""How long the library may take for a block."""

_AGAIN = "copy or download it again"


@dataclass(frozen=True)
class RemoteArray:
    """A dataset that the other process reads; rows are asked for by slices."""

    reader: _Reader
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Return these rows; raises DataError where the file is damaged."""
        first, last, _ = rows.indices(self.shape[0])
        content = self.reader.ask([self.name, first, last])
        return np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])


class _Reader:
    """The other process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def told(self) -> dict[str, Any]:
        """Read a line of the process; raises DataError where that is an error, or the process has ended."""
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline() or "null")
        if answer is None:
            raise DataError(f"{self._path} cannot be read as HDF5: it ends the library that reads it", fix=_AGAIN)
        if "error" in answer:
            raise DataError(answer["error"][0], fix=answer["error"][1])
        return dict(answer)

    def ask(self, question: list[Any]) -> bytes:
        """Return the bytes that the process answers a question with."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with self.limited():
            try:
                self._process.stdin.write(json.dumps(question).encode() + b"\n")
                self._process.stdin.flush()
            except OSError:
                pass  # it has ended: what it tells says so
            size = int(self.told()["bytes"])
            content = self._process.stdout.read(size)
            return content if len(content) == size else bytes(self.told()["bytes"])

    @contextmanager
    def limited(self) -> Iterator[None]:
        """End the process when it takes too long in the block."""
        timer = threading.Timer(ANSWER_S, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def open_guarded(path: Path) -> Iterator[AnnVectors]:
    """Open an HDF5 file in another process; its arrays (n, d) are read by slices of rows.

    Raises:
        DataError: it is damaged, or none of ann-benchmarks.
        MissingPackageError: h5py is missing.
    """
    load_h5py()
    reader = _Reader(path)
    try:
        with reader.limited():
            told = reader.told()
        parts = {
            name: None if part is None else RemoteArray(reader, name, tuple(part[0]), np.dtype(part[1]))
            for name, part in told["parts"].items()
        }
        yield AnnVectors(**parts, distance=told["distance"])
    finally:
        reader.end()


def _serve(path: Path) -> None:
    out = sys.stdout.buffer
    try:
        with open_hdf5(path) as found:
            parts = {name: getattr(found, name) for name in ("train", "test", "neighbors", "distances")}
            shown = {name: None if part is None else [part.shape, part.dtype.str] for name, part in parts.items()}
            _tell(out, {"parts": shown, "distance": found.distance})
            for line in sys.stdin.buffer:
                name, first, last = json.loads(line)
                content = np.ascontiguousarray(parts[name][first:last]).tobytes()
                _tell(out, {"bytes": len(content)}, content)
    except DataError as error:
        _tell(out, {"error": [error.message, error.fix]})
    except Exception as error:  # whatever h5py says of damage
        _tell(out, {"error": [f"{path} cannot be read as HDF5: {error}", _AGAIN]})


def _tell(out: Any, answer: dict[str, Any], content: bytes = b"") -> None:
    out.write(json.dumps(answer).encode() + b"\n" + content)
    out.flush()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
