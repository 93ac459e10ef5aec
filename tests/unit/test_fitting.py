"""Recordings that are too long for figures of all of them: the part that is read instead, and how it is chosen."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import giltrace
from giltrace.analysis.report import analyse
from giltrace.cli.outcome import show
from giltrace.recording.density import Density
from giltrace.recording.events import ProcessEvents
from giltrace.recording.excerpt import Excerptor
from giltrace.recording.gathering import Edges, Gatherer
from giltrace.recording.layout import Kind
from giltrace.recording.sched import read_sched, switch_times
from giltrace.reports.json import to_json
from giltrace.timeline import fitting
from giltrace.timeline.load import load
from giltrace.timeline.model import Timeline
from giltrace.timeline.part import window
from tests.unit.gil_events import MS, Script, rows, timeline
from tests.unit.in_process import run
from tests.unit.test_gathering import World, quiet
from tests.unit.test_sched_reader import end, switch, write
from traces.regenerate import FOLDER, unpack

LOCKS = r'"locks": \[[^]]*\]'
SAMPLES = sorted(path.name.partition(".")[0] for path in FOLDER.glob("*.giltrace.tar.gz"))
NO_EDGES = Edges(np.empty(0, np.int64), 0, 1 << 60)
EDGES = Edges(np.empty(0, np.int64), 0, 1)


def told(part: Timeline) -> str:
    """The report of a part, but for the numbers of locks: they count those that are on record."""
    return re.sub(LOCKS, "", to_json(analyse(part)))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_window_that_is_read_by_itself_is_told_as_that_of_all(name: str, tmp_path: Path) -> None:
    folder = unpack(name, tmp_path)
    whole = load(folder)
    length = whole.end - whole.start
    for first, last in ((0.0, 0.3), (0.31, 0.62), (0.5, 0.52), (0.7, 1.0)):
        start, end = (whole.start + int(share * length) for share in (first, last))
        part = load(folder, gathered=True, whole=[(start, end)], window=(start, end))
        assert (part.start, part.end) == (whole.start, whole.end)
        assert told(window(part, start, end)) == told(window(whole, start, end))


def excerpt(recorded: ProcessEvents, start: int, end: int, pieces: int = 1) -> ProcessEvents:
    """The same with the events of a window and what explains them, read in so many pieces."""
    excerptor = Excerptor(start, end, Gatherer(NO_EDGES._replace(whole=[(start, end)])))
    cuts = [len(recorded.events) * at // pieces for at in range(pieces + 1)]
    parts = [excerptor.feed(recorded.events[low:high].copy(), last=high == cuts[-1]) for low, high in pairwise(cuts)]
    return replace(recorded, events=np.concatenate(parts), edges=excerptor.edges)


@pytest.mark.parametrize("sched", [True, False], ids=["sched", "light"])
@pytest.mark.parametrize("seed", range(40))
def test_any_window_of_any_process_is_told_as_that_of_all(seed: int, sched: bool) -> None:
    world, chance = World(seed), random.Random(seed)
    recorded, kernel = world.recorded(3), world.kernel if sched else None
    whole = timeline([recorded], kernel, end=world.time)
    for _ in range(4):
        start, end = sorted(chance.randint(1_000_000, world.time) for _ in range(2))
        left = excerpt(recorded, start, end, chance.randint(1, 9))
        part = timeline([left], kernel, end=world.time)
        assert part.violations == ()
        assert told(window(part, start, end)) == told(window(whole, start, end))


def test_what_is_under_way_at_the_edges_is_there_and_nothing_else() -> None:
    script = quiet(50)  # to 5930, every 100
    script.request(3005, 1).acquire(3035, 1).release(3060, 1).hold(5950, 5960, 1).hold(5970, 5980, 1)
    found = excerpt(script.events(), 3010, 3050).events
    assert rows(found, "time", "thread", "kind") == [
        (2900, 0, Kind.ACQUIRE),
        (2930, 0, Kind.RELEASE),
        (3000, 0, Kind.ACQUIRE),
        (3005, 1, Kind.REQUEST),
        (3030, 0, Kind.RELEASE),
        (3035, 1, Kind.ACQUIRE),
        (3060, 1, Kind.RELEASE),
        (3100, 0, Kind.ACQUIRE),
        (3130, 0, Kind.RELEASE),
    ]


def test_who_sleeps_when_it_begins_has_slept_and_who_wakes_it_later_is_not_lost() -> None:
    second = 1_000 * MS
    script = Script().hold(0, 10, 0).slept(20, 0, 7).hold(20, 30, 1)
    for at in range(2, 9):
        script.hold(at * second, at * second + 10, 1).posted(at * second + 20, 1, 8)
    script.posted(9 * second, 1, 7).awoke(9 * second + 5, 0).hold(9 * second + 10, 9 * second + 20, 0)
    script.slept(10 * second, 0, 7)
    left = excerpt(script.events(), 4 * second, 5 * second)
    assert rows(left.events[left.events["kind"] > Kind.SAMPLE], "time", "kind") == [
        (20, Kind.SLEPT),
        (3 * second + 20, Kind.POSTED),
        (4 * second + 20, Kind.POSTED),
        (5 * second + 20, Kind.POSTED),
        (9 * second + 5, Kind.AWOKE),
    ]
    (process,) = timeline([left]).processes
    assert process.violations == ()
    assert rows(process.blocks, "thread", "start", "end") == [(0, 20, 9 * second + 5)]


def test_threads_that_have_ended_before_it_leave_nothing() -> None:
    script = Script(tuple(range(100, 1100)))
    for thread in range(1000):
        script.hold(1000 * thread, 1000 * thread + 10, thread).end(1000 * thread + 20, thread)
    found = excerpt(script.events(), 990_500, 995_500, pieces=7)
    assert sorted(set(found.events["thread"].tolist())) == [991, 992, 993, 994, 995]


def test_switches_of_a_window_are_those_in_it_and_at_its_edges(tmp_path: Path) -> None:
    first = b"".join(switch(at, 1, on=at % 20 == 0) for at in range(0, 200, 10))
    second = switch(15, 2, on=True, cpu=1) + switch(25, 2, on=False, cpu=1) + switch(35, 2, on=True, cpu=1)
    second += switch(150, 2, on=False, cpu=1) + switch(155, 3, on=True, cpu=1) + end(190, 3, cpu=1)
    folder = write(tmp_path, first, second)
    found = read_sched(folder, window=(95, 125))
    by_tid = {tid: rows(found.switches[found.switches["tid"] == tid], "time", "on") for tid in (1, 2, 3)}
    assert by_tid[1] == [(0, 1), (10, 0), (60, 1), (70, 0), (80, 1), (90, 0), (100, 1), (110, 0), (120, 1), (130, 0)]
    assert by_tid[2] == [(15, 1), (25, 0), (35, 1), (150, 0)]
    assert by_tid[3] == [(155, 1), (190, 0)]
    assert switch_times(folder).tolist() == sorted([*range(0, 200, 10), 15, 25, 35, 150, 155])
    assert len(read_sched(folder).switches) == 26


def counted(script: Script, length: int) -> Density:
    """What is counted of a script of so many ns, nothing of which is kept."""
    density = Density(0, length, most=0)
    assert len(Gatherer(EDGES, density).feed(script.events().events, last=True)) == 0
    assert density.too_many
    return density


def test_the_part_is_where_threads_waited_most() -> None:
    script = Script()
    for at in range(100):
        script.hold(at * MS, at * MS + 500, 0)
    for at, long in ((20, 100_000), (60, 300_000), (61, 200_000)):
        script.request(at * MS + 600, 1).acquire(at * MS + 600 + long, 1).release(at * MS + 700 + long, 1)
    density = counted(script, 100 * MS)
    assert density.total == 209
    found = density.best(12)
    assert found.start <= 60 * MS + 600 < 61 * MS + 800_600 <= found.end
    assert found.share == pytest.approx(500 / 600)
    assert density.best(1000).share == 1
    # A wait that lasts over many bins counts in each of them.
    one = counted(
        Script().hold(0, 90 * MS, 0).request(10 * MS, 1).acquire(90 * MS + 10, 1).release(91 * MS, 1), 100 * MS
    )
    found = one.best(1)
    assert found.start < 10 * MS
    assert found.end > 89 * MS
    assert found.share == pytest.approx(1, abs=0.01)


def test_where_nobody_waits_it_is_the_middle() -> None:
    found = counted(quiet(1000, step=100 * 1000), 100 * MS).best(400)
    assert found.start == pytest.approx(40 * MS, abs=MS)
    assert found.end == pytest.approx(60 * MS, abs=MS)
    assert found.share == 0


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of some 5,500 events, of which there are figures of a tenth."""
    monkeypatch.setattr("giltrace.timeline.load.MOST_BYTES", 0)
    monkeypatch.setattr(fitting, "MOST", 1_000)
    monkeypatch.setattr(fitting, "_FITS", 600)
    return unpack("thread_pool_http", tmp_path)


