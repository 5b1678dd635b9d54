"""The results file of ``semrec bench search``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from semrec_faiss.measure.bench.record import BenchResults, BesideRaw
from semrec_faiss.measure.documents.criterion import Promise
from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Count, Part, Share
from semrec_faiss.measure.documents.gaps import WithGaps
from semrec_faiss.measure.documents.times import Times
from semrec_faiss.measure.instruments.gpu_memory import WatchedMemory
from semrec_faiss.measure.instruments.hardware_limit import HardwareLimits, Limit


class SearchedData(WithGaps):
    """The titles and users; how they were made where they were made for the run."""

    titles: AtLeastOne
    users: Count | None
    dim: AtLeastOne
    made_by: str | None
    seed: Count | None


class SearchedDevice(Part):
    """Where the index is searched."""

    name: str
    kind: Literal["cpu", "gpu"]
    gpus: list[Count]
    float16: bool


class BatchCost(Part):
    """One batch: raw FAISS, and ours beside it in turns."""

    queries: AtLeastOne
    rounds: AtLeastOne
    raw_faiss: Times
    vector_index: BesideRaw
    recommender: BesideRaw
    recommender_with_titles: BesideRaw
    largest_score_difference: Amount


class DefaultsBatch(Part):
    """One batch on a CPU: FAISS as it comes, raw FAISS with our settings, and ours, in turns."""

    queries: AtLeastOne
    rounds: AtLeastOne
    ratio: Amount
    ratio_to_best: Amount
    faiss_defaults: Times
    raw_faiss: Times
    ours: Times


class BesideDefaults(Part):
    """What 100 queries took on a CPU, beside FAISS as it comes, and under ``batches`` each batch."""

    queries: AtLeastOne
    rounds: AtLeastOne
    ratio: Amount
    faiss_defaults: Times
    ours: Times
    batches: list[DefaultsBatch] | None = None


class CpuAgreement(Part):
    """How far answers of a GPU are those of the CPU."""

    queries: AtLeastOne
    same_title_in_same_place_share: Share
    same_titles_share: Share
    largest_score_difference: Amount


class Processes(WithGaps):
    """Whole commands, from start to end."""

    similar_gpu: Times | None
    help: Times
    similar_cpu: Times


class Peak(Part):
    """The most memory that a process held."""

    peak_bytes: Count


class BuildPeak(Peak):
    """Of building a flat index, beside the bytes of its vectors."""

    vector_bytes: Count


class ReadPeak(Peak):
    """Of reading the users' vectors, beside the bytes of their file."""

    dtype: str
    file_bytes: Count


class Footprints(WithGaps):
    """Peak memory of whole processes; ``libraries`` is what importing them takes."""

    build_flat: BuildPeak | None
    read_users: ReadPeak | None
    libraries: Peak | None = None


class BatchLimit(Limit):
    """The least time of one batch, and how many times that raw FAISS and ours take."""

    queries: AtLeastOne
    raw_faiss_gap: Amount
    recommender_gap: Amount


class Limits(HardwareLimits, WithGaps):
    """The machine's ceilings, and what they mean for each batch; None for an index that doesn't compare all titles."""

    batches: list[BatchLimit] | None


class SearchResults(BenchResults):
    """A whole results file; without its promises while they are not judged yet."""

    benchmark: Literal["search"] = "search"
    load_average_at_start: Amount | None
    others_used_cores: Amount | None
    data: SearchedData
    index: dict[str, JsonValue]
    device: SearchedDevice
    k: AtLeastOne
    search: list[BatchCost]
    faiss_defaults: BesideDefaults | None
    agreement_with_cpu: CpuAgreement | None
    gpu_memory: WatchedMemory | None
    processes: Processes
    memory: Footprints
    floor: Limits | None
    not_measured: dict[str, str]
    promises: list[Promise] = Field(default_factory=list)

    @property
    def type(self) -> str:
        """The index type; ``factory`` for one that a factory string describes."""
        return str(self.index.get("type", "factory"))

    @property
    def file_name(self) -> str:
        """``bench-search-cpu.json``, ``bench-search-h200-ivf_flat.json``."""
        kind = "" if self.type == "flat" else f"-{self.type}"
        return f"bench-search-{self.device.name}{kind}.json"

    def batch(self, queries: int) -> BatchCost | None:
        """Return the row of one batch size; None where it was not searched."""
        return next((row for row in self.search if row.queries == queries), None)
