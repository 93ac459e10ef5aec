"""What `record` prints at its end: complete, narrow enough, and plain when piped."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from giltrace.analysis.finding_results import Phase
from giltrace.analysis.summary import summarise
from giltrace.recording.collected import CollectorReport
from giltrace.reports.summary import print_summary
from giltrace.timeline.model import Timeline
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS, PID, Kernel, Script, timeline
from tests.unit.test_summary_verdict import convoy, cpu_bound, idle

REPORTS = (
    CollectorReport("gil", "ok", "25 ns per pair"),
    CollectorReport("sched", "perf_event_paranoid is 4; sysctl kernel.perf_event_paranoid=2 allows it"),
)


def printed(built: Timeline, width: int = 80, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    print_summary(summarise(built), Console(file=stream, width=width))
    stream.flush()
    return raw.getvalue().decode(encoding)


def of(made: tuple[Script, Kernel]) -> Timeline:
    return timeline(*made, collectors=REPORTS)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_fits_the_width_without_colour(width: int) -> None:
    text = printed(of(cpu_bound()), width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text


def test_says_everything_once() -> None:
    text = printed(of(cpu_bound()), 120)
    lines = text.splitlines()
    assert lines[0].startswith("process 100  Python 3.13.0, 1.00 s, 3 threads")
    assert "CPU-bound contention: somebody waited for the GIL 99" in text
    (row,) = [line for line in lines if line.startswith("thread-1 ")]
    assert row.split()[:5] == ["thread-1", "100", "500", "ms", "50"]
    assert "  GIL: held 1.00 s (99.6% of the time)" in text
    assert "199 switch" in text
    (quality,) = [line for line in lines if line.startswith("quality:")]
    assert quality.startswith(
        "quality: 0 lost events, 0 broken invariants, clock error 7 ns, gil ok (25 ns per pair), "
    )
    assert "perf_event_paranoid is 4" in text


def test_names_the_lines_that_others_waited_for() -> None:
    """By the user's own line, whatever it led to in libraries; not where nobody waits for long."""
    own = ("handle", "/srv/app.py", 7)
    inner = [("dumps", "/usr/lib/python3.13/json/__init__.py", line) for line in (11, 12)]
    (made,) = of(cpu_bound()).processes
    stacked = with_stacks(made, [[inner[0], own], [inner[1], own]], hold={1: 0, 2: 1})
    text = printed(replace(of(cpu_bound()), processes=(stacked,)))
    assert "Threads waited 1.00 s; meanwhile these lines had the GIL:" in text
    (row,) = [line.split() for line in text.splitlines() if "handle (app.py:7)" in line]
    assert row[2:] == ["99.3%", "thread-*:", "handle", "(app.py:7)"]
    assert "meanwhile" not in printed(of(idle()))


def test_says_when_its_character_changes() -> None:
    (made,) = summarise(of(cpu_bound())).processes
    verdicts = [replace(made.verdict, kind=kind) for kind in ("single-threaded", "convoy")]
    phases = (Phase(0, 400 * MS, verdicts[0]), Phase(400 * MS, 1000 * MS, verdicts[1]))
    stream = io.StringIO()
    told = replace(summarise(of(cpu_bound())), processes=(made._replace(phases=phases),))
    print_summary(told, Console(file=stream, width=120))
    assert "changes with time: single-threaded until 0.400s, convoy until 1.000s." in stream.getvalue()


def test_narrow_rows_keep_all_their_figures() -> None:
    lines = printed(of(cpu_bound()), 80).splitlines()
    (row,) = [line for line in lines if line.startswith("thread-2 ")]
    assert row.split()[:7] == ["thread-2", "100", "500ms", "50", "100", "504ms", "50"]
    assert row.split()[-1] == "0"
    assert len(row.split()) == 12


def test_of_more_than_twelve_threads_those_of_a_role_share_a_row() -> None:
    script = Script(tids=[PID + i for i in range(30)])
    for i in range(30):
        script.hold(1000 * i, 1000 * i + 500 + i, i)
    built = timeline(script)
    (row,) = [line for line in printed(built).splitlines() if line.startswith("thread-")]
    assert row.split()[:4] == ["thread-*", "(30)", "30", "15.4us"]
    (process,) = built.processes
    lives = sum(thread.end - thread.start for thread in process.threads)
    assert row.split()[4] == f"{100 * 15435 / lives:.0f}"


def test_the_busiest_process_comes_first_and_many_are_folded() -> None:
    scripts = [Script(tids=(PID + i,), pid=PID + i).hold(0, 1000 + i, 0) for i in range(12)]
    lines = printed(timeline([s.events() for s in scripts])).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("process")] == [str(PID + i) for i in range(11, 3, -1)]
    assert "4 more processes, which held a GIL for 4.01 us in all" in lines


def test_broken_invariants_and_losses_are_printed() -> None:
    script = Script().acquire(10, 0).acquire(15, 1).release(20, 0).release(30, 1)
    text = printed(timeline(script), 200)
    assert "quality: 0 lost events, 2 broken invariants" in text
    assert "  overlapping holds of GIL 0: 1" in text


def test_without_scheduling_data_unknown_figures_are_dashes() -> None:
    row = next(line for line in printed(timeline(convoy()[0])).splitlines() if line.startswith("thread-2"))
    assert row.split()[-2:] == ["-", "-"]


def test_names_are_not_taken_for_markup_and_long_ones_are_cut() -> None:
    script, kernel = idle()
    recorded = script.events()
    threads = (type(recorded.threads[0])(PID, "[red]a-very-long-thread-name"),)
    built = timeline([type(recorded)(**{**vars(recorded), "threads": threads})], kernel)
    (row,) = [line for line in printed(built, 80).splitlines() if line.startswith("[red]")]
    assert ".." in row.split()[0]
    assert row.split()[0].endswith("name")
    assert "[red]a-very-long-thread-name" in printed(built, 120)


def test_an_ascii_pipe_is_enough() -> None:
    assert "quality: 0 lost" in printed(of(convoy()), 80, "ascii")


def test_an_empty_recording() -> None:
    assert printed(timeline([])).splitlines()[0] == "No Python process was recorded."
