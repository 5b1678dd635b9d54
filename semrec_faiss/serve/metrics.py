"""What Prometheus is told: requests, errors, times by route and part, batches, the queue, GPU memory, generations."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from semrec_faiss._version import __version__
from semrec_faiss.index.hardware.gpu_memory import gpu_states
from semrec_faiss.search.batching import Batch
from semrec_faiss.serve.asking.serving import Serving

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class _State(Collector):
    """What is read when it is asked for: the queue, the generation, GPUs."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield the gauges."""
        serving = self._serving
        queue = GaugeMetricFamily("semrec_queue_length", "Callers that wait for a search that has not begun.")
        queue.add_metric([], serving.batcher.waiting)
        yield queue
        generation = GaugeMetricFamily("semrec_generation", "The generation in use.", labels=["name"])
        if serving.current is not None:
            generation.add_metric([serving.current.name], 1)
        yield generation
        refused = GaugeMetricFamily(
            "semrec_generation_refused", "Whether what was published last was refused.", labels=["name"]
        )
        if serving.refused is not None:
            refused.add_metric([serving.refused.generation], 1)
        yield refused
        memory = GaugeMetricFamily("semrec_gpu_memory_bytes", "GPU memory in use by all.", labels=["gpu", "name"])
        for state in gpu_states():
            memory.add_metric([str(state.gpu), state.name], state.used_bytes)
        yield memory


class Metrics:
    """The counters of a service, and the text that Prometheus reads."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self.info = Gauge("semrec_info", "The version.", ["version"], registry=registry)
        self.info.labels(__version__).set(1)
        self.requests = Counter("semrec_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "semrec_request_seconds", "From a request to its reply.", ["route"], buckets=_SECONDS, registry=registry
        )
        self.parts = Histogram(
            "semrec_part_seconds",
            "Parts of a question: look_up, search, render, or thread, which is all of them.",
            ["part"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge("semrec_requests_in_flight", "Questions accepted and not answered.", registry=registry)
        self.short = Counter("semrec_short_answers", "Answers of fewer titles than asked for.", registry=registry)
        self.batch_callers = Histogram(
            "semrec_batch_callers", "Callers searched together.", buckets=_SIZES, registry=registry
        )
        self.batch_queries = Histogram(
            "semrec_batch_queries", "Queries of one search.", buckets=_SIZES, registry=registry
        )
        self.batch_seconds = Histogram(
            "semrec_batch_seconds", "One search of the device.", buckets=_SECONDS, registry=registry
        )
        self.wait_seconds = Histogram(
            "semrec_wait_seconds",
            "From a caller's turn in the queue to the search.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.loads = Counter("semrec_generation_loads", "Generations looked at.", ["result"], registry=registry)

    def watch(self, serving: Serving) -> None:
        """Tell of a serving's state from now on."""
        self.registry.register(_State(serving))

    def batch(self, batch: Batch) -> None:
        """Count one search of the device."""
        self.batch_callers.observe(batch.callers)
        self.batch_queries.observe(batch.queries)
        self.batch_seconds.observe(batch.seconds)
        for seconds in batch.waited_seconds:
            self.wait_seconds.observe(seconds)

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return bytes(generate_latest(self.registry))
