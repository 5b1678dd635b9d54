"""Reads YAML files of settings, configs first of all, into their models; every mistake is told with its line."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from semrec_faiss.arguments import names_of, path_of
from semrec_faiss.config.mistakes import describe_all
from semrec_faiss.config.schema import Config
from semrec_faiss.config.yaml_source import YamlSource, refuse_huge_numbers
from semrec_faiss.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def load_config(path: str | PathLike[str] | None, overrides: str | Iterable[str] = ()) -> Config:
    """Read a YAML config file and apply overrides such as ``index.search.nprobe=32``.

    Args:
        path: a file, or the name of a config that semrec ships, such as ``flat``; None takes every key's default.
        overrides: each ``KEY.KEY=VALUE``, the value as YAML; one text is a list of one.

    Raises:
        NotFoundError: there is no such file, and none of that name is shipped.
        ConfigError: it has mistakes; all of them are listed, with file and line.
        UsageError: an override is not of the form KEY=VALUE, or an argument has another type.

    Example:
        >>> from semrec_faiss import load_config
        >>> config = load_config("ivf_flat", ["index.search.nprobe=32"])
        >>> config.index.type, config.index.search.nprobe
        ('ivf_flat', 32)
    """
    source = YamlSource({}) if path is None else YamlSource.read(path_of(path, "the config"), ("index",))
    return _validate(source, names_of(overrides, "overrides"))


def config_from_dict(values: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Validate a mapping with the keys of a config file; see `load_config`."""
    if not isinstance(values, dict):
        raise ConfigError(f"the settings are {type(values).__name__}; a mapping is expected", fix="{'dataset': …}")
    refuse_huge_numbers(values, "the settings")
    return _validate(YamlSource(copy.deepcopy(values)), overrides)


def _validate(source: YamlSource, overrides: Sequence[str]) -> Config:
    _write_out(source)
    for assignment in overrides:
        source.override(assignment)
        _write_out(source)
    return validated(Config, source)


def _write_out(source: YamlSource) -> None:
    """Make `device: cpu` the mapping that it is short for, so that device.gpus can still be set."""
    for section, key in (("dataset", "folder"), ("device", "kind"), ("index", "type")):
        if isinstance(source.values.get(section), str):
            source.values[section] = {key: source.values[section]}


def read_source(path: str | Path | None, overrides: Sequence[str] = (), marks: Collection[str] = ()) -> YamlSource:
    """Read a YAML file of settings and apply overrides such as ``repeats=5``.

    Args:
        path: the file, or the name of one that semrec ships; None starts from nothing.
        overrides: ``KEY=VALUE`` each.
        marks: keys of which a file of this kind has one.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is no YAML.
        UsageError: an override is not of the form KEY=VALUE.
    """
    source = YamlSource({}) if path is None else YamlSource.read(Path(path), marks)
    for assignment in overrides:
        source.override(assignment)
    return source


def validated(model: type[Model], source: YamlSource) -> Model:
    """Make a model of what a file holds, or raise the ConfigError that lists all of its mistakes."""
    try:
        return model.model_validate(source.values)
    except ValidationError as error:
        mistakes = describe_all([dict(mistake) for mistake in error.errors()], source, model)
    raise mistakes_in(source, mistakes, fix=_other_kind(source, model))


def mistakes_in(source: YamlSource, mistakes: Sequence[str], fix: str | None = None) -> ConfigError:
    """Make the error that lists all mistakes of a file."""
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    listing = "\n".join(f"  {mistake}" for mistake in mistakes)
    return ConfigError(f"{count} in {source.path or 'the settings'}:\n{listing}", fix=fix)


_KINDS = {
    "grid": "a sweep, which `semrec sweep` takes",
    "evaluate": "a sweep, which `semrec sweep` takes",
    "index": "an index's config, which `semrec build` takes",
    "personalization": "the questions of a comparison, which `semrec compare --config` takes",
    "monthly_queries": "the prices of a comparison, which `semrec compare --costs` takes",
    "limits": "a service's settings, which `semrec serve --config` takes",
}
"""What a file is for that has one of these keys."""


def _other_kind(source: YamlSource, model: type[BaseModel]) -> str | None:
    """Tell what a file is for, where it has a key that tells another kind from this one, and none of this one's."""
    marks = [key for key in _KINDS if key in source.values]
    if not marks or any(key in model.model_fields for key in marks):
        return None
    return f"the file reads like {_KINDS[marks[0]]}"
