"""Whether an event is ever lost when programs and recorders are killed while events are written.

    python benchmarks/kills.py [--python PATH] [--targets 100] [--recorders 50] [--cycles 170]

The program counts its own uses of the GIL in a file that outlives it, so that a recording can be held against it.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from giltrace.errors import RecordingError
from giltrace.timeline.load import load
from giltrace.timeline.model import Flag, Process, Timeline

THREADS = 3
FUNCTION = "read_and_count"

#: Each thread releases the GIL once per turn, and then says in the shared file that it has.
PROGRAM = f"""
import mmap, os, sys, threading
with open(sys.argv[1], "r+b") as file:
    counts = memoryview(mmap.mmap(file.fileno(), 4096)).cast("Q")
fd, read = os.open("/dev/zero", os.O_RDONLY), os.read
def {FUNCTION}(number):
    done = 0
    while True:
        read(fd, 1)
        done += 1
        counts[number] = done
for number in range({THREADS}):
    threading.Thread(target={FUNCTION}, args=(number,), name="reader-%d" % number, daemon=True).start()
print(os.getpid(), flush=True)
sys.stdin.readline()
os._exit(0)
"""

GILTRACE = [sys.executable, "-m", "giltrace"]


class Fault(Exception):
    """What must not be."""


class Program:
    """The program, run by `command` in front of it; `counts` are its threads' own."""

    def __init__(self, python: str, folder: Path, *command: str) -> None:
        path = folder / "counts"
        path.write_bytes(bytes(4096))
        with path.open("r+b") as file:
            self._counts = mmap.mmap(file.fileno(), 4096)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [*command, python, "-c", PROGRAM, str(path)],
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
        )
        assert self.process.stdout is not None
        self.pid = int(self.process.stdout.readline())

    @property
    def counts(self) -> tuple[int, ...]:
        """How often each thread has released the GIL by itself."""
        return struct.unpack_from(f"={THREADS}Q", self._counts)

    def goes_on(self) -> None:
        """Raise `Fault` unless every thread counts on within ten seconds."""
        before, until = self.counts, time.monotonic() + 10
        while not all(now > then for now, then in zip(self.counts, before, strict=True)):
            if time.monotonic() > until:
                raise Fault(f"process {self.pid} hangs")
            time.sleep(0.005)

    def end(self) -> None:
        """Let it end by itself; raise `Fault` unless it does, with status 0."""
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate("\n", timeout=20)
        if self.process.returncode != 0:
            raise Fault(f"process {self.pid} ended with status {self.process.returncode}")


def is_whole(timeline: Timeline) -> Process:
    """Return the one process; raise `Fault` where an event is lost or an invariant broken."""
    if timeline.violations or any(process.lost or process.lost_stacks for process in timeline.processes):
        raise Fault(f"{timeline.violations}, lost: {[(p.lost, p.lost_stacks) for p in timeline.processes]}")
    (process,) = timeline.processes
    return process


def agrees(folder: Path, counts: tuple[int, ...]) -> int:
    """Return how many uses of the GIL the recording has; raise `Fault` unless they are those that were counted."""
    process = is_whole(load(folder / "x.giltrace"))
    assert process.stacks is not None
    table, numbers = process.stacks.table, {thread.name: i for i, thread in enumerate(process.threads)}
    innermost = table.frames["function"][table.offsets[:-1]]
    reads = np.array([table.strings[int(function)].endswith(FUNCTION) for function in innermost])
    own = (process.stacks.hold_end >= 0) & reads[process.stacks.hold_end]
    own &= (process.holds["flags"] & (Flag.FORCED | Flag.PARTIAL_END)) == 0
    for i, counted in enumerate(counts):
        found = int((own & (process.holds["thread"] == numbers[f"reader-{i}"])).sum())
        # Whoever was killed between the release and the count has one more.
        if found - counted not in (0, 1):
            raise Fault(f"thread {i} counted {counted} uses, {found} are recorded")
    return sum(counts)


