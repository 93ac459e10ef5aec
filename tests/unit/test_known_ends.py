"""Until when a process is known to have run, and what is told where nobody saw its end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from giltrace.recording.layout import Kind
from giltrace.recording.meta import Meta
from giltrace.timeline.load import load
from giltrace.timeline.model import Process, Timeline
from tests.live_files import TracerFile, word
from tests.unit.gil_events import MS, PID, Kernel, Script, not_python, rows, timeline

#: Where a recording of files begins, and where it ends.
START, END = 60_000 * MS, 65_000 * MS
SEEN = END - 1000 * MS


def holding(start: int = 0) -> Script:
    """Whose last record is that a thread takes the GIL."""
    return Script((PID, 101), start=start).hold(start, start + MS, 1).acquire(start + 2 * MS, 0)


def recorded(folder: Path, lived: Sequence[Sequence[int]], *, lost: int = 0) -> Timeline:
    """A finished recording of a process whose end nobody waited for; thread 1 waits for thread 0 from 3 ms on."""
    meta = Meta("0", [], START, 0, 0, {}, state="complete", end_ns=END, lived=[list(one) for one in lived])
    meta.write(folder)
    file = TracerFile(folder, start_ns=START)
    file.write(file.begin(file.allocate(), 0, base=START, lost=lost), word(Kind.ACQUIRE, 2 * MS))
    file.write(file.chunk(1, base=START), word(Kind.REQUEST, 3 * MS))
    return load(folder)


def told(whole: Timeline) -> list[str]:
    return [remark for remark in whole.remarks if "end is not on record" in remark]


def bounded(*processes: Process) -> list[bool]:
    return [process.is_bounded for process in processes]


def test_who_was_seen_goes_on_until_then(tmp_path: Path) -> None:
    whole = recorded(tmp_path, [(os.getpid(), SEEN)])
    (process,) = whole.processes
    assert process.left
    assert (process.end, told(whole)) == (SEEN, [])
    assert rows(process.holds, "start", "end") == [(START + 2 * MS, SEEN)]
    assert rows(process.waits, "start", "end") == [(START + 3 * MS, SEEN)]


@pytest.mark.parametrize("lived", [[], [(1, SEEN)]], ids=["nobody", "another"])
def test_who_was_not_seen_ends_with_its_last_record_which_is_told(lived: list[tuple[int, int]], tmp_path: Path) -> None:
    whole = recorded(tmp_path, lived)
    (process,) = whole.processes
    assert process.left
    assert (process.end, process.end_of) == (START + 3 * MS, "recording")
    (remark,) = told(whole)
    assert remark.startswith("processes whose end is not on record: 1; ")


def test_what_was_lost_is_not_made_up_for_by_a_hold_that_goes_on(tmp_path: Path) -> None:
    whole = recorded(tmp_path, [(os.getpid(), SEEN)], lost=5)
    (process,) = whole.processes
    assert (whole.lost, process.end) == (5, START + 3 * MS)
    assert len(told(whole)) == 1


def test_what_a_process_went_on_with_is_an_end() -> None:
    images = [holding().events(), holding(6 * MS).events()]
    assert bounded(*timeline(images, end=END).processes) == [False, True]
    images[1] = replace(images[1], known_until=END)
    assert bounded(*timeline(images, end=END).processes) == [False, False]
    images[1] = not_python(6 * MS, "sleep")
    assert bounded(*timeline(images, end=END).processes) == [False]


def test_the_kernel_sees_each_end_and_who_let_go_needs_none() -> None:
    assert bounded(*timeline(holding(), Kernel().run(0, 3 * MS, PID), end=END).processes) == [False]
    assert bounded(*timeline(holding(), end=END).processes) == [True]
    assert bounded(*timeline(holding().release(4 * MS, 0), end=END).processes) == [False]