HOLDS = 2504
PART = re.compile(r"[\d.]+ s to [\d.]+ s of [\d.]+ s, where threads waited most for the GIL \(\d+% of all\)")
REMARK = re.compile(r"a recording of [\d.,]+ million events and switches, too many for figures of all")


def test_figures_are_of_the_part_and_say_so(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", recording) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"A part of the recording: {PART.search(said)[0]}." in said  # type: ignore[index]
    assert REMARK.search(said)
    assert run("report", recording, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert PART.fullmatch(report["part"][0])
    assert 0 < sum(thread["holds"] for process in report["processes"] for thread in process["threads"]) < 600
    show(recording, recording.with_suffix(".pftrace"))
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("A part of the recording: ")
    assert PART.search(said)
    assert REMARK.search(said)


def test_a_window_is_that_of_all_of_it(
    recording: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for most in (1_000, 1 << 40):
        monkeypatch.setattr(fitting, "MOST", most)
        for words in (("report",), ("check", "--max-wait", "1ns")):
            run(words[0], recording, *words[1:], "--window", "0.2..0.4", "--json")
            said.append(re.sub(LOCKS, "", capsys.readouterr().out))
    assert said[:2] == said[2:]
    assert run("report", recording, "--window", "999s..") == 2
    assert "there is nothing from 999 s on" in capsys.readouterr().err


def test_what_needs_every_event_has_every_event_or_is_refused(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", recording, "--to", "csv", "--table", "holds", "-o", "-") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + HOLDS
    assert run("query", recording, "select 1") == 2
    assert "million events, more than SQL can be asked of" in capsys.readouterr().err
    cut = recording.with_name("longest.pftrace")
    assert run("export", recording, "--to", "perfetto", "--top-waits", "2", "-o", cut) == 0
    assert cut.stat().st_size > 0


def test_what_memory_cannot_hold_is_refused_before_it_is_read(
    recording: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "_free_memory", lambda: 100_000)
    for words in (("export", recording, "--to", "chrome", "-o", "-"), ("view", recording, "--all")):
        assert run(*words) == 2
        said = capsys.readouterr().err
        assert "million events would take some 0.0 GB of memory; 0.0 GB are free" in said
        assert "--window A..B" in said
    with pytest.raises(giltrace.GiltraceError, match="memory"):
        _ = giltrace.load(recording).holds
    assert run("report", recording) == 0
    assert run("export", recording, "--to", "parquet") == 0


def test_python_has_every_hold_and_reports_of_the_part(recording: Path) -> None:
    loaded = giltrace.load(recording)
    assert PART.fullmatch(loaded.report().part[0])
    assert len(loaded.holds) == HOLDS
    part = loaded.select(window="0.2..0.4")
    assert part.report().part[0].startswith("0.200 s to 0.400 s of")
    chosen = loaded.select(thread="server")
    assert PART.fullmatch(chosen.report().part[0])
    assert chosen.report().part[1].startswith("1 of ")


def test_what_fits_is_told_as_a_whole(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "MOST", 1 << 40)
    whole = fitting.load_fitting(recording)
    assert (whole.part, whole.part_of) == ((), None)
    assert told(whole) == told(load(recording, gathered=None))
