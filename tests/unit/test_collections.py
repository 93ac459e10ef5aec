"""A holder that collects garbage is seen to do that, whatever line of the program it was that began it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.hogs import find_hogs
from giltrace.analysis.findings.ranked import find_findings
from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.measure.own_line import innermost_own
from giltrace.analysis.report import analyse
from giltrace.recording.events import FRAME, GIL_EVENT, StackTable
from giltrace.recording.layout import COLLECTING, Kind
from giltrace.timeline.collections import FILE, FUNCTION, with_collections
from giltrace.timeline.model import Array, Process
from tests.synthetic import make_timeline
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS, PID, US, Kernel, Script, process
from tests.unit.test_report_terminal import printed

STACKS = [[("make", "app.py", 3), ("<module>", "app.py", 9)], [], [("run", "app.py", 5)]]


def table() -> StackTable:
    strings = ["make", "app.py", "<module>", "run"]
    frames = [(strings.index(f), strings.index(file), line, 0, 0) for stack in STACKS for f, file, line in stack]
    offsets = np.cumsum([0, *map(len, STACKS)])
    return StackTable(np.array(frames, FRAME), offsets, np.array([False, False, True]), tuple(strings))


def events(*rows: tuple[Kind, int, int]) -> Array:
    return np.array([(time, arg, 0, 0, kind, 0, stack) for time, (kind, arg, stack) in enumerate(rows)], GIL_EVENT)


def stack(table: StackTable, number: int) -> list[tuple[str, str, int]]:
    frames = table.frames[table.offsets[number] : table.offsets[number + 1]]
    return [(table.strings[f["function"]], table.strings[f["file"]], int(f["line"])) for f in frames]


def test_a_collection_is_the_innermost_function() -> None:
    given = events(
        (Kind.SAMPLE, COLLECTING, 2),
        (Kind.SAMPLE, 0, 2),
        (Kind.TIMEOUT, COLLECTING, 0),
        (Kind.SAMPLE, COLLECTING, 0),
        (Kind.SAMPLE, COLLECTING, -1),
        (Kind.SAMPLE, COLLECTING, 2),
        (Kind.SAMPLE, COLLECTING, 1),
    )
    made, stacks = with_collections(given, table())
    assert [stack(stacks, number) for number in range(3)] == STACKS
    assert made["stack"][[1, 2, 4]].tolist() == [2, 0, -1]
    collection = (FUNCTION, FILE, 0)
    for row, under in ((0, 2), (3, 0), (5, 2), (6, 1)):
        number = int(made["stack"][row])
        assert stack(stacks, number) == [collection, *STACKS[under]]
        assert bool(stacks.truncated[number]) is (under == 2)
    assert made["stack"][0] == made["stack"][5]
    assert len(stacks) == 6
    # The user's own line is the one that it came of.
    own = innermost_own(stacks)[int(made["stack"][0])]
    assert stacks.frames["line"][own] == 5


def test_nothing_changes_without_collections() -> None:
    given, stacks = events((Kind.SAMPLE, 0, 2), (Kind.TIMEOUT, COLLECTING, 0)), table()
    assert with_collections(given, stacks) == (given, stacks)


def collecting(share: float, *, frees: bool = False) -> Process:
    """Five holds that go on for 100 ms after a request; in so much of each its holder is seen to collect.

    Where it `frees`, the last one is 100 ms longer, and no collection.
    """
    script, kernel, samples = Script(tids=(PID, 101, 102)), Kernel(), 0
    for at in range(0, 1500 * MS, 300 * MS):
        script.acquire(at, 1).request(at + MS, 2).timeout(at + 6 * MS, 2, us=5000)
        for time in range(at + 10 * MS, at + 100 * MS, 10 * MS):
            samples += 1
            arg = COLLECTING if samples % 9 < 9 * share and not (frees and at == 1200 * MS) else 0
            script.add(Kind.SAMPLE, time, 2, arg=arg)
        end = at + (206 if frees and at == 1200 * MS else 106) * MS
        script.release(end, 1).acquire(end + US, 2).release(end + MS, 2)
        kernel.run(at, end, 101, 0).run(end + US, end + MS, 102, 0)
    return process(script, kernel)


@pytest.mark.parametrize("share", [1.0, 0.6, 0.3])
def test_a_hog_that_collects_is_called_so(share: float) -> None:
    verdict = judge(collecting(share))
    assert verdict.kind == "hog"
    assert verdict.summary.startswith("Garbage collection" if share > 0.5 else "GIL hog")
    assert ("gc.freeze()" in verdict.advice) is (share > 0.5)
    assert ("native code" in verdict.advice) is (share < 0.5)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_collection_is_not_told_to_release_the_gil(share: float) -> None:
    timeline = make_timeline(collecting(share))
    (hog,) = analyse(timeline).processes[0].hogs
    assert hog.collecting is (share > 0.5)
    assert ("gc.freeze()" in hog.advice) is hog.collecting
    assert (hog.speedup_bound > 0) is not hog.collecting
    told = printed(timeline, width=500)
    assert "If it released the GIL" not in told
    assert ("A collection cannot release the GIL. Call gc.freeze()" in told) is hog.collecting


def test_a_hog_beside_collections_is_not_counted_as_one() -> None:
    verdict = judge(collecting(1.0, frees=True))
    assert verdict.summary.startswith("Garbage collection: 4 times, ")
    assert (verdict.evidence["hogs"], verdict.evidence["collections"]) == (5, 4)
    assert verdict.evidence["longest_overstay_ns"] == 100 * MS


@pytest.mark.parametrize(
    ("imports", "line", "called"),
    [
        ("import gc", "gc.collect()", True),
        ("import os, gc as garbage", "garbage.collect(1)", True),
        ("from gc import collect", "n = collect(generation=1)", True),
        ("from gc import (freeze, collect as clean)", "clean()", True),
        ("from gc import freeze", "rows = [collect(1), collect(2)]", False),
        ("import gc", "stamps.collect()", False),
        ("import gc", "self.gc.collect()", False),
        ("import gc", "rows.append(collected(1))", False),
        # Who is called gives the GIL up at its first instruction, which has no columns.
        ("from gc import collect", "def collect(depth):", False),
        ("from gc import collect", "    async def collect(depth):", False),
    ],
)
def test_one_that_the_program_calls_for_is_not_said_to_be_innocent(
    imports: str, line: str, called: bool, tmp_path: Path
) -> None:
    app = tmp_path / "app.py"
    app.write_text(f"{imports}\n{line}\n")
    made = with_stacks(collecting(1.0), [[("clean", str(app), 2)]], hold={1: 0})
    assert made.stacks is not None
    made = replace(made, stacks=replace(made.stacks, sample=np.zeros(len(made.samples), np.int32)))
    figures = Costed(made, before=app.stat().st_mtime_ns + 1)
    verdict = judge(made, figures)
    assert verdict.summary.endswith(", called for at clean (app.py:2)." if called else " for up to 100 ms.")
    assert ("innocent" in verdict.advice) is not called
    advice = next(one.advice for one in find_findings(made, figures) if one.cause == "collection")
    assert ("gc.collect()" in advice, "gc.collect()" in verdict.advice) == (called, called)
    (hog,) = find_hogs(made, app.stat().st_mtime_ns + 1)
    assert ("gc.collect()" in hog.advice) is called
    assert "innocent" in judge(made).advice  # without its source nobody knows


def test_only_where_it_was_called_for_it_is_to_be_called_less_often(tmp_path: Path) -> None:
    """What thread 1 calls for overstays, and costs thread 2 little; what begins by itself in thread 0 costs most."""
    app = tmp_path / "app.py"
    app.write_text("import gc\ngc.collect()\nrows = [Row() for row in rows]\n")
    script, samples = Script(tids=(PID, 101, 102)), 0

    def collection(start: int, asked: int, end: int, thread: int) -> None:
        nonlocal samples
        script.acquire(start, thread).request(asked, 2)
        for time in range(asked + 5 * MS, end, 5 * MS):
            script.timeout(time, 2, us=5000).add(Kind.SAMPLE, time + MS, 2, arg=COLLECTING)
            samples += 1
        script.release(end, thread).acquire(end + US, 2).release(end + MS, 2)

    collection(0, 10 * MS, 110 * MS, 1)
    # Each is no hog, for it goes on for less than two switch intervals.
    for at in range(200 * MS, 1200 * MS, 20 * MS):
        collection(at, at, at + 11 * MS, 0)
    made = with_stacks(process(script), [[("clean", str(app), 2)], [("make", str(app), 3)]], hold={1: 0, 0: 1})
    assert made.stacks is not None
    made = replace(made, stacks=replace(made.stacks, sample=(made.samples["time"] > 150 * MS).astype(np.int32)))
    figures = Costed(made, before=app.stat().st_mtime_ns + 1)
    assert judge(made, figures).summary.endswith(", called for at clean (app.py:2).")
    (found,) = (one for one in find_findings(made, figures) if one.cause == "collection")
    assert found.culprit is not None
    assert found.culprit.where == "make (app.py:3)"
    assert "gc.collect()" not in found.advice
