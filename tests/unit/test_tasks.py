"""Which kind of task waited for which, at which lines: on made-up threads whose tasks are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from giltrace.analysis.fleet import what_tasks_lost
from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.measure.tasks import NO_TASKS, TaskTables, find_tasks, merged_tables, spent, task_at, tasks_of
from giltrace.analysis.report import analyse
from giltrace.analysis.summary import summarise
from giltrace.analysis.task_results import TaskBlame
from giltrace.recording.merged import MERGED, TASKS, Merged, Track
from giltrace.reports.console import console
from giltrace.reports.summary import print_summary
from giltrace.reports.tasks import print_tasks
from giltrace.timeline.model import Process
from tests.synthetic import make_process, make_timeline
from tests.unit.block_events import Scene
from tests.unit.gil_events import MS, PID

END = 100 * MS
#: Of a thread: the key, and from when to when.
Given = tuple[int, str, int, int]


def merged(tasks: Sequence[Given], pid: int = PID) -> Merged:
    """Tasks by the tids of their threads; a prefix is what stands before the dash."""
    tracks = {tid: at for at, tid in enumerate(dict.fromkeys(tid for tid, *_ in tasks))}
    prefixes = list(dict.fromkeys(key.partition("-")[0] for _, key, *_ in tasks))
    rows = np.zeros(len(tasks), MERGED)
    for at, (tid, key, start, end) in enumerate(tasks):
        rows[at] = (start, end, tracks[tid], at, -1, prefixes.index(key.partition("-")[0]), 0)
    rows = rows[np.lexsort((rows["start"], rows["track"]))]
    names = tuple(key for _, key, *_ in tasks)
    told = tuple(Track(pid, tid, "") for tid in tracks)
    return Merged(TASKS[0], "made up", False, "", 0, told, names, tuple(prefixes), rows)


def found(process: Process, tasks: Sequence[Given], cause: BlockCause = BlockCause.LOCK) -> TaskTables:
    causes = np.full(len(process.blocks), cause, np.uint8)
    return find_tasks(process, [merged(tasks)], causes, Sites(process))


def pairs(rows: Sequence[TaskBlame]) -> list[tuple[str, str, str, int, int]]:
    return [
        (row.prefix, row.culprit_prefix, row.culprit.function if row.culprit else "", row.ns // MS, row.count)
        for row in rows
    ]


def scene() -> Scene:
    """Thread 1 has the GIL from 10 to 60 ms, thread 2 asks for it at 20 ms, and the main thread from 70 to 80 ms."""
    made = Scene(3).hold(5 * MS, 6 * MS, 2, "begins").hold(10 * MS, 60 * MS, 1, "crunch")
    made.script.request(20 * MS, 2)
    return made.hold(60 * MS, 61 * MS, 2, "step").hold(70 * MS, 80 * MS, 0, "loop")


def test_a_hold_is_told_of_each_task_that_it_lies_in() -> None:
    tables = found(
        scene().process(END),
        [(101, "parse-1", 8 * MS, 30 * MS), (101, "hog-1", 30 * MS, 90 * MS), (102, "step-1", 5 * MS, 95 * MS)],
    )
    assert pairs(tables.blame) == [("step", "hog", "crunch", 30, 1), ("step", "parse", "crunch", 10, 1)]
    told = {row.prefix: row for row in tables.prefixes}
    assert [(name, row.tasks, row.ns // MS, row.held_ns // MS, row.waited_ns // MS) for name, row in told.items()] == [
        ("step", 1, 90, 2, 40),
        ("hog", 1, 60, 30, 0),
        ("parse", 1, 22, 20, 0),
        ("", 0, 0, 10, 0),
    ]
    assert (told["hog"].cost_ns, told["parse"].cost_ns, told["step"].cost_ns) == (30 * MS, 10 * MS, 0)
    assert (told["step"].worst, told["step"].worst_ns, told["hog"].worst) == ("step-1", 40 * MS, "")


def test_what_is_done_beside_tasks_is_the_workers_own() -> None:
    tables = found(scene().process(END), [(102, "step-1", 62 * MS, 95 * MS)])
    assert pairs(tables.blame) == [("", "", "crunch", 40, 1)]
    (beside, step) = tables.prefixes
    assert (beside.prefix, beside.waited_ns, beside.held_ns, step.prefix) == ("", 40 * MS, 62 * MS, "step")


def test_sleep_in_a_lock_is_told_of_both_sides() -> None:
    made = scene().block(64 * MS, 90 * MS, 2, at="want", by=1, woken=85 * MS, wake="give")
    made.block(62 * MS, 99 * MS, 0, at="loop")
    process = made.process(END)
    tables = found(process, [(101, "keeps-1", 8 * MS, 88 * MS), (102, "wants-1", 5 * MS, 95 * MS)])
    assert pairs(tables.blame) == [("wants", "keeps", "crunch", 40, 1), ("wants", "keeps", "give", 26, 1)]
    assert [row.cause for row in tables.blame] == ["gil", "lock"]
    assert {row.prefix: row.blocked_ns for row in tables.prefixes} == {"wants": 26 * MS, "keeps": 0, "": 0}
    summary, advice = what_tasks_lost(tables, 1)
    assert summary.startswith("Tasks 'wants' lost 40.0 ms of their 90.0 ms (44.4%) waiting for the GIL, 100.0% of that")
    assert "while tasks 'keeps' held it, most at crunch (app.py:1), on 1 of 1 workers." in summary
    assert "'wants' and 'keeps'" in advice


def test_of_chosen_threads_it_is_told_what_these_lost() -> None:
    process = scene().process(END)
    tasks = [(101, "hog-1", 8 * MS, 90 * MS), (102, "step-1", 5 * MS, 95 * MS)]
    other = replace(process, chosen=np.array([False, True, False]))
    assert found(other, tasks).blame == ()
    assert pairs(found(replace(process, chosen=np.array([False, False, True])), tasks).blame) == [
        ("step", "hog", "crunch", 40, 1)
    ]


def test_a_task_is_over_when_its_thread_begins_another() -> None:
    process = scene().process(END)
    tasks = tasks_of(process, [merged([(101, "a-1", 10 * MS, 50 * MS), (101, "b-1", 40 * MS, 60 * MS)])])
    assert tasks is not None
    assert tasks.end.tolist() == [40 * MS, 60 * MS]
    at = task_at(process, tasks, np.array([1, 1, 1, 1, 2]), np.array([9, 10, 39, 60, 20]) * MS)
    assert at.tolist() == [-1, 0, 0, -1, -1]


def test_nothing_is_told_without_tasks() -> None:
    process = scene().process(END)
    nobody = [(999, "a-1", 0, END)]
    assert found(process, nobody) == NO_TASKS
    assert find_tasks(process, [], np.empty(0, np.uint8), Sites(process)) == NO_TASKS
    assert what_tasks_lost(NO_TASKS, 2)[0] == "No kind of task lost more than 5.0% of its time to the GIL or to locks."
    report = analyse(make_timeline(make_process()))
    assert (report.tasks, report.task_blame, report.fleet) == ((), (), None)


@pytest.mark.parametrize("seed", range(10))
def test_all_that_was_waited_and_held_is_some_tasks_or_none(seed: int) -> None:
    process = make_process(threads=5, holds=300, seed=seed)
    random = np.random.default_rng(seed)
    tasks: list[Given] = []
    for thread in process.threads:
        edges = np.sort(random.integers(process.start, process.end, 41)).tolist()
        for at, (start, end) in enumerate(pairwise(edges)):
            if random.random() < 0.7:
                tasks.append((thread.tid, f"kind{at % 3}-{at}", start, end))
    one = merged(tasks, process.pid)
    known = tasks_of(process, [one])
    assert known is not None
    sums = spent(process, known)
    for table, column in (("waits", sums.waited), ("holds", sums.held)):
        rows = getattr(process, table)
        assert int(column.sum()) == int((rows["end"] - rows["start"]).sum())
    assert int(sums.waits.sum()) == len(process.waits)
    tables = find_tasks(process, [one], np.empty(0, np.uint8), Sites(process))
    assert sum(row.waited_ns for row in tables.prefixes) == int(sums.waited.sum())
    assert sum(row.tasks for row in tables.prefixes) == len(known.start)
    (report,) = analyse(make_timeline(process)).processes
    assert sum(row.ns for row in tables.blame) == sum(row.ns for row in report.blame)


def test_processes_are_added_up() -> None:
    tasks = [(101, "hog-1", 8 * MS, 90 * MS), (102, "step-1", 5 * MS, 95 * MS)]
    one = found(scene().process(END), tasks)
    both = merged_tables([one, NO_TASKS, one], [merged(tasks)])
    assert [(row.prefix, row.tasks, row.waited_ns) for row in both.prefixes][:1] == [("step", 2, 80 * MS)]
    assert [(row.ns, row.count, row.max_ns, row.processes) for row in both.blame] == [(80 * MS, 2, 40 * MS, 2)]


@pytest.mark.parametrize(
    ("scheduler", "apart"), [("dask", "workers of one thread each"), ("ray", "actors without max_concurrency")]
)
def test_a_summary_advises_in_the_terms_of_the_scheduler(
    scheduler: str, apart: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = merged([(101, "hog-1", 8 * MS, 90 * MS), (102, "step-1", 5 * MS, 95 * MS)])._replace(label=scheduler)
    timeline = replace(make_timeline(scene().process(END)), merged=(tasks,))
    print_summary(summarise(timeline), console(width=200))
    assert f"Run 'step' and 'hog' in processes of their own: {apart}" in capsys.readouterr().out


def test_the_terminal_has_room_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    long = "a-kind-of-task-whose-name-is-longer-than-any-terminal-has-room-for-beside-figures"
    tasks = [(101, f"{long}-1".replace("-", "_"), 8 * MS, 90 * MS), (102, "step-1", 5 * MS, 95 * MS)]
    timeline = make_timeline(scene().process(END))
    report = analyse(replace(timeline, merged=(merged(tasks),)))
    shown = console(width=80)
    print_tasks(report, shown)
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80
    assert "step: step" not in told  # where it waited is not known here
    assert "crunch (app.py:1)" in " ".join(told.split())
