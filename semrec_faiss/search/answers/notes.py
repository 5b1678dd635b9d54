"""What an answer says about itself besides its titles: why there are none, where the filter's values tell that."""

from __future__ import annotations

from contextlib import suppress

from semrec_faiss.data.titles.titles import Titles
from semrec_faiss.errors import UsageError
from semrec_faiss.search.filters.field_filters import missing_values
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.restricted.found import TopK


def notes_on(found: TopK, wanted: Filter, titles: Titles) -> tuple[str, ...]:
    """Return a sentence for each value of ``any_of`` that no title has, where nothing matches for any query."""
    if not wanted.any_of or found.matching.any():
        return ()
    with suppress(UsageError):  # of an index in shards, whose titles are in no one database
        return tuple(missing_values(titles.catalog, wanted.any_of))
    return ()
