"""Blocks: each sleep in a lock of the interpreter's is on record, with who ended it, and both lines."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from giltrace.timeline.load import load
from giltrace.timeline.model import BlockEnd, Timeline
from tests import blocks
from tests.attaching import Running, is_at_work
from tests.interpreters import Interpreter
from tests.tracing import environment, read
from tests.unit.gil_events import timeline as gil_timeline

GILTRACE = (sys.executable, "-m", "giltrace")


def ran(*command: str | Path) -> list[blocks.Entry]:
    """Let the target, which `command` starts, block, and return what it says of that."""
    words = [str(word) for word in command]
    done = subprocess.run(words, input="\n\n", capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    ready, told = done.stdout.splitlines()
    assert ready == "ready"
    return blocks.entries_of(told)


def recorded(interpreter: Interpreter, folder: Path, *options: str) -> tuple[list[blocks.Entry], Timeline]:
    command = [*GILTRACE, "record", *options, "-o", str(folder), "--python", str(interpreter.path), str(blocks.TARGET)]
    return ran(*command), load(folder)


def check(timeline: Timeline, entries: Sequence[blocks.Entry]) -> None:
    assert not timeline.violations
    (process,) = timeline.processes
    assert process.lost == 0
    blocks.check(process, entries, timeline.clock_error_ns)


def test_each_block_is_on_record(any_interpreter: Interpreter, tmp_path: Path) -> None:
    entries, timeline = recorded(any_interpreter, tmp_path / "x.giltrace", "--light")
    check(timeline, entries)


@pytest.mark.on_some
def test_each_block_is_in_a_ring(any_interpreter: Interpreter, tmp_path: Path) -> None:
    entries, timeline = recorded(any_interpreter, tmp_path / "x.giltrace", "--light", "--ring", "1MiB")
    check(timeline, entries)


@pytest.mark.on_some
def test_each_block_is_seen_by_who_attaches(any_interpreter: Interpreter, tmp_path: Path) -> None:
    folder = tmp_path / "x.giltrace"
    with Running(any_interpreter.path, "", target=blocks.TARGET) as target:
        command = [*GILTRACE, "attach", str(target.pid), "--light", "-o", str(folder)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as attached:
            while not is_at_work(folder):
                assert attached.poll() is None
                time.sleep(0.005)
            target.go_on()
            entries = blocks.entries_of(target.line())
            attached.send_signal(signal.SIGINT)
            _, told = attached.communicate(timeout=60)
        assert attached.returncode == 0, told
    check(load(folder), entries)


INSIDE = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

inside = '''
import _thread
def inside(lock):
    lock.acquire()
    lock.acquire(True, 0.01)
inside(_thread.allocate_lock())
'''
for _ in range(3):
    own = interpreters.create()
    interpreters.run_string(own, inside)
    interpreters.destroy(own)
"""


def test_blocks_of_sub_interpreters(any_interpreter: Interpreter, tmp_path: Path) -> None:
    program, folder = tmp_path / "inside.py", tmp_path / "x.giltrace"
    program.write_text(INSIDE)
    words = "-o", folder, "--python", any_interpreter.path, program
    command = [*GILTRACE, "record", "--light", *map(str, words)]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    timeline = load(folder)
    assert not timeline.violations
    (process,) = timeline.processes
    assert process.stacks is not None
    table, found = process.stacks.table, 0
    for stack, ended in zip(process.stacks.block.tolist(), process.blocks["ended"].tolist(), strict=True):
        innermost = int(table.offsets[stack])
        if stack >= 0 and table.strings[table.frames[innermost]["function"]] == "inside":
            assert ended == BlockEnd.TIMED_OUT
            found += 1
    assert found == 3


def test_each_block_is_seen_from_within(tmp_path: Path) -> None:
    folder = tmp_path / "x.giltrace"
    entries = ran(sys.executable, blocks.TARGET, "trace", folder)
    check(load(folder), entries)


HOPS = 2000
PING_PONG = f"""
import threading
here, there = threading.Lock(), threading.Lock()
here.acquire()
there.acquire()
def hop(mine, others):
    for _ in range({HOPS}):
        mine.acquire()
        others.release()
other = threading.Thread(target=hop, args=(there, here))
other.start()
there.release()
hop(here, there)
other.join()
"""
#: FUTEX_WAIT_BITSET, private, by the clock that a semaphore that is waited for without a limit names; none of a GIL's.
SLEEP = 9 | 128 | 256


@pytest.mark.needs("perf", "uprobes")
def test_counts_are_those_of_the_kernel(any_interpreter: Interpreter, tmp_path: Path) -> None:
    program = tmp_path / "hops.py"
    program.write_text(PING_PONG)
    variables = [f"{name}={value}" for name, value in environment(tmp_path).items()]
    event = ["-e", "syscalls:sys_enter_futex", "--filter", f"op == {SLEEP}"]
    command = ["perf", "stat", "-x;", *event, "--", "env", *variables, str(any_interpreter.path), str(program)]
    counted = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stderr
    (kernel,) = (int(line.partition(";")[0]) for line in counted.splitlines() if "sys_enter_futex" in line)
    (process,) = gil_timeline(read(tmp_path)).processes
    untimed = np.count_nonzero(process.blocks["timed"] == 0)
    # Where nobody waits for a GIL, threads spin before they sleep.
    assert (0 if any_interpreter.free_threaded else HOPS) < untimed <= 2 * HOPS + 100
    # A thread may be woken up in the moment before it would have slept, or for nothing: no block, or none of its own.
    assert abs(kernel - untimed) <= HOPS // 20, (kernel, untimed)
