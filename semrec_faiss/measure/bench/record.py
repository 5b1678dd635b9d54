"""What all benchmarks write: who measured on what, and the name of the file."""

from __future__ import annotations

from semrec_faiss.measure.documents.fields import Amount, Part
from semrec_faiss.measure.documents.gaps import Document
from semrec_faiss.measure.documents.stamp import Stamp
from semrec_faiss.measure.documents.times import Times

SEED = 7
"""Of what benchmarks make up and draw."""


class BenchResults(Document):
    """The results of a benchmark."""

    environment: Stamp

    @property
    def file_name(self) -> str:
        """The name of the file that holds them."""
        raise NotImplementedError


class Ratio(Part):
    """How many times as long as the baseline, in the median of rounds, and how many milliseconds longer."""

    ratio: Amount
    added_ms: float


class BesideRaw(Times, Ratio):
    """The times of something of ours beside raw FAISS; in a file the ratio stands before the many repeats."""
