"""The results file of ``semrec bench gpu --gpus 0,1``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from semrec_faiss.measure.bench.gpu.record import GpuStamp, MadeVectors
from semrec_faiss.measure.bench.record import BenchResults
from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Count, Part
from semrec_faiss.measure.documents.times import Times


class Faster(Times):
    """Times on several GPUs, and how many times as fast that is as on the first of them alone, median of rounds."""

    speedup: Amount


class SearcherTimes(Part):
    """One and several GPUs in turns, from numpy to numpy.

    Attributes:
        one_gpu: the first GPU alone.
        shards: each GPU has a share of the titles.
        replicas: each GPU has all titles and a share of the queries.
    """

    one_gpu: Times
    shards: Faster
    replicas: Faster


class GpusBatch(Part):
    """A batch size on one catalogue.

    Attributes:
        fused: type fused.
        users: type fused, asked for the lists of as many users. 119,743 of them, or as many as the largest batch has,
            are held beside the titles, on every GPU, or page-locked on the host where there is no room; so only row
            numbers are sent, random ones each time. Each user has seen 100 titles, or a tenth of less than 1,000,
            which are left out. None where users cannot be held, and in files of earlier versions.
        faiss: FAISS's flat index, with its own shards and replicas.
        same_answers: whether shards and replicas give the rows and scores of one GPU, bit for bit; for vectors and,
            where they are held, for users.
        repeated: queries that shards searched again with more candidates for want of a proof.
        compared_with_all: of these, compared with every title.
    """

    titles: AtLeastOne
    queries: AtLeastOne
    fused: SearcherTimes
    users: SearcherTimes | None = None
    faiss: SearcherTimes
    same_answers: bool
    repeated: Count
    compared_with_all: Count


class GpusResults(BenchResults):
    """A whole results file."""

    environment: GpuStamp
    device: str
    gpus: list[Count]
    data: MadeVectors
    search: Annotated[list[GpusBatch], Field(min_length=1)]
    not_measured: dict[str, str]

    @property
    def file_name(self) -> str:
        """``bench-gpu-h200-x2.json``."""
        return f"bench-gpu-{self.device}{self.data.k_part}.json"
