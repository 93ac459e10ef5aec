"""Counting: a process adds up what a recording of it would say, and anybody may read that meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from giltrace.launch import counting
from giltrace.launch.counting import Holder, counted_process
from giltrace.metrics import layout
from giltrace.metrics.count_file import CountFile
from giltrace.metrics.following import PagesOf
from giltrace.metrics.layout import Length
from giltrace.metrics.page import Pages
from giltrace.metrics.reading import Counts, ProcessReading
from giltrace.timeline.load import load
from giltrace.timeline.model import Process
from giltrace.views.ending import Ending
from tests.attaching import Running
from tests.counting import Stepping, counted, of_role
from tests.interpreters import Interpreter

GILTRACE = (sys.executable, "-m", "giltrace")
NO_TID = 4_194_304  # Linux has none so high

#: Locks, a queue, and threads that compute at once.
BUSY = """
import os, queue, threading
lock, items, taken = threading.Lock(), queue.Queue(), queue.Queue()

def work():
    for _ in range(30):
        with lock:
            os.stat("/")
            sum(range(2000))
        sum(range(60000))

def take():
    while items.get() is not None:
        taken.put(1)

threads = [threading.Thread(target=work, name=f"worker-{i}") for i in range(3)]
taker = threading.Thread(target=take, name="taker")
for thread in (*threads, taker):
    thread.start()
for i in range(50):
    items.put(i)
    taken.get()
    os.stat("/")
for thread in threads:
    thread.join()
# However the rounds went: the taker sleeps once.
while not items.not_empty._waiters or open(f"/proc/self/task/{taker.native_id}/stat").read().split(") ")[1][0] != "S":
    os.stat("/")
items.put(None)
taker.join()
"""

#: Each of 300 lines sleeps once in the same lock.
MANY_LINES = (
    """
import threading, time
lock, barrier = threading.Lock(), threading.Barrier(2)

def hold():
    for _ in range(300):
        with lock:
            barrier.wait()
            time.sleep(0.0002)
        barrier.wait()

"""
    + "".join(f"def f{i}():\n    with lock: pass\n" for i in range(300))
    + """
holder = threading.Thread(target=hold, name="holder")
holder.start()
for i in range(300):
    barrier.wait()
    globals()[f"f{i}"]()
    barrier.wait()
holder.join()
"""
)

#: Four threads at a time, four hundred in all.
CROWD = """
def work():
    for _ in range(200):
        os.stat("/")

step("begin")
for _ in range(100):
    some = [threading.Thread(target=work, name=f"w-{i}") for i in range(4)]
    for thread in some:
        thread.start()
    for thread in some:
        thread.join()
"""

SLEEPER = """
lock = threading.Lock()
lock.acquire()
sleeper = threading.Thread(target=lock.acquire, name="sleeper")
sleeper.start()
step("asleep")
lock.release()
sleeper.join()
"""

FORKS = """
import os, sys
for _ in range(50):
    os.stat("/")
child = os.fork()
if child == 0:
    for _ in range(500):
        os.stat("/")
    os.execv(sys.executable, [sys.executable, "-c", "import os\\nfor _ in range(5000): os.stat('/')"])
