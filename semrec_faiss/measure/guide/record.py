"""The results file of the guide's tests: its five objects, what was judged, and the details; written and read here.

The guide's own objects name the GPU's numbers plainly and the CPU's with ``cpu_``; details have ``gpu_`` and ``cpu_``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, JsonValue, TypeAdapter

from semrec_faiss.measure.documents.criterion import Criterion
from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Count
from semrec_faiss.measure.documents.gaps import Document, WithGaps
from semrec_faiss.measure.documents.stamp import Stamp
from semrec_faiss.measure.guide.details import (
    BatchDetails,
    Certificate,
    Cost,
    Details,
    FailedTest,
    Kind,
    ShownGenres,
    ShownTitle,
)
from semrec_faiss.measure.instruments.trace import Trace


class GuideNumbers(WithGaps):
    """An object of the guide's: fields of the GPU, and the same of the CPU with ``cpu_``."""

    @classmethod
    def name(cls, kind: Kind, name: str) -> str:
        """Return one side's name of a number that the GPU has by ``name``."""
        return name if kind == "gpu" else f"cpu_{name}"

    def of_side(self, kind: Kind, name: str) -> float | None:
        """Return a number of one side by the GPU's name."""
        found: float | None = getattr(self, self.name(kind, name))
        return found


class SimilarityTest(WithGaps):
    """Test 1: times are medians over the query titles; the results are the first one's."""

    gpu_time_ms: Amount | None
    cpu_time_ms: Amount | None
    results: list[ShownTitle] | None


class UserResult(WithGaps):
    """One user of test 2."""

    user_id: str
    gpu_time_ms: Amount | None
    cpu_time_ms: Amount | None
    recommendations: list[ShownTitle]


class PersonalizationTest(WithGaps):
    """Test 2: times are means over the users."""

    avg_gpu_time_ms: Amount | None
    cpu_avg_time_ms: Amount | None
    user_results: list[UserResult] | None


class BatchNumbers(GuideNumbers):
    """One batch of test 3."""

    total_time_ms: Amount | None
    time_per_query_ms: Amount | None
    throughput_qps: Amount | None
    cpu_total_time_ms: Amount | None
    cpu_time_per_query_ms: Amount | None
    cpu_throughput_qps: Amount | None


class FilteringTest(WithGaps):
    """Test 4: in all, and on a GPU apart FAISS's share and the host's."""

    gpu_time_ms: Amount | None
    gpu_search_time_ms: Amount | None
    gpu_host_time_ms: Amount | None
    cpu_time_ms: Amount | None
    results: list[ShownGenres] | None


class MemoryTest(GuideNumbers):
    """Test 5: gigabytes of 10⁹ bytes."""

    allocated_gb: float | None
    reserved_gb: float | None
    total_gb: Amount | None
    free_gb: Amount | None
    peak_allocated_gb: float | None
    peak_reserved_gb: float | None
    cpu_allocated_gb: float | None
    cpu_reserved_gb: float | None
    cpu_total_gb: Amount | None
    cpu_free_gb: Amount | None
    cpu_peak_allocated_gb: float | None
    cpu_peak_reserved_gb: float | None


class TestedIndex(WithGaps):
    """The index, and the devices that it was tested on."""

    titles: AtLeastOne
    dim: AtLeastOne
    users: Count | None
    config: dict[str, JsonValue]
    device: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    gpu: str | None

    @property
    def type(self) -> str:
        """The index type, or the factory string of one without."""
        return str(self.config.get("type") or self.config.get("factory"))


class GuideStamp(Stamp):
    """The stamp, what the index is made of, and what else the machine did."""

    data_digest: str
    seconds: Amount
    load_average_at_start: Amount | None
    others_used_cores: Amount | None


class GuideResults(Document):
    """A whole results file."""

    test_1_similarity: SimilarityTest
    test_2_personalization: PersonalizationTest
    test_3_batch: Annotated[dict[Annotated[str, Field(pattern=r"^batch_\d+$")], BatchNumbers], Field(min_length=1)]
    test_4_filtering: FilteringTest
    test_5_memory: MemoryTest
    criteria: list[Criterion]
    parity: Certificate | FailedTest | None
    cost: Cost
    profile: Trace | None
    details: Details
    index: TestedIndex
    environment: GuideStamp
    not_measured: dict[str, str]

    @property
    def kinds(self) -> list[Kind]:
        """The sides that were tested, the GPU first."""
        return ["gpu", "cpu"] if self.index.gpu else ["cpu"]

    def batches(self) -> dict[int, BatchNumbers]:
        """Return the numbers of test 3 by the size of the batch."""
        return {int(re.sub(r"\D", "", name)): row for name, row in self.test_3_batch.items()}

    def memory_ran_out(self) -> Mapping[Kind, list[str]]:
        """Return what searches in batches said about memory, by side."""
        found = self.details.batch
        return found.memory_ran_out if isinstance(found, BatchDetails) else {}

    def target(self, test: int, name: str) -> float | None:
        """Return what a criterion of a test must reach; None where there is no such criterion."""
        return next((one.target for one in self.criteria if (one.test, one.name) == (test, name)), None)


GUIDE_RESULTS: TypeAdapter[GuideResults] = TypeAdapter(GuideResults)
