"""The report on a terminal: in the promised order, narrow enough, and honest where nothing is known."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from giltrace.analysis.durations import duration
from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.report import analyse
from giltrace.analysis.selection import Selection, select
from giltrace.reports.blame import BRIEF, Detail
from giltrace.reports.names import shortened
from giltrace.reports.terminal import print_report
from giltrace.timeline.model import Timeline
from tests.synthetic import make_process, make_timeline
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS, Script
from tests.unit.gil_events import timeline as recorded

HEADINGS = ["Verdict", "What the GIL cost", "Who made whom wait", "What would change", "How good the measurement is"]


def printed(timeline: Timeline, width: int = 80, detail: Detail = BRIEF) -> str:
    out = io.StringIO()
    print_report(analyse(timeline), Console(file=out, width=width), detail)
    return out.getvalue()


def test_answers_come_in_their_order_within_80_columns_and_without_colour() -> None:
    text = printed(make_timeline(make_process()))
    places = [text.index(heading) for heading in HEADINGS]
    assert places == sorted(places)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text


def test_blame_adds_up_to_what_the_report_says_was_waited() -> None:
    report = analyse(make_timeline(make_process()))
    for process in report.processes:
        assert sum(blame.ns for blame in process.blame) <= process.wait_decomposition_ns.total_ns
        assert sum(thread.waited_ns for thread in process.threads) == process.wait_decomposition_ns.total_ns


def test_long_sites_keep_their_indent_and_no_line_ends_in_blanks() -> None:
    long = ("Orchestrator.wait_for_every_worker_to_finish", "/srv/app/orchestrator_of_workers.py", 1139)
    process = with_stacks(make_process(threads=2), [[long]], hold={0: 0, 1: 0}, wait={0: 0, 1: 0})
    lines = printed(make_timeline(process)).splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith("  who waited, and for whom"))
    rows = lines[begin + 1 : lines.index("", begin)]
    assert [len(row) - len(row.lstrip()) for row in rows[:4]] == [2, 6, 4, 8]
    assert all(row.startswith("  ") for row in rows)
    assert rows[2].lstrip().startswith("for ")
    assert all(sum(whole in row for row in rows) == 4 for whole in (long[0], "(orchestrator_of_workers.py:1139)"))
    assert [line for line in lines if line != line.rstrip()] == []


def test_the_users_lines_come_first_and_what_they_led_to_in_brackets() -> None:
    library = "/usr/lib/python3.11/json/encoder.py"
    inner, outer = ("iterencode", library, 257), ("dumps", "/usr/lib/python3.11/json/__init__.py", 231)
    handle = [("handle", "/srv/app.py", line) for line in (5, 5, 7)]
    stacks = [[inner, outer, handle[0]], [outer, handle[1]], [handle[2]], [("wait", "/srv/app.py", 9)]]
    process = with_stacks(
        make_process(names=[f"worker-{at}" for at in range(4)]),
        stacks,
        hold={0: 0, 1: 1, 2: 2, 3: 2},
        wait=dict.fromkeys(range(4), 3),
    )
    timeline = make_timeline(process)
    words = {
        "brief": " ".join(printed(timeline).split()),
        "lines": " ".join(printed(timeline, detail=Detail(lines=True)).split()),
        "library": " ".join(printed(timeline, detail=Detail(lines=True, library=True)).split()),
    }
    role = "worker-*"
    assert f"{role}: wait (app.py:9)" in words["brief"]
    assert f"for {role}: handle (app.py) " in words["brief"]
    assert "line 5 [" in words["brief"]
    assert "and 1 other]" in words["brief"]
    assert "line 7 " in words["brief"]
    assert f"for {role}: handle (app.py:5) [iterencode (encoder.py:257)]" in words["lines"]
    assert f"for {role}: handle (app.py:5) > dumps (__init__.py:231) > iterencode (encoder.py:257)" in words["library"]


def test_several_processes_begin_with_an_overview() -> None:
    small = replace(make_process(pid=10, threads=2, holds=20), cmdline="python3 -m small")
    several = make_timeline(small, make_process(pid=20, holds=400))
    first, *lines = printed(several).splitlines()
    assert first == "2 processes"
    assert [line.split()[0] for line in lines[2:4]] == ["20", "10"]
    assert [line.split()[1][:5] for line in lines[2:4]] == ["convo", "small"]
    assert lines[4].startswith("  Each has a GIL of its own")
    assert not printed(make_timeline(make_process())).startswith("1 process")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_any_width_keeps_every_section(width: int) -> None:
    text = " ".join(printed(make_timeline(make_process()), width).split())
    assert all(heading in text for heading in HEADINGS)


def test_without_a_gil_on_record_nothing_is_claimed_of_it() -> None:
    timeline = make_timeline(make_process())
    silent = tuple(
        replace(p, holds=p.holds[:0], waits=p.waits[:0], switch_requests=p.switch_requests[:0], note="nothing seen")
        for p in timeline.processes
    )
    text = printed(replace(timeline, processes=silent))
    assert "not known" in text
    assert "No thread ever waited" not in text
    assert "Nobody waited" not in text


def test_losses_and_broken_invariants_are_said() -> None:
    timeline = make_timeline(make_process())
    hurt = tuple(replace(p, lost=7, violations=("two holders at once: 3",)) for p in timeline.processes)
    text = printed(replace(timeline, processes=hurt))
    assert f"{7 * len(hurt)} lost events" in text
    assert f"{len(hurt)} broken invariant" in text


def test_giltraces_own_lines_are_marked_and_what_they_took_is_said() -> None:
    stacks = [[("work", "/srv/work.py", 7)], [("save", "/opt/giltrace_viztracer.py", 9)]]
    by_thread = {thread: int(thread == 0) for thread in range(4)}
    process = with_stacks(make_process(), stacks, hold=by_thread)
    text = " ".join(printed(make_timeline(process)).split())
    assert "save (giltrace_viztracer.py:9) [giltrace]" in text
    assert "work (work.py:7)" in text
    assert "work (work.py:7) [giltrace]" not in text
    assert "at lines marked [giltrace]" in text
    assert "[giltrace]" not in printed(make_timeline(with_stacks(make_process(), stacks[:1], hold={1: 0})))


def test_nobody_waits_in_a_recording_of_one_thread() -> None:
    script = Script(tids=(100,)).hold(0, 5 * MS, 0).hold(6 * MS, 9 * MS, 0)
    assert "No thread ever waited for the GIL." in printed(recorded(script))


def test_processes_are_a_tree_and_equal_workers_a_line() -> None:
    worker = "/usr/bin/python3 -c from multiprocessing.spawn import spawn_main; spawn_main(pipe_handle={})"
    workers = [
        replace(make_process(pid, threads=2, holds=20), ppid=10, cmdline=worker.format(pid)) for pid in range(20, 25)
    ]
    other = replace(make_process(30, holds=300), ppid=10, cmdline="python3 -m app.cleaner")
    below = replace(make_process(40, holds=100), ppid=30, cmdline="python3 tool.py")
    several = make_timeline(*workers, below, other, make_process(10, threads=2, holds=40))
    lines = printed(several, width=120).splitlines()
    tree = lines[3 : next(at for at, line in enumerate(lines) if line.startswith("  Each"))]
    assert [(len(line) - len(line.lstrip()), line.split()[0]) for line in tree] == [
        (2, "10"),
        (4, "30"),
        (6, "40"),
        (4, "5"),
    ]
    assert tree[1].split()[1] == "app.cleaner"
    assert "5 x python3 -c from multi" in tree[3]
    report = analyse(several)
    held = sum(thread.held_ns for one in report.processes if one.ppid == 10 and one.pid < 30 for thread in one.threads)
    assert duration(held) in tree[3]
    each = printed(several, width=120, detail=Detail(everything=True)).splitlines()
    assert [line.split()[0] for line in each[3:11]] == ["10", "30", "40", "20", "21", "22", "23", "24"]
    assert max(map(len, printed(several).splitlines())) <= 80


def test_a_pid_used_again_makes_no_circle() -> None:
    first, second = (replace(make_process(pid, holds=20), ppid=ppid) for pid, ppid in ((10, 20), (20, 10)))
    text = printed(make_timeline(first, second, replace(make_process(30, holds=20), ppid=30)))
    assert all(f"process {pid} " in text for pid in (10, 20, 30))


def test_threads_of_a_role_share_a_row_where_there_are_many() -> None:
    few, many = (make_timeline(make_process(threads=number, holds=600)) for number in (8, 40))
    rows = [line.split() for line in printed(many, width=120).splitlines()]
    (pool,) = [row for row in rows if row[:2] == ["cpu-worker-*", "(38)"]]
    (process,) = analyse(many).processes
    those = [thread for thread in process.threads if thread.role == "cpu-worker-*"]
    assert pool[2] == str(sum(thread.holds for thread in those))
    # Of their lives together: never more than all of it.
    assert pool[5] == f"{100 * sum(thread.held_ns for thread in those) / sum(thread.life_ns for thread in those):.0f}"
    assert "cpu-worker-1 " in printed(few)
    assert (
        sum(line.startswith("cpu-worker-") for line in printed(many, detail=Detail(everything=True)).splitlines()) == 38
    )


def test_shares_say_of_what_they_are() -> None:
    evidence = {"waited_share": 0.2, "held_share": 0.5, "off_running_ratio": 2.0, "off_running_share": 0.3}
    report = analyse(make_timeline(make_process()))
    process = replace(report.processes[0], verdict=Verdict("parallel", "So.", "", evidence))
    out = io.StringIO()
    print_report(replace(report, processes=(process,)), Console(file=out, width=200))
    assert (
        "Evidence: waited 20.0% of its life, held 50.0% of the time, off running 2.00 times as long as held, "
        "off running 30.0% of the time."
    ) in out.getvalue()


def test_a_part_is_named_on_top() -> None:
    (part,) = select([make_timeline(make_process())], Selection.of(window="0..0.1", thread="io-*"))
    text = " ".join(printed(part).split())
    assert text.startswith("A part of the recording: 0.000 s to 0.100 s of 0.")
    assert "1 of 4 threads (io-*)" in text
    assert "io-worker" in text
    assert "for cpu-worker-*" in text


@pytest.mark.parametrize("width", [6, 10, 14, 20])
def test_long_names_are_cut_in_the_middle_but_not_where_they_differ(width: int) -> None:
    names = [f"request-handler-{at}-of-the-service" for at in range(30)]
    names += ["short", "pool-of-the-reader-a", "pool-of-the-reader-b", "a-first-part-and-more", "b-first-part-and-more"]
    found = shortened(names, width)
    assert len(set(found.values())) == len(names)
    assert found["short"] == "short"
    if width >= 14:
        assert all(len(short) <= width for short in found.values())
        assert all(".." in short or short == name for name, short in found.items())
