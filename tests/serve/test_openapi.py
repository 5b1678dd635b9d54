"""Each route's request and reply are what the OpenAPI document says of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from semrec_faiss.serve.api.openapi import described
from semrec_faiss.serve.keys import add_key
from semrec_faiss.serve.settings import Limits
from tests.serve.conftest import Asker

jsonschema_rs = pytest.importorskip("jsonschema_rs")

ASKED: dict[tuple[str, str], list[Any]] = {
    ("POST", "/v1/similar"): [
        {"title": "m00003", "k": 4.0, "years": [1960.0, None], "max_per": {"year": 2.0}},
        {"title": "m00003", "k": 4},
        {"titles": ["m00003", "m00004"], "years": [1960, None]},
        {"title": "m00003", "any_of": {"genres": ["Drmaa"]}},
    ],
    ("POST", "/v1/recommend"): [{"user": "user_003"}, {"users": ["user_003"]}, {"likes": ["m00001"], "k": 3}],
    ("POST", "/v1/search"): [{"vectors": [[1.0] * 16], "k": 3}],
    ("POST", "/v1/explain"): [{"user": "user_003", "title": "m00001"}],
    ("GET", "/v1/titles?q=film&k=3"): [None],
    ("GET", "/v1/titles?q=filn&near=true"): [None],
    ("GET", "/v1/index"): [None],
    ("POST", "/v1/reload"): [None],
    ("GET", "/livez"): [None],
    ("GET", "/readyz"): [None],
    ("GET", "/metrics"): [None],
    ("GET", "/openapi.json"): [None],
    ("GET", "/"): [None],
}


@pytest.fixture(scope="module")
def asking(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A service with a key of the role admin, and the header that shows it."""
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    shown = add_key(keys, "tests", "admin")
    asker = Asker(index, keys=keys, limits={"max_k": 50, "max_queries": 30})
    asker.load()
    yield asker, {"authorization": f"Bearer {shown}"}
    asker.close()


@pytest.fixture(scope="module")
def document(asking: Any) -> Any:
    """The OpenAPI document."""
    return asking[0].get("/openapi.json").json()


def fits(document: Any, schema: Any, value: Any) -> bool:
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": document["components"], **schema}
    return jsonschema_rs.validator_for(whole).is_valid(value)


def test_the_document_is_of_its_version_and_names_every_route(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    named = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert named == {(method, path.partition("?")[0]) for method, path in ASKED}


def test_the_document_tells_the_limits() -> None:
    schemas = described(Limits(max_k=50, max_queries=30, max_results=40), has_keys=False)["components"]["schemas"]
    similar, explain = schemas["Similar"], schemas["Explain"]
    assert (similar["properties"]["k"]["maximum"], explain["properties"]["k"]["maximum"]) == (40, 40)
    assert similar["properties"]["titles"]["maxItems"] == 30
    assert (
        similar["description"].endswith("Queries times k are at most 40.")
        and "at most 40" not in explain["description"]
    )


def test_the_document_says_what_each_field_is(document: Any) -> None:
    """Once a fault: of ``where``, ``any_of`` or ``strategy`` it told the names alone."""
    schemas = document["components"]["schemas"]
    silent = [
        f"{kind}.{name}"
        for kind, schema in schemas.items()
        for name, field in schema["properties"].items()
        if not field.get("description")
    ]
    assert silent == []
    assert not [kind for kind, schema in schemas.items() if "Attributes:" in schema["description"]]
    assert schemas["Recommend"]["properties"]["max_per"]["description"].startswith("field → the most titles")
    assert schemas["Explanation"]["properties"]["served_rank"]["description"].endswith("or the index is not exact.")
    assert schemas["Problem"]["properties"]["type"]["description"].startswith("always ``about:blank``")


@pytest.mark.parametrize(("method", "path"), ASKED)
def test_a_routes_request_and_reply_fit_their_schemas(method: str, path: str, asking: Any, document: Any) -> None:
    asker, shown = asking
    operation = document["paths"][path.partition("?")[0]][method.lower()]
    for question in ASKED[method, path]:
        if question is not None:
            assert fits(document, operation["requestBody"]["content"]["application/json"]["schema"], question)
        reply = asker.ask(method, path, json=question, headers=shown)
        kind = reply.headers["content-type"].partition(";")[0]
        content = operation["responses"][str(reply.status_code)]["content"]
        assert (reply.status_code, next(iter(content))) == (200, kind)
        assert fits(document, content[kind]["schema"], reply.json() if kind == "application/json" else reply.text)
        assert {name.lower() for name in operation["responses"]["200"]["headers"]} <= set(reply.headers)


@pytest.mark.parametrize("path", ["/v1/similar", "/v1/recommend", "/v1/search", "/v1/explain"])
@pytest.mark.parametrize(
    "question",
    [
        {},
        {"k": 0, "title": "m00001", "user": "user_001", "vectors": [[1.0] * 16]},
        {"title": "m00001", "user": "user_001", "vectors": [[1.0] * 16], "colour": "red"},
        {"k": 51, "title": "m00001", "user": "user_001", "vectors": [[1.0] * 16]},
        [1],
    ],
)
def test_what_fits_no_schema_is_refused_as_a_problem(path: str, question: Any, asking: Any, document: Any) -> None:
    asker, shown = asking
    responses = document["paths"][path]["post"]["responses"]
    assert not fits(
        document, document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"], question
    )
    reply = asker.post(path, question, headers=shown)
    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/problem+json"
    assert fits(document, responses["422"]["content"]["application/problem+json"]["schema"], reply.json())


@pytest.mark.parametrize("asked", [{"user": "user_003"}, {"users": ["user_003"]}])
@pytest.mark.parametrize("taste", [{"likes": ["m00001"]}, {"dislikes": ["m00001"]}, {"ratings": {"m00001": 5}}])
def test_a_user_has_no_taste_beside(asked: Any, taste: Any, asking: Any, document: Any) -> None:
    """Once a fault: the document let both through, which are refused."""
    asker, shown = asking
    schema = document["paths"]["/v1/recommend"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    for question, status in ((asked | taste, 422), (asked | {name: type(taste[name])() for name in taste}, 200)):
        assert fits(document, schema, question) == (status == 200)
        assert asker.post("/v1/recommend", question, headers=shown).status_code == status
