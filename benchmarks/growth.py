"""Whether anything grows where a server is counted for long, and whether what replaced workers counted is kept.

    python benchmarks/growth.py gunicorn|uvicorn --python PATH [--minutes 10] [--how command|match|bare]
        [--samples FILE] [--markdown]

gunicorn with Flask or uvicorn with FastAPI, two workers that end after some 1,000 requests each and are replaced, under
a steady load of `wrk` and scraped each second by Prometheus; `--python` has those packages. Memory, descriptors,
threads and mappings of the server's processes and of giltrace, and the files that they count in, are looked at twice a
second: what rises in each of the last three fifths of the time grows. `command` is `giltrace metrics -- CMD`, `match`
attaches to the server and to its workers, `bare` is without giltrace. Each request starts a thread that gives up the
GIL a known number of times, so that counts can be held to the truth over all who have ended. Ends with status 1 if
something grows, a counter shrank or a count is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.servers import free_port, load_told, wait_until_served
from benchmarks.tables import show
from giltrace.process.stat import stat_fields
from tests.processes import descendants
from tests.prometheus import Prometheus

#: Requests after which a worker is replaced.
_MOST = 1000
#: Connections that ask, and how long each waits between two questions (ms): some 100 in a second.
_CONNECTIONS, _DELAY_MS = 8, 75
#: How often the thread of a request gives up the GIL: in so many sleeps, and as it ends.
_SLEEPS = 50
_RELEASES = _SLEEPS + 1
_SAMPLE_SECONDS = 0.5
#: After the last request workers may yet end, and some scrapes come.
_SETTLE_SECONDS = 8.0
#: What is looked at, and the least that counts as more of it.
_FIGURES = {"RSS, KiB": 128.0, "descriptors": 0.2, "threads": 0.2, "mappings": 1.0, "files": 0.2, "files, KiB": 32.0}
_PARTS = 5
#: By what part counts may be away from the truth.
_AWAY = 0.001

_WORK = """
import os, threading, time
told = os.open("requests", os.O_WRONLY | os.O_APPEND)
def known():
    for _ in range({sleeps}):
        time.sleep(0)
def work():
    thread = threading.Thread(target=known, name="known-1")
    thread.start()
    thread.join()
    os.write(told, b".")
    return "done"
"""
_APPS = {
    "gunicorn": "from flask import Flask\napp = Flask(__name__)\napp.get('/')(work)\n",
    "uvicorn": "from fastapi import FastAPI\napp = FastAPI()\napp.get('/')(work)\n",
}
_WORDS = {
    "gunicorn": "-w 2 --threads 4 --max-requests {most} --max-requests-jitter 100 -b 127.0.0.1:{port}",
    "uvicorn": "--workers 2 --limit-max-requests {most} --port {port} --log-level warning",
}
#: How the command lines of a server and of its workers go on behind the interpreter, and options of its own.
_PATTERNS = {"gunicorn": ("*-m gunicorn *",), "uvicorn": ("*-m uvicorn *", "*-c from multiprocessing*")}
_SERVED = re.compile(r"giltrace: metrics at http://(\S+)/metrics")
#: Without the name, which `resets` drops, series would be alike.
_SHRUNK = (
    'sum(resets(label_replace({{__name__=~"python_.*_(total|count|sum|bucket)"}}, "of", "$1", "__name__", "(.*)")'
    "[{seconds}s:1s]))"
)
_KNOWN = 'sum(python_gil_holds_total{role="known-*"}) - sum(python_gil_forced_releases_total{role="known-*"})'

_Identity = tuple[int, bytes]


@dataclass
class _Watched:
    """A server at work, and giltrace where it counts: their processes, what they were, and when."""

    folder: Path
    port: int
    server: int  #: what all of the server is below: giltrace or its first process
    giltrace: int | None
    address: str  #: where the metrics are
    figures: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    seen: set[_Identity] = field(default_factory=set)
    living: set[_Identity] = field(default_factory=set)

    def look(self) -> None:
        """Add what there is now to the figures: of a server's process the mean, as there are more in a change."""
        of_server = [one for pid in self.processes() if (one := _figures(pid)) is not None]
        for what in of_server[0] if of_server else ():
            self.figures["server", what].append(statistics.mean(one[what] for one in of_server))
        if self.giltrace is not None:
            for what, value in (_figures(self.giltrace) or {}).items():
                self.figures["giltrace", what].append(value)
        # Folders go while this looks, which `os.walk` passes over.
        files = [Path(at, name) for at, _, names in os.walk(self.folder / "tmp") for name in names]
        sizes = [size for path in files if (size := _kib(path)) is not None]
        self.figures["counted in", "files"].append(len(sizes))
        self.figures["counted in", "files, KiB"].append(sum(sizes))

    def processes(self) -> list[int]:
        """Those of the server that live now; it is kept in mind which there were."""
        pids = [pid for pid in (self.server, *descendants(self.server)) if pid != self.giltrace]
        self.living = {one for pid in pids if (one := _identity(pid)) is not None}
        self.seen |= self.living
        return pids

    @property
    def requests(self) -> int:
        """How many the server has answered."""
        return (self.folder / "requests").stat().st_size


