"""What a request brings: too slow, too many names, and Arrow that is not as it should be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import HANG_SECONDS

from semrec_faiss.serve.wire.arrow_messages import refuse_compressed
from semrec_faiss.serve.wire.messages import ARROW, Request
from semrec_faiss.serve.wire.problems import Refused
from semrec_faiss.serve.wire.questions import MOST_FIELDS, MOST_NAMES, Recommend, Similar, question_in

ONE = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(16, np.float32)), 16)
CODED = pa.array(["a", "b", "a"]).dictionary_encode()


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("table", "parameters", "said"),
    [
        (
            pa.Table.from_arrays([ONE, ONE], ["vector", "vector"]),
            "",
            "1 rows of ['vector', 'vector']; rows of one vector",
        ),
        (pa.table({"vector": pa.array([[1.0] * 15 + [None]])}), "", "vectors hold 1 nulls; numbers are expected"),
        (
            pa.table({"vector": pa.array([[1.0] * 15, [1.0] * 15])}),
            "",
            "vectors have [15] dimensions; the index has 16",
        ),
        (pa.table({"vector": ONE}), "?k=3&text=x", "the request has both Arrow vectors and text"),
        (pa.table({"vector": ONE}), "?vectors_base64=AAAA", "the request has both Arrow vectors and vectors_base64"),
    ],
)
def test_arrow_that_says_too_much_or_too_little_is_refused(
    table: pa.Table, parameters: str, said: str, asker: Any
) -> None:
    """Once faults: a column twice was a 500, a null "have [16] dimensions; the index has 16", a text unheard."""
    reply = asker.ask("POST", f"/v1/search{parameters}", content=stream(table), headers={"content-type": ARROW})
    assert (reply.status_code, said in reply.json()["detail"]) == (422, True), reply.text
    assert reply.json()["fix"]


def test_a_parameter_beside_arrow_counts_once_but_for_lists(asker: Any) -> None:
    """Once a fault: of a k given twice the last counted, and no word was said."""
    body = stream(pa.table({"vector": ONE}))
    reply = asker.ask("POST", "/v1/search?k=3&k=5", content=body, headers={"content-type": ARROW})
    assert (reply.status_code, reply.json()["detail"]) == (400, "the parameter 'k' occurs twice")
    reply = asker.ask(
        "POST", "/v1/search?k=3&exclude=m00001&exclude=m00002", content=body, headers={"content-type": ARROW}
    )
    assert [answer["returned"] for answer in reply.json()["answers"]] == [3]


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_compressed_arrow_is_refused_before_it_is_read(compression: str, asker: Any) -> None:
    """Once a fault: 47 kB took 1.5 GB, and held up all callers for six seconds."""
    body = stream(pa.table({"vector": ONE}), compression=compression)
    reply = asker.ask("POST", "/v1/search?k=3", content=body, headers={"content-type": ARROW})
    assert (reply.status_code, reply.headers["accept-encoding"]) == (415, "identity")
    assert reply.json()["detail"] == "the Arrow stream's buffers are compressed; this service takes those that are not"
    assert reply.json()["fix"] == "write it without IpcWriteOptions(compression=...)"


@pytest.mark.parametrize("options", [{}, {"use_legacy_format": True}, {"metadata_version": pa.ipc.MetadataVersion.V4}])
def test_what_is_not_compressed_passes_in_every_format(options: dict[str, Any]) -> None:
    refuse_compressed(stream(pa.table({"vector": [[1.0]], "coded": CODED[:1]}), **options))


def test_a_dictionary_that_is_compressed_is_found_too() -> None:
    messages = list(pa.ipc.MessageReader.open_stream(stream(pa.table({"coded": CODED}), compression="zstd")))
    assert [message.type for message in messages] == ["schema", "dictionary", "record batch"]
    for message in messages[1:]:
        with pytest.raises(Refused, match="are compressed"):
            refuse_compressed(bytes(message.serialize()))


def test_a_stream_with_any_byte_changed_is_refused_or_read() -> None:
    chance = random.Random(3)
    whole = stream(pa.table({"vector": [[1.0, 2.0]], "coded": CODED[:1]}), compression="lz4")
    for _ in range(3000):
        body = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        with contextlib.suppress(Refused, pa.ArrowException, OSError):
            refuse_compressed(bytes(body))


NAMES = tuple(f"{row:x}" for row in range(MOST_NAMES + 1))
NUMBERED = dict.fromkeys(NAMES[: MOST_FIELDS + 1], 1)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (Similar, "exclude", NAMES),
        (Similar, "genres", NAMES[: MOST_FIELDS + 1]),
        (Similar, "not_genres", NAMES[: MOST_FIELDS + 1]),
        (Similar, "any_genres", NAMES[: MOST_FIELDS + 1]),
        (Similar, "any_of", {"title": NAMES}),
        (Similar, "any_of", {name: [1] for name in NUMBERED}),
        (Similar, "ranges", {name: [1, 2] for name in NUMBERED}),
        (Similar, "max_per", NUMBERED),
        (Recommend, "likes", NAMES),
        (Recommend, "dislikes", NAMES),
        (Recommend, "ratings", dict.fromkeys(NAMES, 1)),
        (Recommend, "profile", NUMBERED),
    ],
)
def test_more_names_than_anybody_needs_are_refused_as_the_document_says(
    kind: type[Similar | Recommend], name: str, value: Any, asker: Any
) -> None:
    """Once a fault: 300,000 fields held up all callers for seconds, and a million titles a thread for half a minute."""
    most = MOST_FIELDS if len(value) == MOST_FIELDS + 1 else MOST_NAMES
    path = f"/v1/{kind.__name__.lower()}"
    reply = asker.post(path, {"title": "m00001", name: value} if kind is Similar else {name: value})
    assert (reply.status_code, f"length <= {most}" in reply.json()["detail"]) == (422, True), reply.text
    schema = asker.get("/openapi.json").json()["components"]["schemas"][kind.__name__]["properties"][name]
    inside = schema["additionalProperties"] if value == {"title": NAMES} else schema
    assert inside["maxItems" if "items" in inside else "maxProperties"] == most


def test_as_many_names_as_may_be_are_taken() -> None:
    body = json.dumps({"title": "m00001", "exclude": NAMES[:MOST_NAMES]}).encode()
    question = question_in(Request("POST", "/v1/similar", b"", {}, b"1", 0.0, body), Similar)
    assert question.exclude == NAMES[:MOST_NAMES]


@pytest.mark.parametrize(
    ("path", "question", "as_float"),
    [
        ("similar", {"title": "m00003", "k": 7}, {"k": 7.0}),
        ("similar", {"title": "m00003", "years": [1960, None]}, {"years": [1960.0, None]}),
        ("similar", {"title": "m00003", "k": 30, "max_per": {"year": 2}}, {"max_per": {"year": 2.0}}),
        ("recommend", {"user": "user_003", "profile": {"interests": 3}}, {"profile": {"interests": 3.0}}),
        ("search", {"vectors": [[1] * 16], "k": 20}, {"k": 2e1}),
        ("explain", {"user": "user_003", "title": "m00001", "k": 1}, {"k": 1.0}),
    ],
)
def test_a_whole_number_may_be_written_as_a_float(path: str, question: Any, as_float: Any, asker: Any) -> None:
    """Once a fault: 10.0 was refused, which to JSON, and to the OpenAPI document, is 10."""
    found, same = (asker.post(f"/v1/{path}", asked) for asked in (question, question | as_float))
    assert found.status_code == same.status_code == 200, same.text
    one, other = (re.findall(r'"media_id": ?"\w+"', reply.text) for reply in (found, same))
    assert one == other != []


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 7.5},
        {"k": 1e30},
        {"k": True},
        {"k": "7"},
        {"k": 0.0},
        {"years": [1960.5, None]},
        {"max_per": {"year": 2.5}},
    ],
)
def test_what_is_no_whole_number_is_refused_as_before(wrong: Any, asker: Any) -> None:
    reply = asker.post("/v1/similar", {"title": "m00003"} | wrong)
    assert (reply.status_code, "the request is not as it should be" in reply.json()["detail"]) == (422, True)


@pytest.mark.parametrize("question", [{"title": 7.0}, {"title": "m00001", "exclude": [7.0]}, 1.0, [1.0]])
def test_an_id_is_as_it_is_written(question: Any, asker: Any) -> None:
    assert asker.post("/v1/similar", question).status_code == 422


@pytest.mark.parametrize(("opens", "closes"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("depth", [100, 480, 600, 900, 990, 5000])
def test_what_is_nested_deep_is_refused(opens: str, closes: str, depth: int, asker: Any) -> None:
    """Once a fault: a setting of a profile that was nested some 500 deep was answered by a 500."""
    for name in ("liked", "colour"):
        body = f'{{"user": "user_003", "profile": {{"{name}": {opens * depth}0{closes * depth}}}}}'
        reply = asker.ask("POST", "/v1/recommend", content=body, headers={"content-type": "application/json"})
        assert reply.status_code == 400
        assert re.search("nested too deep|has no setting 'colour'|liked: Input should be", reply.json()["detail"])


@pytest.mark.parametrize("comes", [b"", b'{"title": '])
def test_a_body_that_does_not_come_is_not_waited_for(comes: bytes, asker: Any) -> None:
    """Once a fault: a body that trickled in was waited for without end, whatever the deadline."""
    sent: list[Any] = []
    left = [{"type": "http.request", "body": comes, "more_body": True}] if comes else []

    async def receive() -> Any:
        return left.pop() if left else await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-length", b"100"), (b"deadline-ms", b"30")]
    scope = {"type": "http", "method": "POST", "path": "/v1/similar", "query_string": b"", "headers": headers}
    asker.loop.run_until_complete(asyncio.wait_for(asker.service.app(scope, receive, send), HANG_SECONDS))
    told = dict(sent[0]["headers"])
    assert (sent[0]["status"], told[b"connection"], told[b"content-type"]) == (
        504,
        b"close",
        b"application/problem+json",
    )
    assert b"the body had not come when the request's time was up, after 0.0" in sent[1]["body"]
    assert asker.post("/v1/similar", {"title": "m00001"}).status_code == 200


def test_who_ends_a_request_while_its_body_is_read_ends_it(asker: Any) -> None:
    async def receive() -> Any:
        return await asyncio.get_running_loop().create_future()

    async def ended() -> None:
        scope = {"type": "http", "method": "POST", "path": "/v1/similar", "query_string": b"", "headers": []}
        task = asyncio.create_task(asker.service.app(scope, receive, None))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asker.loop.run_until_complete(ended())


@pytest.mark.parametrize("is_read", [True, False])
def test_who_is_still_sending_when_the_service_ends_is_told(is_read: bool, index: Path, new_asker: Any) -> None:
    """Once a fault: a traceback in the log, and a 500 that said nothing; or of who reads no reply, the traceback."""
    asker, sent = new_asker(index), []
    asker.load()
    asker.service.handlers.is_draining = True

    async def never(*_: Any) -> Any:
        return await asyncio.get_running_loop().create_future()

    async def at_once(*_: Any) -> Any:
        return {"type": "http.request", "body": b'{"title": "m00001"}'}

    async def send(message: Any) -> None:
        sent.append(message)

    async def ended() -> None:
        scope = {"type": "http", "method": "POST", "path": "/v1/similar", "query_string": b"", "headers": []}
        receives, sends = (never, send) if is_read else (at_once, never)
        task = asyncio.create_task(asker.service.app(scope, receives, sends))
        await asyncio.wait([task], timeout=0.1)
        task.cancel()
        await task

    asker.loop.run_until_complete(ended())
    assert [message.get("status") for message in sent] == ([503, None] if is_read else [])
    assert not is_read or b"the service has ended before this was answered" in sent[1]["body"]
