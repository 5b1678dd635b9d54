"""Media types: what a body may be (415), what a reply may be (406), and what stands for what."""

from __future__ import annotations

from typing import Any

import pytest

from semrec_faiss.serve.api.openapi import _PROBLEMS
from semrec_faiss.serve.tallies import STATUSES
from semrec_faiss.serve.wire.media import body_kind, reply_kind
from semrec_faiss.serve.wire.messages import ARROW, JSON, Request
from semrec_faiss.serve.wire.problems import Refused
from semrec_faiss.serve.wire.questions import Explain, Search, Similar

jsonschema_rs = pytest.importorskip("jsonschema_rs")

QUESTION = b'{"title": "m00003", "k": 2}'


def request(**headers: str) -> Request:
    named = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    return Request("POST", "/v1/similar", b"", named, b"1", 0.0)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", JSON),
        ("", JSON),
        ("application/*", JSON),
        (JSON, JSON),
        (ARROW, ARROW),
        (ARROW.upper(), ARROW),
        (f"{ARROW}, {JSON}", ARROW),
        (f"{JSON}, {ARROW}", JSON),
        (f"{ARROW}, */*", ARROW),
        (f"*/*, {ARROW}", ARROW),
        (f"{ARROW};q=0.5, {JSON};q=0.4", ARROW),
        (f"{ARROW};q=0.4, {JSON};Q=0.5", JSON),
        (f"{JSON};q=0, */*", ARROW),
        (f"{ARROW};q=0, */*;q=0.1", JSON),
        (f"{JSON};charset=utf-8; q=1.000", JSON),
        (f'{JSON};v="1;q=0"', JSON),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", JSON),
        ("json", JSON),  # malformed members are passed over …
        ("*/json, ;;, q=1, application/", JSON),
        (f"nonsense, {ARROW}", ARROW),
        (f"{ARROW};q=2", JSON),
    ],
)
def test_the_reply_is_of_the_type_that_is_accepted_most(accept: str, kind: str) -> None:
    assert reply_kind(request(accept=accept), Similar) == kind


@pytest.mark.parametrize("accept", ["text/html", "image/*", f"{JSON};q=0", "*/*;q=0.000", "text/csv, nonsense"])
def test_where_nothing_that_is_offered_is_accepted_the_status_is_406(accept: str) -> None:
    with pytest.raises(Refused, match="answers as application/json or") as caught:
        reply_kind(request(accept=accept), Similar)
    assert caught.value.status == 406


def test_accept_on_several_lines_is_one_list(asker: Any) -> None:
    """Once a fault: the last line alone was read."""
    lines = [("accept", ARROW), ("accept", "text/html;q=0.9"), ("content-type", JSON), ("content-type", JSON)]
    reply = asker.ask("POST", "/v1/similar", content=QUESTION, headers=lines)
    assert (reply.status_code, reply.headers["content-type"]) == (200, ARROW)


def test_an_explanation_is_never_arrow() -> None:
    assert reply_kind(request(accept=f"{ARROW}, {JSON};q=0.1"), Explain) == JSON
    with pytest.raises(Refused, match="application/json"):
        reply_kind(request(accept=ARROW), Explain)


@pytest.mark.parametrize("named", [JSON, "Application/JSON; charset=utf-8", None])
@pytest.mark.parametrize("coding", ["identity", "", None])
def test_a_body_is_json_unless_it_says_otherwise(named: str | None, coding: str | None) -> None:
    headers = {"content_type": named, "content_encoding": coding}
    asked = request(**{name: value for name, value in headers.items() if value is not None})
    assert body_kind(asked, Similar) == JSON


def test_vectors_come_as_arrow_and_titles_do_not() -> None:
    assert body_kind(request(content_type=ARROW), Search) == ARROW
    with pytest.raises(Refused, match="takes application/json") as caught:
        body_kind(request(content_type=ARROW), Similar)
    assert caught.value.status == 415


@pytest.mark.parametrize("path", ["/v1/similar", "/v1/recommend", "/v1/search", "/v1/explain"])
@pytest.mark.parametrize(
    ("headers", "status", "named"),
    [
        ({"content-type": "application/x-www-form-urlencoded"}, 415, "accept"),
        ({"content-type": "text/plain"}, 415, "accept"),
        ({"content-type": JSON, "content-encoding": "gzip"}, 415, "accept-encoding"),
        ({"content-type": JSON, "content-encoding": "identity, br"}, 415, "accept-encoding"),
        ({"content-type": JSON, "accept": "text/html"}, 406, None),
    ],
)
def test_over_http_it_is_a_problem_that_the_document_describes(
    path: str, headers: dict[str, str], status: int, named: str | None, asker: Any
) -> None:
    reply = asker.ask("POST", path, content=QUESTION, headers=headers)
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json")
    assert reply.json()["fix"]
    assert {name for name in ("accept", "accept-encoding") if name in reply.headers} == ({named} if named else set())
    document = asker.get("/openapi.json").json()
    schema = document["paths"][path]["post"]["responses"][str(status)]["content"]["application/problem+json"]["schema"]
    whole = {"components": document["components"], **schema}
    assert jsonschema_rs.validator_for(whole).is_valid(reply.json())


def test_the_types_taken_are_told(asker: Any) -> None:
    reply = asker.ask("POST", "/v1/search", content=b"1,2,3", headers={"content-type": "text/csv"})
    assert reply.headers["accept"] == f"{JSON}, {ARROW}"
    assert reply.json()["detail"] == f"the body's Content-Type is 'text/csv'; /v1/search takes {JSON} or {ARROW}"
    assert reply.json()["fix"] == f"send the header Content-Type: {JSON}"


def test_every_problem_is_described_and_counted() -> None:
    assert {200, *_PROBLEMS} == set(STATUSES)


LONG, SHOWN = "z" * 3000, f"'{'z' * 60}…' (3,000 characters)"
TWICE = f'{{"text": "a", "any_of": {{"{LONG}": ["a"], "{LONG}": ["b"]}}}}'


@pytest.mark.parametrize(
    ("path", "headers", "body", "told"),
    [
        ("/v1/search", {"content-type": LONG}, b"", f"the body's Content-Type is {SHOWN};"),
        ("/v1/search", {"content-encoding": LONG}, b"", f"the body's Content-Encoding is {SHOWN};"),
        (f"/v1/search?{LONG}=1&{LONG}=2", {"content-type": ARROW}, b"", f"the parameter {SHOWN} occurs twice"),
        ("/v1/search", {}, TWICE.encode(), f"the key {SHOWN} occurs twice"),
        ("/v1/search", {"deadline-ms": LONG}, b"{}", f"deadline-ms is {SHOWN};"),
        (f"/v1/{LONG}", {}, b"", f"there is nothing at /v1/{'z' * 476} … (2,024 characters left out) … z"),
    ],
)
def test_of_what_is_long_the_beginning_and_the_length_are_told(
    path: str, headers: dict[str, str], body: bytes, told: str, asker: Any
) -> None:
    """Once cut without a word: a path of 3,000 characters was told as one of 200."""
    reply = asker.ask("POST", path, content=body, headers={"content-type": JSON} | headers)
    assert told in reply.json()["detail"]
