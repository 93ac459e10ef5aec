"""What counting costs a web server: requests per second and the 99th percentile, bare and counted in turns.

    python benchmarks/servers.py --python PATH [--pairs 10] [--seconds 12] [--markdown]

gunicorn with Flask (two workers of four threads) and uvicorn with FastAPI, under `wrk` with 16 connections, on the
loopback address; `--python` has those packages. Counters are read each second meanwhile, and have to have counted. In
each pair both run, the first of them in turns. The sign test says how likely it is that as many pairs go one way by
chance alone. How busy the machine was is told before and after: its figures mean nothing beside other work.
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


@contextlib.contextmanager
def serving(python: Path, server: str, folder: Path, counted: bool) -> Iterator[int]:
    """A server at work; yields its port."""
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
            yield port
        finally:
            process.terminate()


def measure(python: Path, server: str, seconds: int, counted: bool) -> tuple[float, float, int]:
    """Requests per second, the 99th percentile in ms, and holds of the GIL that were counted.

    Raises `RuntimeError` if none were although they should have been.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, holds = Path(name), 0
        with serving(python, server, folder, counted) as port:
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
            said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
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
    return float(rate[1]), float(late[1]) * _UNITS[late[2]], holds


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
        rates, lates, bare, holds = list[float](), list[float](), list[tuple[float, float]](), 0
        for pair in range(options.pairs):
            got = {
                counted: measure(options.python, server, options.seconds, counted)
                for counted in ((False, True) if pair % 2 else (True, False))
            }
            rates.append(got[True][0] / got[False][0])
            lates.append(got[True][1] / got[False][1])
            bare.append(got[False][:2])
            holds += got[True][2]
            said = f"requests x {rates[-1]:.3f}, 99 % x {lates[-1]:.3f}, {got[True][2]:,} holds counted"
            print(f"{server}: {said}; {load_told()}", file=sys.stderr)
        for what, ratios, plain in (
            ("requests a second", rates, statistics.median(one for one, _ in bare)),
            ("99th percentile, ms", lates, statistics.median(one for _, one in bare)),
        ):
            median, least, most = statistics.median(ratios), min(ratios), max(ratios)
            spread = f"{least:.3f} to {most:.3f}"
            rows.append([server, what, f"{plain:.1f}", f"x {median:.3f}", spread, f"{sign_test(ratios):.2f}"])
        rows.append([server, "holds of the GIL counted", f"{holds:,}", "", "", ""])
    head = ["server", "", "bare", "counted", "least to most", "by chance"]
    show(head, rows, markdown=options.markdown, left=2)
    print(f"after: {load_told()}", file=sys.stderr)


if __name__ == "__main__":
    main()
