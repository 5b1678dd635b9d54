"""A sweep file of either kind: one that measures indexes, or one that evaluates recommendations."""

from __future__ import annotations

import difflib
from pathlib import Path

from semrec_faiss.config.reading import read_source, validated
from semrec_faiss.config.yaml_source import YamlSource
from semrec_faiss.errors import ConfigError
from semrec_faiss.measure.evaluate.config import EvaluationSweep
from semrec_faiss.measure.sweep.config import Sweep

KIND = "evaluate"
"""The key that makes a file one that evaluates recommendations."""


def load_sweep_file(path: str | Path, overrides: tuple[str, ...] = ()) -> tuple[Sweep | EvaluationSweep, YamlSource]:
    """Read a sweep file and apply overrides such as ``repeats=5`` or ``evaluate.by=recall_at_10``.

    Returns:
        The sweep, and the source that knows the line of every key.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it has mistakes, or keys of both kinds; all are listed, with file and line.
        UsageError: an override is not of the form KEY=VALUE.
    """
    source = read_source(path, overrides, ("grid", KIND))
    if not _evaluates(source):
        return validated(Sweep, source), source
    others = [key for key in source.values if key in set(Sweep.model_fields) - set(EvaluationSweep.model_fields)]
    if KIND in source.values and others:
        listing = "\n".join(f"  {source.where((key,))}: {key!r} belongs to a sweep of indexes" for key in others)
        raise ConfigError(
            f"{source.where((KIND,))}: {KIND!r} evaluates recommendations, and cannot stand beside keys of the other "
            f"kind of sweep:\n{listing}",
            fix="make two files of it, each with its own name",
        )
    return validated(EvaluationSweep, source), source


def _evaluates(source: YamlSource) -> bool:
    """Tell which kind a file is, one whose key is misspelt included."""
    if KIND in source.values:
        return True
    indexes = {"dataset", "grid"} & source.values.keys()
    return not indexes and bool(difflib.get_close_matches(KIND, map(str, source.values), n=1, cutoff=0.7))
