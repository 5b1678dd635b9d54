"""What `semrec memory` says: predictions, measurements beside them, by device."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from semrec_faiss.index.fused.room import Kept
from semrec_faiss.measure.documents.fields import AtLeastOne, Count, Part, Share
from semrec_faiss.measure.documents.gaps import Document, WithGaps
from semrec_faiss.measure.documents.stamp import Stamp
from semrec_faiss.measure.instruments.index_memory import JudgedPrediction
from semrec_faiss.measure.instruments.index_memory_record import SearchPeak


class DevicePrediction(WithGaps):
    """What is predicted of one device: bytes by part, the host's besides, and the largest catalogue that fits.

    ``largest_locked_bytes`` is what that catalogue's originals take of the host's memory, where they are locked there.
    ``kept`` tells how type fused keeps what proves answers: see `Kept`.
    """

    vectors_bytes: Count
    structure_bytes: Count
    originals_bytes: Count
    context_bytes: Count
    locked_bytes: Count
    reserved_bytes: Count
    scratch_bytes: Count
    batch_bytes: Count
    base_bytes: Count
    peak_bytes: Count
    host: dict[str, int]
    gpus: Count
    limit_bytes: Count | None
    limit_of: str
    largest_catalogue: Count | None
    largest_locked_bytes: Count = 0
    kept: Kept | None = None


class DeviceMeasurement(Part):
    """The predictions for one device, held against what was measured, and that itself."""

    device: str
    tolerance: Share
    holds: bool
    judged: list[JudgedPrediction]
    start_bytes: Count | None = None
    context_bytes: int | None = None
    base_bytes: int
    total_bytes: Count | None = None
    free_bytes: Count | None = None
    available_bytes: Count | None = None
    faiss_counts_bytes: dict[str, int] | None = None
    searches: list[SearchPeak]


class MemoryReport(Document):
    """What an index of a config takes, by device; ``measured`` and the stamp only where that was asked for.

    ``gpu_users_bytes`` is what the dataset's users, with what they have seen, take beside the titles of type fused on
    one GPU, once several questions are asked about them and where they fit; None where the titles are not its own.
    """

    titles: AtLeastOne
    dim: AtLeastOne
    batch: AtLeastOne
    k: AtLeastOne
    float16: bool = False
    index: dict[str, JsonValue]
    prediction: dict[Literal["cpu", "gpu"], DevicePrediction]
    gpu_users_bytes: Count | None = None
    measured: dict[Literal["cpu", "gpu"], DeviceMeasurement | None] = Field(default_factory=dict)
    environment: Stamp | None = None
    not_measured: dict[str, str]
