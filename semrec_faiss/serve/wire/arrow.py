"""Vectors from requests, and tables in replies: JSON lists, base64 and Arrow streams become float32 arrays."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any
from urllib.parse import parse_qs

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc  # tables load it when they first need it, which would hold up all callers
from numpy.typing import NDArray

from semrec_faiss.errors import quoted
from semrec_faiss.search.answers.answer import Answer
from semrec_faiss.search.answers.batch import Answers
from semrec_faiss.serve.wire.arrow_messages import refuse_compressed
from semrec_faiss.serve.wire.messages import Request
from semrec_faiss.serve.wire.problems import Refused
from semrec_faiss.serve.wire.questions import ONE_OF, Search, misfit

COLUMN = "vector"
_BASE64 = "send the bytes of little-endian float32 numbers, one vector after the other, in base64"
_ARROW = f"send what pyarrow.ipc.new_stream writes of a table with a column {COLUMN} of lists of floats"
_LISTS = ("genres", "any_genres", "not_genres", "exclude")


def vectors_of(question: Search, dim: int) -> NDArray[np.float32] | None:
    """Return the vectors of a JSON question, float32 (queries, dim); None where it has texts.

    Raises:
        Refused: they are of different lengths, or no base64 of whole vectors (422).
    """
    if isinstance(question.vectors, list):
        lengths = {len(vector) for vector in question.vectors}
        if lengths != {dim}:
            raise _other_dimensions(lengths, dim)
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
            return np.asarray(question.vectors, dtype=np.float32)
    if isinstance(question.vectors_base64, str):
        try:
            data = base64.b64decode(question.vectors_base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused(422, f"vectors_base64 is no base64: {error}", fix=_BASE64) from error
        if not data or len(data) % (4 * dim):
            raise Refused(
                422,
                f"vectors_base64 holds {len(data)} bytes; a vector of {dim} dimensions takes {4 * dim} as float32",
                fix=_BASE64,
            )
        return np.frombuffer(data, dtype="<f4").reshape(-1, dim)
    return None


def arrow_question(request: Request, dim: int) -> tuple[Search, NDArray[Any]]:
    """Read an Arrow stream with a column ``vector`` of lists of floats, and what is wanted from the query's parameters.

    Raises:
        Refused: it is no Arrow stream or a parameter occurs twice (400); it is compressed (415); it has no such column,
            or a parameter is not understood or names what is searched once more (422).
    """
    wanted = _wanted(request)
    try:
        refuse_compressed(request.body)
        table = pa.ipc.open_stream(request.body).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Refused(400, f"the body is no Arrow stream: {_first_line(error)}", fix=_ARROW) from error
    if table.column_names.count(COLUMN) != 1 or not table.num_rows:
        raise Refused(
            422,
            f"the Arrow stream has {table.num_rows} rows of {table.column_names}; rows of one {COLUMN} are expected",
            fix=_ARROW,
        )
    column = table.column(COLUMN).combine_chunks()
    kind = column.type
    is_list = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not pa.types.is_floating(kind.value_type) or column.null_count:
        raise Refused(422, f"column {COLUMN} is {kind}; lists of floats, none of them null, are expected", fix=_ARROW)
    values = column.flatten()
    is_fixed = pa.types.is_fixed_size_list(kind)
    lengths = {kind.list_size} if is_fixed else set(pc.unique(column.value_lengths()).to_pylist())
    if lengths != {dim}:
        raise _other_dimensions(lengths, dim)
    if values.null_count:
        raise Refused(422, f"vectors hold {values.null_count} nulls; numbers are expected", fix=_ARROW)
    vectors = values.to_numpy(zero_copy_only=False).reshape(-1, dim)
    return wanted, vectors


def _other_dimensions(lengths: set[int], dim: int) -> Refused:
    detail = f"vectors have {sorted(lengths)} dimensions; the index has {dim}"
    return Refused(422, detail, fix="make them as the vectors of the index's titles were made")


def _wanted(request: Request) -> Search:
    found = parse_qs(request.query.decode("utf-8", "replace"), keep_blank_values=True)
    twice = next((name for name, values in found.items() if len(values) > 1 and name not in _LISTS), None)
    if twice is not None:
        raise Refused(400, f"the parameter {quoted(twice)} occurs twice", fix="send it once")
    given: dict[str, Any] = {name: values if name in _LISTS else values[0] for name, values in found.items()}
    for name in ONE_OF[Search]:
        if name in given:
            raise Refused(422, f"the request has both Arrow vectors and {name}", fix=f"leave {name} out")
    try:
        return msgspec.convert(given, Search, strict=False)
    except msgspec.ValidationError as error:
        raise misfit(request, Search, "the query's parameters are", "?k=10", error) from error


def arrow_stream(found: Answer | Answers) -> bytes:
    """Return answers as an Arrow stream: a row a query and title; how they were found is in the schema's metadata."""
    account = {"requested": found.requested, **found.facts}
    table = found.to_arrow().replace_schema_metadata({"semrec": json.dumps(account)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
