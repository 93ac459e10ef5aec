"""Who has the GIL at the very end, and says nothing: in the figures where it is known, told as a bound where not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from giltrace.collectors.flight import dump
from giltrace.collectors.rules.base import Caught
from giltrace.launch.attach.session import attach
from giltrace.process.folder import Folder
from giltrace.recording.clock import PAIR
from giltrace.recording.trigger import Trigger
from giltrace.timeline.load import load
from giltrace.timeline.model import Flag, Process, Timeline
from tests.attaching import ROOT, Running, is_at_work
from tests.interpreters import Interpreter
from tests.tracing import waiting

TRACED = """
import sys, threading, time
sys.path.insert(0, sys.argv[2])
import giltrace

def look():
    while not over:
        time.sleep(0.001)

over, words = False, sys.argv[3:]
waiter = threading.Thread(target=look)
if words:
    waiter.start()
with giltrace.trace(sys.argv[1]):
    begin = time.monotonic_ns()
    while time.monotonic_ns() < begin + 400_000_000:
        pass
    end = time.monotonic_ns()
over = True
if words:
    waiter.join()
print(begin, end)
"""

#: Its child computes from soon after it was made until it is killed, once the block has ended.
FORKS = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[2])
import giltrace

with giltrace.trace(sys.argv[1]):
    child = os.fork()
    while not child:
        pass
    time.sleep(0.4)
    end = time.monotonic_ns()
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
print(end)
"""

#: Computes for 400 ms, says when that began and ended, and does what the first word says.
SPIN = """
import os, signal, sys, time
begin = time.monotonic_ns()
os.write(1, b"%d\\n" % begin)
while time.monotonic_ns() < begin + 400_000_000:
    pass
os.write(1, b"%d\\n" % time.monotonic_ns())
"""
#: For 200 ms more without a record, which is all that is left of it.
KILLED = SPIN + "while time.monotonic_ns() < begin + 600_000_000: pass\nos.kill(os.getpid(), signal.SIGKILL)"
REPLACED = SPIN + "os.execv('/bin/sleep', ['sleep', '0.5'])"


def only(timeline: Timeline) -> Process:
    assert timeline.violations == ()
    (process,) = timeline.processes
    return process


def held_at(process: Process, instant: int) -> list[str]:
    """The names of the threads that held the GIL then."""
    holds = process.holds
    at = np.flatnonzero((holds["start"] <= instant) & (holds["end"] >= instant))
    return [process.threads[number].name for number in holds["thread"][at].tolist()]


def recorded(folder: Path, code: str) -> tuple[Timeline, list[int]]:
    command = [sys.executable, "-m", "giltrace", "record", "--without", "sched", "--without", "py-spy", "--no-trace"]
    ran = subprocess.run([*command, "-o", str(folder), "-c", code], capture_output=True, text=True, timeout=120)
    return load(folder), [int(line) for line in ran.stdout.split()]


