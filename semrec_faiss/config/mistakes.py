"""Pydantic's validation errors, said so that a person can mend the file: place, key, value, nearest known key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from semrec_faiss.arguments import did_you_mean
from semrec_faiss.config.index_types import INDEX_TYPES
from semrec_faiss.config.yaml_source import KeyPath, YamlSource
from semrec_faiss.errors import quoted

_IN_YAML = {
    "path_type": "should be a path",
    "tuple_type": "should be a list, such as [0, 1]",
    "too_short": "should hold at least {min_length}",
    "model_type": "should be a mapping of keys to values",
    "dict_type": "should be a mapping of keys to values",
}
"""What pydantic says in Python's words, by its kind of error."""


def describe_all(mistakes: Sequence[dict[str, Any]], source: YamlSource, root: type[BaseModel]) -> list[str]:
    """Say all of pydantic's errors; that a list is too short is none when its items are at fault."""
    places = [tuple(mistake["loc"]) for mistake in mistakes]
    told = [
        mistake
        for mistake, place in zip(mistakes, places, strict=True)
        if mistake["type"] != "too_short" or not any(other[: len(place)] == place != other for other in places)
    ]
    return [_describe(mistake, source, root) for mistake in told]


def _describe(mistake: dict[str, Any], source: YamlSource, root: type[BaseModel]) -> str:
    """Say where one of pydantic's errors stands, which key it is about and what is wrong with it."""
    model, key = _resolve(tuple(mistake["loc"]), source.values, root)
    name, place = ".".join(map(str, key)), source.where(key)
    if mistake["type"] == "extra_forbidden":
        known = sorted(model.model_fields) if model else []
        listing = f"known here: {', '.join(known)}" if known else "none is known here"
        offer = _nested(key) or did_you_mean(key[-1], known)
        return f"{place}: unknown key {quoted(name)}; {offer}{listing}"
    if mistake["type"].startswith("union_tag"):
        given = mistake["input"]
        kind = given.get("type") if isinstance(given, dict) else given
        types = [known for known in INDEX_TYPES if known != "factory"]
        listing = f'{did_you_mean(kind, types)}known: {", ".join(types)}, or factory: "…"'
        return f"{source.where((*key, 'type'))}: unknown index type {quoted(kind)}; {listing}"
    message = mistake["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    if mistake["type"] in _IN_YAML:
        message = _IN_YAML[mistake["type"]].format_map(mistake.get("ctx", {}))
    got = "" if mistake["type"] in ("value_error", "missing") else f", not {quoted(mistake['input'])}"
    return f"{place}: {name + ': ' if name else ''}{message}{got}"


def _nested(key: KeyPath) -> str:
    """Say how a key is written that stands in the file with dots, as ``--set`` takes it; nothing of another."""
    steps = str(key[-1]).removeprefix("".join(f"{step}." for step in key[:-1])).split(".")
    if len(steps) == 1 or not all(steps):
        return ""
    return f"a file nests keys: `{': {'.join(steps)}: …{'}' * (len(steps) - 1)}`; "


def _resolve(loc: KeyPath, values: dict[str, Any], root: type[BaseModel]) -> tuple[type[BaseModel] | None, KeyPath]:
    """Follow pydantic's location to the model that holds its last key, leaving out the tags of unions."""
    model: type[BaseModel] | None = root
    holder: type[BaseModel] | None = root
    key: KeyPath = ()
    for step in loc:
        if model is None and key == ("index",) and step in INDEX_TYPES:
            model = INDEX_TYPES[str(step)]
            continue
        if model is None and not _has(values, (*key, step)):
            continue  # a branch of a union such as int | None
        if model is not None and isinstance(step, int):  # an item of a list of models, or the one that stands for it
            key = (*key, step) if _has(values, (*key, step)) else key
            continue
        holder = model
        key = (*key, step)
        field = model.model_fields.get(str(step)) if model else None
        model = _model_in(field.annotation) if field else None
    return holder, key


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a field holds, holds a list of, or holds where it is not null."""
    if get_origin(annotation) is tuple:
        annotation = get_args(annotation)[0]
    if type(None) in get_args(annotation):
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _has(values: Any, key: KeyPath) -> bool:
    for step in key:
        if isinstance(values, dict) and step in values:
            values = values[step]
        elif isinstance(values, list) and isinstance(step, int) and step < len(values):
            values = values[int(step)]
        else:
            return False
    return True
