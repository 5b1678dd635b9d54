"""How many threads FAISS takes on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from semrec_faiss.index.hardware.device import load_faiss


@contextmanager
def one_core() -> Iterator[None]:
    """Have this thread's work of FAISS on a CPU use no other core: where it is little, waking those takes longer."""
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
