"""Counting from within: in Python, in registries and meters, and in the servers and workers that people run."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parsed

from tests.prometheus import Prometheus
from tests.tracing import TARGETS

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0
Samples = dict[str, float]


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")


def run(code: str, folder: Path, **env: str) -> str:
    """Run `code` in `folder`, and return what it prints."""
    told = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    command = [sys.executable, "-X", "dev", "-c", code]
    ran = subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    return ran.stdout


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def serving(command: list[str], folder: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    told = {**os.environ, "PYTHONPATH": f"{ROOT}:{TARGETS}", **env}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=told, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def get(url: str) -> str:
    """What is there, once somebody answers."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def sums(text: str) -> Samples:
    """The sum over all labels of each metric."""
    found: Samples = {}
    for family in parsed(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def test_a_process_counts_itself_and_its_children(tmp_path: Path) -> None:
    code = """
import os, time, giltrace.metrics as metrics
def hold(times):
    for _ in range(times): time.sleep(0)
metrics.start(); metrics.start()
hold(200)
before = metrics.read()
assert before.counts.holds >= 200 and len(before.processes) == 1
pid = os.fork()
if pid == 0:
    hold(300)
    assert {one.pid for one in metrics.read().processes} == {os.getpid(), os.getppid()}
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
both = metrics.read()
assert both.counts.holds - before.counts.holds >= 300 and both.ended == 1
metrics.stop()
hold(500)
after = metrics.read()
assert after.counts.holds - both.counts.holds < 100, (after.counts, both.counts)
metrics.start()
hold(400)
assert metrics.read().counts.holds - after.counts.holds >= 400
print("done")
"""
    assert run(code, tmp_path, TMPDIR=str(tmp_path)) == "done\n"
    assert list(tmp_path.glob("giltrace-metrics-*")) == []  # it went with the process


def test_under_giltrace_metrics_the_same_is_told_twice(tmp_path: Path) -> None:
    code = "import giltrace.metrics as m; m.start(); print(len(m.read().processes)); m.stop()"
    command = [sys.executable, "-m", "giltrace", "metrics", "--json", "-c", code]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (0, "1")


def test_what_cannot_be_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    code = """
import giltrace, giltrace.metrics as metrics
for ask, says in (
    (metrics.read, "nothing counts in this process"),
    (lambda: metrics.start("/proc/nowhere"), "cannot make /proc/nowhere"),
):
    try:
        ask()
    except giltrace.GiltraceError as error:
        assert error.message.startswith(says) and error.remedy, error
    else:
        raise AssertionError(says)
with giltrace.trace("here"):
    try:
        metrics.start()
    except giltrace.GiltraceError as error:
        assert "traced already" in str(error)
print("done")
"""
    assert run(code, tmp_path) == "done\n"


def test_a_scrape_tells_of_the_others_beside_a_page_of_another_version(tmp_path: Path) -> None:
    code = """
import logging, os, prometheus_client, giltrace.metrics as metrics
from pathlib import Path
said = []
class Handler(logging.Handler):
    def emit(self, record): said.append(record.getMessage())
logging.getLogger("giltrace.metrics").addHandler(Handler())
prometheus_client.REGISTRY.register(metrics.PrometheusCollector("pages"))
assert b"python_gil_held_seconds_total" in prometheus_client.generate_latest()
(page,) = [name for name in os.listdir("pages") if name.startswith("count-")]
for kind in ("count", "gil"):
    data = bytearray(Path("pages", page.replace("count", kind)).read_bytes())
    if kind == "count":
        data[8] = 99
    Path("pages", page.replace("count-", kind + "-7")).write_bytes(data)
for _ in range(2):
    told = prometheus_client.generate_latest()
    assert b"python_gil_held_seconds_total" in told and b"python_info" in told
(line,) = said
assert "is of version 99" in line and "read it with the giltrace" in line, line
print("done")
"""
    assert run(code, tmp_path) == "done\n"


def test_instruments_of_a_meter(tmp_path: Path) -> None:
    needs("opentelemetry.sdk")
    code = """
import time, giltrace.metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
giltrace.metrics.instrument(MeterProvider([reader]))
for _ in range(300): time.sleep(0)
(resource,) = reader.get_metrics_data().resource_metrics
(scope,) = resource.scope_metrics
assert scope.scope.name == "giltrace"
found = {one.name: one for one in scope.metrics}
(holds,) = found["cpython.gil.holds"].data.data_points
assert holds.value >= 300 and dict(holds.attributes) == {"cpython.thread.role": "MainThread", "cpython.gil.number": "0"}
assert found["cpython.gil.holds"].data.is_monotonic and found["cpython.gil.held.time"].unit == "s"
assert "cpython.gil.threads" in found
print("done")
"""
    assert run(code, tmp_path) == "done\n"


@pytest.mark.needs("prometheus")
def test_gunicorns_workers_are_one_service_whoever_is_asked_and_whoever_ends(tmp_path: Path) -> None:
    needs("gunicorn")
    port, pages = free_port(), tmp_path / "pages"
    url = f"http://127.0.0.1:{port}"
    options = ["-w", "3", "-b", f"127.0.0.1:{port}", "-c", "python:giltrace.integrations.gunicorn"]
    command = [sys.executable, "-m", "gunicorn", *options, "counted_app:wsgi"]
    with serving(command, tmp_path, GILTRACE_METRICS_DIR=str(pages)):
        get(url)
        with Prometheus(tmp_path / "prometheus", [f"127.0.0.1:{port}"]) as prometheus:
            for ended in range(1, 7):
                pids = {get(url) for _ in range(20)}
                with contextlib.suppress(OSError, urllib.error.URLError):
                    urllib.request.urlopen(f"{url}/end", timeout=30)
                deadline = time.monotonic() + SECONDS
                # Some worker tells that one has ended, and three live again.
                while (now := sums(get(f"{url}/metrics")))["python_gil_ended_processes_total"] < ended or (
                    now["python_gil_processes"] < 3
                ):
                    assert time.monotonic() < deadline, now
                assert now["python_gil_ended_processes_total"] == ended
                assert pids
            assert now["python_gil_holds_total"] >= 6 * 20 * 50
            prometheus.wait_until(lambda: prometheus.query("python_gil_ended_processes_total == 6"))
            for name in ("python_gil_holds_total", "python_gil_held_seconds_total", "python_gil_hold_seconds_bucket"):
                assert prometheus.query(f"resets({name}[5m]) > 0") == []
        assert len(list(pages.glob("count-*.bin"))) == 3  # those of the dead are gone


def test_gunicorns_master_serves_where_it_is_told_to(tmp_path: Path) -> None:
    needs("gunicorn")
    port, own = free_port(), free_port()
    options = ["-w", "2", "-b", f"127.0.0.1:{port}", "-c", "python:giltrace.integrations.gunicorn"]
    command = [sys.executable, "-m", "gunicorn", *options, "counted_app:wsgi"]
    env = {"GILTRACE_METRICS_LISTEN": f"127.0.0.1:{own}", "TMPDIR": str(tmp_path)}
    with serving(command, tmp_path, **env):
        get(f"http://127.0.0.1:{port}")
        assert sums(get(f"http://127.0.0.1:{own}/metrics"))["python_gil_holds_total"] >= 50
    assert list(tmp_path.glob("giltrace-metrics-*")) == []


@pytest.mark.parametrize("application", ["fastapi", "plain"])
def test_asgi_applications_under_uvicorn(tmp_path: Path, application: str) -> None:
    needs("uvicorn")
    needs("fastapi")
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", f"counted_app:{application}", "--port", str(port)]
    with serving([*command, "--workers", "2"], tmp_path, GILTRACE_METRICS_DIR=str(tmp_path / "pages")):
        for _ in range(20):
            get(f"http://127.0.0.1:{port}/hold")
        deadline = time.monotonic() + SECONDS
        while (now := sums(get(f"http://127.0.0.1:{port}/metrics/")))["python_gil_processes"] < 2:
            assert time.monotonic() < deadline
        assert now["python_gil_holds_total"] >= 1000


def test_a_django_project(tmp_path: Path) -> None:
    needs("django")
    needs("gunicorn")
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "counted_app:django()"]
    with serving(command, tmp_path):
        for _ in range(5):
            get(f"http://127.0.0.1:{port}/hold")
        assert sums(get(f"http://127.0.0.1:{port}/metrics"))["python_gil_holds_total"] >= 250


