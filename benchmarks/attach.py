"""What attaching again and again does to programs that must not notice: a web server, a loop, threads inside malloc.

    python benchmarks/attach.py [--python PATH] [--cycles 500] [--target server|spin|malloc|all]

The server (waitress, installed into a temporary folder) answers a constant load from another process. Failed requests,
an end or a hang of the program, and growth in threads, descriptors or mappings beyond the first cycle make it fail.
Latencies are shown before, during and after, and beside `py-spy record`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from giltrace.collectors.pyspy import find_program
from giltrace.collectors.sched import SchedCollector
from giltrace.launch.attach.session import attach

SERVER = """
import json, sys, waitress
def app(environ, start_response):
    rows = [{"id": i, "name": "row %d" % i, "data": bytearray(600 + i).hex()} for i in range(60)]
    body = json.dumps(rows).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
server = waitress.create_server(app, host="127.0.0.1", port=0, threads=8)
print(server.effective_port, flush=True)
server.run()
"""

SPIN = """
print("ready", flush=True)
n = 0
while True:
    n += 1
"""

MALLOC = """
import threading
def churn(size):
    while True:
        blocks = [bytearray(size + i * 64) for i in range(200)]
for size in (600, 5000, 200000):
    threading.Thread(target=churn, args=(size,), daemon=True).start()
print("ready", flush=True)
churn(1200)
"""

LOAD = """
import http.client, sys, threading, time, json
port, out = int(sys.argv[1]), sys.argv[2]
ended, results, failures = threading.Event(), [], []
def client():
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    while not ended.is_set():
        begin = time.monotonic_ns()
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200 or len(json.loads(body)) != 60:
                raise ValueError("status %d, %d bytes" % (answer.status, len(body)))
        except Exception as error:
            failures.append(repr(error))
            connection.close()
        results.append((begin, time.monotonic_ns() - begin))
        time.sleep(0.005)
threads = [threading.Thread(target=client) for _ in range(4)]
for t in threads: t.start()
print("ready", flush=True)
sys.stdin.read()
ended.set()
for t in threads: t.join()
json.dump({"results": results, "failures": failures}, open(out, "w"))
"""


_FIRST_SECONDS = 2.0


def main() -> int:
    """Run the benchmark; 1 if anything was found wrong."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--python", default=sys.executable)
    options.add_argument("--cycles", type=int, default=500)
    options.add_argument("--seconds", type=float, default=0.05, help="how long to stay attached in each cycle")
    options.add_argument("--target", choices=("server", "spin", "malloc", "all"), default="all")
    chosen = options.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="giltrace-attach-") as name:
        for target in ("server", "spin", "malloc") if chosen.target == "all" else (chosen.target,):
            failed |= run(target, chosen.python, chosen.cycles, chosen.seconds, Path(name))
    return int(failed)


