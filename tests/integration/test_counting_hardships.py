"""Counting where something is in the way: a page that is cut off, no room, a filter, a recording."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from giltrace import native
from giltrace.metrics import layout
from giltrace.metrics.page import Pages
from giltrace.timeline.load import load
from tests.counting import Stepping, counted, of_role
from tests.interpreters import Interpreter
from tests.tracing import TARGETS

GILTRACE = (sys.executable, "-m", "giltrace")

#: Two threads compute, and look at each other, until they are told to end.
COMPUTES = """
go = True
def hold():
    while go:
        sum(range(100_000))
threads = [threading.Thread(target=hold, name=f"holder-{i}") for i in range(2)]
for thread in threads:
    thread.start()
step("on")
go = False
for thread in threads:
    thread.join()
print("alive")
"""


def test_who_is_cut_off_while_others_wait_goes_on(interpreter: Interpreter, tmp_path: Path) -> None:
    pages = Pages(tmp_path / "x")
    with Stepping(tmp_path / "x", interpreter.path, COMPUTES) as target:
        target.comes_to("on")
        pages.read()
        (path,) = (tmp_path / "x").glob("count-*.bin")
        os.truncate(path, 0)
        while len(pages.read()) < 2 and target.process.poll() is None:
            pass
        assert target.end() == "alive\n"
    *_, now = pages.read()
    # The first hold begins a little before the page that it asks for.
    assert 0 < now.counts.held_ns < now.seconds * 1e9 + 1e9
    assert now.counts.longest_hold_ns <= now.counts.held_ns


#: Of sixteen tallies one is the main thread's; "late" has none before the others have ended.
CROWDED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (32768, 32768))
gate = threading.Barrier(21)
def early():
    for _ in range(2000):
        os.stat("/")
    gate.wait()
    gate.wait()
def late():
    for _ in range(2000):
        os.stat("/")
    begun.set()
    free.wait()
    for _ in range(40000):
        os.stat("/")
    step("worked")
begun, free = threading.Event(), threading.Event()
threads = [threading.Thread(target=early, name=f"early-{i}") for i in range(20)]
for thread in threads:
    thread.start()
gate.wait()
latest = threading.Thread(target=late, name="late")
latest.start()
begun.wait()
step("full")
gate.wait()
for thread in threads:
    thread.join()
free.set()
latest.join()
"""


def test_who_finds_no_room_is_told_once_and_counts_when_there_is(interpreter: Interpreter, tmp_path: Path) -> None:
    pages = Pages(tmp_path / "x")
    with Stepping(tmp_path / "x", interpreter.path, CROWDED) as target:
        target.comes_to("full")
        (full,) = pages.read()
        target.go_on()
        target.comes_to("worked")
        (worked,) = pages.read()
        target.end()
    assert {thread.role for thread in full.threads} == {"MainThread", "early-*"}
    assert full.lost == worked.lost == 1 + 20 + 1 - len(full.threads) > 0
    assert of_role(worked, "late").holds > 10000


#: A filter that kills for what the program itself does not need; then sixty threads at a time.
CONFINES = f"""
code = open({str(TARGETS / "hosts" / "confined.py")!r}).read()
exec(code[:code.index("if sys.argv")])
use(100)
confine(UNUSUAL + SETTLED, False)
gate = threading.Barrier(60)
def work():
    gate.wait()
    use(100)
    gate.wait()
threads = [threading.Thread(target=work, name=f"worker-{{i}}") for i in range(60)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
os.write(1, b"alive\\n")
os._exit(0)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter names x86-64's system calls")
def test_one_that_confines_itself_has_room_for_more_threads(interpreter: Interpreter, tmp_path: Path) -> None:
    (page,) = counted(tmp_path / "x", interpreter.path, "-W", "ignore", "-c", CONFINES)
    assert (page.lost, page.note) == (0, "")
    assert of_role(page, "worker-*").holds >= 60 * 100
    # What only counts takes no room for records.
    assert sum(path.stat().st_size for path in (tmp_path / "x").iterdir()) <= 1 << 20


#: Begins and ends in itself, again and again, and says how much memory it has then.
CYCLES = f"""
import ctypes, os, sys
library, folder = ctypes.CDLL({str(native.LIBRARY)!r}), sys.argv[1]
def cycle(number):
    where = os.path.join(folder, str(number))
    os.mkdir(where)
    assert library.giltrace_start(where.encode(), {native.counting(32)}, 0, None) == 0
    for _ in range(100):
        os.stat("/")
    library.giltrace_stop()
def pages():
    return int(open("/proc/self/statm").read().split()[0])
for number in range(80):
    cycle(number)
before = pages()
for number in range(80, 180):
    cycle(number)
print(pages() - before)
"""


def test_counting_that_begins_again_takes_no_more_memory(interpreter: Interpreter, tmp_path: Path) -> None:
    words = [str(interpreter.path), "-c", CYCLES, str(tmp_path)]
    ran = subprocess.run(words, check=True, timeout=60, capture_output=True, text=True)
    assert int(ran.stdout) * os.sysconf("SC_PAGE_SIZE") < 20 * layout.PIECE
    for number in range(180):
        (page,) = Pages(tmp_path / str(number)).read()
        assert 90 < page.counts.holds < 120


#: Fifty threads, each with a name that is like no other's.
NAMES = """
for i in range(50):
    def work():
        for _ in range(100):
            os.stat("/")
        step("here")
    thread = threading.Thread(target=work, name="w" + chr(ord("A") + i))
    thread.start()
    thread.join()
"""


def test_no_role_of_many_is_counted_twice(interpreter: Interpreter, tmp_path: Path) -> None:
    pages = Pages(tmp_path / "x")
    with Stepping(tmp_path / "x", interpreter.path, NAMES) as target:
        for number in range(50):
            target.comes_to("here")
            (page,) = pages.read()
            assert of_role(page, "w" + chr(ord("A") + number)).holds >= 100
            target.go_on()
        target.end()
    (often,), (once,) = pages.read(), Pages(tmp_path / "x").read()
    assert often.counts.holds == once.counts.holds
    assert len(once.roles) < 40 < 50 <= len(often.roles)


def test_a_recording_of_what_would_only_count_has_all_events(interpreter: Interpreter, tmp_path: Path) -> None:
    folder = tmp_path / "x.giltrace"
    words = [*GILTRACE, "record", "--light", "--no-trace", "-o", str(folder), "--", str(interpreter.path)]
    program = ["-c", "import os\nfor _ in range(200): os.stat('/')"]
    env = {**os.environ, "GILTRACE_COUNT": "only"}
    subprocess.run([*words, *program], env=env, check=True, timeout=120, capture_output=True)
    (process,) = load(folder).processes
    (page,) = Pages(folder).read()
    assert 200 <= page.counts.holds <= len(process.holds)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="attaching is for x86-64")
def test_what_counts_says_so_to_who_would_record_it(interpreter: Interpreter, tmp_path: Path) -> None:
    with Stepping(tmp_path / "x", interpreter.path, "step('on')\n") as target:
        target.comes_to("on")
        words = [*GILTRACE, "attach", str(target.process.pid), "-d", "1s", "-o", str(tmp_path / "y")]
        ran = subprocess.run(words, timeout=60, capture_output=True, text=True, check=False)
        target.end()
    assert ran.returncode != 0
    assert f"process {target.process.pid} counts already, into {tmp_path / 'x'}" in ran.stderr
    assert f"giltrace attach --observe {target.process.pid}" in ran.stderr
