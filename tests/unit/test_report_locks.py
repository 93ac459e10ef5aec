"""The tables of time without the GIL and of locks on a terminal: narrow enough, in order, and what they leave out."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from giltrace.analysis.lock_results import LockBlame, Meanwhile, OnPath, Whereabouts
from giltrace.analysis.measure.activity import Doing
from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.analysis.report import analyse
from giltrace.analysis.site import Site
from giltrace.analysis.summary import summarise
from giltrace.reports.locks import TOP_ROWS, print_locks, print_path, print_whereabouts
from giltrace.reports.summary import print_summary
from giltrace.reports.terminal import print_report
from tests.synthetic import make_process, make_timeline
from tests.unit.analysis_stacks import own_site
from tests.unit.block_events import Scene
from tests.unit.gil_events import MS, US
from tests.unit.lock_scenes import TURN, joined, taking_turns

END = 20 * TURN + 100 * US
LONG = own_site(
    "a-pool-of-many-workers-*", "Orchestrator.wait_for_every_worker_to_finish", "/srv/app/orchestrator.py", 9
)
SITE = own_site("worker-*", "take", "/srv/app.py", 12)


def console() -> tuple[io.StringIO, Console]:
    out = io.StringIO()
    return out, Console(file=out, width=80)


def page(scene: Scene, end: int = END) -> str:
    out, on = console()
    print_report(analyse(make_timeline(scene.process(end))), on)
    return out.getvalue()


def blamed(victim: Site, waker: Site | None, ns: int = 50 * MS, cause: str = "lock") -> LockBlame:
    return LockBlame(victim, waker, cause, (1, 2), ns, 7, 20 * MS, (Meanwhile(victim, "asleep", "", 40 * MS),), 1.5)


def test_a_program_under_a_lock_is_told_so_within_80_columns() -> None:
    text = page(taking_turns())
    assert max(len(line) for line in text.splitlines()) <= 80
    order = [
        "Verdict: lock-bound",
        "Where threads were without the GIL",
        "Who made whom wait in locks",
        "What the GIL cost",
    ]
    places = [text.index(heading) for heading in [*order, "What the end hung on", "What would change"]]
    assert places == sorted(places)
    words = " ".join(text.split())
    assert "worker-*: take (app.py:1): in a lock" in words
    assert "until worker-*: give (app.py:1)" in words
    assert "of that it was asleep or in I/O at work (app.py:1)" in words
    assert "without this lock the whole would be at most" in words


def test_time_without_the_gil_comes_last_where_waiting_outweighs_it() -> None:
    out, on = console()
    print_report(analyse(make_timeline(make_process())), on)
    text = out.getvalue()
    assert "Where threads were" not in text or text.index("What the GIL cost") < text.index("Where threads were")


def test_the_summary_says_where_most_of_it_was() -> None:
    out, on = console()
    print_summary(summarise(make_timeline(taking_turns().process(END))), on)
    text = out.getvalue()
    assert "Without the GIL, threads were:" in text
    assert "in a lock" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_who_joins_in_the_main_thread_is_no_news() -> None:
    made = joined(taking_turns()).process(END)
    (summary,) = summarise(make_timeline(made)).processes
    assert {row.cause for row in summary.whereabouts} >= {"join", "lock"}
    assert "join" not in {row.cause for row in summary.told_whereabouts}


@pytest.mark.parametrize("cause", [cause.label for cause in BlockCause])
def test_every_cause_has_words(cause: str) -> None:
    out, on = console()
    print_locks([blamed(SITE, SITE, cause=cause)], on)
    print_whereabouts([Whereabouts(SITE, "lock", cause, MS)], on)
    print_path([OnPath(SITE, "lock", cause, MS)], MS, "process", on)
    assert cause == "lock" or "in a lock" not in out.getvalue()


@pytest.mark.parametrize("doing", [doing.label for doing in Doing])
def test_everything_that_threads_do_has_words(doing: str) -> None:
    out, on = console()
    print_path([OnPath(SITE, doing, "lock" if doing == "lock" else "", MS)], MS, "process", on)
    row = LockBlame(SITE, SITE, "lock", (1,), 2 * MS, 1, MS, (Meanwhile(SITE, doing, "", MS),))
    print_locks([row], on)
    assert "50.0% of that it " in out.getvalue()


def test_long_names_are_wrapped_and_keep_their_indent() -> None:
    out, on = console()
    print_locks([blamed(LONG, LONG)], on)
    print_whereabouts([Whereabouts(LONG, "asleep", "", 50 * MS)], on)
    print_path([OnPath(LONG, "python", "", 50 * MS)], 100 * MS, "process", on)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line != line.rstrip()] == []
    assert all(line.startswith("  ") for line in lines)
    assert any(line.startswith("    until ") for line in lines)


def test_who_woke_nobody_knows_and_who_ended_is_told() -> None:
    out, on = console()
    print_locks([blamed(SITE, None), blamed(SITE, Site("worker-*"), cause="join")], on)
    assert "until its time was up, or to the end" in out.getvalue()
    assert "until worker-* ended" in out.getvalue()


def test_several_locks_of_one_line_are_counted() -> None:
    out, on = console()
    print_locks([blamed(SITE, SITE)], on)
    assert "in a lock (2 of them)" in " ".join(out.getvalue().split())


def test_what_is_left_out_is_counted_and_shown_with_all() -> None:
    rows = [blamed(own_site("worker", f"take_{at}", "/srv/app.py", at + 1), SITE, (60 - at) * MS) for at in range(20)]
    out, on = console()
    print_locks(rows, on)
    assert f"{20 - TOP_ROWS} more pairs" in out.getvalue()
    assert "--all shows them" in out.getvalue()
    out, on = console()
    print_locks(rows, on, everything=True)
    assert all(f"take_{at} " in out.getvalue() for at in range(20))


def test_small_parts_of_the_path_are_left_out_and_what_is_left_is_told() -> None:
    out, on = console()
    print_path([OnPath(SITE, "asleep", "", 90 * MS), OnPath(LONG, "python", "", MS)], 100 * MS, "window", on)
    text = out.getvalue()
    assert "The end of the window hung on these" in text
    assert "90.0 ms" in text
    assert "10.0 ms" in text
    assert "Orchestrator" not in text


def test_shares_are_of_the_same_whole_on_the_first_screen_and_in_the_report() -> None:
    """What is left out is counted, and told: the main thread's join, on the first screen."""
    timeline = make_timeline(joined(taking_turns()).process(END))
    first, report = console(), console()
    print_summary(summarise(timeline), first[1])
    print_report(analyse(timeline), report[1])
    (summary,) = summarise(timeline).processes
    left = len(summary.whereabouts) - len(summary.told_whereabouts)
    assert f"{left} more rows" in first[0].getvalue()
    told, whole = (
        [line.split()[:3] for line in out.getvalue().splitlines() if "  in a lock  " in line]
        for out in (first[0], report[0])
    )
    assert told
    assert told == whole[: len(told)]


def test_rows_that_are_left_out_are_told() -> None:
    rows = [Whereabouts(own_site("w", f"f{at}", "a.py", at + 1), "asleep", "", 10 * MS) for at in range(TOP_ROWS + 2)]
    out, on = console()
    print_whereabouts(rows, on)
    assert "2 more rows, 20.0 ms in all; --all shows them" in out.getvalue()
    out, on = console()
    print_whereabouts(rows, on, everything=True)
    assert "more row" not in out.getvalue()


@pytest.mark.parametrize("name", ["[bold red]markup[/]", "[/]", "[link=x]"])
def test_a_name_is_no_markup(name: str) -> None:
    out, on = console()
    site = Site(name)
    print_whereabouts([Whereabouts(site, "asleep", "", MS)], on)
    print_path([OnPath(site, "asleep", "", MS)], MS, "process", on)
    assert out.getvalue().count(name) == 2
