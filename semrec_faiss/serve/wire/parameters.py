"""The parameters behind a path's question mark."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qsl

from semrec_faiss.errors import quoted
from semrec_faiss.serve.wire.messages import Request
from semrec_faiss.serve.wire.problems import Refused, unknown


def parameters_of(request: Request, known: Sequence[str]) -> dict[str, str]:
    """Return the names and values of a request's parameters.

    Raises:
        Refused: one is none of ``known`` (422), or is given twice (400).
    """
    found: dict[str, str] = {}
    for name, value in parse_qsl(request.query.decode("utf-8", "replace"), keep_blank_values=True):
        if name not in known:
            raise unknown(f"{request.path} has no parameter", name, f"parameters: {', '.join(known)}", known)
        if name in found:
            raise Refused(400, f"the parameter {quoted(name)} occurs twice", fix="send it once")
        found[name] = value
    return found


def yes_or_no(name: str, text: str) -> bool:
    """Read true or false; raises Refused (422) for anything else."""
    if text not in ("true", "false"):
        raise Refused(422, f"{name} is {quoted(text)}; true or false is expected", fix=f"{name}=true")
    return text == "true"


def whole_number(name: str, text: str, most: int) -> int:
    """Read a number from 1 to ``most``; raises Refused (422) for anything else."""
    if not (text.isascii() and text.isdecimal() and 1 <= len(text) <= 6 and 1 <= int(text) <= most):
        raise Refused(422, f"{name} is {quoted(text)}; a whole number from 1 to {most} is expected", fix=f"{name}=10")
    return int(text)
