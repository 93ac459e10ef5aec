"""A recording that is read in windows: its tables are those of the whole, whatever reaches across a window's end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giltrace.analysis.measure import dealing
from giltrace.exporters.tables import sums
from giltrace.exporters.tables.csv import write_tables
from giltrace.exporters.tables.image import images
from giltrace.exporters.tables.texts import Column, Texts
from giltrace.exporters.tables.windowed import pieces_of
from giltrace.recording.door import Times
from giltrace.recording.events import Array, ProcessEvents
from giltrace.recording.gil_file import GilFile
from giltrace.recording.layout import HEADER, HEADER_SIZE, Kind, Status
from giltrace.recording.merged import MERGED, Merged, write_merged
from giltrace.recording.outline import Outliner
from giltrace.timeline import windows
from giltrace.timeline.load import load
from giltrace.timeline.model import Timeline
from tests.unit.gil_events import MS, Kernel, Script, timeline
from tests.unit.in_process import run
from tests.unit.test_gathering import World, table
from traces.regenerate import unpack

Rows = dict[str, Counter[tuple[Any, ...]]]
#: Of those whose locks, subinterpreters, forks, collections and waits are many.
SAMPLES = ("convoy", "fork_pool", "ft_gc", "gc_storm", "lock_contention", "queue_pipeline", "subinterpreters")


def told(timeline: Timeline, folder: Path) -> Rows:
    """The rows of all tables."""
    rows: Rows = {}
    for image in images(timeline):
        for name, columns in pieces_of(image, folder):
            values = (_values(columns[column]) for column in sorted(columns))
            rows.setdefault(name, Counter()).update(zip(*values, strict=True))
    return rows


def _values(column: Column) -> list[Any]:
    if isinstance(column, Texts):
        return [column.values[code] for code in column.code.tolist()]
    values: list[Any] = np.asarray(column).tolist()
    return values


def outlined(recorded: ProcessEvents, pieces: int, monkeypatch: pytest.MonkeyPatch) -> ProcessEvents:
    """Its outline; what that leaves out is read again in so many pieces."""
    events = recorded.events.copy()
    # As the tracer numbers them, from 1 on.
    events["stack"] += 1
    cuts = [len(events) * at // pieces for at in range(pieces + 1)]
    parts = [events[low:high] for low, high in pairwise(cuts)]
    outliner = Outliner()
    left = np.concatenate([outliner.feed(part.copy()) for part in parts])
    left["stack"] -= 1

    most = int(recorded.events["stack"].max(initial=-1))
    place = np.append(np.arange(-1, most + 1, dtype=np.int32), np.int32(-1))

    def again(_: object) -> Iterator[Array]:
        for part in parts:
            kept = part[(part["kind"] <= Kind.RELEASE) | (part["kind"] == Kind.SAMPLE)]
            kept["stack"] -= 1
            yield kept

    monkeypatch.setattr(windows, "read_again", again)
    file = GilFile.of(Path("gil-1.bin"), bytes(HEADER_SIZE))
    noted = outliner.outlined(file, None, Times(), list(range(len(recorded.threads))), place)
    return replace(recorded, events=left, outlined=noted)


def compared(
    recorded: ProcessEvents, kernel: Kernel | None, end: int, pieces: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> int:
    """Hold the tables of the windows to those of the whole; returns how many windows there were."""
    whole = timeline([recorded], kernel, end=end)
    expected = told(whole, folder)
    outline = timeline([outlined(recorded, pieces, monkeypatch)], kernel, end=end)
    assert told(outline, folder) == expected
    (process,) = outline.processes
    assert process.outlined is not None
    assert process.outlined.holds == len(whole.processes[0].holds)
    return sum(1 for _ in windows.windows(process))


@pytest.mark.parametrize(("sched", "lines"), [(True, 4), (False, 1)], ids=["sched", "light"])
@pytest.mark.parametrize("seed", range(12))
def test_the_tables_are_those_of_the_whole(
    seed: int, sched: bool, lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(seed)
    recorded = world.recorded(lines)
    monkeypatch.setattr(windows, "EVENTS", world.chance.choice((40, 200)))
    monkeypatch.setattr(dealing, "BLOCK", world.chance.choice((4, 50, 1 << 20)))
    monkeypatch.setattr(sums, "_ROWS", world.chance.choice((2, 1 << 18)))
    number = compared(
        recorded, world.kernel if sched else None, world.time, world.chance.randint(1, 9), tmp_path, monkeypatch
    )
    assert number > 1


@pytest.mark.parametrize("name", SAMPLES)
def test_the_tables_of_a_recording_are_those_of_the_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unpack(name, tmp_path)
    monkeypatch.setattr(windows, "EVENTS", 60)
    monkeypatch.setattr("giltrace.recording.gil._PIECE", 100)
    outline = windows.outline(folder)
    assert outline is not None
    expected = told(load(folder), tmp_path)
    assert expected["holds"].total() + expected["blocks"].total() > 0
    assert told(outline, tmp_path) == expected


def across() -> dict[str, Script]:
    """What reaches across many windows' ends, each with quick holds of another GIL or thread beside it."""

    def beside(script: Script, first: int, last: int, gil: int) -> Script:
        for time in range(first, last, 1000):
            script.acquire(time + 1, 1, gil).release(time + 500, 1, gil)
        return script

    starved = Script().hold(1000, 2000, 0).request(3000, 0)
    beside(starved, 4000, 100_000, 0).acquire(200_000, 0).release(201_000, 0)
    long_hold = beside(Script(gils=2).acquire(1000, 0), 2000, 100_000, 1).release(200_000, 0)
    older = beside(Script(gils=2), 2000, 100_000, 1).release(150_000, 0)
    waits_before = beside(Script(), 2000, 100_000, 0).timeout(150_000, 0).acquire(151_000, 0).release(152_000, 0)
    never_given = beside(Script(gils=2).acquire(1000, 0), 2000, 100_000, 1)
    gives_up = beside(Script(gils=2).request(1000, 0), 2000, 100_000, 1)
    idle = Script(gils=2).acquire(10, 0, 1).release(20, 0, 1)
    beside(idle, 1000, 50_000, 0).acquire(60_000, 0, 1).release(61_000, 0, 1)
    return {
        "a wait while others have the GIL": starved,
        "a hold": long_hold,
        "a hold of which only the end is known": older,
        "a wait of which only the end is known": waits_before,
        "a hold that never ended": never_given,
        "a wait that led to nothing": gives_up,
        "a GIL that is idle between": idle,
    }


