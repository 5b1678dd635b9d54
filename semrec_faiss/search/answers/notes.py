"""What an answer says about itself besides its titles: why there are none, where the filter's conditions tell that."""

from __future__ import annotations

from contextlib import suppress

from semrec_faiss.errors import SemrecError
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.searcher import Searcher


def notes_on(found: TopK, wanted: Filter, searcher: Searcher) -> tuple[str, ...]:
    """Return a sentence for each condition that no title satisfies, where nothing matches for any query."""
    if not wanted.says_something or (found.rows >= 0).any() or found.matching.any():  # to count what matches may cost
        return ()
    with suppress(SemrecError, RecursionError):  # time is up, say: what is found is no worse for not being explained
        return searcher.unmet(wanted)
    return ()
