"""semrec-faiss: the vector search index of a media recommender, on FAISS.

The public names are imported when they are first used, so that ``import semrec_faiss`` loads neither FAISS nor DuckDB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semrec_faiss._version import __version__

if TYPE_CHECKING:
    from semrec_faiss.config.reading import load_config as load_config
    from semrec_faiss.errors import SemrecError as SemrecError
    from semrec_faiss.measure.choose.pick import Wanted as Wanted
    from semrec_faiss.measure.choose.pick import pick as pick
    from semrec_faiss.search.answers.answer import Answer as Answer
    from semrec_faiss.search.answers.answer import Answers as Answers
    from semrec_faiss.search.filter import Filter as Filter
    from semrec_faiss.search.recommender import Recommender as Recommender
    from semrec_faiss.search.taste import Taste as Taste

__all__ = [
    "Answer",
    "Answers",
    "Filter",
    "Recommender",
    "SemrecError",
    "Taste",
    "Wanted",
    "__version__",
    "load_config",
    "pick",
]

_HOME = {
    "Answer": "semrec_faiss.search.answers.answer",
    "Answers": "semrec_faiss.search.answers.answer",
    "Filter": "semrec_faiss.search.filter",
    "Recommender": "semrec_faiss.search.recommender",
    "SemrecError": "semrec_faiss.errors",
    "Taste": "semrec_faiss.search.taste",
    "Wanted": "semrec_faiss.measure.choose.pick",
    "load_config": "semrec_faiss.config.reading",
    "pick": "semrec_faiss.measure.choose.pick",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'semrec_faiss' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