@pytest.mark.parametrize("what", across())
@pytest.mark.parametrize("size", [1, 10])
def test_what_reaches_across_is_told_once(
    what: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = across()[what]
    recorded = replace(script.events(), stacks=table(4))
    recorded.events["stack"] = np.where(recorded.events["kind"] == Kind.RELEASE, recorded.events["thread"], -1)
    monkeypatch.setattr(windows, "EVENTS", size)
    kernel = Kernel().run(0, 1500, 100).run(1900, 150_500, 101, 1, preempted=True).run(170_000, MS, 101)
    compared(recorded, kernel, MS, 7, tmp_path, monkeypatch)


def test_a_window_does_not_grow_with_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script()
    for at in range(3000):
        script.hold(1000 * at + 500, 1000 * at + 900, at % 3, asked=1000 * at + 100)
    monkeypatch.setattr(windows, "EVENTS", 50)
    (process,) = timeline([outlined(script.events(), 20, monkeypatch)]).processes
    sizes = [len(window.process.holds) for window in windows.windows(process)]
    assert len(sizes) > 100
    assert max(sizes) < 60
    assert len(process.holds) < 200


@pytest.mark.parametrize("why", [{"lost": 1}, {"overwritten": 1}, {"outlined": "out of order"}, {"merged": 1}, {}])
def test_what_only_the_whole_tells_has_no_outline(
    why: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unpack("convoy", tmp_path)
    if "merged" in why:
        write_merged(folder, Merged("tasks", "", False, "", 0, (), (), (), np.empty(0, MERGED)))

    def changed(folder: Path, *, outline: bool) -> Timeline:
        found = load(folder, outline=outline)
        (process,) = found.processes
        assert process.outlined is not None
        own = dict(why)
        if "outlined" in why:
            own["outlined"] = replace(process.outlined, in_order=False)
        return replace(found, processes=(replace(process, **own),))

    monkeypatch.setattr(windows, "load", changed)
    assert (windows.outline(folder) is None) == bool(why)


@pytest.mark.parametrize(("name", "value"), [("lost", 1), ("overwritten", 1), ("status", Status.OBSERVED)])
def test_what_the_heads_tell_is_known_before_anything_is_read(
    name: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unpack("convoy", tmp_path)
    (path,) = folder.glob("gil-*.bin")
    head = np.frombuffer(path.read_bytes()[: HEADER.itemsize], HEADER).copy()
    head[name] |= HEADER[name].type(value)
    with path.open("r+b") as file:
        file.write(head.tobytes())

    def never(folder: Path, *, outline: bool) -> Timeline:
        raise AssertionError("it is read")

    monkeypatch.setattr(windows, "load", never)
    assert windows.outline(folder) is None


def test_files_of_csv_are_written_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unpack("convoy", tmp_path)
    monkeypatch.setattr(windows, "EVENTS", 60)
    outline = windows.outline(folder)
    assert outline is not None
    written = []
    for name, one in (("whole", load(folder)), ("windows", outline)):
        (tmp_path / name).mkdir()
        write_tables(one, tmp_path / name)
        written.append({file.name: sorted(file.read_bytes().splitlines()) for file in (tmp_path / name).iterdir()})
    assert written[1] == written[0]
    assert len(written[0]["holds.csv"]) > 100


def test_export_and_query_go_this_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    duckdb = pytest.importorskip("duckdb")
    folder = unpack("sqlite_threads", tmp_path)
    monkeypatch.setattr(windows, "EVENTS", 500)
    counted = []
    read = windows.windows

    def counting(process: Any) -> Iterator[windows.Window]:
        for window in read(process):
            counted.append(window)
            yield window

    monkeypatch.setattr("giltrace.exporters.tables.windowed.windows", counting)
    assert run("query", folder, "select count(*) as n from gil_holds", "--engine", "duckdb", "--json") == 0
    assert '"n": 1296' in capsys.readouterr().out
    assert len(counted) > 4
    assert run("export", folder, "--to", "parquet") == 0
    path = folder.with_name("sqlite_threads.parquet")
    asked = f"select count(*), count(distinct hold) from '{path}/holds/**/*.parquet'"
    assert duckdb.connect().execute(asked).fetchall() == [(1296, 1296)]
