"""The pages of the live view: they fit, and say what they are meant to, on every terminal."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from rich.console import Console

from giltrace.views.top.graph import Ink, columns, draw, spark
from giltrace.views.top.model import (
    Culprit,
    Deadlock,
    Detail,
    Graph,
    Line,
    ProcessRow,
    Snapshot,
    Sort,
    StuckThread,
    ThreadRow,
    ThreadState,
)
from giltrace.views.top.page import HELP, View, detail_page, help_page, help_pages, main_page
from giltrace.views.top.plain import print_snapshot, to_json
from giltrace.views.top.rows import listed, role_of

SIZES = [(80, 24), (40, 10), (132, 50), (250, 80), (20, 6)]
GRAPH = Graph((0.0, 0.5, 1.0, 1.0) * 30, (0.0, 0.0, 0.5, 1.0) * 30)


def row(ident: int, name: str = "worker") -> ThreadRow:
    line = Line("Handler.do_GET", "/srv/app/handlers.py", 123)
    return ThreadRow(ident, 4242, 4242 + ident, name, ThreadState.WAITING, 0.25, 0.5, 12_300_000, 100, 90, 7, 3, line)


def snapshot(threads: int = 3, *, processes: int = 1) -> Snapshot:
    culprit = Culprit(Line("Table.sort", "/srv/app/tables.py", 77), 2_500_000_000, 0.5, 31_000_000)
    return Snapshot(
        at_ns=100_000_000_000,
        span_ns=5_000_000_000,
        processes=tuple(ProcessRow(4242 + at, "python app.py", "3.13.0", 1, "") for at in range(processes)),
        gils=processes,
        graph=GRAPH,
        held=0.9,
        contended=0.6,
        waiting=1.25,
        worst_ns=31_000_000,
        acquires=12_345,
        forced=10,
        threads=tuple(row(at, f"worker-{at}") for at in range(threads)),
        more_threads=0,
        culprits=(culprit,) * 8,
        lost=0,
        missed=0,
    )


def detail() -> Detail:
    lines = tuple(Line(f"f{at}", "/srv/app/handlers.py", at) for at in range(60))
    return Detail(row(1), lines, GRAPH, snapshot().culprits)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("threads", [0, 3, 400])
def test_every_page_fits(width: int, height: int, threads: int) -> None:
    view = View("app.py --with " + "many words " * 20, recording="app-top.giltrace", frozen=True, notice="n" * 300)
    pages = [
        main_page(snapshot(threads), view, Ink(), width, height),
        detail_page(detail(), view, Ink(), width, height),
        help_page(width, height),
    ]
    for page in pages:
        assert len(page) == height
        assert max(line.cell_len for line in page) <= width


@pytest.mark.parametrize(("width", "height"), [*SIZES, (80, 0)])
def test_a_deadlock_is_told_on_top_to_its_end(width: int, height: int) -> None:
    told = "Deadlock for 2.00 s: 'payer' at pay (app.py:8) wants a lock that 'booker' has, 'booker' at book (app.py:14)"
    one = Deadlock(4242, True, 2_000_000_000, (), told, "Take these locks in the same order everywhere.")
    shown = replace(snapshot(), deadlocks=(one,))
    lines = main_page(shown, View("app.py"), Ink(), width, height)
    assert all(len(line.plain) <= width for line in lines)
    assert not height or len(lines) == height
    if width >= 80:
        words = " ".join(line.plain for line in lines[2:6])
        assert " ".join(words.split()).startswith(f"{told} {one.advice}")
        assert any("worker-0" in line.plain for line in lines)
    several = replace(snapshot(processes=2), deadlocks=(replace(one, certain=False), one))
    assert "pid 4242: Deadlock" in main_page(several, View("app.py"), Ink(), 200, height)[2].plain


def test_a_deadlock_as_json() -> None:
    one = Deadlock(7, True, None, (StuckThread(8, "payer", "pay (app.py:8)", 4096, 9),), "told", "advice")
    (told,) = json.loads(to_json(replace(snapshot(), deadlocks=(one,))))["deadlocks"]
    stuck = {"tid": 8, "name": "payer", "at": "pay (app.py:8)", "lock": 4096, "waits_for": 9}
    assert told == {"pid": 7, "certain": True, "for_ns": None, "threads": [stuck], "told": "told", "advice": "advice"}


def test_80x24_shows_the_graph_all_columns_threads_culprits_and_keys() -> None:
    page = [line.plain for line in main_page(snapshot(12), View("app.py"), Ink(), 80, 24)]
    text = "\n".join(page)
    assert "held 90.0%  contended 60.0%  1.2 waiting  worst 31.0 ms  2,469 acquires/s" in text
    assert "worker-0         waiting   25.0%   50.0%  12.3 ms    3 Han" in text
    assert "(handlers.py:123)" in text
    assert "500 ms  31.0 ms  Table.sort (tables.py:77)" in text
    assert "+" in text
    assert "q quit" in page[-1]
    assert len([line for line in page if set("▁▂▃▄▅▆▇█") & set(line)]) == 5


def test_the_own_line_comes_first_and_the_leaf_where_there_is_room() -> None:
    own, leaf = Line("handle", "/srv/app/web.py", 12), Line("JSONEncoder.iterencode", "/usr/lib/json/encoder.py", 257)
    culprit = Culprit(leaf, 2_500_000_000, 0.5, 31_000_000, own)
    told = replace(snapshot(1), culprits=(culprit,), threads=(replace(row(0), line=leaf, own_line=own),))
    wide = "\n".join(line.plain for line in main_page(told, View("app.py"), Ink(), 132, 24))
    assert "500 ms  31.0 ms  handle (web.py:12) [JSONEncoder.iterencode (encoder.py:257)]" in wide
    assert "3 handle (web.py:12) [JSONEncoder.iterencode (encoder.py:257)]" in wide
    narrow = "\n".join(line.plain for line in main_page(told, View("app.py"), Ink(), 60, 24))
    assert "handle (web.py:12) [encoder.py:257]" in narrow
    assert all(len(line) <= 60 for line in narrow.splitlines())
    (one,) = json.loads(to_json(told))["culprits"]
    assert (one["line"]["function"], one["own_line"]["number"]) == ("JSONEncoder.iterencode", 12)


def test_a_line_that_is_not_known_has_no_number() -> None:
    culprit = Culprit(Line("collection", "<garbage collector>", 0), 2_500_000_000, 0.5, 31_000_000)
    told = replace(snapshot(0), culprits=(culprit,))
    for width in (40, 50, 132):
        text = "\n".join(line.plain for line in main_page(told, View("app.py"), Ink(), width, 24))
        assert ":0" not in text
    assert "collection (<garbage collector>)" in text


def test_the_column_that_sorts_stands_in_capitals() -> None:
    for sort, shown in ((Sort.WAITING, "WAITING"), (Sort.HELD, "HELD"), (Sort.WORST, "WORST"), (Sort.NAME, "THREAD")):
        text = "\n".join(line.plain for line in main_page(snapshot(), View("x", sort=sort), Ink(), 80, 24))
        assert shown in text


def test_a_chosen_thread_far_down_is_in_sight() -> None:
    view = View("app.py", selected=300, single=True)
    lines = [line.plain for line in main_page(snapshot(400), view, Ink(), 80, 24)]
    assert any(line.startswith(">worker-300") for line in lines)


def test_losses_and_what_stopped_the_tracer_are_told() -> None:
    lossy = replace(snapshot(), lost=5, missed=2)
    text = "\n".join(line.plain for line in main_page(lossy, View("x"), Ink(), 80, 24))
    assert "5 events lost, 2 chunks overwritten before they were read" in text
    silent = replace(snapshot(0), acquires=0, processes=(ProcessRow(1, "p", "3.13", 0, "free-threaded build"),))
    text = "\n".join(line.plain for line in main_page(silent, View("x"), Ink(), 80, 24))
    assert "free-threaded build" in text


def test_several_processes_have_their_pids() -> None:
    two = replace(snapshot(processes=2), threads=(row(1), replace(row(2), pid=4243)))
    text = "\n".join(line.plain for line in main_page(two, View("app.py"), Ink(), 80, 24))
    assert "2 processes, 2 GILs" in text
    assert "4243 waiting" in text


def test_a_name_cannot_command_the_terminal() -> None:
    hostile = replace(snapshot(1), threads=(row(1, "\x1b]0;evil\x07\x1b[2J"),))
    for page in (
        main_page(hostile, View("app.py \x1b[31m"), Ink(), 80, 24),
        detail_page(replace(detail(), row=hostile.threads[0]), View("x"), Ink(), 80, 24),
    ):
        assert not any(c < " " or c == "\x7f" for line in page for c in line.plain)


def test_without_unicode_or_colour_the_graph_still_tells_held_from_contended() -> None:
    plain = main_page(snapshot(), View("app.py"), Ink(colour=False, unicode=False), 80, 24)
    assert all(line.plain.isascii() for line in plain)
    drawn = draw(Graph((1.0, 1.0), (0.0, 1.0)), 200, 2, Ink(colour=False, unicode=False))
    assert [line.plain[-2:] for line in drawn] == [":#", ":#"]
    shades = draw(Graph((1.0, 1.0), (0.0, 1.0)), 200, 1, Ink(colour=False))
    assert shades[0].plain[-2:] == "░█"


def test_a_graph_has_the_newest_at_the_right_and_as_many_columns_as_fit() -> None:
    (line,) = draw(Graph((0.0,) * 119 + (1.0,), (0.0,) * 120), 200, 1, Ink())
    assert (len(line), line.plain[-2:]) == (120, " █")
    (line,) = draw(Graph((0.0,) * 119 + (1.0,), (0.0,) * 120), 75, 1, Ink())
    assert (len(line), line.plain[-2:]) == (60, " ▄")
    assert columns((0.5,) * 3, 60) == [0.5, 0.5]
    assert spark((0.0, 0.001, 0.5, 1.0), 200, Ink()) == "  ▄█"


def test_one_snapshot_as_text_has_every_thread_and_no_escape_sequence() -> None:
    console = Console(width=80, force_terminal=False)
    with console.capture() as text:
        print_snapshot(snapshot(100), View("app.py"), console)
    lines = text.get().splitlines()
    assert sum("worker-" in line for line in lines) == 100
    assert "\x1b" not in text.get()
    assert "q quit" not in text.get()


def test_one_snapshot_as_json() -> None:
    told = json.loads(to_json(replace(snapshot(1), threads=(replace(row(1), line=Line()),))))
    assert told["schema"] == "giltrace-top-1"
    assert told["threads"] == [
        {
            "pid": 4242,
            "tid": 4243,
            "name": "worker",
            "state": "waiting",
            "held": 0.25,
            "waiting": 0.5,
            "worst_ns": 12_300_000,
            "holds": 100,
            "waits": 90,
            "forced": 7,
            "core": 3,
            "line": None,
            "own_line": None,
        }
    ]
    assert told["culprits"][0]["line"] == {"function": "Table.sort", "file": "/srv/app/tables.py", "number": 77}
    assert told["graph"]["bucket_ns"] * len(told["graph"]["held"]) == 60_000_000_000


def test_80x24_shows_the_help_to_its_end() -> None:
    page = [line.plain.strip() for line in help_page(80, 24)]
    assert "q, Ctrl-C  quit" in page
    assert page[-1] == "any key goes back"
    assert "One that did not use the GIL meanwhile is not listed." in " ".join(page)


@pytest.mark.parametrize(("width", "height"), [(60, 24), (60, 15), (40, 10), (250, 80), (20, 6)])
def test_the_help_is_wrapped_and_comes_whole_page_by_page(width: int, height: int) -> None:
    pages = [[line.plain for line in help_page(width, height, first)] for first in help_pages(width, height)]
    assert all(len(page) == height for page in pages)
    assert [page[-1] for page in pages] == ["any key goes on"] * (len(pages) - 1) + ["any key goes back"]
    words = " ".join(line for page in pages for line in page[:-1]).split()
    whole = " ".join(" ".join(pair) for pair in HELP).split()
    if width >= 40:
        assert words == whole
        assert all(len(line) <= width for page in pages for line in page)


def many(threads: int) -> tuple[ThreadRow, ...]:
    """A MainThread and a pool, of two processes alike, sorted as the window does."""
    rows = []
    for pid in (100, 200):
        for at in range(threads // 2):
            name = f"pool_{at}" if at else "MainThread"
            state = ThreadState.HOLDING if at == 3 else ThreadState.BLOCKED
            one = replace(row(pid + at, name), pid=pid, state=state)
            rows.append(replace(one, held=at / 100, waiting=at / 10, worst_ns=1000 * at))
    return tuple(sorted(rows, key=lambda one: -one.waiting))


def test_of_many_threads_those_of_a_role_share_a_row() -> None:
    rows = listed(many(20), Sort.WAITING)
    assert [(one.pid, one.name) for one in rows] == [
        (100, "pool_* (9)"),
        (200, "pool_* (9)"),
        (100, "MainThread"),
        (200, "MainThread"),
    ]
    pool = rows[0]
    assert (pool.held, pool.waiting) == pytest.approx((0.45, 0.5))
    assert (pool.worst_ns, pool.holds, pool.state, pool.core) == (9000, 900, ThreadState.HOLDING, -1)
    assert [one.name for one in listed(many(20), Sort.NAME)][:2] == ["MainThread", "MainThread"]
    assert len({one.ident for one in rows}) == len(rows)


def test_long_names_are_told_apart() -> None:
    names = [f"ThreadPoolExecutor-0_{at}" for at in range(12)]
    told = replace(snapshot(), threads=tuple(row(at, name) for at, name in enumerate(names)))
    for view in (View("app.py"), View("app.py", single=True)):
        text = "\n".join(line.plain for line in main_page(told, view, Ink(), 80, 40))
        assert all(f"_{at} " in text for at in range(12))


def test_few_threads_and_those_that_are_wanted_singly_have_rows_of_their_own() -> None:
    assert listed(many(12), Sort.WAITING) == many(12)
    assert listed(many(20), Sort.WAITING, single=True) == many(20)


def test_a_role_is_opened_and_stays_itself() -> None:
    threads = many(20)
    pool = listed(threads, Sort.WAITING)[1]
    role = role_of(threads, pool.ident)
    assert role == (200, "pool_*")
    opened = listed(threads, Sort.WAITING, role=role)
    assert [one.name for one in opened] == [f"pool_{at}" for at in range(9, 0, -1)]
    assert {one.pid for one in opened} == {200}
    assert role_of(threads, opened[0].ident) is None
    page = main_page(replace(snapshot(), threads=threads), View("x", role=role), Ink(), 80, 24)
    text = "\n".join(line.plain for line in page)
    assert "pool_* only" in text
    assert "pool_* (" not in text


@pytest.mark.parametrize(
    ("sought", "names"),
    [("main", ["MainThread"] * 2), ("POOL_7", ["pool_7"] * 2), ("203", ["pool_3"]), ("nothing", []), ("do_get", None)],
)
def test_only_what_is_sought_is_listed(sought: str, names: list[str] | None) -> None:
    threads = tuple(replace(one, tid=one.ident) for one in many(20))
    found = listed(threads, Sort.WAITING, sought=sought, single=True)
    assert [one.name for one in found] == (names if names is not None else [one.name for one in threads])
    view = View("app.py", sought=sought, single=True)
    page = [line.plain for line in main_page(replace(snapshot(), threads=threads), view, Ink(), 80, 60)]
    assert f"/{sought}" in page[0]
    assert sum(" pool_" in line or " MainThread" in line for line in page) == len(found)


def test_what_is_being_typed_is_at_the_bottom() -> None:
    page = main_page(snapshot(), View("app.py", sought="wor", typing=True), Ink(), 60, 24)
    assert page[-1].plain.startswith("/wor_ ")
