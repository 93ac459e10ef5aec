"""A program image ends where its process executes something else: its holds do, and what is shown of it."""

from __future__ import annotations

import pytest

from tests.unit.gil_events import MS, PID, Kernel, Script, not_python, process, rows, timeline

END = 100 * MS


def holder(start: int = 0) -> Script:
    """An image whose thread still has the GIL when it executes the next one."""
    script = Script((PID,), start=start)
    return script.hold(start + MS, start + 2 * MS, 0).acquire(start + 3 * MS, 0)


def kernel() -> Kernel:
    return Kernel().born(0, PID).run(0, END, PID).ended(END, PID)


def test_an_exec_that_the_kernel_saw_ends_the_image() -> None:
    one = process(holder(), kernel().executed(5 * MS, "sleep"), end=END)
    assert (one.start, one.end, one.became) == (0, 5 * MS, "sleep")
    assert rows(one.holds, "start", "end") == [(MS, 2 * MS), (3 * MS, 5 * MS)]
    assert one.threads[0].end == 5 * MS
    assert one.violations == ()


def test_what_the_process_does_as_another_program_is_not_pythons() -> None:
    whole = timeline(holder(), kernel().executed(5 * MS, "sleep"), end=END)
    assert [(run["start"], run["end"]) for run in whole.processes[0].runs] == [(0, 5 * MS)]
    assert [(run["start"], run["end"]) for run in whole.other_runs] == [(5 * MS, END)]


def test_the_exec_that_began_an_image_does_not_end_it() -> None:
    one = process(holder(start=MS), kernel().executed(MS // 2, "python3"), end=END)
    assert (one.end, one.became) == (END, "")


@pytest.mark.parametrize("seen", [True, False], ids=["kernel", "no kernel"])
def test_an_image_that_is_not_python_ends_the_one_before_it(seen: bool) -> None:
    processes = [holder().events(), not_python(6 * MS, "a-name-longer-than-15")]
    execs = kernel().executed(5 * MS, "a-name-longer-t") if seen else None
    (one,) = timeline(processes, execs, end=END).processes
    assert (one.end, one.became) == (5 * MS if seen else 6 * MS, "a-name-longer-than-15")
    assert rows(one.holds, "start", "end")[-1] == (3 * MS, one.end)


def test_another_python_is_a_process_of_its_own() -> None:
    processes = [holder().events(), holder(start=6 * MS).events()]
    first, second = timeline(processes, kernel().executed(5 * MS, "python3"), end=END).processes
    assert (first.end, first.became) == (5 * MS, "")
    assert (second.start, second.end, second.became) == (6 * MS, END, "")


def test_what_lies_between_two_pythons_is_told() -> None:
    execs = kernel().executed(5 * MS, "sh").executed(20 * MS, "python3")
    first, second = timeline([holder().events(), holder(start=21 * MS).events()], execs, end=END).processes
    assert (first.end, first.became) == (5 * MS, "sh")
    assert (second.start, second.end) == (21 * MS, END)


def test_the_process_of_an_exec_outlives_the_threads_that_were_there() -> None:
    script = Script((PID, 101)).hold(MS, 2 * MS, 0).acquire(3 * MS, 1)
    sched = Kernel().born(0, PID).born(MS, 101).ended(4 * MS, PID).ended(5 * MS, 101).born(5 * MS, PID)
    sched.executed(5 * MS, "python3").run(0, 4 * MS, PID).run(3 * MS, 5 * MS, 101, 1).ended(END, PID)
    first, second = timeline([script.events(), holder(start=6 * MS).events()], sched, end=END).processes
    assert first.end == 5 * MS
    assert rows(first.holds, "start", "end") == [(MS, 2 * MS), (3 * MS, 5 * MS)]
    assert (second.end, len(second.threads)) == (END, 1)


def test_an_exec_elsewhere_is_nothing_to_a_process() -> None:
    sched = kernel()
    sched.execs += Kernel(pid=77).executed(5 * MS, "sleep").execs
    assert process(holder(), sched, end=END).end == END
