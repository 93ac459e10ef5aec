"""What counting costs a web server: its CPU time for a request, requests per second and the 99th percentile.

    python benchmarks/servers.py --python PATH [--pairs 10] [--seconds 12] [--markdown]

gunicorn with Flask (two workers of four threads) and uvicorn with FastAPI, under `wrk` with 16 connections, on the
loopback address; `--python` has those packages. Counters are read each second meanwhile, and have to have counted. In
each pair, bare and counted, both run, the first of them in turns. The sign test says how likely it is that as many
pairs go one way by chance alone. CPU time is the server's own, of all its threads and processes, and tells much smaller
differences than requests a second do. How busy the machine was is told before and after.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.tables import show
from giltrace.launch.counting import counting_environment
from giltrace.metrics.page import Pages

FLASK = """
import json, time
from flask import Flask
app = Flask(__name__)
@app.route("/")
def index():
    time.sleep(0.001)
    return json.dumps({str(n): n * n for n in range(200)})
"""
FASTAPI = """
import json, time
from fastapi import FastAPI
app = FastAPI()
@app.get("/")
def index():
    time.sleep(0.001)
    return {str(n): n * n for n in range(200)}
"""
SERVERS = {
    "gunicorn + Flask": (FLASK, ("gunicorn", "-w", "2", "--threads", "4", "-b", "127.0.0.1:{port}", "app:app")),
    "uvicorn + FastAPI": (FASTAPI, ("uvicorn", "--port", "{port}", "--log-level", "warning", "app:app")),
}
#: How long a server may take to begin.
_START_SECONDS = 60.0
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def free_port() -> int:
    """A port of the loopback address that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_served(port: int) -> None:
    """Return once a server listens at `port`. Raises `TimeoutError`."""
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nobody listens at port {port} after {_START_SECONDS:.0f} s")


def load_told() -> str:
    """How busy the machine is."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def cpu_ns(pid: int) -> int:
    """For how long a process and those below it have run: their threads that live."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
        total += sum(cpu_ns(int(child)) for child in (task / "children").read_text().split())
    return total


@contextlib.contextmanager
def serving(python: Path, server: str, folder: Path, counted: bool) -> Iterator[tuple[int, int]]:
    """A server at work; yields its port and its id."""
    code, words = SERVERS[server]
    (folder / "app.py").write_text(code)
    port = free_port()
    module, *options = (word.format(port=port) for word in words)
    env = None
    if counted:
        (folder / "counts").mkdir()
        env = counting_environment(folder / "counts")
    command = [str(python), "-m", module, *options]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=folder, env=env, stdout=quiet, stderr=quiet) as process:
        try:
            wait_until_served(port)
            yield port, process.pid
        finally:
            process.terminate()


class Measured(NamedTuple):
    """One run: requests a second, the 99th percentile (ms), CPU time a request (us), and the holds counted."""

    rate: float
    late: float
    cpu: float
    holds: int


def measure(python: Path, server: str, seconds: int, counted: bool) -> Measured:
    """Measure one run. Raises `RuntimeError` if no hold of the GIL was counted although they should have been."""
    with tempfile.TemporaryDirectory() as name:
        folder, holds = Path(name), 0
        with serving(python, server, folder, counted) as (port, pid):
            subprocess.run(["wrk", "-t1", "-c16", "-d1", f"http://127.0.0.1:{port}/"], capture_output=True, check=True)
            done = threading.Event()
            pages = Pages(folder / "counts")

            def read_each_second() -> None:
                while not done.wait(1):
                    pages.read()

            reader = threading.Thread(target=read_each_second)
            if counted:
                reader.start()
            words = ["wrk", "-t1", "-c16", f"-d{seconds}", "--latency", f"http://127.0.0.1:{port}/"]
            before = cpu_ns(pid)
            said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            ran = cpu_ns(pid) - before
            if counted:
                done.set()
                reader.join()
                holds = sum(page.counts.holds for page in pages.read())
                pages.close()
                if not holds:
                    raise RuntimeError(f"{server}: nothing was counted, so this is no comparison")
    rate, late = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"99%\s+([\d.]+)(us|ms|s)\b", said)
    assert rate is not None, said
    assert late is not None, said
    requests = re.search(r"(\d+) requests in", said)
    assert requests is not None, said
    return Measured(float(rate[1]), float(late[1]) * _UNITS[late[2]], ran / 1e3 / int(requests[1]), holds)


def sign_test(ratios: list[float]) -> float:
    """How likely it is that so many of them, or more, are on one side of 1 by chance; two-sided."""
    above = sum(ratio > 1 for ratio in ratios)
    count = sum(ratio != 1 for ratio in ratios)
    most = max(above, count - above)
    tail: int = sum(math.comb(count, k) for k in range(most, count + 1))
    return min(1.0, tail / 2.0 ** (count - 1))


def main() -> None:
    """Measure both servers, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", type=Path, required=True, help="with gunicorn, Flask, uvicorn and FastAPI")
    parser.add_argument("--pairs", type=int, default=10, help="of runs (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=12, help="of each run (default: %(default)s)")
    parser.add_argument("--markdown", action="store_true", help="print the table for the documentation")
    options = parser.parse_args()
    rows = list[list[str]]()
    print(f"before: {load_told()}", file=sys.stderr)
    for server in SERVERS:
        counted_runs, bare_runs = list[Measured](), list[Measured]()
        for pair in range(options.pairs):
            got = {
                counted: measure(options.python, server, options.seconds, counted)
                for counted in ((False, True) if pair % 2 else (True, False))
            }
            one, other = got[True], got[False]
            counted_runs.append(one)
            bare_runs.append(other)
            said = (
                f"CPU x {one.cpu / other.cpu:.3f}, requests x {one.rate / other.rate:.3f}, {one.holds:,} holds counted"
            )
            print(f"{server}: {said}; {load_told()}", file=sys.stderr)
        for what, name in (
            ("CPU time a request, us", "cpu"),
            ("requests a second", "rate"),
            ("99th percentile, ms", "late"),
        ):
            bare = [getattr(run, name) for run in bare_runs]
            ratios = [getattr(run, name) / plain for run, plain in zip(counted_runs, bare, strict=True)]
            spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
            median = f"x {statistics.median(ratios):.3f}"
            rows.append([server, what, f"{statistics.median(bare):.1f}", median, spread, f"{sign_test(ratios):.2f}"])
        holds = sum(run.holds for run in counted_runs)
        rows.append([server, "holds of the GIL counted", f"{holds:,}", "", "", ""])
    head = ["server", "", "bare", "counted", "least to most", "by chance"]
    show(head, rows, markdown=options.markdown, left=2)
    print(f"after: {load_told()}", file=sys.stderr)


if __name__ == "__main__":
    main()
