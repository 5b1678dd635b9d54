"""What Prometheus is told: requests, errors, times by route and part, batches, the queue, GPU memory, generations."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from semrec_faiss._version import __version__
from semrec_faiss.index.hardware.gpu_memory import gpu_states
from semrec_faiss.search.batching.batcher import Batch
from semrec_faiss.serve.asking.serving import Serving
from semrec_faiss.serve.tallies import Spread, Tallies

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Told(Collector):
    """Counts, and what is read when it is asked for: the queue, the generation, GPUs."""

    def __init__(self, tallies: Tallies, serving: Serving, waiting: Callable[[], int]) -> None:
        self._tallies = tallies
        self._serving = serving
        self._waiting = waiting

    def collect(self) -> Iterable[Metric]:
        """Yield everything."""
        yield GaugeMetricFamily("semrec_workers", "Processes that answer.", self._tallies.workers)
        for name, what, place in (
            ("semrec_workers_fallen", "Workers that another took the place of.", self._tallies.fallen),
            ("semrec_workers_hung", "Those of them that were killed, as they hung.", self._tallies.hung),
        ):
            yield CounterMetricFamily(name, what, self._tallies.total(place))
        yield InfoMetricFamily("semrec", "The version.", {"version": __version__})
        yield from self._requests()
        yield from self._batches()
        yield from self._state()

    def _requests(self) -> Iterable[Metric]:
        tallies = self._tallies
        requests = CounterMetricFamily("semrec_requests", "Requests answered.", labels=["route", "status"])
        for (route, status), place in tallies.requests.items():
            if tallies.total(place):
                requests.add_metric([route, str(status)], tallies.total(place))
        yield requests
        yield self._spreads("semrec_request_seconds", "From a request to its reply.", "route", tallies.seconds)
        what = "Parts of a question: look_up, filter, search, render; thread is all of one that is not a plain search."
        yield self._spreads("semrec_part_seconds", what, "part", tallies.parts)
        yield self._now("semrec_requests_in_flight", "Questions accepted and not answered.", tallies.in_flight)
        short = CounterMetricFamily("semrec_short_answers", "Answers of fewer titles than asked for.")
        short.add_metric([], tallies.total(tallies.short))
        yield short

    def _batches(self) -> Iterable[Metric]:
        tallies = self._tallies
        for name, what, spread in (
            ("semrec_batch_callers", "Callers searched together.", tallies.callers),
            ("semrec_batch_queries", "Queries of one search.", tallies.queries),
            ("semrec_batch_seconds", "One search of the device.", tallies.batch_seconds),
            ("semrec_wait_seconds", "From a caller's turn in the queue to the search.", tallies.wait_seconds),
        ):
            family = HistogramMetricFamily(name, what)
            family.add_metric([], *tallies.buckets(spread))
            yield family

    def _state(self) -> Iterable[Metric]:
        tallies, serving = self._tallies, self._serving
        loads = CounterMetricFamily("semrec_generation_loads", "Generations looked at.", labels=["result"])
        loads.add_metric(["taken"], tallies.total(tallies.taken))
        loads.add_metric(["refused"], tallies.total(tallies.refused))
        yield loads
        what = "Callers that wait for a search that has not begun."
        yield GaugeMetricFamily("semrec_queue_length", what, self._waiting())
        generation = GaugeMetricFamily("semrec_generation", "The generation in use.", labels=["name"])
        if serving.current is not None:
            generation.add_metric([serving.current.name], 1)
        yield generation
        what = "Whether what was published last was refused."
        refused = GaugeMetricFamily("semrec_generation_refused", what, labels=["name"])
        if serving.refused is not None:
            refused.add_metric([serving.refused.generation], 1)
        yield refused
        memory = GaugeMetricFamily("semrec_gpu_memory_bytes", "GPU memory in use by all.", labels=["gpu", "name"])
        for state in gpu_states():
            memory.add_metric([str(state.gpu), state.name], state.used_bytes)
        yield memory

    def _now(self, name: str, what: str, place: int) -> Metric:
        return GaugeMetricFamily(name, what, self._tallies.total(place))

    def _spreads(self, name: str, what: str, label: str, spreads: dict[str, Spread]) -> Metric:
        family = HistogramMetricFamily(name, what, labels=[label])
        for value, spread in spreads.items():
            buckets, total = self._tallies.buckets(spread)
            if buckets[-1][1]:
                family.add_metric([value], buckets, total)
        return family


class Metrics:
    """What a service counts, and the text that Prometheus reads."""

    def __init__(self, tallies: Tallies) -> None:
        self.tallies = tallies
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def watch(self, serving: Serving, waiting: Callable[[], int]) -> None:
        """Tell of a serving's state from now on, and of how many callers are ``waiting``."""
        self._registry.register(_Told(self.tallies, serving, waiting))

    def batch(self, batch: Batch) -> None:
        """Count one search of the device."""
        tallies = self.tallies
        tallies.observe(tallies.callers, batch.callers)
        tallies.observe(tallies.queries, batch.queries)
        tallies.observe(tallies.batch_seconds, batch.seconds)
        tallies.observe_all(tallies.wait_seconds, batch.waited_seconds)

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return bytes(generate_latest(self._registry))
