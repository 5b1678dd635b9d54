"""semrec-faiss: the vector search index of a media recommender, on FAISS.

The public names are imported when they are first used, so that ``import semrec_faiss`` loads neither FAISS nor DuckDB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semrec_faiss._version import __version__

if TYPE_CHECKING:
    from semrec_faiss.config.reading import load_config as load_config
    from semrec_faiss.errors import AmbiguousTitleError as AmbiguousTitleError
    from semrec_faiss.errors import ConfigError as ConfigError
    from semrec_faiss.errors import DamagedIndexError as DamagedIndexError
    from semrec_faiss.errors import DataError as DataError
    from semrec_faiss.errors import DeviceError as DeviceError
    from semrec_faiss.errors import MissingModelError as MissingModelError
    from semrec_faiss.errors import MissingPackageError as MissingPackageError
    from semrec_faiss.errors import NotFoundError as NotFoundError
    from semrec_faiss.errors import SemrecError as SemrecError
    from semrec_faiss.errors import StorageError as StorageError
    from semrec_faiss.errors import UnavailableError as UnavailableError
    from semrec_faiss.errors import UsageError as UsageError
    from semrec_faiss.index.update.plan import Change as Change
    from semrec_faiss.index.update.updating import compact_index as compact_index
    from semrec_faiss.index.update.updating import update_index as update_index
    from semrec_faiss.index.update.writer import IndexWriter as IndexWriter
    from semrec_faiss.measure.choose.pick import Wanted as Wanted
    from semrec_faiss.measure.choose.pick import pick as pick
    from semrec_faiss.measure.evaluate.document import Evaluation as Evaluation
    from semrec_faiss.measure.evaluate.document import evaluate_index as evaluate_index
    from semrec_faiss.search.answers.answer import Answer as Answer
    from semrec_faiss.search.answers.batch import Answers as Answers
    from semrec_faiss.search.building import build as build
    from semrec_faiss.search.filters.filter import Filter as Filter
    from semrec_faiss.search.profile.taste import Taste as Taste
    from semrec_faiss.search.recommender import Recommender as Recommender

__all__ = [
    "AmbiguousTitleError",
    "Answer",
    "Answers",
    "Change",
    "ConfigError",
    "DamagedIndexError",
    "DataError",
    "DeviceError",
    "Evaluation",
    "Filter",
    "IndexWriter",
    "MissingModelError",
    "MissingPackageError",
    "NotFoundError",
    "Recommender",
    "SemrecError",
    "StorageError",
    "Taste",
    "UnavailableError",
    "UsageError",
    "Wanted",
    "__version__",
    "build",
    "compact_index",
    "evaluate_index",
    "load_config",
    "pick",
    "update_index",
]

_HOME = {
    "Answer": "semrec_faiss.search.answers.answer",
    "Answers": "semrec_faiss.search.answers.batch",
    "Change": "semrec_faiss.index.update.plan",
    "Evaluation": "semrec_faiss.measure.evaluate.document",
    "Filter": "semrec_faiss.search.filters.filter",
    "IndexWriter": "semrec_faiss.index.update.writer",
    "Recommender": "semrec_faiss.search.recommender",
    "AmbiguousTitleError": "semrec_faiss.errors",
    "ConfigError": "semrec_faiss.errors",
    "DamagedIndexError": "semrec_faiss.errors",
    "DataError": "semrec_faiss.errors",
    "DeviceError": "semrec_faiss.errors",
    "MissingModelError": "semrec_faiss.errors",
    "MissingPackageError": "semrec_faiss.errors",
    "NotFoundError": "semrec_faiss.errors",
    "SemrecError": "semrec_faiss.errors",
    "StorageError": "semrec_faiss.errors",
    "UnavailableError": "semrec_faiss.errors",
    "UsageError": "semrec_faiss.errors",
    "build": "semrec_faiss.search.building",
    "Taste": "semrec_faiss.search.profile.taste",
    "Wanted": "semrec_faiss.measure.choose.pick",
    "compact_index": "semrec_faiss.index.update.updating",
    "evaluate_index": "semrec_faiss.measure.evaluate.document",
    "load_config": "semrec_faiss.config.reading",
    "pick": "semrec_faiss.measure.choose.pick",
    "update_index": "semrec_faiss.index.update.updating",
}


def __dir__() -> list[str]:
    """Name what is public, used or not, so that a notebook completes it."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'semrec_faiss' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
