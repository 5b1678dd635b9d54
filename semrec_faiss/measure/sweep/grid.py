"""A sweep's grid to combinations of settings: the valid ones, and the others with the reason why they are none."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from semrec_faiss.config.index_types import INDEX_TYPES, IndexConfig
from semrec_faiss.config.mistakes import describe_all
from semrec_faiss.config.reading import mistakes_in
from semrec_faiss.config.schema import Config, DeviceConfig
from semrec_faiss.config.yaml_source import KeyPath, YamlSource
from semrec_faiss.measure.trials.plan_record import InvalidOne
from semrec_faiss.measure.trials.trial import describe

LISTS = frozenset({("device", "gpus")})
"""Settings whose value is a list already: alternatives of these are lists of lists."""

SettingValues = dict[str, Any]


@dataclass(frozen=True)
class Combination:
    """One index with one set of search settings on one device, as the grid asks for it."""

    index: IndexConfig
    device: DeviceConfig


@dataclass(frozen=True)
class _Fault:
    """One thing wrong with one combination: the key and value at fault; what to tell of the file, and of this one."""

    at: tuple[KeyPath, str] | None
    message: str
    reason: str


class _EntrySource(YamlSource):
    """Points from the keys of a combination back to the entry of the grid that it was made from."""

    def __init__(self, values: SettingValues, source: YamlSource, entry: int) -> None:
        super().__init__(values, source.path)
        self._source = source
        self._entry = entry

    def where(self, key: KeyPath) -> str:
        """Say where ``key`` stands in the sweep file."""
        inner = key[1:] if key[:1] == ("index",) else key
        return self._source.where(("grid", self._entry, *inner))


def expand(entries: Sequence[SettingValues], source: YamlSource) -> tuple[list[Combination], list[InvalidOne]]:
    """Multiply out every entry of a grid.

    A setting that no combination can have is a mistake in the file; one that some types or devices cannot have makes
    those combinations invalid.

    Returns:
        The valid combinations, in the grid's order, and the others with their reason.

    Raises:
        ConfigError: all mistakes, with file and line.
    """
    valid: list[Combination] = []
    invalid: list[InvalidOne] = []
    mistakes: list[str] = []
    for number, entry in enumerate(entries):
        ours, theirs, wrong = _expand_entry(entry, source, number)
        valid += ours
        invalid += theirs
        mistakes += wrong
    if mistakes:
        raise mistakes_in(source, list(dict.fromkeys(mistakes)))
    invalid = list({(one.what, one.reason): one for one in invalid}.values())
    kept: list[Combination] = []
    for combination in valid:
        if combination in kept:
            invalid.append(
                InvalidOne(what=describe(combination.index, combination.device), reason="the grid names it twice")
            )
        else:
            kept.append(combination)
    return kept, invalid


def _expand_entry(
    entry: SettingValues, source: YamlSource, number: int
) -> tuple[list[Combination], list[InvalidOne], list[str]]:
    config = _as_config(entry)
    if empty := list(_empty(config)):
        where = _EntrySource(config, source, number).where
        return (
            [],
            [],
            [f"{where(key)}: {'.'.join(map(str, key))}: should hold at least 1 alternative, not []" for key in empty],
        )
    combinations = list(_products(config))
    faults = [_faults_of(values, source, number) for values in combinations]
    wrong = Counter(fault.at for found in faults if isinstance(found, list) for fault in found if fault.at)
    tried = Counter(at for values in combinations for at in _leaves(values))
    hopeless = {at for at, count in wrong.items() if count >= max(1, tried[at])}
    valid: list[Combination] = []
    invalid: list[InvalidOne] = []
    mistakes: list[str] = []
    for values, found in zip(combinations, faults, strict=True):
        if isinstance(found, Combination):
            valid.append(found)
            continue
        certain = [fault.message for fault in found if fault.at in hopeless]
        mistakes += certain
        if not certain:
            invalid.append(InvalidOne(what=_as_text(values), reason="; ".join(fault.reason for fault in found)))
    return valid, invalid, mistakes


def _as_config(entry: SettingValues) -> SettingValues:
    """Sort an entry's keys into those of a config's index and device sections."""
    device = entry.get("device")
    kinds = {"kind": device} if device is not None and not isinstance(device, dict) else device or {}
    return {"index": {key: value for key, value in entry.items() if key != "device"}, "device": kinds}


def _products(values: Any, place: KeyPath = ()) -> Iterator[Any]:
    """Yield every way to choose one alternative of each list in ``values``."""
    if isinstance(values, dict):
        choices = [list(_products(value, (*place, key))) for key, value in values.items()]
        for chosen in itertools.product(*choices):
            yield dict(zip(values, chosen, strict=True))
    elif isinstance(values, list) and not (place in LISTS and not any(isinstance(item, list) for item in values)):
        for item in values:
            yield from [item] if place in LISTS else _products(item, place)
    else:
        yield values


def _empty(values: Any, place: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the key of every list without an alternative, from which no combination could be made."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _empty(value, (*place, key))
    elif isinstance(values, list) and not values and place not in LISTS:
        yield place


def _faults_of(values: SettingValues, source: YamlSource, number: int) -> Combination | list[_Fault]:
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        entry = _EntrySource(values, source, number)
        return [_fault(dict(mistake), values, entry) for mistake in error.errors()]
    return Combination(config.index, config.device)


def _fault(mistake: SettingValues, values: SettingValues, source: _EntrySource) -> _Fault:
    place = tuple(mistake["loc"])
    if not place:  # pydantic's whole-config check: the type does not fit the device
        reason = mistake["msg"].removeprefix("Value error, ")
        return _Fault(None, reason, reason)
    message = describe_all([mistake], source, Config)[0]
    if mistake["type"].startswith("union_tag"):
        kind = values["index"].get("type") if isinstance(values["index"], dict) else values["index"]
        return _Fault((("index", "type"), repr(kind)), message, message)
    key = tuple(step for step in place if not (step in INDEX_TYPES and place[0] == "index"))
    while key and not _holds(values, key):  # a branch of a union, such as int
        key = key[:-1]
    reason = message
    if mistake["type"] == "extra_forbidden" and key[0] == "index":
        reason = f"type {values['index'].get('type', 'flat')} has no {'.'.join(map(str, key[1:]))}"
    return _Fault((key, repr(_value(values, key))), message, reason)


def _holds(values: Any, key: KeyPath) -> bool:
    for step in key:
        if not isinstance(values, dict) or step not in values:
            return False
        values = values[step]
    return True


def _value(values: Any, key: KeyPath) -> Any:
    for step in key:
        values = values[step]
    return values


def _leaves(values: Any, place: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Yield every setting of a combination, sections included, with its value."""
    if place:
        yield place, repr(values)
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _leaves(value, (*place, key))


def _as_text(values: SettingValues) -> str:
    device = values["device"]
    parts = dict(values["index"]) | {"device": device.get("kind", "auto") if isinstance(device, dict) else device}
    return ", ".join(f"{key}={_inner(value)}" for key, value in parts.items())


def _inner(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {inner}" for key, inner in value.items()) + "}"
    return str(value)
