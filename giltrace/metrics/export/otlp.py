"""Send totals to an OpenTelemetry collector: metrics over OTLP/HTTP.

They are made here and not by instruments of a meter, which has no histogram that could be read from sums.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import giltrace
from giltrace import installation
from giltrace.errors import UsageError
from giltrace.metrics.families import FAMILIES, Family, Kind, Lengths, Value, attributes
from giltrace.metrics.reading import BUCKETS, LOWEST, upper_bounds
from giltrace.metrics.totals import Totals
from giltrace.text import plural, visible

try:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import export as sdk
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
except ImportError:
    raise UsageError(
        "the OpenTelemetry SDK is not installed, which sends metrics", installation.with_extra("otlp")
    ) from None

#: Readings that wait for an endpoint that is down: the oldest go first.
MOST_WAITING = 120
#: How long the last readings may take to be sent, at the end.
_LAST_SECONDS = 3.0
_PATH = "/v1/metrics"
_AGGREGATION = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
_LOGGERS = ("opentelemetry.exporter.otlp", "opentelemetry.exporter.http", "urllib3")
_CUMULATIVE = sdk.AggregationTemporality.CUMULATIVE


def endpoint_of(url: str) -> str:
    """The full URL that metrics go to: ``/v1/metrics`` of a collector's. Raises `UsageError` for what is none."""
    parts = urlsplit(url)
    try:
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f"{url!r} is no URL of a collector", "write one like http://127.0.0.1:4318")
    return url.rstrip("/") + _PATH if parts.path in ("", "/") else url


class Otlp:
    """Sends what it is told to `url`, in a thread of its own. What cannot be sent waits, within bounds.

    That an endpoint does not answer is told once, and once that it does again; `tell_person` gets those lines.
    """

    def __init__(self, url: str, tell_person: Callable[[str], None] | None = None) -> None:
        self._endpoint = endpoint_of(url)
        self._say = tell_person or (lambda line: print(f"giltrace: {line}", file=sys.stderr))
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # it is told here
        self._exporter = OTLPMetricExporter(endpoint=self._endpoint)
        self._resource = Resource.create(
            {"service.name": os.environ.get("OTEL_SERVICE_NAME", "giltrace"), "host.name": socket.gethostname()}
        )
        self._waiting: deque[Totals] = deque(maxlen=MOST_WAITING)
        self._lost = 0
        self._down = False
        self._change = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._send, name="giltrace-otlp", daemon=True)

    def begin(self, totals: Callable[[], Totals], first: Totals) -> None:
        """Begin to send what it is told."""
        self._thread.start()

    def tell(self, totals: Totals) -> None:
        """Queue one reading."""
        with self._change:
            self._lost += len(self._waiting) == MOST_WAITING
            self._waiting.append(totals)
            self._change.notify()

    def close(self) -> None:
        """Send what waits, for a few seconds, and say what could not be sent."""
        with self._change:
            self._closing = True
            self._change.notify()
        self._thread.join(_LAST_SECONDS)
        self._exporter.shutdown()
        self._thread.join(_LAST_SECONDS)
        with self._change:
            if unsent := len(self._waiting) + self._lost:
                self._say(f"{plural(unsent, 'reading')} could not be sent to {visible(self._endpoint)}")

    def _send(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._closing:
                    self._change.wait()
                if not self._waiting:
                    return
                totals = self._waiting[0]
            sent = self._exporter.export(metrics_data(totals, self._resource)) is sdk.MetricExportResult.SUCCESS
            with self._change:
                if sent and self._waiting and self._waiting[0] is totals:
                    self._waiting.popleft()
                lost, self._lost = (self._lost, 0) if sent else (0, self._lost)
                if sent == self._down:
                    self._down = not sent
                    gone = f"; {plural(lost, 'reading')} were lost" if lost else ""
                    self._say(self._words_of(sent) + gone)
                if not sent:
                    if self._closing:
                        return
                    # As long as nobody answers there, each new reading is an occasion to try again.
                    newest = self._waiting[-1]
                    while not self._closing and self._waiting[-1] is newest:
                        self._change.wait()

    def _words_of(self, sent: bool) -> str:
        endpoint = visible(self._endpoint)
        if sent:
            return f"{endpoint} takes metrics again"
        return f"{endpoint} takes no metrics: the last {MOST_WAITING} readings are kept until it does"


def metrics_data(totals: Totals, resource: Resource) -> sdk.MetricsData:
    """All metrics of one reading, as the SDK exports them."""
    scope = InstrumentationScope("giltrace", giltrace.__version__)
    metrics = [metric for family in FAMILIES if (metric := _metric(family, totals)).data.data_points]
    return sdk.MetricsData([sdk.ResourceMetrics(resource, [sdk.ScopeMetrics(scope, metrics, "")], "")])


def _metric(family: Family, totals: Totals) -> sdk.Metric:
    # CLOCK_MONOTONIC, as the clock on the wall has it now.
    offset = time.time_ns() - time.monotonic_ns()
    begin, at = totals.started_ns + offset, totals.at_ns + offset
    points = [(attributes(family, labels), value) for labels, value in family.points(totals)]
    data: sdk.Sum | sdk.Gauge | sdk.Histogram | sdk.ExponentialHistogram
    if family.kind is Kind.HISTOGRAM:
        if os.environ.get(_AGGREGATION, "").lower() == "base2_exponential_bucket_histogram":
            data = sdk.ExponentialHistogram([_exponential(one, begin, at, of) for one, of in points], _CUMULATIVE)
        else:
            data = sdk.Histogram([_explicit(one, begin, at, of) for one, of in points], _CUMULATIVE)
    else:
        numbers = [sdk.NumberDataPoint(one, begin, at, _number(value)) for one, value in points]
        counter = family.kind is Kind.COUNTER
        data = sdk.Sum(numbers, _CUMULATIVE, is_monotonic=True) if counter else sdk.Gauge(numbers)
    return sdk.Metric(family.instrument, family.help, family.unit, data)


def _number(value: Value) -> float:
    assert not isinstance(value, Lengths)
    return value


def _lengths(value: Value) -> Lengths:
    assert isinstance(value, Lengths)
    return value


def _explicit(of: Mapping[str, str | int | bool], begin: int, at: int, value: Value) -> sdk.HistogramDataPoint:
    lengths = _lengths(value)
    bounds = upper_bounds()[:-1]
    unknown: Any = None
    return sdk.HistogramDataPoint(
        of, begin, at, sum(lengths.buckets), lengths.seconds, lengths.buckets, bounds, min=unknown, max=unknown
    )


def _exponential(
    of: Mapping[str, str | int | bool], begin: int, at: int, value: Value
) -> sdk.ExponentialHistogramDataPoint:
    lengths = _lengths(value)
    positive = sdk.Buckets(LOWEST - 1, lengths.buckets[:BUCKETS])
    unknown: Any = None
    return sdk.ExponentialHistogramDataPoint(
        *(of, begin, at, sum(lengths.buckets), lengths.seconds),
        scale=0,
        zero_count=0,
        positive=positive,
        negative=sdk.Buckets(0, []),
        flags=0,
        min=unknown,
        max=unknown,
    )
