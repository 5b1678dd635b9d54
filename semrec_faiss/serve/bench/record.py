"""What ``semrec bench serve`` writes."""

from __future__ import annotations

from semrec_faiss.measure.bench.record import BenchResults
from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Count, Part
from semrec_faiss.measure.guide.details import Cost
from semrec_faiss.serve.bench.load import Load


class ServedIndex(Part):
    """The index that is asked."""

    type: str
    titles: AtLeastOne
    users: Count


class ServeSettings(Part):
    """How it is asked."""

    connections: AtLeastOne
    workers: AtLeastOne
    seconds: Amount
    k: AtLeastOne
    seed: Count


class Alone(Load):
    """One connection: what HTTP adds to the search of a query, medians."""

    bare_search_p50_ms: Amount
    added_ms: float


class Lists(Load):
    """Requests for many users each, answered as Arrow."""

    users_a_request: AtLeastOne
    connections: AtLeastOne
    users_per_second: Amount


class Swaps(Part):
    """Generations taken, and then SIGTERM, under full load; ``kinds`` is how often what came back.

    Attributes:
        taken_ms: from publishing one to its being in use, in the median.
    """

    swaps: AtLeastOne
    titles: AtLeastOne
    taken_ms: Amount
    requests: Count
    failed: Count
    mixed: Count
    exit_code: int
    kinds: dict[str, Count]


class ServeResults(BenchResults):
    """A whole results file; client and server share the machine."""

    load_average_at_start: Amount | None
    device: str
    index: ServedIndex
    settings: ServeSettings
    fixed_body: Load
    similar: Load
    similar_to_fixed_body: Amount
    at_half_the_most: Load
    at_nine_tenths_of_the_most: Load
    alone: Alone
    as_one_types: Load
    users_as_arrow: Lists | None
    swapped: Swaps
    costs: Cost
    not_measured: dict[str, str]

    @property
    def file_name(self) -> str:
        """``bench-serve-h200.json``."""
        more = f"-{self.settings.workers}-workers" if self.settings.workers > 1 else ""
        return f"bench-serve-{self.device}{more}.json"
