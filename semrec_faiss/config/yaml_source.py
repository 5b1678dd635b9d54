"""YAML with the line of every key, so that an error about a setting can point at it."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from semrec_faiss.config.shipped import find_config
from semrec_faiss.errors import ConfigError, UsageError, quoted
from semrec_faiss.storage import read_small

KeyPath = tuple[str | int, ...]

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_OCTAL = re.compile("[-+]?0[0-9_]+")

MOST_KEYS = 10_000
"""More than any config has: aliases of aliases can unfold without end."""


class YamlSource:
    """A YAML mapping, where each of its keys stands, and which of them a command-line override set.

    Attributes:
        path: the file that was read, or None for a mapping given directly.
        values: the mapping, overrides applied.
    """

    def __init__(
        self, values: dict[str, Any], path: Path | None = None, lines: dict[KeyPath, int] | None = None
    ) -> None:
        self.values = values
        self.path = path
        self._lines = lines or {}
        self._overridden: dict[KeyPath, str] = {}

    @classmethod
    def read(cls, path: Path, marks: Collection[str] = ()) -> YamlSource:
        """Read a YAML file whose top level is a mapping; see `find_config` for what ``path`` and ``marks`` may be.

        Raises:
            NotFoundError: there is no such file, and none of that name is shipped.
            ConfigError: it is not YAML, not a mapping, gives a key twice, or a number that is read as another one.
        """
        path = find_config(path, marks)
        try:
            values, lines = _parsed(read_small(path).decode("utf-8-sig"), path)
        except ConfigError:
            raise
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
        except yaml.MarkedYAMLError as error:
            raise ConfigError(_told(path, error)) from error
        except Exception as error:  # PyYAML raises nearly every kind for values that do not fit their tag
            raise ConfigError(f"{path} is not valid YAML: {error}") from error
        if not isinstance(values, dict):
            found = "is empty" if values is None else f"holds {quoted(values)}"
            raise ConfigError(f"{path} {found}; a mapping of keys to values is expected")
        return cls(values, path, lines)

    def override(self, assignment: str) -> None:
        """Apply ``a.b.c=value``, the value read as YAML.

        Raises:
            UsageError: the text is not of that form, or goes through a value that has no keys.
        """
        keys, equals, text = assignment.partition("=")
        steps = tuple(keys.strip().split("."))
        if not equals or not all(steps):
            raise UsageError(
                f"--set {quoted(assignment)} is not of the form KEY.KEY=VALUE",
                fix="for example: --set index.search.nprobe=32",
            )
        try:
            value, _ = _parsed(text, Path("--set"))
        except ConfigError as error:
            raise UsageError(error.message) from error
        except Exception as error:  # as above
            shown = quoted(assignment)
            raise UsageError(f"--set {shown}: the value is not valid YAML: {type(error).__name__}: {error}") from error
        place = self.values
        for depth, step in enumerate(steps[:-1], start=1):
            inner = place.get(step)
            if inner is None:
                inner = place[step] = {}
                self._overridden[steps[:depth]] = "--set"
            if not isinstance(inner, dict):
                raise UsageError(
                    f"--set {quoted(assignment)}: {'.'.join(steps[:depth])} is {quoted(inner)},"
                    " which has no keys inside"
                )
            place = inner
        place[steps[-1]] = value
        self._overridden[steps] = "--set"

    def put(self, key: str, value: Any, *, within: str | None = None) -> None:
        """Set a key, or one ``within`` a section that is a mapping or not there, as the option of its name says."""
        place = self.values if within is None else self.values.setdefault(within, {})
        place[key] = value
        self._overridden[(key,) if within is None else (within, key)] = f"--{key.replace('_', '-')}"

    def where(self, key: KeyPath) -> str:
        """Say where ``key`` was set: ``file.yaml:12``, ``--set``, ``--port``, or the nearest enclosing key's place."""
        for length in range(len(key), 0, -1):
            if (option := self._overridden.get(key[:length])) is not None:
                return option
            if key[:length] in self._lines:
                return f"{self.path}:{self._lines[key[:length]]}"
        return str(self.path) if self.path else "config"


def _parsed(text: str, path: Path) -> tuple[Any, dict[KeyPath, int]]:
    """Return what a YAML text says and the line of every key; it is measured before aliases are unfolded."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    lines: dict[KeyPath, int] = {}
    if node is not None:
        _record_lines(node, (), lines, path, ())
    values = yaml.safe_load(text)
    refuse_huge_numbers(values, str(path))
    return values, lines


def refuse_huge_numbers(values: Any, name: str) -> None:
    """Refuse integers beyond 64 bits, which no setting takes and Python does not even print; raises ConfigError."""
    waiting: list[tuple[KeyPath, Any]] = [((), values)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, int) and value.bit_length() > 64:
            place = f"{name}: {'.'.join(map(str, key))}" if key else f"{name}: a number"
            raise ConfigError(f"{place} has {value.bit_length():,} bits; at most 64 are allowed")
        if isinstance(value, dict):
            waiting += [(key, inner) for inner in value]
            waiting += [((*key, inner), value[inner]) for inner in value if isinstance(inner, str)]
            waiting += [(key, value[inner]) for inner in value if not isinstance(inner, str)]
        elif isinstance(value, (list, tuple)):
            waiting += [((*key, number), inner) for number, inner in enumerate(value)]


def _told(path: Path, error: yaml.MarkedYAMLError) -> str:
    """Tell a syntax error by file and line, with the line itself."""
    mark = error.problem_mark or error.context_mark
    problem = ", ".join(filter(None, (error.context, error.problem)))
    if mark is None:
        return f"{path} is not valid YAML: {problem}"
    snippet = mark.get_snippet(indent=2) or ""
    return f"{path}:{mark.line + 1} is not valid YAML: {problem}\n{snippet}".rstrip()


def _record_lines(
    node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], file: Path, inside: tuple[int, ...]
) -> None:
    """Note the line of every key below ``node``; ``inside`` are the nodes that it lies in."""
    if id(node) in inside:
        raise ConfigError(f"{file}:{node.start_mark.line + 1}: {'.'.join(map(str, path))} contains itself")
    if len(lines) > MOST_KEYS:
        raise ConfigError(f"{file} unfolds to more than {MOST_KEYS} keys and values")
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = (*path, str(key_node.value))
            line = key_node.start_mark.line + 1
            if key in lines:
                name = ".".join(map(str, key))
                raise ConfigError(f"{file}:{line}: {name} is given twice (first on line {lines[key]})")
            lines[key] = line
            _record_lines(value_node, key, lines, file, (*inside, id(node)))
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            place = (*path, position)
            lines[place] = item.start_mark.line + 1
            _record_lines(item, place, lines, file, (*inside, id(node)))
    elif node.tag in _NUMBERS and (":" in node.value or _OCTAL.fullmatch(node.value)):
        name = ".".join(map(str, path)) or "the value"
        raise ConfigError(
            f"{file}:{node.start_mark.line + 1}: {name} is {node.value}, which YAML takes for"
            f" {yaml.safe_load(node.value)}; write a number without a zero in front and colons, or a text in quotes"
        )
