"""The py-spy collector: sampled Python stacks of every thread of every Python process below the target."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from giltrace import installation
from giltrace.collectors._pyspy_budget import WORTH_SECONDS, Budget
from giltrace.collectors._pyspy_process import PySpyProcess
from giltrace.collectors._thread_stacks import ThreadStacks
from giltrace.recording.folder import GIL_NAME
from giltrace.text import plural

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from giltrace.collectors.base import Session
    from giltrace.recording.collected import CollectorReport
    from giltrace.recording.events import Spans

    Rows = npt.NDArray[np.void]

#: Processes sampled at the same time; each costs some per cent of a core.
MAX_PROCESSES = 8

#: Attempts per process: one that has only just started may not be recognisable as Python yet.
_ATTEMPTS = 3
_STOP_SECONDS = 10.0


class PySpyCollector:
    """Starts one py-spy for each Python process that appears, and puts what it saw on the recording's clock.

    `rate` is in samples per second, and lower where it would cost more than the `Budget` has.
    """

    name = "py-spy"

    def __init__(self, rate: int = 100) -> None:
        self._options = ["--nonblocking", "--idle", "--threads", "-f", "chrometrace"]
        self._budget = Budget(rate)
        self._folder = Path()
        self._pid = 0
        self._images: dict[int, int] = {}
        self._attempts: dict[tuple[int, int], int] = {}
        self._current: dict[int, PySpyProcess] = {}
        self._finished: list[PySpyProcess] = []
        self._stacks: dict[int, ThreadStacks] = {}
        self._waiting: set[int] = set()
        self._small: set[int] = set()
        self._ended: dict[int, int] = {}
        self._ending: set[int] = set()

    def available(self, python: str | None) -> str | None:
        """Say whether py-spy is there to be run."""
        return None if find_program() else f"py-spy is not installed: {installation.with_package('py-spy')}"

    def prepare(self, folder: Path, env: dict[str, str]) -> None:
        """Nothing to do: py-spy looks at the target from outside."""

    def start(self, session: Session) -> None:
        """Remember what to watch; py-spy starts when there is a Python process."""
        self._folder, self._pid = session.folder, session.pid

    def poll(self) -> None:
        """Start py-spy on new Python processes, and follow those under way."""
        now = time.monotonic_ns()
        for pid, process in list(self._current.items()):
            if process.running:
                self._stacks[pid].look(now)
            else:
                self._finished.append(self._current.pop(pid))
                self._ending.discard(pid)
        images = self._find_images()
        self._keep_to_budget(now, images)
        for pid, image in images.items():
            self._follow(pid, image)

    def _keep_to_budget(self, now: int, images: Mapping[int, int]) -> None:
        samplers = {pid: process.pid for pid, process in self._current.items() if pid not in self._ending}
        finished = sum(process.cpu_seconds for process in self._finished)
        for pid in self._budget.look(now, images, samplers, finished):
            self._ended[pid] = self._ended.get(pid, 0) + 1
            self._ending.add(pid)
            self._current[pid].interrupt()

    def stop(self) -> CollectorReport:
        """Let each py-spy write its file, within bounds, and convert them."""
        from giltrace.recording.collected import CollectorReport
        from giltrace.recording.spans import write_spans

        self._end_all()
        spans, problems = self._convert()
        for one in spans:
            write_spans(self._folder, one)
        cost = self._cost()
        for process in self._finished:
            process.remove_files()
        if not spans:
            return CollectorReport(self.name, problems[0] if problems else "no Python process lived long enough", cost)
        return CollectorReport(
            self.name,
            "ok",
            cost="; ".join([cost, *problems]),
            clock_error_ns=max(one.clock_error_ns for one in spans),
            lost=sum(one.lost for one in spans),
        )

    def _find_images(self) -> dict[int, int]:
        """Return the number of the newest program image of each Python process: a pid may execute several."""
        images: dict[int, int] = {}
        for name in os.listdir(self._folder):
            match = GIL_NAME.fullmatch(name)
            if match:
                pid = int(match[1])
                images[pid] = max(images.get(pid, 0), int(match[2]))
        if self._pid not in images and _is_python(self._pid):
            images[self._pid] = -1  # without the native tracer nothing else tells
        return images

    def _follow(self, pid: int, image: int) -> None:
        current = self._current.get(pid)
        if current is not None:
            if image > max(self._images[pid], 0):
                current.interrupt()  # it reads the memory of a program that is no more
            return
        attempt = self._attempts.get((pid, max(image, 0)), 0)
        if attempt - self._ended.get(pid, 0) >= _ATTEMPTS or not Path(f"/proc/{pid}/maps").exists():
            return
        if self._has_samples(pid, image) and pid not in self._ended:
            return
        if not self._may_start(pid):
            return
        if len(self._current) >= MAX_PROCESSES:
            self._waiting.add(pid)
            return
        program = find_program()
        if program is None:
            return
        self._attempts[(pid, max(image, 0))] = attempt + 1
        stem = self._folder / f"py-spy-{pid}-{max(image, 0)}-{attempt}"
        rate = self._budget.rate(pid, self._ended.get(pid, 0))
        self._current[pid] = PySpyProcess([program, "record", *self._options, "-r", str(rate)], pid, stem)
        self._images[pid] = image
        self._stacks.setdefault(pid, ThreadStacks(pid))
        self._waiting.discard(pid)

    def _may_start(self, pid: int) -> bool:
        """Whether the budget has room for this process: the first one always, others once they have done something."""
        if not self._stacks:
            return True
        if pid not in self._stacks and not self._budget.is_worth(pid):
            self._small.add(pid)
            return False
        self._small.discard(pid)
        return self._budget.has_room()

    def _has_samples(self, pid: int, image: int) -> bool:
        done = [process for process in self._finished if process.target == pid]
        return bool(done) and done[-1].status == 0 and image <= max(self._images[pid], 0)

    def _end_all(self) -> None:
        for process in self._current.values():
            process.interrupt()
        deadline = time.monotonic() + _STOP_SECONDS
        while sum(process.running for process in self._current.values()):
            time.sleep(0.002)
            if time.monotonic() > deadline:
                for process in self._current.values():
                    process.kill()
        self._finished.extend(self._current.values())
        self._current.clear()

    def _convert(self) -> tuple[list[Spans], list[str]]:
        """Return the spans of each process, and what is missing."""
        from giltrace.recording.sched import read_ends

        ends = read_ends(self._folder)
        collected: dict[int, _Collected] = {}
        problems: dict[int, str] = {}
        for process in self._finished:
            pid, stacks = process.target, self._stacks[process.target]
            try:
                trace = process.trace()
                if trace is None or not trace.samples:
                    problems.setdefault(pid, process.problem())
                    continue
                start, error = process.clock_start(trace)
                limits: Mapping[int, list[int]] = ends or stacks.last_seen(process.end)
                into = collected.get(pid) or _Collected()
                rows, unknown = trace.rows(start, into.names, stacks.tid, limits, process.end)
            except (ValueError, KeyError) as problem:
                problems[pid] = f"py-spy's file for process {pid} makes no sense ({problem}): upgrade py-spy"
                continue
            into.add(rows, error, unknown)
            collected[pid] = into
        missing = [text for pid, text in problems.items() if pid not in collected]
        if self._waiting - collected.keys():
            count = len(self._waiting - collected.keys())
            missing.append(f"{count} processes beyond {MAX_PROCESSES} at the same time were not sampled")
        missing += self._left_out()
        return [one.spans(pid) for pid, one in collected.items()], list(dict.fromkeys(missing))

    def _left_out(self) -> Iterator[str]:
        if self._ended:
            few = f"process {next(iter(self._ended))}" if len(self._ended) == 1 else f"{len(self._ended)} processes"
            yield f"sampling was ended or slowed down in {few}, to cost at most 10 % of the program's CPU time"
        if self._small:
            few = plural(len(self._small), "process", "processes")
            yield f"{few} that took less than {WORTH_SECONDS} s of CPU time not sampled"

    def _cost(self) -> str:
        cpu = sum(process.cpu_seconds for process in self._finished)
        wall = sum(process.end - process.begin for process in self._finished) / 1e9
        counts = [process.counts() for process in self._finished]
        samples, errors = sum(taken for taken, _ in counts), sum(failed for _, failed in counts)
        share = 100 * cpu / wall if wall else 0.0
        return f"{samples:,} samples, {errors} errors; py-spy used {cpu:.2f} s of CPU, {share:.1f} % of one core"


class _Collected:
    """The spans of one process from all its program images."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self._rows: list[Rows] = []
        self._error = 0
        self._lost = 0

    def add(self, rows: Rows, error: int, lost: int) -> None:
        """Add the spans of one image, with the bound on their times and the number of those not known to any thread."""
        self._rows.append(rows)
        self._error = max(self._error, error)
        self._lost += lost

    def spans(self, pid: int) -> Spans:
        """Return all as one."""
        import numpy as np

        from giltrace.recording.events import Spans

        return Spans(
            collector=PySpyCollector.name,
            pid=pid,
            sampled=True,
            names=tuple(self.names),
            spans=np.concatenate(self._rows),
            clock_error_ns=self._error,
            lost=self._lost,
        )


def find_program() -> str | None:
    """Return the path of py-spy, None if it is not installed."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("py-spy")


def _is_python(pid: int) -> bool:
    """See whether `pid` has executed an interpreter; until it executes anything it is a copy of this process."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        executable = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return False
    return executable.startswith("python") and command != Path("/proc/self/cmdline").read_bytes()
