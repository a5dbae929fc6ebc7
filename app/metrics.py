"""The numbers of `/metrics`, for Prometheus. Labels are bounded: names of graphs and codes, never ids or owners."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from app.runs.model import CancelReason, Ending

WAITS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
COUNTS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)


class Tally(Collector):
    """A histogram of what happens with every append: the client's own takes ten times as long, for its locks.

    To be added to in the event loop's thread only.
    """

    def __init__(self, name: str, text: str, label: str | None, buckets: Sequence[float]) -> None:
        self._name = name
        self._text = text
        self._labels = [] if label is None else [label]
        self._buckets = tuple(buckets)
        self._counts: dict[str, list[int]] = {} if self._labels else {"": self._empty()}
        self._sums: dict[str, float] = dict.fromkeys(self._counts, 0.0)

    def _empty(self) -> list[int]:
        return [0] * (len(self._buckets) + 1)

    def observe(self, value: float, label: str = "") -> None:
        counts = self._counts.get(label)
        if counts is None:
            counts, self._sums[label] = self._empty(), 0.0
            self._counts[label] = counts
        counts[bisect_left(self._buckets, value)] += 1
        self._sums[label] += value

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        bounds = [*(repr(float(bucket)) for bucket in self._buckets), "+Inf"]
        for label, counts in list(self._counts.items()):
            up_to = list(zip(bounds, accumulate(counts), strict=True))
            family.add_metric([label] if self._labels else [], up_to, self._sums[label])
        yield family


class Metrics:
    """`app.runs.observer.Observer` on Prometheus' client, and what the API and the watchdog count.

    Each app has a registry of its own: two of them can live in one process.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._started = self._counter("runs_started", "Runs that were begun.", "graph")
        self._ended = self._counter("runs_ended", "Runs that ended, by their status.", "graph", "status")
        self._failed = self._counter("runs_failed", "Runs that failed, by the error's code.", "graph", "code")
        self._cancelled = self._counter("runs_cancelled", "Runs that were stopped, by the reason.", "reason")
        self._taken_up = self._counter("recoveries", "Attempts after the first, or none any more: lost.", "reason")
        self._fenced = self._counter("fenced_writes", "Writes that were refused, the lease being another's.")
        self._limits = self._counter("limits_hit", "Runs that said more than they may, by the limit.", "limit")
        self._refused = self._counter("refused_requests", "Requests answered with a problem, by its code.", "code")
        self._blocked = self._counter("loop_blocked", "Times that the event loop stood still for too long.", "graph")
        self._waited = self._histogram("queue_wait_seconds", "From a run's acceptance to its begin.")
        self._first = self._histogram("first_token_seconds", "From a run's acceptance to its first token.", "graph")
        self._gap = self._tally("token_gap_seconds", "Between two appends of tokens of a run.", "graph")
        self._append_seconds = self._tally("append_seconds", "Until events are durable in their log.")
        self._append_events = self._tally("append_events", "Events of a run in one append.", buckets=COUNTS)
        self._lag = self._histogram("loop_lag_seconds", "How late the event loop is, four times a second.")

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A number that is read when somebody asks."""
        Gauge(f"runstream_{name}", text, registry=self.registry).set_function(read)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"runstream_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"runstream_{name}", text, labels, buckets=WAITS, registry=self.registry)

    def _tally(self, name: str, text: str, label: str | None = None, buckets: Sequence[float] = WAITS) -> Tally:
        tally = Tally(f"runstream_{name}", text, label, buckets)
        self.registry.register(tally)
        return tally

    def run_started(self, graph: str, *, waited_seconds: float) -> None:
        self._started.labels(graph).inc()
        self._waited.observe(waited_seconds)

    def run_ended(self, graph: str, ending: Ending, reason: CancelReason | None) -> None:
        self._ended.labels(graph, ending.status).inc()
        if ending.error is not None:
            self._failed.labels(graph, ending.error.code).inc()
        if reason is not None:
            self._cancelled.labels(reason).inc()

    def run_taken_up(self, reason: str) -> None:
        self._taken_up.labels(reason).inc()

    def lease_lost(self) -> None:
        self._fenced.inc()

    def limit_hit(self, limit: str) -> None:
        self._limits.labels(limit).inc()

    def appended(self, *, events: int, seconds: float) -> None:
        self._append_events.observe(events)
        self._append_seconds.observe(seconds)

    def first_token(self, graph: str, seconds: float) -> None:
        self._first.labels(graph).observe(seconds)

    def token_gap(self, graph: str, seconds: float) -> None:
        self._gap.observe(seconds, graph)

    def refused(self, code: str) -> None:
        """A request was answered with a problem."""
        self._refused.labels(code).inc()

    def loop_lagged(self, seconds: float) -> None:
        self._lag.observe(seconds)

    def loop_blocked(self, graph: str) -> None:
        """The event loop stood still; `graph` is the one whose node did it, or empty."""
        self._blocked.labels(graph).inc()