def _identity(pid: int) -> _Identity | None:
    with contextlib.suppress(OSError, IndexError):
        return pid, stat_fields(pid)[19]
    return None


def _kib(path: Path) -> float | None:
    with contextlib.suppress(OSError):
        return path.stat().st_blocks / 2
    return None


def _figures(pid: int) -> dict[str, float] | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        maps = Path(f"/proc/{pid}/maps").read_text().count("\n")
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None
    told = dict(re.findall(r"^(VmRSS|Threads):\s+(\d+)", status, re.M))
    if len(told) < 2:
        return None
    figures = (float(told["VmRSS"]), float(descriptors), float(told["Threads"]), float(maps))
    return dict(zip(_FIGURES, figures, strict=False))


@contextlib.contextmanager
def _served(folder: Path, name: str, python: Path, how: str) -> Iterator[_Watched]:
    """Start a server, and giltrace as `how` says."""
    port = free_port()
    (folder / "app.py").write_text(_WORK.format(sleeps=_SLEEPS) + _APPS[name])
    for new in ("requests", "log"):
        (folder / new).touch()
    (folder / "tmp").mkdir()
    command = [str(python), "-m", name, *_WORDS[name].format(most=_MOST, port=port).split(), "app:app"]
    metrics = [sys.executable, "-m", "giltrace", "metrics", "--listen", "127.0.0.1:0"]
    matches = [word for pattern in _PATTERNS[name] for word in ("--match", f"{python} {pattern}")]
    environment = os.environ | {"TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(Path(__file__).parents[1])}
    started: list[subprocess.Popen[bytes]] = []

    def start(words: list[str]) -> int:
        with (folder / "log").open("a") as log:
            started.append(subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log))
        return started[-1].pid

    try:
        server = start([*metrics, "--", *command] if how == "command" else command)
        wait_until_served(port)
        giltrace = {"command": server, "match": start([*metrics, *matches]) if how == "match" else None}.get(how)
        address = ""
        while giltrace is not None and not address:
            time.sleep(0.1)
            found = _SERVED.search((folder / "log").read_text())
            address = found[1] if found else ""
        yield _Watched(folder, port, server, giltrace, address)
    finally:
        for one in reversed(started):
            one.terminate()
            one.wait(60)


@contextlib.contextmanager
def _asked(watched: _Watched, seconds: float) -> Iterator[None]:
    """Ask a server at a steady pace while the block runs."""
    pace = watched.folder / "pace.lua"
    pace.write_text(f"function delay() return {_DELAY_MS} end\n")
    words = [
        "wrk",
        "-t1",
        f"-c{_CONNECTIONS}",
        f"-d{seconds:.0f}",
        "-s",
        str(pace),
        f"http://127.0.0.1:{watched.port}/",
    ]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as wrk:
        try:
            yield
        finally:
            wrk.terminate()


