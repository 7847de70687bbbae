"""Prometheus metrics, on a port of their own that no Ingress reaches.

The metrics are those of one process: with several workers in a pod, one gets the port and the others log a warning.
"""

import logging
from collections.abc import Iterator

from flask import Request
from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flaskapp import __version__
from flaskapp.database import Watch
from flaskapp.schema import serves

logger = logging.getLogger(__name__)

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)  # seconds


class Metrics:
    """The process's metrics, and the HTTP server that Prometheus scrapes."""

    def __init__(self, watch: Watch):
        self.watch = watch
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.registry.register(WatchCollector(watch))
        names = ("method", "route", "status")
        self.requests = Counter("http_requests", "Requests answered.", names, registry=self.registry)
        self.seconds = Histogram(
            "http_request_duration_seconds",
            "Time to answer.",
            ("method", "route"),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count(self, request: Request, status: int, seconds: float) -> None:
        """Count an answered request by its route's template: raw paths would make a series for every deployment."""
        method = request.method if request.method in METHODS else "other"
        route = request.url_rule.rule if request.url_rule else "none"
        labels = method, route, status
        if labels not in self.series:
            self.series[labels] = self.requests.labels(*labels), self.seconds.labels(method, route)
        requests, histogram = self.series[labels]
        requests.inc()
        histogram.observe(seconds)

    def serve(self, port: int) -> None:
        """Serve the metrics on this port, in a thread; log a warning if the port is taken."""
        try:
            _, thread = start_http_server(port, registry=self.registry)
        except OSError as error:
            logger.warning("no metrics of this worker", extra={"reason": str(error), "port": port})
            return
        thread.name = "metrics"
        self.watch.threads.append(thread)


class WatchCollector(Collector):
    """Reads the database's state when Prometheus scrapes."""

    def __init__(self, watch: Watch):
        self.watch = watch

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges of the database's state, and the version."""
        watch = self.watch
        yield GaugeMetricFamily("flaskapp_database_up", "1 while the database answers.", float(watch.up))
        connections = GaugeMetricFamily("flaskapp_database_connections", "Connections of the pool.", labels=["state"])
        connections.add_metric(["busy"], watch.busy)
        connections.add_metric(["idle"], watch.idle)
        yield connections
        served = float(serves(watch.revision))
        yield GaugeMetricFamily("flaskapp_schema_served", "1 when this code can serve on the schema.", served)
        info = GaugeMetricFamily("flaskapp_info", "What runs here.", labels=["version", "schema"])
        info.add_metric([__version__, watch.revision or ""], 1)
        yield info
