"""The media types of a request's body, and those in which its reply is accepted (RFC 9110, 8.3, 8.4 and 12.5.1)."""

from __future__ import annotations

import re
from functools import lru_cache

from semrec_faiss.errors import quoted
from semrec_faiss.serve.wire.messages import ARROW, JSON, Request
from semrec_faiss.serve.wire.problems import Refused
from semrec_faiss.serve.wire.questions import Explain, Recommend, Search, Similar

TAKEN: dict[type, tuple[str, ...]] = {
    Similar: (JSON,),
    Recommend: (JSON,),
    Search: (JSON, ARROW),
    Explain: (JSON,),
}
"""The types in which a question may come."""

OFFERED: dict[type, tuple[str, ...]] = {
    Similar: (JSON, ARROW),
    Recommend: (JSON, ARROW),
    Search: (JSON, ARROW),
    Explain: (JSON,),
}
"""The types in which it can be answered; the first where the caller does not mind."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_RANGE = re.compile(rf"(\*/\*|(?!\*){_TOKEN}/(?:\*|{_TOKEN}))((?:[ \t]*;[ \t]*(?:{_TOKEN}=(?:{_TOKEN}|\"[^\"]*\"))?)*)")
_QUALITY = re.compile(r";[ \t]*q=([^; \t]*)", re.IGNORECASE)
_WEIGHT = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


def body_kind(request: Request, question: type) -> str:
    """Return the type of a question's body, JSON where none is named; raises Refused (415) for one not taken."""
    coding = request.header("content-encoding").strip().lower() if b"content-encoding" in request.headers else ""
    if coding not in ("", "identity"):
        raise Refused(
            415,
            f"the body's Content-Encoding is {quoted(coding)}; this service takes bodies that are not encoded",
            fix="leave Content-Encoding out, and send the body as it is",
            headers={"accept-encoding": "identity"},
        )
    given = request.headers.get(b"content-type")
    kind = JSON if given is None else _media_type(given)
    if kind not in TAKEN[question]:
        taken = " or ".join(TAKEN[question])
        raise Refused(
            415,
            f"the body's Content-Type is {quoted(kind)}; {request.path} takes {taken}",
            fix=f"send the header Content-Type: {TAKEN[question][0]}",
            headers={"accept": ", ".join(TAKEN[question])},
        )
    return kind


def reply_kind(request: Request, question: type) -> str:
    """Return the type in which the caller would have the answer; raises Refused (406) where none is accepted."""
    given = request.headers.get(b"accept")
    kind = OFFERED[question][0] if given is None else _best(given, OFFERED[question])
    if kind is None:
        offered = " or ".join(OFFERED[question])
        raise Refused(406, f"{request.path} answers as {offered}, which Accept does not allow", fix="leave Accept out")
    return kind


@lru_cache(1024)
def _media_type(value: bytes) -> str:
    return value.decode("latin-1").partition(";")[0].strip().lower()


@lru_cache(1024)
def _best(accept: bytes, offered: tuple[str, ...]) -> str | None:
    """Return the offered type of the greatest weight, of equal ones the first that is named; None where none has any.

    What is malformed is passed over; a header of nothing else is as none.
    """
    ranges = [read for one in accept.decode("latin-1").split(",") if (read := _read(one.strip(" \t"))) is not None]
    if not ranges:
        return offered[0]
    weighed = [(*_weight(kind, ranges), -place, kind) for place, kind in enumerate(offered)]
    weight, *_, kind = max(weighed)
    return kind if weight > 0 else None


def _read(text: str) -> tuple[str, float] | None:
    """Return a media range in lower case, and its weight; None where it is malformed."""
    found = _RANGE.fullmatch(text)
    if found is None:
        return None
    weight = _QUALITY.search(found[2])
    if weight is None:
        return found[1].lower(), 1.0
    return (found[1].lower(), float(weight[1])) if _WEIGHT.fullmatch(weight[1]) else None


def _weight(kind: str, ranges: list[tuple[str, float]]) -> tuple[float, int]:
    """Return what the nearest range gives a type, and before how many others it is named if it is named itself."""
    for near in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        for place, (name, weight) in enumerate(ranges):
            if name == near:
                return weight, len(ranges) - place if near == kind else 0
    return 0.0, 0