def test_celerys_workers(tmp_path: Path) -> None:
    needs("celery")
    port = free_port()
    (tmp_path / "tasks.py").write_text(
        "import os, time, celery, giltrace.integrations.celery\n"
        "giltrace.integrations.celery.install()\n"
        "app = celery.Celery('tasks', broker='filesystem://')\n"
        "app.conf.broker_transport_options = dict.fromkeys(('data_folder_in', 'data_folder_out'), 'queue')\n"
        "@app.task\n"
        "def hold():\n"
        "    for _ in range(1000): time.sleep(0)\n"
        "    open('done', 'w').close()\n"
    )
    (tmp_path / "queue").mkdir()
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-c", "2", "--without-gossip"]
    env = {"GILTRACE_METRICS_LISTEN": f"127.0.0.1:{port}", "TMPDIR": str(tmp_path)}
    with serving(command, tmp_path, **env):
        get(f"http://127.0.0.1:{port}/metrics")
        subprocess.run([sys.executable, "-c", "import tasks; tasks.hold.delay()"], cwd=tmp_path, check=True, timeout=60)
        deadline = time.monotonic() + SECONDS
        while not (tmp_path / "done").exists():
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        now = sums(get(f"http://127.0.0.1:{port}/metrics"))
        assert now["python_gil_processes"] >= 3
        assert now["python_gil_holds_total"] >= 1000
    assert re.search("Traceback", (tmp_path / "log").read_text()) is None
