"""What a command prints to: streams that are closed, or lack a character, and a full stderr stop no work."""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

_SPELLED_OUT, _SPELLED_SOMEHOW = "semrec-spelled-out", "semrec-spelled-somehow"
_SIGNS = dict(zip("✓✗–—…·×→←≥≤±√„“”‘’•█", '+x--.-x><><~v"""\'\'*#', strict=True)) | {"…": "..."}
"""What stands for the signs that our own tables and messages hold, where an encoding lacks them."""


def open_closed_streams() -> None:
    """Open to nowhere what this process was started without: ``semrec … >&-`` works, and prints nothing."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (until the process ends)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    codecs.register_error(_SPELLED_OUT, _spelled_out)
    codecs.register_error(_SPELLED_SOMEHOW, _spelled_somehow)
    for stream, spelled in ((sys.stdout, _SPELLED_OUT), (sys.stderr, _SPELLED_SOMEHOW)):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=spelled)
    sys.stderr = _that_stops_nothing(sys.stderr)


class _Unheard(io.FileIO):
    """A file that takes what the system refuses, on a full disk or to a closed pipe, and forgets it."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _that_stops_nothing(stream: TextIO) -> TextIO:
    """Return a stream to the same file that loses what cannot be written: what goes to stderr is no result."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if type(raw) is not io.FileIO:  # Windows' console has a class of its own
        return stream
    unheard = io.BufferedWriter(_Unheard(raw.fileno(), "w", closefd=False))
    return io.TextIOWrapper(unheard, stream.encoding, stream.errors, line_buffering=True)


def _spelled_out(error: UnicodeError) -> tuple[str, int]:
    """Spell characters that the terminal's encoding lacks in ASCII, as an error handler of `codecs`; not what is none.

    Bytes that are no text, as in names of files, are no result to print.
    """
    if isinstance(error, UnicodeEncodeError):
        text = error.object[error.start : error.end]
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UnicodeEncodeError("utf-8", text, 0, len(text), "surrogates not allowed")
    return _spelled_somehow(error)


def _spelled_somehow(error: UnicodeError) -> tuple[str, int]:
    """Spell all characters, as `_spelled_out` does, and with a question mark what is none: an error has to be told."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_SIGNS.get(character) or _plainer(character) for character in text), error.end


def _plainer(character: str) -> str:
    kept = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return kept or ("" if unicodedata.combining(character) else "?")
