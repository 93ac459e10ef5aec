"""The running time of each thread is what the kernel counted, and a GIL is held or free at every instant."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from giltrace.timeline.load import load
from giltrace.timeline.model import Process, State, Timeline

TARGET = Path(__file__).parent.parent / "targets" / "cpu_time.py"

#: What a thread may run after it read its CPU time, and what the two ways to count may differ by at each switch.
AFTERWARDS_NS, PER_SWITCH_NS = 1_000_000, 5_000

#: Three threads each, with different amounts of work.
CASES = {
    "holding the GIL": ("compute", "2000000", "4000000", "8000000"),
    "in native code": ("digest", "50", "100", "200"),
}


@dataclass(frozen=True)
class Recorded:
    """A recording, the CPU time in ns by tid that its target printed, and what the host of a virtual machine took.

    The kernel counts the last as nobody's time, where a switch sees the thread on its core.
    """

    timeline: Timeline
    counted: dict[int, int]
    stolen: int


def stolen_ticks() -> int:
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8])


@pytest.fixture(scope="module", params=CASES)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recording")
    command = [sys.executable, "-m", "giltrace", "record", "--light", "-o", str(folder / "x"), str(TARGET)]
    before = stolen_ticks()
    done = subprocess.run([*command, *CASES[request.param]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    timeline = load(folder / "x.giltrace")
    assert timeline.violations == ()
    assert timeline.lost == 0
    counted = {int(tid): int(time) for tid, time in map(str.split, done.stdout.splitlines())}
    after = stolen_ticks()
    ticks = after - before + 1 if after else 0  # one may be counted late
    return Recorded(timeline, counted, ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def only(timeline: Timeline) -> Process:
    (process,) = timeline.processes
    if not process.has_sched:
        pytest.skip("; ".join(f"{report.name}: {report.status}" for report in timeline.collectors))
    return process


def test_running_time_is_what_the_kernel_counted(recorded: Recorded) -> None:
    timeline, counted = recorded.timeline, recorded.counted
    process = only(timeline)
    assert counted.keys() == {thread.tid for thread in process.threads}
    assert len(counted) == 4
    for index, thread in enumerate(process.threads):
        runs = process.runs[process.runs["thread"] == index]
        ran = int((runs["end"] - runs["start"]).sum())
        # The program that became Python ran in the main thread before there were any records.
        ran += sum(
            int(run["end"] - run["start"])
            for run in timeline.other_runs
            if timeline.other_tasks[run["thread"]].tid == thread.tid
        )
        slack = 0.02 * counted[thread.tid] + PER_SWITCH_NS * len(runs)
        told = (thread, ran, counted[thread.tid], slack, recorded.stolen)
        assert ran >= counted[thread.tid] - slack, told
        # The main thread goes on to end the interpreter, which takes what it takes.
        most = counted[thread.tid] + slack + recorded.stolen + AFTERWARDS_NS
        assert ran <= most or thread.tid == process.pid, told


def test_states_and_runs_agree(recorded: Recorded) -> None:
    process = only(recorded.timeline)
    running = (State.HOLDING_RUNNING, State.OFF_RUNNING)
    for index, thread in enumerate(process.threads):
        states = process.states[process.states["thread"] == index]
        length = states["end"] - states["start"]
        assert length.sum() == thread.end - thread.start
        runs = process.runs[process.runs["thread"] == index]
        # A waiting thread runs too, for a moment: to ask for the GIL, and when it is woken.
        at_least, waiting = (
            length[np.isin(states["state"], running)].sum(),
            length[states["state"] == State.WAITING].sum(),
        )
        assert at_least <= (runs["end"] - runs["start"]).sum() <= at_least + waiting


def test_held_and_free_time_fill_the_recording(recorded: Recorded) -> None:
    process = only(recorded.timeline)
    assert process.gils == 1
    holds = process.holds
    gaps = np.concatenate((holds["start"], [process.end])) - np.concatenate(([process.start], holds["end"]))
    assert gaps.min() >= 0, "two threads held the GIL at once"
    assert int((holds["end"] - holds["start"]).sum() + gaps.sum()) == process.end - process.start