def run(target: str, python: str, cycles: int, seconds: float, folder: Path) -> bool:
    """Start one program and attach to it again and again; true if anything was wrong."""
    env = dict(os.environ)
    if target == "server":
        env["PYTHONPATH"] = str(install("waitress", python, folder))
    code = {"server": SERVER, "spin": SPIN, "malloc": MALLOC}[target]
    pipe = subprocess.PIPE
    with subprocess.Popen([python, "-c", code], env=env, stdout=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline().strip()
            load = Load(int(first), folder) if target == "server" else None
            return cycle(target, process, cycles, seconds, folder, load)
        finally:
            process.kill()


def cycle(
    name: str, process: subprocess.Popen[str], cycles: int, seconds: float, folder: Path, load: Load | None
) -> bool:
    """Attach again and again, and print what came of it; true if anything was wrong."""
    phases = {"before": wait(3)}
    begin = time.monotonic_ns()
    pauses: list[int] = []
    stops: list[int] = []
    problems: list[str] = []
    first: dict[str, int] | None = None
    for number in range(cycles):
        recording = folder / "cycle.giltrace"
        try:
            # The first is long enough for every thread to be seen: each keeps the mapping of its newest records.
            length = seconds if number else _FIRST_SECONDS
            outcome = attach(process.pid, recording, [SchedCollector()], depth=128, seconds=length, force=True)
        except Exception as error:
            problems.append(f"cycle {number}: {error}")
            if process.poll() is not None:
                break
            continue
        pauses.append(max(outcome.stops_ns))
        stops.append(len(outcome.stops_ns))
        problems += outcome.said
        if first is None:
            first = resources(process.pid)
    phases["attaching"] = (begin, time.monotonic_ns())
    last = resources(process.pid) if process.poll() is None else {}
    phases["after"] = wait(3)
    if load is not None:
        phases["py-spy record"] = sampled(process.pid, folder)
    alive = process.poll() is None and responds(process.pid)
    print(f"\n{name}: {len(pauses)} of {cycles} cycles, {'alive' if alive else 'DEAD OR HUNG'}")
    if pauses:
        print(
            f"  a thread was stopped for {statistics.median(pauses) / 1e6:.2f} ms (median), {max(pauses) / 1e6:.2f} ms "
            f"at most; {statistics.mean(stops):.1f} threads stopped per cycle"
        )
    print(f"  after the first cycle {first}, after the last {last}")
    failures = load.report(phases) if load is not None else []
    problems += failures
    for problem, count in {p: problems.count(p) for p in problems}.items():
        print(f"  {count} x {problem}")
    grown = first is not None and any(last.get(key, 0) > value for key, value in first.items())
    return bool(problems) or not alive or grown


class Load:
    """Requests from another process, one after the other in each of four threads."""

    def __init__(self, port: int, folder: Path) -> None:
        self._out = folder / "load.json"
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", LOAD, str(port), str(self._out)]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def report(self, phases: dict[str, tuple[int, int]]) -> list[str]:
        """End it, print the latencies of each phase, and return what failed."""
        self._process.communicate(timeout=60)
        data = json.loads(self._out.read_text())
        results = np.array(data["results"], np.int64).reshape(-1, 2)
        print(f"  {len(results)} requests, {len(data['failures'])} failed")
        for name, (begin, end) in phases.items():
            own = results[(results[:, 0] >= begin) & (results[:, 0] < end), 1] / 1e6
            if own.size:
                p50, p99, longest = np.percentile(own, 50), np.percentile(own, 99), own.max()
                print(f"  {name:<14} {own.size:6} requests: p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {longest:.1f} ms")
        return [f"request failed: {failure}" for failure in data["failures"]]


def wait(seconds: float) -> tuple[int, int]:
    """Let some time pass; from when to when it was."""
    begin = time.monotonic_ns()
    time.sleep(seconds)
    return begin, time.monotonic_ns()


def sampled(pid: int, folder: Path) -> tuple[int, int]:
    """Let py-spy record in its default way for some seconds; for how long it did."""
    program = find_program()
    begin = time.monotonic_ns()
    if program is not None:
        command = [program, "record", "-d", "5", "-f", "raw", "-o", str(folder / "py-spy.txt"), "-p", str(pid)]
        subprocess.run(command, capture_output=True, timeout=60, check=False)
    return begin, time.monotonic_ns()


def responds(pid: int) -> bool:
    """Tell whether any of its threads gets CPU time within some seconds."""
    before = cpu_ticks(pid)
    for _ in range(50):
        time.sleep(0.1)
        if cpu_ticks(pid) > before:
            return True
    return False


def cpu_ticks(pid: int) -> int:
    """CPU time that the process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def resources(pid: int) -> dict[str, int]:
    """What must not grow."""
    proc = Path(f"/proc/{pid}")
    time.sleep(0.1)
    tracer = (proc / "maps").read_text().splitlines()
    return {
        "threads": len(list((proc / "task").iterdir())),
        "descriptors": len(list((proc / "fd").iterdir())),
        "mappings of ours": sum("giltrace" in line for line in tracer),
        "mappings": len(tracer),
    }


def install(package: str, python: str, folder: Path) -> Path:
    """Install a pure Python package for `python`, which need not have pip, into a folder."""
    version = subprocess.run(
        [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, check=True
    ).stdout.strip()
    into = folder / "packages"
    if not into.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]
        command += [str(into), "--only-binary=:all:", "--python-version", version, package]
        subprocess.run(command, check=True)
    return into


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
