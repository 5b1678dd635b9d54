"""The OpenAPI 3.1 document, made of the types that requests are decoded with and replies are described by."""

from __future__ import annotations

from typing import Any

import msgspec

from semrec_faiss._version import __version__
from semrec_faiss.search.explanation import Contribution, Explanation
from semrec_faiss.serve.api.descriptions import describe
from semrec_faiss.serve.api.handlers import MOST_TITLES
from semrec_faiss.serve.api.replies import (
    FoundTitles,
    IndexFacts,
    Liveness,
    OneAnswer,
    Readiness,
    Refused,
    SeveralAnswers,
    ShardState,
    Taken,
    TitleRecord,
    TitleResult,
)
from semrec_faiss.serve.settings import Limits
from semrec_faiss.serve.wire.messages import ARROW, JSON, PROBLEM
from semrec_faiss.serve.wire.problems import Problem
from semrec_faiss.serve.wire.questions import ONE_OF, TASTE, Explain, Recommend, Search, Similar

Json = dict[str, Any]


_TYPES = (
    Similar,
    Recommend,
    Search,
    Explain,
    OneAnswer,
    SeveralAnswers,
    Explanation,
    FoundTitles,
    IndexFacts,
    Readiness,
    Liveness,
    Taken,
    Problem,
)

_KINDS = (*_TYPES, TitleRecord, TitleResult, Refused, ShardState, Contribution)
"""Those and what they are made of."""

_PROBLEMS = {
    400: "A request that can never work, or a text where the index's model is not on the server.",
    401: "No key, or one that nobody holds.",
    403: "A key that does not allow this, or another host's name.",
    404: "No such title or user, of which candidates names the nearest.",
    405: "Another method.",
    406: "Accept names no type in which this is answered.",
    413: "A body over the limit.",
    415: "A body of a type or an encoding that is not taken; Accept or Accept-Encoding names those that are.",
    422: "A body of another shape, or over a limit.",
    429: "Too many questions wait; ask again after Retry-After seconds.",
    500: "A mistake in semrec.",
    501: "A package that the service lacks.",
    503: "Not ready, or the device or the disk refuses.",
    504: "The answer was not ready in time.",
}


def openapi_document(limits: Limits, *, has_keys: bool) -> bytes:
    """Return the document of a service with these limits, as JSON."""
    return msgspec.json.encode(described(limits, has_keys=has_keys))


def described(limits: Limits, *, has_keys: bool) -> Json:
    """Return the document; what it says of requests is what is held against them."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    describe(schemas, _KINDS)
    _limit(schemas, limits)
    answer = {"oneOf": [_ref("OneAnswer"), _ref("SeveralAnswers")]}
    vectors = {"schema": {"type": "string", "format": "binary", "description": _VECTORS}}
    paths: dict[str, Json] = {
        "/v1/similar": {"post": _question("similar", "Titles like a title.", "Similar", answer)},
        "/v1/recommend": {"post": _question("recommend", "Titles for users, or for a taste.", "Recommend", answer)},
        "/v1/search": {"post": _question("search", "Titles near to a text or to vectors.", "Search", answer)},
        "/v1/explain": {"post": _question("explain", "Why a title is recommended.", "Explain", _ref("Explanation"))},
        "/v1/titles": {"get": _read("titles", "Titles as one types.", "FoundTitles", _TYPED)},
        "/v1/index": {"get": _read("index", "What the index holds.", "IndexFacts", [_DEADLINE])},
        "/v1/reload": {"post": _read("reload", "Take the generation that is published now.", "Taken")},
        "/livez": {"get": _read("livez", "Whether the process runs.", "Liveness", secured=False)},
        "/readyz": {"get": _read("readyz", "Whether questions are answered.", "Readiness", secured=False)},
        "/metrics": {"get": _text("metrics", "For Prometheus.", "text/plain", secured=True)},
        "/openapi.json": {"get": _text("openapi", "This document.", JSON)},
        "/": {"get": _text("page", "A page to look at.", "text/html")},
    }
    for path in ("similar", "recommend", "search"):
        paths[f"/v1/{path}"]["post"]["responses"]["200"]["content"][ARROW] = {
            "schema": {"type": "string", "format": "binary"}
        }
    paths["/v1/search"]["post"]["requestBody"]["content"][ARROW] = vectors
    paths["/readyz"]["get"]["responses"]["503"] = {
        "description": "Not ready.",
        "content": {JSON: {"schema": _ref("Readiness")}},
    }
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": "semrec serve", "version": __version__, "description": "Titles from a vector index."},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if has_keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    else:
        for operations in paths.values():
            for operation in operations.values():
                operation.pop("security", None)
    return document


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _limit(schemas: Json, limits: Limits) -> None:
    """Write the service's limits, and which fields exclude each other, into the schemas of questions."""
    for kind in (Similar, Recommend, Search, Explain):
        schema = schemas[kind.__name__]
        properties = schema["properties"]
        properties["k"]["maximum"] = min(limits.max_k, limits.max_results)
        lists = [properties[name] for name in ("titles", "users", "texts", "vectors") if name in properties]
        for several in lists:
            several["maxItems"] = min(limits.max_queries, limits.max_results)
        if lists:
            schema["description"] += f"\n\nQueries times k are at most {limits.max_results}."
    for question, names in ONE_OF.items():
        alone = [name for name in names if name not in TASTE]
        choices: list[Json] = [{"required": [name]} for name in alone]
        if len(alone) < len(names):
            tasted: Json = {"anyOf": [_not_empty(name) for name in TASTE]}
            choices = [choice | {"not": tasted} for choice in choices]
            choices.append(tasted | {"not": {"anyOf": [{"required": [name]} for name in alone]}})
        schemas[question.__name__]["oneOf"] = choices