os.waitpid(child, 0)
"""


def written(folder: Path, code: str) -> str:
    """A program of this code, as a file."""
    program = folder / "program.py"
    program.write_text(code)
    return str(program)


def line_of(code: str, text: str) -> int:
    """The line on which `text` stands."""
    return 1 + code[: code.index(text)].count("\n")


def asleep(page: ProcessReading) -> int:
    """How often the sleeper has fallen asleep, if it sleeps; else 0."""
    return sum(thread.counts.blocks + 1 for thread in page.threads if thread.role == "sleeper" and thread.blocked)


def agree(process: Process, page: ProcessReading, under_way: int) -> None:
    """The page says what the recording of the same run says, to the event and to a thousandth of the time."""
    counts = page.counts
    holds = process.holds[: len(process.holds) - under_way]
    for table, number, length in (
        (holds, counts.holds, counts.held_ns),
        (process.waits, counts.waits, counts.waited_ns),
        (process.blocks, counts.blocks, counts.blocked_ns),
    ):
        assert number == len(table)
        assert length == pytest.approx(int((table["end"] - table["start"]).sum()), rel=1e-3, abs=1000)
    assert counts.requests == len(process.switch_requests)
    assert (sum(counts.hold_lengths), sum(counts.wait_lengths)) == (counts.holds, counts.waits)
    assert sum(counts.block_lengths) == counts.blocks
    for lines, length in ((page.victims, counts.waited_ns), (page.blocked, counts.blocked_ns)):
        assert sum(line.ns for line in lines) == pytest.approx(length, rel=1e-6, abs=1000)


def test_counts_are_those_of_a_recording(any_interpreter: Interpreter, tmp_path: Path) -> None:
    folder = tmp_path / "x.giltrace"
    words = [*GILTRACE, "record", "--light", "--no-trace", "-o", str(folder), "--python", str(any_interpreter.path)]
    env = {**os.environ, "GILTRACE_COUNT": "too"}
    subprocess.run([*words, written(tmp_path, BUSY)], env=env, check=True, timeout=120, capture_output=True)
    (process,) = load(folder).processes
    (page,) = Pages(folder).read()
    assert (process.lost, page.lost, page.ended) == (0, 0, True)
    assert page.python.startswith(".".join(map(str, any_interpreter.version)))
    # The last hold of all may be under way when the process ends.
    (path,) = folder.glob("count-*.bin")
    _, tallies = CountFile(path).read()
    agree(process, page, sum(int(tally["since"][Length.HOLDS]) > 0 for tally in tallies))


def test_lines_and_causes_are_the_users(any_interpreter: Interpreter, tmp_path: Path) -> None:
    program = written(tmp_path, BUSY)
    (page,) = counted(tmp_path / "x", any_interpreter.path, program)
    names = {"MainThread", "taker", "worker-*"}
    # Without a GIL only who sleeps in a lock comes by.
    assert ({"MainThread"} if any_interpreter.free_threaded else names) <= {role.role for role in page.roles} <= names
    lines = [line for line in page.blocked + page.victims if not line.file.endswith("/threading.py")]
    # A thread that begins or ends is in no line of the program.
    assert {line.file for line in lines} <= {program, ""}
    assert any_interpreter.free_threaded or line_of(BUSY, "while items") in {line.line for line in page.blocked}
    assert any_interpreter.free_threaded or "queue" in {cause.cause for cause in page.causes}


def test_what_is_under_way_counts(interpreter: Interpreter, tmp_path: Path) -> None:
    pages = Pages(tmp_path / "x")
    with Stepping(tmp_path / "x", interpreter.path, SLEEPER) as target:
        target.comes_to("asleep")
        # It may not have come to sleep there yet.
        first, second = pages.read() + pages.read()
        while not asleep(first) == asleep(second) != 0:
            first, second = pages.read() + pages.read()
        target.end()
    before, after = (of_role(page, "sleeper").blocked_ns for page in (first, second))
    assert 0 < before < after <= before + (second.at_ns - first.at_ns) + 1000
    (last,) = pages.read()
    assert (last.ended, last.threads) == (True, ())
    assert of_role(last, "sleeper").blocks == of_role(second, "sleeper").blocks + 1
    assert of_role(last, "sleeper").blocked_ns >= after


def test_figures_never_shrink(interpreter: Interpreter, tmp_path: Path) -> None:
    pages, before = Pages(tmp_path / "x"), dict[str, Counts]()
    with Stepping(tmp_path / "x", interpreter.path, CROWD) as target:
        target.comes_to("begin")
        target.go_on()
        while target.process.poll() is None:
            (page,) = pages.read()
            for role in () if page.ended else page.roles:
                old, new = before.get(role.role, Counts()), role.counts
                for figure in ("holds", "held_ns", "waits", "waited_ns", "forced", "requests", "blocks", "blocked_ns"):
                    assert getattr(old, figure) <= getattr(new, figure)
                before[role.role] = new
        assert target.process.returncode == 0
    (page,) = pages.read()
    assert of_role(page, "w-*").holds >= 400 * 200
    assert [role.threads for role in page.roles] == [0, 0]
    # Few live at a time, so there is room for few.
    (path,) = (tmp_path / "x").glob("count-*.bin")
    assert path.stat().st_size == layout.PIECE


def test_each_program_has_a_page_of_its_own(interpreter: Interpreter, tmp_path: Path) -> None:
    pages = counted(tmp_path / "x", interpreter.path, "-c", FORKS)
    parent, forked, executed = sorted(pages, key=lambda page: page.started_ns)
    assert forked.pid == executed.pid != parent.pid
    assert parent.counts.holds >= 50
    assert 500 <= forked.counts.holds < 5000 <= executed.counts.holds
    assert all(page.ended for page in pages)


def test_what_was_longest_begins_anew(interpreter: Interpreter, tmp_path: Path) -> None:
    code = "sum(range(20_000_000))\nstep('long')\nstep('short')\nstep('end')\n"
    pages, longest = Pages(tmp_path / "x"), list[int]()
    with Stepping(tmp_path / "x", interpreter.path, code) as target:
        for word in ("long", "short", "end"):
            target.comes_to(word)
            # It is in its read by now, or soon.
            while pages.read()[0].threads[0].holding:
                pass
            longest.append(pages.read(reset_longest=True)[0].counts.longest_hold_ns)
            target.go_on()
    assert longest[0] > 10 * longest[2] > 0


def test_more_lines_than_there_are_places_for(interpreter: Interpreter, tmp_path: Path) -> None:
    (page,) = counted(tmp_path / "x", interpreter.path, written(tmp_path, MANY_LINES))
    assert 100 < len(page.blocked) <= layout.PLACES
    assert sum(line.ns for line in page.blocked) == pytest.approx(page.counts.blocked_ns, rel=1e-6, abs=1000)
    assert 0 < max(line.error_ns for line in page.blocked) <= page.counts.blocked_ns / layout.PLACES
    assert all(line.error_ns <= line.ns for line in page.blocked)


def test_what_is_forgotten_leaves_no_files(interpreter: Interpreter, tmp_path: Path) -> None:
    counted(tmp_path / "x", interpreter.path, "-c", "pass")
    pages = Pages(tmp_path / "x")
    (page,) = pages.read()
    pages.forget(page.pid)
    assert pages.read() == ()
    assert list((tmp_path / "x").iterdir()) == []


def test_a_page_of_another_version_is_refused_and_the_others_read(interpreter: Interpreter, tmp_path: Path) -> None:
    counted(tmp_path / "x", interpreter.path, "-c", "pass")
    (path,) = (tmp_path / "x").glob("count-*.bin")
    counted(tmp_path / "x", interpreter.path, "-c", "pass")
    data = bytearray(path.read_bytes())
    data[8] = layout.VERSION + 1
    path.write_bytes(data)
    pages = Pages(tmp_path / "x")
    for _ in range(2):
        (other,) = pages.read()
        assert f"count-{other.pid}-" not in path.name
        (why,) = pages.refused
        assert f"version {layout.VERSION + 1}, this giltrace reads {layout.VERSION}" in why
    path.unlink()
    pages.read()
    assert pages.refused == ()


def test_who_loses_its_page_goes_on_in_another(interpreter: Interpreter, tmp_path: Path) -> None:
    code = "step('on')\nfor _ in range(1000): os.stat('/')\nstep('more')\nprint('alive')\n"
    pages = Pages(tmp_path / "x")
    with Stepping(tmp_path / "x", interpreter.path, code) as target:
        target.comes_to("on")
        (before,) = pages.read()
        (path,) = (tmp_path / "x").glob("count-*.bin")
        os.truncate(path, 0)
        target.go_on()
        target.comes_to("more")
        last, now = pages.read()
        assert target.end() == "alive\n"
    assert (last.pid, last.ended, last.roles) == (before.pid, True, before.roles)
    assert "cut off" in last.note
    assert (now.pid, now.ended) == (before.pid, False)
    assert 900 < now.counts.holds < 1100


def test_counting_takes_a_few_pages(interpreter: Interpreter, tmp_path: Path) -> None:
    counted(tmp_path / "x", interpreter.path, "-c", BUSY)
    assert sum(path.stat().st_size for path in (tmp_path / "x").iterdir()) <= 64 << 10


@pytest.mark.on_some
@pytest.mark.parametrize("kind", ["spin", "seized"])
def test_a_thread_that_never_lets_go_is_counted(interpreter: Interpreter, kind: str) -> None:
    """It computes, or is in a C function, since before anybody counted."""
    with Ending() as ending, Running(interpreter.path, kind) as target, counted_process(target.pid, ending) as counted:
        pages = PagesOf(counted)
        (first,), (second,) = pages.read(), pages.read()
        for reading in first, second:
            thread = next(one for one in reading.threads if one.name == "MainThread")
            assert (thread.tid, thread.holding, thread.counts.holds) == (target.pid, True, 0)
            assert thread.counts.held_ns == reading.counts.held_ns == reading.at_ns - reading.started_ns
        assert second.counts.held_ns > first.counts.held_ns
        assert second.started_ns == first.started_ns


def test_a_holder_that_has_ended_meanwhile_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "gil_holders", lambda process: [[process.pid, NO_TID, 1], [process.pid, 0, 2]])
    with Ending() as ending, Running(sys.executable, "idle") as target, counted_process(target.pid, ending) as counted:
        assert counted.holders == (Holder(target.pid, 0, "", 1), Holder(target.pid, 0, "", 2))
        assert {role.role for reading in PagesOf(counted).read() for role in reading.roles} <= {"MainThread"}


def test_what_goes_wrong_once_the_tracer_is_in_place_takes_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(process: object) -> list[list[int]]:
        raise RuntimeError

    monkeypatch.setattr(counting, "gil_holders", fail)
    with Ending() as ending, Running(sys.executable, "idle") as target:
        with pytest.raises(RuntimeError), counted_process(target.pid, ending):
            pass
        assert target.hooks() == 0
        assert target.answers()
