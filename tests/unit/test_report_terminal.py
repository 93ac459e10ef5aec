"""The report on a terminal: in the promised order, narrow enough, and honest where nothing is known."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from giltrace.analysis.report import analyse
from giltrace.reports.blame import BRIEF, Detail
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
    several = make_timeline(make_process(pid=10, threads=2, holds=20), make_process(pid=20, holds=400))
    first, *lines = printed(several).splitlines()
    assert first == "2 processes"
    assert [line.split()[0] for line in lines[1:3]] == ["20", "10"]
    assert lines[3].startswith("  Each has a GIL of its own")
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
