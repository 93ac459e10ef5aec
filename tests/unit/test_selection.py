"""Asking about a part: what is chosen, what is told of it, and what is said if nothing is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from giltrace.analysis.compare.compare import compare
from giltrace.analysis.report import analyse
from giltrace.analysis.selection import Selection, narrow, parse_window, select
from giltrace.api import Recording
from giltrace.errors import UsageError
from giltrace.exporters.tables.columns import table_of
from giltrace.timeline.model import Timeline
from tests.synthetic import START, make_process, make_timeline
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS, timeline
from tests.unit.test_part import contended
from tests.unit.test_summary_verdict import convoy, hog

S = 1_000_000_000


def chosen(whole: Timeline, **words: Any) -> Timeline:
    (found,) = select([whole], Selection.of(**words))
    return found


def several() -> Timeline:
    """A server with two workers."""
    server, *workers = (make_process(pid, seed=pid) for pid in (10, 20, 30))
    workers = [replace(one, ppid=10, cmdline="/usr/bin/python3 -m app.worker --slow") for one in workers]
    return make_timeline(server, *workers)


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("1.5..2", (1500 * MS, 2 * S)),
        ("1.5s..2s", (1500 * MS, 2 * S)),
        ("200ms..", (200 * MS, None)),
        ("..1m", (0, 60 * S)),
        (" 0 .. 5 us ", (0, 5_000)),
    ],
)
def test_windows_are_in_seconds_or_with_a_unit(text: str, window: tuple[int, int | None]) -> None:
    assert parse_window(text) == window


@pytest.mark.parametrize("text", ["", "..", "1", "2..1", "1..1", "a..b", "1h..", "-1..2", "1...2"])
def test_what_is_no_window_is_said(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_window(text)
    assert raised.value.remedy


def test_after_is_a_window_without_an_end() -> None:
    assert Selection.of(after="2") == Selection.of(window="2..")
    with pytest.raises(UsageError, match="both say where to begin"):
        Selection.of(after="2", window="1..3")


def test_a_window_is_counted_from_the_begin_of_the_recording_and_told() -> None:
    whole = several()
    first, last = whole.recorded[0], whole.end
    part = chosen(whole, window="100ms..0.2")
    assert (part.start, part.end) == (first + 100 * MS, first + 200 * MS)
    assert part.part == (f"0.100 s to 0.200 s of {(last - first) / S:.3f} s",)
    assert analyse(part).part == part.part
    assert analyse(part).duration_ns == 100 * MS
    assert chosen(whole, after="100ms").end == last
    # Whichever process is asked about, the time is the recording's.
    assert chosen(whole, process="20", window="100ms..0.2").start == part.start


@pytest.mark.parametrize(
    ("pattern", "pids"),
    [("20", [20]), ("*worker*", [20, 30]), ("app.worker", [20, 30]), ("python3", [10, 20, 30]), ("convoy.py", [10])],
)
def test_processes_are_chosen_by_pid_command_line_script_or_program(pattern: str, pids: list[int]) -> None:
    part = chosen(several(), process=pattern)
    assert [one.pid for one in part.processes] == pids
    assert part.part == (f"{len(pids)} of 3 processes ({pattern})",)
    # The cores that the others had stay taken.
    left = [one for one in several().processes if one.pid not in pids]
    assert {task.pid for task in part.other_tasks} == {one.pid for one in left}
    assert len(part.other_runs) == sum(len(one.runs) for one in left)


def test_several_of_one_kind_add_up_and_kinds_narrow() -> None:
    whole = several()
    assert [one.pid for one in chosen(whole, process=["10", "30"]).processes] == [10, 30]
    part = chosen(whole, process="10", thread=["cpu-*", "io-*"], role="cpu-worker-*")
    assert [part.processes[0].threads[at].name for at in part.processes[0].chosen_threads] == [
        "cpu-worker-1",
        "cpu-worker-2",
    ]


def test_chosen_threads_are_the_victims_and_anybody_is_a_culprit() -> None:
    whole = make_timeline(make_process())
    (all_of_it,) = analyse(whole).processes
    (told,) = analyse(chosen(whole, thread="io-*")).processes
    assert [one.name for one in told.threads] == ["io-worker"]
    (victim,) = [one for one in all_of_it.threads if one.name == "io-worker"]
    assert told.threads == (victim,)
    assert told.wait_decomposition_ns.total_ns == victim.waited_ns
    assert {row.victim.thread for row in told.blame} == {"io-worker"}
    assert {row.culprit.thread for row in told.blame} == {"MainThread", "cpu-worker-*"}
    assert told.blame == tuple(row for row in all_of_it.blame if row.victim.thread == "io-worker")
    assert (told.verdict, told.gils, told.what_if) == (all_of_it.verdict, all_of_it.gils, all_of_it.what_if)


def test_hogs_are_told_by_whom_they_kept_waiting_and_convoys_by_who_is_in_them() -> None:
    kept = timeline(*hog())
    (told,) = analyse(kept).processes
    assert told.hogs
    asker = {kept.processes[0].threads[at].name for at in kept.processes[0].switch_requests["thread"].tolist()}
    others = [one.name for one in kept.processes[0].threads if one.name not in asker]
    for name in asker:
        assert analyse(chosen(kept, thread=name)).processes[0].hogs
    for name in others:
        assert analyse(chosen(kept, thread=name)).processes[0].hogs == ()
    slow = timeline(*convoy())
    (found,) = analyse(slow).processes[0].convoys
    for thread in slow.processes[0].threads:
        part = analyse(chosen(slow, thread=thread.name)).processes[0]
        assert [one.tid for one in part.convoys] == [found.tid] * (thread.tid == found.tid)


def test_a_role_keeps_its_name_where_one_of_it_is_left() -> None:
    whole = make_timeline(make_process())
    assert chosen(whole, role="cpu-worker-*", window="0..1ms").processes


@pytest.mark.parametrize(
    ("words", "said", "remedy"),
    [
        ({"process": "7"}, "no process 7", "20 (app.worker)"),
        ({"thread": "io-wroker"}, "no thread is named io-wroker", "there are: io-worker, "),
        ({"role": "cpu"}, "no thread has the role cpu", "cpu-worker-* (6)"),
        ({"thread": "io-*", "role": "cpu-*"}, "no thread is named io-* and has the role cpu-*", "cpu-worker-* (6)"),
        ({"window": "900.."}, "there is nothing from 900 s on", "s long"),
        ({"own": "/nowhere"}, "no recorded line is in /nowhere", "there is none"),
    ],
)
def test_what_leaves_nothing_is_said_with_what_there_is(words: dict[str, str], said: str, remedy: str) -> None:
    with pytest.raises(UsageError) as raised:
        chosen(several(), **words)
    assert said in raised.value.message
    assert remedy in raised.value.remedy


def test_a_window_in_which_nothing_lives_says_when_something_does() -> None:
    with pytest.raises(UsageError, match="no thread of these lives in that window") as raised:
        chosen(contended(), thread="short", window="0..30ms")
    assert raised.value.remedy == "they live: process 100 from 0.040 s to 0.060 s"


def test_own_paths_are_the_users_and_all_else_is_a_librarys() -> None:
    stacks = [[("step", "/srv/app/steps.py", 3), ("run", "/srv/tool/run.py", 9)], [("idle", "/srv/tool/run.py", 12)]]
    whole = make_timeline(
        with_stacks(make_process(), stacks, hold={0: 0, 1: 0, 2: 1, 3: 1}, wait=dict.fromkeys(range(4), 0))
    )
    for path, own in (("/srv/tool", "run"), ("/srv/app/", "step"), ("/srv/app/steps.py", "step")):
        part = chosen(whole, own=path)
        assert {row.victim.own_function for row in analyse(part).processes[0].blame} == {own}
        assert part.part == (f"your code is what is in {path}",)
    with pytest.raises(UsageError) as raised:
        chosen(whole, own="/srv/ap")
    assert "/srv/app" in raised.value.remedy


def test_of_two_recordings_one_may_lack_what_is_asked_for() -> None:
    old, new = make_timeline(make_process()), make_timeline(make_process(names=["MainThread", "a", "b", "c"]))
    before, after = select([old, new], Selection.of(thread="io-*"))
    found = compare(before, after)
    assert [(role.role, role.threads_before, role.threads_after) for role in found.roles] == [("io-worker", 1, 0)]
    assert found.before.part == ("1 of 4 threads (io-*)",)
    with pytest.raises(UsageError, match="no thread is named x"):
        select([old, new], Selection.of(thread="x"))


def test_culprits_of_a_comparison_cost_what_the_chosen_threads_waited() -> None:
    whole = make_timeline(make_process(holds=2000))
    everyone, some = compare(whole, whole), compare(*[chosen(whole, thread="io-*")] * 2)
    costs = [sum(one.figures[0].before or 0 for one in found.culprits) for found in (everyone, some)]
    assert 0 < costs[1] < costs[0]


def test_tables_have_the_rows_of_chosen_threads_with_their_culprits() -> None:
    whole = make_timeline(make_process())
    part = chosen(whole, thread="io-*")
    (tid,) = (one.tid for one in whole.processes[0].threads if one.name == "io-worker")
    for table in ("threads", "holds", "waits", "switch_requests", "runs"):
        (columns,) = table_of(part, table)
        assert set(columns["tid"].tolist()) == {tid}  # type: ignore[union-attr]
    (waits,), (all_waits,) = table_of(part, "waits"), table_of(whole, "waits")
    mine = all_waits["tid"] == tid
    assert waits["hold"].tolist() == all_waits["hold"][mine].tolist()  # type: ignore[union-attr]
    (holds,) = table_of(part, "holds")
    assert set(waits["hold"].tolist()) <= set(holds["hold"].tolist())  # type: ignore[union-attr]


def test_a_trace_keeps_all_threads_and_the_longest_waits_are_the_chosen_ones() -> None:
    whole = make_timeline(make_process())
    part = narrow(whole, Selection.of(thread="MainThread"), top_waits=1)
    (process,) = part.processes
    waits = process.waits[process.waits["thread"] == 0]
    length = (whole.processes[0].waits["end"] - whole.processes[0].waits["start"])[
        whole.processes[0].waits["thread"] == 0
    ]
    assert (waits["end"] - waits["start"]).max() == length.max()
    assert len(process.threads) == 4
    # What reaches into a window stays whole there.
    window = narrow(whole, Selection.of(window=["0..10ms", "20ms..30ms"]))
    assert {*window.processes[0].waits["start"].tolist()} <= {*whole.processes[0].waits["start"].tolist()}
    assert window.cut is not None
    assert len(window.cut.kept) == 2


def test_python_takes_the_same() -> None:
    recording = Recording(Path("made-up.giltrace"), several())
    part = recording.select(window="0..0.1", process="*worker*", thread="io-*")
    assert part.processes.pid.tolist() == [20, 30]
    assert part.holds.end.max() <= START + 100 * MS + 1
    assert part.threads.name[part.threads.chosen].tolist() == ["io-worker", "io-worker"]
    assert part.report().part[1:] == ("2 of 3 processes (*worker*)", "2 of 8 threads (io-*)")
    assert recording.select(process=[20, 10]).processes.pid.tolist() == [10, 20]
    assert recording.select(process=30).processes.pid.tolist() == [30]
    with pytest.raises(UsageError):
        recording.select(thread="nobody")
