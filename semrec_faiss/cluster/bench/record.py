"""What ``semrec bench cluster`` writes."""

from __future__ import annotations

from semrec_faiss.measure.bench.record import BenchResults
from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Count, Part
from semrec_faiss.measure.documents.times import Times


class Machine(Part):
    """A machine of the cluster, as Ray counts it."""

    cores: Amount
    gpus: Amount


class ClusterSettings(Part):
    """What is measured: made-up titles and users, and the index of them."""

    titles: AtLeastOne
    users: AtLeastOne
    dim: AtLeastOne
    index_type: str
    shards: AtLeastOne
    gpus: Count
    k: AtLeastOne
    repeats: AtLeastOne
    seed: Count


class ShardHeld(Part):
    """A shard that is served: its titles, and the resident memory of its actor."""

    titles: AtLeastOne
    rss_bytes: Count


class Hop(Part):
    """A call that does nothing but come back: to one shard, and to all at once."""

    one: Times
    all: Times


class BesideOneProcess(Part):
    """The same questions of one process and of the shards, in turns."""

    one_process: Times
    shards: Times
    same_titles: bool


class ListsMade(Part):
    """Every user's list, made once; workers start within it."""

    seconds: Amount
    lists_per_second: Amount
    repeats: Count
    titles_recommended: Count


class ClusterResults(BenchResults):
    """A whole results file; ``hop`` and ``searches`` are by the number of queries, ``merge`` by that of parts too."""

    load_average_at_start: Amount | None
    device: str = "cpu"
    ray: str
    machines: list[Machine]
    settings: ClusterSettings
    build_seconds: Amount
    shards: list[ShardHeld]
    hop: dict[str, Hop]
    merge: dict[str, dict[str, Times]]
    searches: dict[str, BesideOneProcess]
    lists: dict[str, ListsMade]
    worker_rss_bytes: Count
    not_measured: dict[str, str]

    @property
    def file_name(self) -> str:
        """``bench-cluster-cpu.json``, ``bench-cluster-h200-x2.json``."""
        return f"bench-cluster-{self.device}.json"