def _look_for(watched: _Watched, seconds: float) -> None:
    with _asked(watched, seconds):
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            watched.look()
            time.sleep(min(left, _SAMPLE_SECONDS))


def _counts_wrong(watched: _Watched, prometheus: Prometheus, seconds: float, *, exact: bool) -> list[str]:
    """What is wrong with the counts, once a last scrape has all; `exact` if each process was counted from its start."""
    time.sleep(_SETTLE_SECONDS)
    watched.processes()
    ended = len(watched.seen) - len(watched.living)
    gone, known = prometheus.value("python_gil_ended_processes_total"), prometheus.value(_KNOWN)
    shrunk = prometheus.value(_SHRUNK.format(seconds=int(seconds) + 60))
    truth = watched.requests * _RELEASES
    print(
        f"{watched.requests:,} requests; {gone:.0f} processes have ended, in truth {ended}; known threads gave up the "
        f"GIL {known:,.0f} times, in truth {truth:,}; counters shrank {shrunk:.0f} times"
    )
    wrong = [f"counters shrank {shrunk:.0f} times"] if shrunk else []
    if exact and gone != ended:
        wrong.append(f"{gone:.0f} processes are said to have ended, not {ended}")
    if exact and not abs(known / truth - 1) <= _AWAY:
        wrong.append(f"{known:,.0f} releases were counted, not {truth:,}")
    return wrong


def _table(watched: _Watched) -> tuple[list[list[str]], list[str]]:
    """The mean of each figure in each part of the time, and what grows."""
    rows, grown = list[list[str]](), list[str]()
    for (who, what), values in watched.figures.items():
        length = len(values) // _PARTS
        means = [statistics.mean(values[at * length : (at + 1) * length]) for at in range(_PARTS)]
        digits = 0 if "KiB" in what else 1
        grows = all(after - before > _FIGURES[what] for before, after in itertools.pairwise(means[-4:]))
        rows.append([who, what, *(f"{one:,.{digits}f}" for one in means), "grows" if grows else ""])
        grown += [f"{who}: {what}"] if grows else []
    return rows, grown


def main() -> int:
    """Watch one server, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("server", choices=sorted(_APPS))
    parser.add_argument("--python", type=Path, required=True, help="with the server's packages")
    parser.add_argument("--minutes", type=float, default=10.0, help="(default: %(default)s)")
    parser.add_argument("--how", choices=("command", "match", "bare"), default="command", help="(default: %(default)s)")
    parser.add_argument("--samples", type=Path, help="write all figures here, as JSON")
    parser.add_argument("--markdown", action="store_true", help="print the table for the documentation")
    options = parser.parse_args()
    seconds, wrong = options.minutes * 60, list[str]()
    print(f"{options.server}, {options.how}, {options.minutes:g} minutes, {load_told()}")
    with tempfile.TemporaryDirectory(prefix="giltrace-growth-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        watched = stack.enter_context(_served(folder, options.server, options.python.absolute(), options.how))
        if options.how == "bare":
            _look_for(watched, seconds)
        else:
            prometheus = stack.enter_context(Prometheus(folder / "prometheus", [watched.address]))
            _look_for(watched, seconds)
            wrong = _counts_wrong(watched, prometheus, seconds, exact=options.how == "command")
        stack.close()
        left = [path.name for path in (folder / "tmp").iterdir() if path.name.startswith("giltrace")]
        wrong += [f"left behind: {', '.join(left)}"] if left else []
        rows, grown = _table(watched)
    if options.samples is not None:
        options.samples.write_text(json.dumps({": ".join(of): all_of for of, all_of in watched.figures.items()}))
    head = ["", "", *(f"{part}/{_PARTS}" for part in range(1, _PARTS + 1)), ""]
    show(head, rows, markdown=options.markdown, left=2)
    wrong += [f"grows: {one}" for one in grown]
    print(f"{load_told()}; {'; '.join(wrong) or 'nothing grows'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