def kill_target(python: str, folder: Path, luck: random.Random) -> int:
    """Kill the program while it is recorded."""
    program = Program(python, folder, *GILTRACE, "record", "--light", "--force", "-o", "x", "--")
    time.sleep(luck.uniform(0, 0.3))
    os.kill(program.pid, signal.SIGKILL)
    program.process.communicate(timeout=60)
    if program.process.returncode != -signal.SIGKILL:
        raise Fault(f"giltrace ended with status {program.process.returncode}")
    return agrees(folder, program.counts)


def kill_recorder(python: str, folder: Path, luck: random.Random) -> int:
    """Kill the recorder, and a moment later the program."""
    program = Program(python, folder, *GILTRACE, "record", "--light", "--force", "-o", "x", "--")
    time.sleep(luck.uniform(0, 0.3))
    program.process.kill()
    program.process.wait()
    program.goes_on()
    time.sleep(luck.uniform(0, 0.2))
    os.kill(program.pid, signal.SIGKILL)
    while Path(f"/proc/{program.pid}").exists():
        time.sleep(0.002)
    return agrees(folder, program.counts)


class Attaching:
    """One program that is attached to again and again while giltrace, or now and then the program, is killed."""

    def __init__(self) -> None:
        self.program: Program | None = None

    def __call__(self, python: str, folder: Path, luck: random.Random) -> int:
        """Attach for 300 ms at most; whoever is to be killed is, at any moment of it."""
        if self.program is None:
            self.program = Program(python, folder)
        program = self.program
        attach = [*GILTRACE, "attach", "--light", "--force", "-o", "x", "--duration", "300ms", str(program.pid)]
        recorder = subprocess.Popen(attach, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        victim = luck.choice(("recorder", "recorder", "program", "nobody"))
        if victim != "nobody":
            with contextlib.suppress(subprocess.TimeoutExpired):
                recorder.wait(luck.uniform(0, 1.5))
            (recorder if victim == "recorder" else program.process).kill()
        _, errors = recorder.communicate(timeout=60)
        if victim == "program":
            program.process.wait()
            self.program = None
        else:
            program.goes_on()
        if recorder.returncode not in ((0, -signal.SIGKILL) if victim == "recorder" else (0,)) and (
            victim != "program" or recorder.returncode == 1 or "Traceback" in errors
        ):
            raise Fault(f"attach ended with status {recorder.returncode}: {errors}")
        try:
            timeline = load(folder / "x.giltrace")
        except RecordingError:
            if victim == "nobody":
                raise
            return 0
        if not timeline.processes:
            return 0
        return len(is_whole(timeline).holds)

    def end(self) -> None:
        """Let the last program end by itself."""
        if self.program is not None:
            self.program.end()


def main() -> int:
    """Kill as often as asked for; status 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--targets", type=int, default=100)
    parser.add_argument("--recorders", type=int, default=50)
    parser.add_argument("--cycles", type=int, default=170)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    luck, attaching = random.Random(given.seed), Attaching()
    what: tuple[tuple[str, int, Callable[[str, Path, random.Random], int]], ...] = (
        ("the program is killed under record", given.targets, kill_target),
        ("the recorder is killed", given.recorders, kill_recorder),
        ("attach, with kills of giltrace and of the program", given.cycles, attaching),
    )
    table = Table("what", "times", "events", "faults", title="kills while events are written")
    failed = False
    for name, times, once in what:
        events, faults = 0, Counter[str]()
        with tempfile.TemporaryDirectory() as folder:
            for _ in track(range(times), name, console=Console(stderr=True)):
                try:
                    events += once(given.python, Path(folder), luck)
                except Fault as fault:
                    faults[str(fault)] += 1
        table.add_row(name, str(times), f"{events:,}", "\n".join(faults) or "none")
        failed |= bool(faults)
    attaching.end()
    Console().print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
