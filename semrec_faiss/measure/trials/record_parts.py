"""What came of a trial, part by part: costs, quality, times, memory and examples; see `record`."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Count, Part, Share, Text, Time


class BuildCosts(Part):
    """What building the index took."""

    train_s: Amount
    add_s: Amount
    index_bytes: AtLeastOne
    originals_bytes: Count
    host_peak_bytes: Count | None
    gpu_peak_bytes: Count | None
    notes: list[str]


class LoadCosts(Part):
    """What loading the index and searching it for the first time took."""

    load_s: Amount
    cold_query_ms: Amount


class RecallInterval(Part):
    """A confidence interval of the recall."""

    low: Share
    high: Share
    level: Share
    method: str

    @model_validator(mode="after")
    def _in_order(self) -> RecallInterval:
        if self.low > self.high:
            raise ValueError(f"low is {self.low}, but high is {self.high}")
        return self


class Places(Part):
    """The places that some titles have in exact lists, and how many of these were found."""

    places: Count
    recall: Share | None

    @model_validator(mode="after")
    def _recall_of_places_alone(self) -> Places:
        if (self.recall is None) != (self.places == 0):
            raise ValueError(f"recall is {self.recall} of {self.places} places")
        return self


class Decile(Places):
    """A tenth of the catalogue by popularity, 1 the most popular."""

    decile: AtLeastOne


class SliceValue(Places):
    """The titles with one value of a field."""

    value: str


class Slices(Part):
    """Recall by the values of a metadata field."""

    field: Text
    values: list[SliceValue]


class Quality(Part):
    """How good the answers are, beside the exact ones."""

    recall: Share | None
    recall_interval: RecallInterval | None
    recall_titles: Share | None
    recall_users: Share | None
    ndcg: Annotated[float, Field(ge=0, le=1.001)] | None  # a quotient of two rounded sums
    fill_rate: Share | None
    matching: Count
    selectivity: Share
    coverage: Share
    coverage_exact: Share
    by_popularity: Annotated[list[Decile], Field(min_length=1)] | None
    by_slice: Slices | None
    strategy: str

    @model_validator(mode="after")
    def _recall_is_that_of_titles_and_users(self) -> Quality:
        parts = [one for one in (self.recall_titles, self.recall_users) if one is not None]
        if self.recall is not None and parts and not min(parts) - 2e-6 <= self.recall <= max(parts) + 2e-6:
            told = " and ".join(
                f"{one} of {name}" for name, one in (("titles", self.recall_titles), ("users", self.recall_users))
            )
            raise ValueError(f"recall is {self.recall}, which cannot be with {told}")
        return self


class LatencyOf(Part):
    """How long batches took, in milliseconds, and how many queries a second that is."""

    mean_ms: Time
    p50_ms: Time
    p95_ms: Time
    p99_ms: Time
    qps: Time
    warmups: Count | None = None
    times_ms: Annotated[list[Amount], Field(min_length=1)]

    @model_validator(mode="after")
    def _summary_is_that_of_the_times(self) -> LatencyOf:
        times = np.asarray(self.times_ms, np.float64)
        of_times = dict(zip(("p50_ms", "p95_ms", "p99_ms"), np.percentile(times, (50, 95, 99)), strict=True))
        for name, value in {"mean_ms": times.mean(), **of_times}.items():
            if not math.isclose(getattr(self, name), value, rel_tol=1e-6, abs_tol=ROUNDED_MS):
                raise ValueError(f"{name} is {getattr(self, name)}, but that of times_ms is {value:.5g}")
        return self


ROUNDED_MS = 1e-4
"""Times are written with four digits after the point, their summary with five."""


class MemoryOf(Part):
    """The most memory that searching took."""

    host_peak_bytes: Count | None
    gpu_peak_bytes: Count | None


class Asked(Part):
    """A question: a title's, or a user's."""

    title: str | None = None
    user: str | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Asked:
        if (self.title is None) == (self.user is None):
            raise ValueError("must name a title or a user")
        return self


class ExactTitle(Part):
    """A title of the exact answer, and whether it was found."""

    title: str
    found: bool


class Example(Part):
    """One answer written out."""

    query: Asked
    exact: list[ExactTitle]
    instead: list[str]
