"""What is worth keeping of the guide's tests beside its own objects: details, the parity certificate, costs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Count, Part, Share
from semrec_faiss.measure.documents.gaps import WithGaps
from semrec_faiss.measure.documents.times import Times
from semrec_faiss.measure.instruments.index_memory import JudgedPrediction
from semrec_faiss.measure.instruments.index_memory_record import GpuMemory, HostMemory

Kind = Literal["gpu", "cpu"]
"""Of a side."""


class SideDetails(Part):
    """Details with fields of each side, ``gpu_`` and ``cpu_``; those of a side that is not there are None."""

    def of_side(self, kind: Kind, name: str) -> Any:
        """Return a field of one side, such as ``time_ms``."""
        return getattr(self, f"{kind}_{name}")


class ShownTitle(Part):
    """A title that was found."""

    rank: AtLeastOne
    title: str
    similarity: float


class ShownGenres(ShownTitle):
    """A title that was found through a filter by genre."""

    genres: list[str]


class ShownYear(ShownGenres):
    """A title that was recommended."""

    year: int | None


class FailedTest(Part):
    """What stands for the details of a test that failed: what the error said."""

    failed: str


class SimilarQuery(SideDetails):
    """One query title of test 1, and how many of its first three results are of its franchise."""

    media_id: str
    title: str
    results: list[ShownTitle]
    franchise: str | None
    franchise_titles: Count | None
    same_franchise_in_top_3: Count | None
    gpu_time_ms: Amount | None = None
    gpu_with_titles_ms: Amount | None = None
    gpu_times: Times | None = None
    cpu_time_ms: Amount | None = None
    cpu_with_titles_ms: Amount | None = None
    cpu_times: Times | None = None


class SimilarityDetails(SideDetails):
    """Test 1; titles that are asked for the first time, once each, beside those asked again and again."""

    gpu_first_times: Times | None = None
    cpu_first_times: Times | None = None
    queries: Annotated[list[SimilarQuery], Field(min_length=1)]


class UserDetails(SideDetails):
    """One user of test 2: what is liked, what was recommended, and how the two fit."""

    user_id: str
    own_genres: list[str] | None
    genre_alignment: Share | None
    decades: list[int]
    results: list[ShownYear]
    gpu_time_ms: Amount | None = None
    gpu_times: Times | None = None
    cpu_time_ms: Amount | None = None
    cpu_times: Times | None = None


class PersonalizationDetails(SideDetails):
    """Test 2; users who are asked for the first time, once each, beside those asked again and again."""

    gpu_first_search_ms: Amount | None = None
    cpu_first_search_ms: Amount
    gpu_first_times: Times | None = None
    cpu_first_times: Times | None = None
    users: list[UserDetails]


class BatchTimes(Part):
    """Every repeat of a batch, on each side."""

    gpu_times: Times | None = None
    cpu_times: Times | None = None


class BatchDetails(Part):
    """Test 3: what its queries are, times by ``batch_N``, and what was said about memory that ran out, by side."""

    __pydantic_extra__: dict[str, BatchTimes] = Field(init=False)

    queries: str
    memory_ran_out: dict[Kind, list[str]]


class ShareDetails(SideDetails):
    """A random mask of test 4: the titles that pass, and what each side made of it."""

    share: Share
    matching: Count
    gpu_time_ms: Amount | None = None
    gpu_strategy: str | None = None
    gpu_returned: Count | None = None
    gpu_all_match: bool | None = None
    gpu_ordered: bool | None = None
    gpu_times: Times | None = None
    cpu_time_ms: Amount | None = None
    cpu_strategy: str | None = None
    cpu_returned: Count | None = None
    cpu_all_match: bool | None = None
    cpu_ordered: bool | None = None
    cpu_times: Times | None = None


class QueryTitle(Part):
    """A title that is asked about."""

    media_id: str
    title: str


class FilteringDetails(SideDetails):
    """Test 4: the question through one genre, its time taken apart, and random masks."""

    query: QueryTitle
    genre: str
    matching: Count
    requested: Count
    strategy: str
    exact: bool | str
    filter_first_ms: Amount
    gpu_time_ms: Amount | None = None
    gpu_unfiltered_ms: Amount | None = None
    gpu_strategy: str | None = None
    gpu_times: Times | None = None
    gpu_search_ms: Amount | None = None
    gpu_host_ms: Amount | None = None
    cpu_time_ms: Amount | None = None
    cpu_unfiltered_ms: Amount | None = None
    cpu_strategy: str | None = None
    cpu_times: Times | None = None
    cpu_search_ms: Amount | None = None
    cpu_host_ms: Amount | None = None
    shares: list[ShareDetails]


class DeviceMemory(Part):
    """One device of test 5: bytes predicted by batch, these held against what was measured, and that itself."""

    predicted: dict[str, dict[str, int]]
    judged: list[JudgedPrediction]
    measured: HostMemory | GpuMemory


class MemoryDetails(WithGaps):
    """Test 5."""

    gpu: DeviceMemory | None
    cpu: DeviceMemory | None

    def of_side(self, kind: Kind) -> DeviceMemory | None:
        """Return what one device took."""
        return self.gpu if kind == "gpu" else self.cpu


class Details(WithGaps):
    """What is worth keeping beside the guide's objects; None of a test that was not run."""

    similarity: SimilarityDetails | FailedTest | None
    personalization: PersonalizationDetails | FailedTest | None
    batch: BatchDetails | FailedTest | None
    filtering: FilteringDetails | FailedTest | None
    memory: MemoryDetails | FailedTest | None


class NearTie(Part):
    """A place where the GPU has another title than the CPU."""

    query: Count
    rank: AtLeastOne
    gpu_title: str
    cpu_title: str
    gpu_score: float
    cpu_score: float
    score_difference: float


class Agreement(Part):
    """How far two answers are the same.

    Attributes:
        overlap: the share of titles in both, ties credited.
        queries_with_all: the share of queries whose titles all are.
        same_place: the share of places with the same title.
        largest_score_difference: at the same rank.
        largest_score_error: of a title, from its exact score.
        differences: the first places with another title.
    """

    overlap: Share
    queries_with_all: Share
    same_place: Share
    largest_score_difference: Amount
    largest_score_error: Amount
    differences: list[NearTie] | None = None


class Certificate(WithGaps):
    """Whether CPU and GPU answer alike, and as float64 arithmetic does."""

    queries: AtLeastOne
    queries_are: str
    k: AtLeastOne
    exact_index: bool
    tie_tolerance: Amount
    gpu_to_cpu: Agreement | None
    reference_queries: Count
    gpu_to_float64: Agreement | None = None
    cpu_to_float64: Agreement | None = None


class MachineCost(Part):
    """A machine's price and what a million queries and a month cost on it."""

    name: str
    price_an_hour: Amount
    price_a_month: Amount
    throughput_qps: Amount
    cost_a_million: Amount
    busy_hours_a_month: Amount
    machines_for_the_month: AtLeastOne
    cost_of_the_month: Amount
    cost_of_busy_hours: Amount


class BreakEven(WithGaps):
    """The month's queries from which a GPU machine costs no more; None where it never does."""

    name: str
    monthly_queries: Count | None


class Cost(WithGaps):
    """What searches cost, from the throughput of ``batch`` queries at once."""

    batch: AtLeastOne
    currency: str
    monthly_queries: Amount
    hours_a_month: Amount
    prices_of: str | None
    cpu: str | None
    machines: list[MachineCost]
    break_even: list[BreakEven] | None
