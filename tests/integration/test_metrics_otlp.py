"""`giltrace metrics --otlp`: what an OpenTelemetry collector gets, and what becomes of it where there is none."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from giltrace.metrics.families import FAMILIES
from tests.metrics_command import GILTRACE, lines, metrics


class Collector(http.server.ThreadingHTTPServer):
    """An OpenTelemetry collector: takes metrics at a port of its own."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[ExportMetricsServiceRequest] = []
        self.came = threading.Semaphore(0)
        super().__init__(("127.0.0.1", port), _Takes)

    @contextmanager
    def listening(self) -> Iterator[str]:
        thread = threading.Thread(target=self.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{self.server_address[1]}"
        self.shutdown()
        thread.join()
        self.server_close()


class _Takes(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert self.path == "/v1/metrics"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Collector)
        self.server.requests.append(ExportMetricsServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.came.release()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def points(request: ExportMetricsServiceRequest) -> dict[str, list[Any]]:
    """The data points of each metric."""
    (resource,) = request.resource_metrics
    (scope,) = resource.scope_metrics
    return {metric.name: list(getattr(metric, str(metric.WhichOneof("data"))).data_points) for metric in scope.metrics}


@pytest.mark.parametrize("histogram", ["histogram", "exponential_histogram"])
def test_opentelemetry_gets_sums_gauges_and_histograms(histogram: str) -> None:
    env = {**os.environ, "OTEL_SERVICE_NAME": "shop"}
    if histogram == "exponential_histogram":
        env["OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"] = "base2_exponential_bucket_histogram"
    collector = Collector()
    with collector.listening() as url:
        ran = metrics("--otlp", url, "--json", code="import time\nfor _ in range(300): time.sleep(0)", env=env)
    assert (ran.returncode, ran.stderr) == (0, "")
    last, line = collector.requests[-1], lines(ran)[-1]
    resource = {one.key: one.value.string_value for one in last.resource_metrics[0].resource.attributes}
    assert resource["service.name"] == "shop"
    found = points(last)
    assert {"cpython.gil.threads", "cpython.gil.busiest.utilization", "giltrace.info"} < set(found)
    assert set(found) < {family.instrument for family in FAMILIES}
    (role,) = line["roles"]
    (holds,), (held,), (lengths,) = (found[f"cpython.gil.{name}"] for name in ("holds", "held.time", "hold.duration"))
    assert holds.as_int == role["total"]["holds"] >= 300
    assert held.as_double == role["total"]["held"]
    assert lengths.count == holds.as_int
    buckets = lengths.bucket_counts if histogram == "histogram" else lengths.positive.bucket_counts
    assert list(buckets) == role["total"]["hold_lengths"]
    assert 0 < holds.start_time_unix_nano < holds.time_unix_nano
    assert holds.attributes[0].key == "cpython.thread.role"
    kinds = {metric.name: metric for metric in last.resource_metrics[0].scope_metrics[0].metrics}
    assert kinds["cpython.gil.holds"].sum.is_monotonic
    assert kinds["cpython.gil.hold.duration"].WhichOneof("data") == histogram


def test_an_endpoint_that_is_down_is_told_once_and_gets_all_when_it_is_back() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipe = subprocess.PIPE
    command = [*GILTRACE, "metrics", "--otlp", f"http://127.0.0.1:{port}", "--interval", "100ms"]
    program = [sys.executable, "-c", "import sys, time; sys.stdin.read()"]
    env = {**os.environ, "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "1"}
    with subprocess.Popen([*command, "--", *program], stdin=pipe, stderr=pipe, text=True, env=env) as process:
        assert process.stderr is not None
        down = process.stderr.readline()
        assert "takes no metrics" in down
        collector = Collector(port)
        with collector.listening():
            for _ in range(3):
                assert collector.came.acquire(timeout=60)
            assert "takes metrics again" in process.stderr.readline()
            _, rest = process.communicate(timeout=60)
        assert (process.returncode, rest) == (0, "")
    times = [points(one)["cpython.gil.holds"][0].time_unix_nano for one in collector.requests if _has_holds(one)]
    assert times == sorted(times)


def _has_holds(request: ExportMetricsServiceRequest) -> bool:
    return "cpython.gil.holds" in points(request)


def test_an_endpoint_that_stays_down_harms_nobody() -> None:
    ran = metrics("--otlp", "http://127.0.0.1:9", "--interval", "100ms", code="import time; time.sleep(0.5); exit(3)")
    assert ran.returncode == 3
    assert [line for line in ran.stderr.splitlines() if "takes no metrics" in line] == ran.stderr.splitlines()[:1]
    assert "could not be sent" in ran.stderr.splitlines()[-1]
