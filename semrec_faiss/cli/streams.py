"""What a command prints to: streams that are closed, or whose encoding lacks a character, stop no work."""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata
from pathlib import Path

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
