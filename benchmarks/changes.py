"""Programs, what the report says that a change of theirs would bring at most, and that change.

What is forecast for a whole process is set against the part of it in which its worker threads live, as the programs
time themselves: what comes before and after does not change.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from giltrace.analysis.report import analyse
from giltrace.analysis.results import ProcessReport
from giltrace.timeline.load import load
from giltrace.timeline.model import Process

WORKLOADS = Path(__file__).resolve().parents[1] / "workloads"
#: A run is done again while others use more of the machine than this share of one core ...
QUIET = 0.05
#: ... but so many times at most: then what was measured last counts.
ATTEMPTS = 10
_PAUSE_SECONDS = 0.5
_PRECEDENCE = Path("/proc/self/autogroup")

#: `HOGGED` has calls of C that keep the GIL, beside threads that want it for a moment now and then.
HOGGED = """
import ctypes, threading, time
library = ctypes.PyDLL(None)
data = (ctypes.c_uint64 * 600_000)(*(n * 2654435761 % 2**32 for n in range(600_000)))
compare = ctypes.cast(library.strcmp, ctypes.c_void_p)
def hog():
    for _ in range(20):
        library.qsort(data, ctypes.c_size_t(len(data)), ctypes.c_size_t(8), compare)
def work():
    for _ in range(20):
        time.sleep(0.001)
        number = 0
        while number < 200_000:
            number += 1
def main():
    start = time.perf_counter()
    threads = [threading.Thread(target=hog), threading.Thread(target=work)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("in %.2f s" % (time.perf_counter() - start))
main()
"""


def without_gil(process: ProcessReport) -> float:
    """By how much the whole is faster without a GIL, at most."""
    return process.what_if.speedup_bound


def without_lock(process: ProcessReport) -> float:
    """Without the lock that cost most."""
    return next((row.speedup_bound for row in process.lock_blame if row.speedup_bound), 1.0)


def releasing(process: ProcessReport) -> float:
    """If the worst hog released the GIL."""
    return process.hogs[0].speedup_bound if process.hogs else 1.0


@dataclass(frozen=True, eq=False)
class Change:
    """A workload (or the source of a program) and what is done to it.

    `edits` are replaced in its text. It is recorded, and run as it is, by `python` with `environment`; the changed
    program runs by the same interpreter with `changed_environment`. With `free_threaded` that interpreter is one built
    without a GIL.
    """

    name: str
    what: str
    forecast: Callable[[ProcessReport], float]
    edits: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    source: str = ""
    free_threaded: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    changed_environment: dict[str, str] = field(default_factory=dict)

    def program(self, *, changed: bool) -> str:
        """Its text. What it tells of the time that it took has more digits."""
        text = (self.source or (WORKLOADS / f"{self.name}.py").read_text()).replace("in %.2f s", "in %.6f s")
        for old, new in self.edits if changed else ():
            if old not in text:
                raise ValueError(f"{self.name} has no {old!r} to change")
            text = text.replace(old, new)
        return text


_OUT = (("with lock:", "if True:"),)
_SPLIT = (("with lock:", "with threading.Lock():"),)
_WITH, _WITHOUT = {"PYTHON_GIL": "1"}, {"PYTHON_GIL": "0"}
_PROCESSES = (("import threading", "import multiprocessing"), ("threading.Thread(", "multiprocessing.Process("))

CHANGES = (
    Change("lock_io", "without its lock", without_lock, _OUT),
    Change("lock_io", "a lock for each thread", without_lock, _SPLIT),
    Change(
        "lock_io",
        "without its lock, no GIL",
        without_lock,
        _OUT,
        free_threaded=True,
        environment=_WITHOUT,
        changed_environment=_WITHOUT,
    ),
    Change("lock_convoy", "without its lock", without_lock, _OUT),
    Change("lock_convoy", "a lock for each thread", without_lock, _SPLIT),
    Change("hog", "its call releases the GIL", releasing, (("PyDLL", "CDLL"),), source=HOGGED),
    Change("cpu_bound", "as processes", without_gil, _PROCESSES),
    *(
        Change(
            name,
            "without a GIL",
            without_gil,
            free_threaded=True,
            environment=_WITH,
            changed_environment=_WITHOUT,
        )
        for name in ("cpu_bound", "queue_pipeline", "io_bound")
    ),
)


def take_precedence() -> None:
    """Have this process and its children served before all others, in a session of their own; raises `OSError`."""
    if os.getpid() != os.getsid(0):
        os.setsid()
    _PRECEDENCE.write_text("-20")


class Round(NamedTuple):
    """What one round gave: by how much the changed program should be faster, and by how much it is.

    `busy` is the most that others used of the machine during one of its runs, as a share of one core.
    """

    forecast: float
    real: float
    busy: float


def one_round(change: Change, python: str, attempts: int = ATTEMPTS) -> Round:
    """Record a program, and run it as it is and changed, each while nobody else uses the machine, if that can be."""
    with tempfile.TemporaryDirectory() as name:
        script, changed = Path(name, "program.py"), Path(name, "changed.py")
        script.write_text(change.program(changed=False))
        changed.write_text(change.program(changed=True))
        forecast, *busy = _quietly(lambda: _forecast(change, python, script), attempts)
        before, after = (
            _quietly(lambda at=at, more=more: _seconds(change, [python, str(at)], more), attempts)
            for at, more in ((script, change.environment), (changed, change.changed_environment))
        )
    return Round(forecast, before[0] / after[0], max(*busy, before[1], after[1]))


def _seconds(change: Change, command: list[str], more: dict[str, str]) -> float:
    """How long a program took, as it says itself."""
    environment = {**os.environ, **more}
    command += change.arguments
    ran = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=300)
    return float(re.findall(r"in ([\d.]+) s", ran.stdout)[-1])


def _forecast(change: Change, python: str, script: Path) -> float:
    output = script.with_name("recorded")
    giltrace = [sys.executable, "-m", "giltrace", "record", "--light", "--force", "-o", str(output)]
    _seconds(change, [*giltrace, "--python", python, str(script)], change.environment)
    timeline = load(output.with_name("recorded.giltrace"))
    (process,) = timeline.processes
    bound = change.forecast(analyse(timeline).processes[0])
    outside = around(process)
    whole = process.end - process.start
    return (whole - outside) / (whole / bound - outside)


def around(process: Process) -> int:
    """How long (ns) a process took before its first thread and after the last."""
    workers = [thread for thread in process.threads if thread.tid != process.pid]
    return (process.end - process.start) - (max(w.end for w in workers) - min(w.start for w in workers))


def _quietly(measured: Callable[[], float], attempts: int) -> tuple[float, float]:
    """What is measured once others use next to nothing of the machine meanwhile, and how much that is."""
    for attempt in range(attempts):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        start, before = time.perf_counter(), _busy()
        found = measured()
        others = max(_busy() - before, 0.0) / (time.perf_counter() - start)
        if others <= QUIET:
            break
    return found, others


def _busy() -> float:
    """How long others than this process and its children used the cores since the machine started, in s."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]]
    idle = ticks[3] + ticks[4]
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return (sum(ticks[:8]) - idle) / os.sysconf("SC_CLK_TCK") - sum(one.ru_utime + one.ru_stime for one in own)
