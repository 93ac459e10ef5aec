"""What the tracer records, event for event, on every interpreter of the machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from giltrace.recording import layout
from giltrace.recording.clock_file import append_pair
from giltrace.timeline.switch_intervals import switch_intervals
from tests import uprobes
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, WORKLOADS, environment, of_kind, overlaps, read, traced_environment

PROGRAMS = {"convoy": WORKLOADS / "convoy.py", "churn": TARGETS / "churn.py"}


@pytest.mark.needs("perf", "uprobes")
@pytest.mark.parametrize("program", PROGRAMS)
def test_counts_equal_those_of_kernel_uprobes(interpreter: Interpreter, program: str, tmp_path: Path) -> None:
    append_pair(tmp_path)
    with uprobes.placed(interpreter) as probes:
        taken, dropped = probes.count([str(interpreter.path), str(PROGRAMS[program])], environment(tmp_path))
    (process,) = read(tmp_path)
    assert (len(of_kind(process.events, layout.Kind.ACQUIRE)), len(of_kind(process.events, layout.Kind.RELEASE))) == (
        taken,
        dropped,
    )
    assert process.lost == 0
    assert overlaps(process.events) == 0


def test_thousand_brief_threads_are_all_there_with_their_names(interpreter: Interpreter, tmp_path: Path) -> None:
    append_pair(tmp_path)
    command = [interpreter.path, TARGETS / "churn.py"]
    subprocess.run(command, env=traced_environment(tmp_path), check=True, timeout=60)
    (process,) = read(tmp_path)
    names = [thread.name for thread in process.threads]
    assert sorted(names) == sorted(["MainThread", *(f"brief-{i}" for i in range(1000))])
    assert overlaps(process.events) == 0
    assert process.lost == 0


@pytest.mark.on_some
def test_each_sleep_of_the_convoy_is_a_hand_off_with_its_wait(interpreter: Interpreter, tmp_path: Path) -> None:
    append_pair(tmp_path)
    subprocess.run(
        [interpreter.path, WORKLOADS / "convoy.py"], env=traced_environment(tmp_path), check=True, timeout=60, stdout=-3
    )
    (process,) = read(tmp_path)
    (sleeper,) = (i for i, thread in enumerate(process.threads) if thread.name.startswith("io"))
    own = process.events[process.events["thread"] == sleeper]
    # The holds between are short; nearly every sleep is followed by a request, timed-out waits, and the acquire.
    kinds = (layout.Kind.REQUEST, layout.Kind.TIMEOUT, layout.Kind.ACQUIRE)
    requests, timeouts, acquires = (of_kind(own, kind)["time"] for kind in kinds)
    assert len(acquires) >= 201
    assert len(requests) >= 120
    ends = acquires[np.searchsorted(acquires, requests)]
    times = np.searchsorted(timeouts, ends) - np.searchsorted(timeouts, requests)
    assert times.sum() == len(timeouts)
    # Which waiter the GIL goes to is a race, but how often a wait times out is not.
    assert np.all(times * 5_000_000 <= ends - requests)
    late = ends - requests >= 11_000_000
    assert np.count_nonzero(times[late]) >= 0.9 * np.count_nonzero(late)
    requested = of_kind(process.events, layout.Kind.TIMEOUT)
    requested = requested[requested["flags"] & layout.RecordFlag.SWITCH_REQUEST != 0]
    released = of_kind(process.events, layout.Kind.RELEASE)
    forced = released[released["flags"] & layout.RecordFlag.FORCED != 0]
    assert len(requested) >= 120
    assert sleeper not in forced["thread"]
    # Several waiters may ask the same holder. Each hold that was asked to end is forced, or was ending by itself.
    asked = np.unique(np.searchsorted(released["time"], requested["time"])).size
    assert 0.95 * asked <= len(forced) <= asked


def test_a_wait_that_does_not_run_out_tells_the_interval_too(interpreter: Interpreter, tmp_path: Path) -> None:
    program = """
import sys, threading
sys.setswitchinterval(100)
asked = False
def asks():
    global asked
    asked = True
    lock.acquire()
    return sum(range(10))
lock = threading.Lock(); lock.acquire()
thread = threading.Thread(target=asks, name="asks")
thread.start()
while not asked: pass
for number in range(300000): pass
lock.release()
for number in range(300000): pass
thread.join()
"""
    append_pair(tmp_path)
    subprocess.run([interpreter.path, "-c", program], env=traced_environment(tmp_path), check=True, timeout=60)
    (process,) = read(tmp_path)
    assert len(of_kind(process.events, layout.Kind.TIMEOUT)) == 0
    requests = of_kind(process.events, layout.Kind.REQUEST)
    assert 100_000_000_000 in switch_intervals(requests)["ns"]


def test_release_that_was_offered_is_not_forced_though_asked_for(interpreter: Interpreter, tmp_path: Path) -> None:
    turns = 20
    program = """
import os, sys, threading
sys.setswitchinterval(0.001)
ended, many, sink = False, [b"x"] * 400000, os.open("/dev/null", os.O_WRONLY)
def spin():
    while not ended: pass
def offer():
    for _ in range(int(os.environ["TURNS"])):
        # Looks at each of them with the GIL, then releases it, and is told that they are too many.
        try: os.writev(sink, many)
        except OSError: pass
spinner, offering = threading.Thread(target=spin), threading.Thread(target=offer, name="offers")
spinner.start(); offering.start(); offering.join()
ended = True
spinner.join()
"""
    append_pair(tmp_path)
    env = {**traced_environment(tmp_path), "TURNS": str(turns)}
    subprocess.run([interpreter.path, "-c", program], env=env, check=True, timeout=60)
    (process,) = read(tmp_path)
    (thread,) = (i for i, one in enumerate(process.threads) if one.name == "offers")
    released = of_kind(process.events[process.events["thread"] == thread], layout.Kind.RELEASE)
    forced = np.count_nonzero(released["flags"] & layout.RecordFlag.FORCED)
    assert len(released) >= turns
    # It is asked again, and gives in, on its way back: but once a turn, not twice.
    assert forced <= turns * 1.5


def test_times_are_within_the_run_and_in_program_order(interpreter: Interpreter, tmp_path: Path) -> None:
    append_pair(tmp_path)
    code = "import time; print(time.monotonic_ns()); time.sleep(0.02); print(time.monotonic_ns())"
    ran = subprocess.run(
        [interpreter.path, "-c", code], env=traced_environment(tmp_path), check=True, timeout=60, stdout=subprocess.PIPE
    )
    before, after = map(int, ran.stdout.split())
    (process,) = read(tmp_path)
    times = process.events["time"]
    releases = of_kind(process.events, layout.Kind.RELEASE)["time"]
    acquires = of_kind(process.events, layout.Kind.ACQUIRE)["time"]
    left = releases[(releases > before) & (releases < after)]
    back = acquires[(acquires > before) & (acquires < after)]
    assert np.all(np.diff(times) >= 0)
    # Between the two readings of the clock the thread was off the GIL for the sleep, as it sees itself.
    off = max(int(acquires[acquires > at][0]) - int(at) for at in left)
    assert left.size >= 1
    assert back.size >= 1
    assert 20_000_000 <= off <= after - before