@pytest.mark.parametrize("words", [(), ("waits",)], ids=["alone", "with a thread that waits"])
def test_a_block_that_never_lets_go(words: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "block.giltrace"
    command = [sys.executable, "-c", TRACED, str(folder), str(ROOT), *words]
    begin, end = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    process = only(load(folder))
    assert (process.start, process.end) == (min(process.start, begin), max(process.end, end))
    if not words:
        (at,) = np.flatnonzero((process.holds["start"] < begin) & (process.holds["end"] > end))
        assert process.holds[at]["flags"] & np.uint8(Flag.PARTIAL_END)
    assert held_at(process, end) == ["MainThread"]
    assert int(process.holds["end"].max()) == process.end


def test_a_child_that_outlives_the_block(tmp_path: Path) -> None:
    folder = tmp_path / "block.giltrace"
    command = [sys.executable, "-c", FORKS, str(folder), str(ROOT)]
    end = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    timeline = load(folder)
    assert timeline.violations == ()
    _, child = timeline.processes
    assert end <= child.end == timeline.end
    assert held_at(child, end) == ["MainThread"]
    assert not any("end is not on record" in remark for remark in timeline.remarks)


def test_a_process_that_is_attached_to_and_left(interpreter: Interpreter, tmp_path: Path) -> None:
    with Running(interpreter.path, "spin") as target:
        before = time.monotonic_ns()
        attach(target.pid, tmp_path / "spin.giltrace", [], depth=128, seconds=0.4)
        process = only(load(tmp_path / "spin.giltrace"))
        assert target.process.poll() is None
    assert process.end - process.start >= 400_000_000 - 1_000
    assert before < process.start
    assert process.end_of == "recording"
    lengths = process.holds["end"] - process.holds["start"]
    assert int(lengths.sum()) / (process.end - process.start) > 0.9


def test_who_lets_go_of_a_gil_and_stays_away_has_it_no_more(interpreter: Interpreter, tmp_path: Path) -> None:
    if interpreter.version < (3, 12):
        pytest.skip("interpreters share one GIL before 3.12")
    with Running(interpreter.path, "one-gil") as target:
        folder = tmp_path / "rests.giltrace"
        command = [sys.executable, "-m", "giltrace", "attach", str(target.pid), "--light", "--no-trace"]
        with subprocess.Popen([*command, "-o", str(folder)], cwd=ROOT, stderr=subprocess.PIPE, text=True) as recorder:
            while not is_at_work(folder):
                time.sleep(0.01)
            attached = time.monotonic_ns()
            target.say("rest")
            assert target.all_read()
            rests = time.monotonic_ns()
            recorder.send_signal(signal.SIGINT)
            _, said = recorder.communicate(timeout=60)
        assert recorder.returncode == 0, said
    process = only(load(folder))
    (hold,) = process.holds[process.holds["gil"] == 1]
    assert process.threads[int(hold["thread"])].tid != target.pid
    assert int(hold["start"]) == process.start
    assert attached < int(hold["end"]) < rests


def test_a_process_that_is_killed_while_attached_to(tmp_path: Path) -> None:
    with Running(sys.executable, "spin") as target:
        folder = tmp_path / "killed.giltrace"
        command = [sys.executable, "-m", "giltrace", "attach", str(target.pid), "--without", "sched"]
        command += ["--without", "py-spy", "--no-trace", "-o", str(folder)]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as recorder:
            while not is_at_work(folder):
                time.sleep(0.01)
            attached = time.monotonic_ns()
            # It looks at the process once between two readings of the clock.
            clock = folder / "clock.bin"
            size = clock.stat().st_size
            while clock.stat().st_size < size + 3 * PAIR.itemsize:
                time.sleep(0.01)
            os.kill(target.pid, signal.SIGKILL)
            killed = time.monotonic_ns()
            _, said = recorder.communicate(timeout=60)
        assert recorder.returncode == 0, said
    process = only(load(folder))
    assert attached < process.end <= killed
    assert int(process.holds["end"].max()) == process.end


def test_a_program_that_is_killed_in_a_loop(tmp_path: Path) -> None:
    timeline, (begin, end) = recorded(tmp_path / "killed.giltrace", KILLED)
    process = only(timeline)
    assert begin + 600_000_000 <= process.end == timeline.end
    assert held_at(process, begin + 1) == held_at(process, end) == ["MainThread"]
    assert not any("end is not on record" in remark for remark in timeline.remarks)


def test_a_program_that_another_takes_the_place_of(tmp_path: Path) -> None:
    timeline, (_, end) = recorded(tmp_path / "replaced.giltrace", REPLACED)
    process = only(timeline)
    assert end <= process.end < timeline.end - 300_000_000


def test_a_child_that_is_killed_while_nobody_looks_is_told_as_a_bound(tmp_path: Path) -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {KILLED!r}])"
    timeline, (begin, end) = recorded(tmp_path / "child.giltrace", code)
    parent, child = timeline.processes
    assert parent.end == timeline.end
    assert end <= child.end < begin + 600_000_000 <= timeline.end
    (told,) = (remark for remark in timeline.remarks if "end is not on record" in remark)
    assert told.startswith("processes whose end is not on record: 1; ")


def test_a_dump_of_a_loop(tmp_path: Path) -> None:
    folder = tmp_path / "app.giltrace"
    code = "import time\nprint('ready', flush=True)\nwhile True: pass"
    command = ["-m", "giltrace", "record", "--without", "sched", "--without", "py-spy", "--no-trace", "-o", str(folder)]
    with waiting(sys.executable, *command, "-c", code) as recorder:
        pid = int(Path(f"/proc/{recorder.pid}/task/{recorder.pid}/children").read_text().split()[0])
        begun = time.monotonic_ns()
        while time.monotonic_ns() < begun + 300_000_000:
            time.sleep(0.01)
        with Folder.own(folder) as files:
            dump(files, tmp_path / "dump.giltrace", Caught(Trigger("request", "test", 0)), pid)
        os.kill(pid, signal.SIGKILL)
        recorder.wait(timeout=60)
    timeline = load(tmp_path / "dump.giltrace")
    process = only(timeline)
    assert begun + 300_000_000 <= process.end == timeline.end
    assert held_at(process, process.end) == ["MainThread"]


@pytest.mark.needs("perf")
def test_where_the_kernel_was_asked_its_word_counts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "giltrace", "record", "--light", "--no-trace", "-o", str(tmp_path / "killed")]
    subprocess.run([*command, "-c", KILLED], capture_output=True, timeout=120)
    timeline = load(tmp_path / "killed.giltrace")
    process = only(timeline)
    assert process.end < timeline.end
    assert process.end_of == "process"
    assert not any("end is not on record" in remark for remark in timeline.remarks)
