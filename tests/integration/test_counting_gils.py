"""Counting where interpreters of one process have a GIL each: what a recording of the same run says of each of them."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from giltrace.launch.counting import counted_process
from giltrace.metrics.following import PagesOf, ledger_of
from giltrace.metrics.page import Pages
from giltrace.metrics.reading import Counts, of_gils
from giltrace.recording.gil import open_files
from giltrace.timeline.load import load
from giltrace.views.ending import Ending
from tests.attaching import Running
from tests.counting import Stepping, counted, counting, of_role
from tests.interpreters import Interpreter

#: `run(code)` in the next one of some interpreters, that have a GIL each.
INTERPRETERS = """
import os, sys, threading
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
words = ("isolated",) if sys.version_info >= (3, 13) else ()
"""

#: Two threads that use one interpreter's GIL each, that of a second one, and the main interpreter's, by turns; the
#: interpreters end meanwhile. Two more compute in one interpreter, so that one asks the other for its GIL.
BY_TURNS = (
    INTERPRETERS
    + '''
reads = """
import os
for _ in range(200): os.stat("/")
"""
computes = """
import threading
def compute():
    for _ in range(3): sum(range(400_000))
threads = [threading.Thread(target=compute, name=f"inner-{i}") for i in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""

def work():
    made = [interpreters.create(*words) for _ in range(2)]
    for _ in range(3):
        for number in made:
            interpreters.run_string(number, reads)
            for _ in range(50): os.stat("/")
    for number in made: interpreters.destroy(number)

def ask():
    number = interpreters.create()
    interpreters.run_string(number, computes)
    interpreters.destroy(number)

threads = [threading.Thread(target=target, name=f"worker-{i}") for i, target in enumerate((work, work, ask))]
for thread in threads: thread.start()
for thread in threads: thread.join()
'''
)

#: More GILs than the tracer tells apart. Says how much CPU time (s) it took to use them all.
CROWD = (
    INTERPRETERS
    + """
made = [interpreters.create(*words) for _ in range(80)]
import time
begin = time.process_time()
for _ in range(30):
    for number in made: interpreters.run_string(number, "pass")
print(time.process_time() - begin)
"""
)

#: Goes to and fro between two GILs, as often as the rounds say, beside so many threads that sleep.
TO_AND_FRO = (
    INTERPRETERS
    + """
ended = threading.Event()
begun = threading.Semaphore(0)
def sleep():
    begun.release()
    ended.wait()
threading.stack_size(1 << 16)
threads = [threading.Thread(target=sleep) for _ in range(%d)]
for thread in threads: thread.start()
for thread in threads: begun.acquire()
number = interpreters.create(*words)
for _ in range(12):
    for _ in range(100): interpreters.run_string(number, "pass")
    step("here")
ended.set()
"""
)

#: Of sixteen tallies all are taken as the main thread goes on to another GIL, again and again.
CROWDED = (
    INTERPRETERS
    + """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (32768, 32768))
gate = threading.Barrier(16)
def sleep():
    gate.wait()
    gate.wait()
threads = [threading.Thread(target=sleep, name=f"early-{i}") for i in range(15)]
for thread in threads: thread.start()
gate.wait()
number = interpreters.create(*words)
for _ in range(3): interpreters.run_string(number, "import os\\nfor _ in range(200): os.stat('/')")
for _ in range(200): os.stat("/")
step("turned")
gate.wait()
"""
)


@pytest.fixture
def with_own_gils(interpreter: Interpreter) -> Interpreter:
    """An interpreter whose sub-interpreters may have GILs of their own."""
    if interpreter.version < (3, 12):
        pytest.skip("interpreters share one GIL before 3.12")
    return interpreter


def test_each_gil_is_counted_as_a_recording_has_it(with_own_gils: Interpreter, tmp_path: Path) -> None:
    folder, program = tmp_path / "x.giltrace", tmp_path / "program.py"
    program.write_text(BY_TURNS)
    words = [sys.executable, "-m", "giltrace", "record", "--light", "--no-trace", "-o", str(folder)]
    words += ["--python", str(with_own_gils.path), str(program)]
    subprocess.run(words, env={**os.environ, "GILTRACE_COUNT": "too"}, check=True, timeout=120, capture_output=True)
    (process,) = load(folder).processes
    (page,) = Pages(folder).read()
    assert (process.lost, page.lost, page.ended) == (0, 0, True)
    gils = {int(role.gil) for role in page.roles}
    assert gils == {*process.holds["gil"].tolist()}
    assert len(gils) >= 4
    for gil in gils:
        counts = [role.counts for role in page.roles if role.gil == str(gil)]
        holds, waits = process.holds[process.holds["gil"] == gil], process.waits[process.waits["gil"] == gil]
        # The last hold of all may be under way when the process ends.
        assert 0 <= len(holds) - sum(one.holds for one in counts) <= (gil == 0)
        assert len(waits) == sum(one.waits for one in counts)
        lengths = [table["end"] - table["start"] for table in (holds[: sum(one.holds for one in counts)], waits)]
        assert sum(one.held_ns for one in counts) == pytest.approx(int(lengths[0].sum()), rel=1e-3, abs=1000)
        assert sum(one.waited_ns for one in counts) == pytest.approx(int(lengths[1].sum()), rel=1e-3, abs=1000)
        requests = process.switch_requests["gil"] == gil
        assert sum(one.requests for one in counts) == int(requests.sum())
        assert sum(sum(one.hold_lengths) for one in counts) == sum(one.holds for one in counts)
    assert page.counts.forced == int((process.holds["flags"] & 1).sum())


def test_counting_alone_tells_gils_and_threads_apart(with_own_gils: Interpreter, tmp_path: Path) -> None:
    (page,) = counted(tmp_path / "x", with_own_gils.path, "-c", BY_TURNS)
    mine = {role.key: role.counts for role in page.roles}
    assert mine["MainThread", "0"].holds > 0
    assert mine["worker-*", "0"].holds >= 600
    elsewhere = {key: counts for key, counts in mine.items() if key[1] != "0"}
    assert sum(counts.holds for (role, _), counts in elsewhere.items() if role == "worker-*") >= 2400
    assert {role for role, _ in elsewhere} >= {"worker-*", "inner-*"}


def test_threads_that_never_let_go_of_their_gils_are_counted(with_own_gils: Interpreter) -> None:
    """Each has had its own since before anybody counted; the tracer meets only the one between them."""
    with (
        Ending() as ending,
        Running(with_own_gils.path, "own-gils") as target,
        counted_process(target.pid, ending) as counted,
    ):
        pages, ledger = PagesOf(counted), ledger_of(counted)
        (reading,) = pages.read()
        while not (read := {gil: counts for gil, counts in of_gils(reading.roles).items() if counts.held_ns}).get("2"):
            (reading,) = pages.read()
        totals = ledger.update()
    assert read["1"].held_ns == read["3"].held_ns == reading.at_ns - reading.started_ns
    assert 0 < read["2"].held_ns < read["1"].held_ns
    assert sum(thread.holding and not thread.counts.holds for thread in reading.threads) == 2
    assert totals.busiest == 1.0


def steady(pages: PagesOf) -> tuple[dict[str, Counts], int]:
    """What was done with each GIL of a process that does nothing now, and how long (ns) it has counted."""
    (first,), (second,) = pages.read(), pages.read()
    assert of_gils(first.roles) == of_gils(second.roles)
    assert not any(thread.holding for thread in second.threads)
    return of_gils(second.roles), first.at_ns - first.started_ns


def test_one_that_lets_go_for_the_first_time_and_stays_away_is_seen_to(with_own_gils: Interpreter) -> None:
    with (
        Ending() as ending,
        Running(with_own_gils.path, "one-gil") as target,
        counted_process(target.pid, ending) as counted,
    ):
        pages = PagesOf(counted)
        (working,) = pages.read()
        target.say("rest")
        assert target.all_read()
        gils, counted_ns = steady(pages)
    worked_ns = working.at_ns - working.started_ns
    assert of_gils(working.roles)["1"].held_ns == worked_ns
    assert gils.keys() == {"0", "1"}
    assert gils["1"].holds == 1
    assert worked_ns < gils["1"].held_ns < counted_ns


def test_counted_again_a_gil_that_the_tracer_knows_is_the_same(with_own_gils: Interpreter) -> None:
    with Ending() as ending, Running(with_own_gils.path, "one-gil") as target:
        for _ in range(2):
            with counted_process(target.pid, ending) as counted:
                pages = PagesOf(counted)
                target.say("rest")
                assert target.all_read()
                pages.read()
                target.say("work")
                target.say("rest")
                assert target.all_read()
                gils, _ = steady(pages)
                assert gils.keys() == {"0", "1"}
                assert gils["1"].holds > 1
                target.say("work")


def test_what_was_held_before_stays_with_its_gil_when_the_thread_goes_on_to_another(
    with_own_gils: Interpreter, tmp_path: Path
) -> None:
    says = tmp_path / "says"
    says.write_bytes(b"\0")
    with (
        Ending() as ending,
        Running(with_own_gils.path, "enters", says) as target,
        counted_process(target.pid, ending) as counted,
    ):
        pages = PagesOf(counted)
        (working,) = pages.read()
        with says.open("r+b") as file:
            file.write(b"\1")
        assert target.waits()
        gils, counted_ns = steady(pages)
    worked_ns = working.at_ns - working.started_ns
    assert gils.keys() == {"0", "1"}
    assert worked_ns < gils["0"].held_ns < counted_ns - gils["1"].held_ns
    assert gils["0"].holds == 1
    assert gils["1"].holds > 0


def test_more_gils_than_are_told_apart_cost_the_program_little(with_own_gils: Interpreter, tmp_path: Path) -> None:
    words = [str(with_own_gils.path), "-W", "ignore", "-c", CROWD]
    bare, hooked = (
        float(subprocess.run(words, env=env, check=True, timeout=120, capture_output=True).stdout)
        for env in (None, counting(tmp_path / "x"))
    )
    (page,) = Pages(tmp_path / "x").read()
    assert page.note == "more than 64 GILs at once: the later ones were not recorded"
    assert len(of_gils(page.roles)) == 64
    assert hooked < 5 * bare


def ticks_of_turns(python: Path, folder: Path, threads: int) -> int:
    """What a hundred turns to another GIL and back took the tracer, by its own account, beside so many threads."""
    with Stepping(folder, python, TO_AND_FRO % threads) as target:
        told = []
        for _ in range(12):
            target.comes_to("here")
            (file,) = open_files(folder)
            told.append(int(file.header["slow_ticks"]))
            target.go_on()
        target.end()
    return min(after - before for before, after in itertools.pairwise(told[1:]))


def test_a_turn_takes_as_long_beside_many_threads_and_is_told(with_own_gils: Interpreter, tmp_path: Path) -> None:
    few, many = (ticks_of_turns(with_own_gils.path, tmp_path / f"{count}", count) for count in (1, 400))
    assert few > 0
    assert many < 5 * few


def test_who_finds_no_room_for_another_gil_counts_on_and_is_told_once(
    with_own_gils: Interpreter, tmp_path: Path
) -> None:
    with Stepping(tmp_path / "x", with_own_gils.path, CROWDED) as target:
        target.comes_to("turned")
        (page,) = Pages(tmp_path / "x").read()
        target.end()
    assert page.lost == 1
    assert {role.key for role in page.roles} == {("MainThread", "0"), ("early-*", "0")}
    assert of_role(page, "MainThread").holds >= 4 * 200