def _not_empty(name: str) -> Json:
    least = "minProperties" if name == "ratings" else "minItems"
    return {"required": [name], "properties": {name: {least: 1}}}


_DEADLINE: Json = {
    "name": "Deadline-Ms",
    "in": "header",
    "required": False,
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    "description": "after how many milliseconds the answer is no longer wanted; at most the service's own limit",
}

_VECTORS = (
    "a column `vector` of lists of floats; k, where, genres, any_genres, not_genres, exclude (these four as often as"
    " there are values), diversity and strategy stand behind the question mark of the path"
)

_TYPED: list[Json] = [
    _DEADLINE,
    {"name": "q", "in": "query", "required": False, "schema": {"type": "string"}, "description": "what was typed"},
    {
        "name": "k",
        "in": "query",
        "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST_TITLES, "default": 10},
        "description": "how many",
    },
    {
        "name": "near",
        "in": "query",
        "required": False,
        "schema": {"type": "boolean", "default": False},
        "description": "where none begins so or holds it, find those that look like it",
    },
]


def _header(description: str, kind: str = "string") -> Json:
    return {"description": description, "schema": {"type": kind}}


def _responses(content: Json, *, by_index: bool = True) -> Json:
    named = {"X-Request-Id": _header("by which the log knows the request; it is that of the request, where it has one")}
    generation = {"Semrec-Generation": _header("which generation of the index answered")} if by_index else {}
    again = {"Retry-After": _header("in how many seconds to ask again", "integer")}
    found: Json = {"200": {"description": "As asked.", "headers": named | generation, "content": content}}
    for status, description in _PROBLEMS.items():
        found[str(status)] = {
            "description": description,
            "headers": named | again if status in (429, 503) else named,
            "content": {PROBLEM: {"schema": _ref("Problem")}},
        }
    return found


def _question(name: str, summary: str, kind: str, answer: Json) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "security": [{"key": []}],
        "parameters": [_DEADLINE],
        "requestBody": {"required": True, "content": {JSON: {"schema": _ref(kind)}}},
        "responses": _responses({JSON: {"schema": answer}}),
    }


def _read(name: str, summary: str, kind: str, parameters: list[Json] | None = None, *, secured: bool = True) -> Json:
    operation: Json = {
        "operationId": name,
        "summary": summary,
        "parameters": parameters or [],
        "responses": _responses({JSON: {"schema": _ref(kind)}}, by_index=secured),
    }
    return operation | ({"security": [{"key": []}]} if secured else {})


def _text(name: str, summary: str, kind: str, *, secured: bool = False) -> Json:
    operation: Json = {
        "operationId": name,
        "summary": summary,
        "responses": _responses({kind: {"schema": {"type": "object" if kind == JSON else "string"}}}, by_index=False),
    }
    return operation | ({"security": [{"key": []}]} if secured else {})
