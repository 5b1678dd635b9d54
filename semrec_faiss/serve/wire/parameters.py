"""The parameters behind a path's question mark."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from urllib.parse import parse_qsl

from semrec_faiss.errors import quoted
from semrec_faiss.serve.wire.messages import Request
from semrec_faiss.serve.wire.problems import Refused


def parameters_of(request: Request, known: Collection[str]) -> dict[str, str]:
    """Return the names and values of a request's parameters.

    Raises:
        Refused: one is none of ``known`` (422), or is given twice (400).
    """
    found: dict[str, str] = {}
    for name, value in parse_qsl(request.query.decode("utf-8", "replace"), keep_blank_values=True):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean {near[0]}?" if near else f"the parameters are {', '.join(known)}"
            raise Refused(422, f"{request.path} has no parameter {name[:100]!r}", fix=fix)
        if name in found:
            raise Refused(400, f"the parameter {quoted(name)} occurs twice", fix="send it once")
        found[name] = value
    return found


def yes_or_no(name: str, text: str) -> bool:
    """Read true or false; raises Refused (422) for anything else."""
    if text not in ("true", "false"):
        raise Refused(422, f"{name} is {text[:20]!r}; true or false is expected", fix=f"{name}=true")
    return text == "true"


def whole_number(name: str, text: str, most: int) -> int:
    """Read a number from 1 to ``most``; raises Refused (422) for anything else."""
    if not (text.isascii() and text.isdecimal() and 1 <= len(text) <= 6 and 1 <= int(text) <= most):
        raise Refused(422, f"{name} is {text[:20]!r}; a whole number from 1 to {most} is expected", fix=f"{name}=10")
    return int(text)
