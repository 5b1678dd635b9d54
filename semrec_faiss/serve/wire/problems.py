"""Errors as problem documents (RFC 9457): what is wrong, the fix, the right status, never a traceback."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

import msgspec

from semrec_faiss.arguments import did_you_mean
from semrec_faiss.deadline import TooLateError
from semrec_faiss.errors import (
    DamagedIndexError,
    DataError,
    DeviceError,
    MissingModelError,
    MissingPackageError,
    NotFoundError,
    SemrecError,
    StorageError,
    UsageError,
    quoted,
    told_shortly,
)
from semrec_faiss.serve.wire.messages import PROBLEM, Reply


class Problem(msgspec.Struct, omit_defaults=True, rename={"kind": "type"}):
    """A problem document.

    Attributes:
        kind: always ``about:blank``: the status says what kind it is.
        title: the status in words.
        status: the HTTP status.
        detail: what is wrong, with the value and the limit.
        fix: what to do about it.
        candidates: the nearest names that do exist, best first.
        media_ids: of these, where they are titles.
        request_id: by which the log knows the request.
    """

    kind: str
    title: str
    status: int
    detail: str
    fix: str | None = None
    candidates: list[str] | None = None
    media_ids: list[str] | None = None
    request_id: str | None = None


class Refused(Exception):  # noqa: N818 - a reply as much as an error
    """A request that is answered with a problem."""

    def __init__(
        self, status: int, detail: str, *, fix: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = told_shortly(detail)
        self.fix = fix
        self.headers = headers or {}


def unknown(detail: str, name: str, listing: str, known: Sequence[str]) -> Refused:
    """Return what is said of a name that there is not: which is nearest, and which there are."""
    return Refused(422, f"{detail} {quoted(name)}", fix=did_you_mean(name, known) + listing)


_STATUS: tuple[tuple[type[SemrecError], int], ...] = (
    (TooLateError, 504),
    (MissingModelError, 400),
    (NotFoundError, 404),
    (UsageError, 400),
    (DataError, 422),
    (DamagedIndexError, 503),
    (DeviceError, 503),
    (StorageError, 503),
    (MissingPackageError, 501),
)

_MENDED_THERE = (MissingModelError, MissingPackageError, DamagedIndexError, DeviceError, StorageError)
"""Whoever asks can mend none of these, however often: the fix is for the machine that the service runs on."""


def without_path(text: str, index: Path) -> str:
    """Write INDEX for the path of the index: whoever asks is told nothing of the machine's disk."""
    paths = {str(path) for path in (index, index.absolute(), index.resolve())}
    for path in sorted(paths, key=len, reverse=True):
        if "/" in path:  # a folder's bare name may be any word
            text = text.replace(path, "INDEX")
    return text


def reply_to(error: BaseException, request_id: str | None, index: Path) -> Reply:
    """Return the reply to what a handler raised; what nobody foresaw is a 500 that tells nothing of itself."""
    headers: dict[str, str] = {}
    candidates: list[str] | None = None
    media_ids: list[str] | None = None
    if isinstance(error, Refused):
        status, detail, fix, headers = error.status, error.detail, error.fix, error.headers
    elif isinstance(error, SemrecError):
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        detail = without_path(error.message, index)
        fix = None if error.fix is None else without_path(error.fix, index)
        if fix is not None and isinstance(error, _MENDED_THERE):
            fix = f"for whoever runs the service: {fix}"
        candidates = list(error.candidates) or None
        if isinstance(error, NotFoundError):
            media_ids = list(error.media_ids) or None
    else:
        status, detail = 500, "this is a mistake in semrec; the log of the service holds more under the request's id"
        fix = None
    if status == 503:
        headers.setdefault("retry-after", "1")
    document = Problem("about:blank", HTTPStatus(status).phrase, status, detail, fix, candidates, media_ids, request_id)
    body = msgspec.json.encode(document).decode("utf-8", "replace").encode()
    return Reply(body, status, PROBLEM, headers)
