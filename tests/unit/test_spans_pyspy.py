"""py-spy's file on the recording's clock: the search for its start, and the conversion."""

from __future__ import annotations

import json
import mmap
import os
import threading
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from giltrace.collectors._pyspy_process import PySpyProcess
from giltrace.collectors._pyspy_trace import ChromeTrace, find_start
from giltrace.collectors._thread_stacks import ThreadStacks
from giltrace.collectors.pyspy import PySpyCollector
from giltrace.recording.events import SWITCH, TASK, SchedEvents

START = 5_000_000_000_000


def wakeups(ticks: list[int], before: int, after: int) -> SchedEvents:
    """Make the switches of a main thread that is on a core from `before` ns before each tick (us) to `after` later."""
    switches = np.zeros(2 * len(ticks), SWITCH)
    times = START + np.array(ticks) * 1000
    switches["time"] = np.column_stack([times - before, times + after]).ravel()
    switches["on"] = np.tile([1, 0], len(ticks))
    return SchedEvents(switches, np.array([(START + 40_000, 1, 2, 1)], TASK))


def irregular(count: int) -> list[int]:
    ticks: list[int] = np.cumsum(np.random.default_rng(7).exponential(10_000, count)).astype(int).tolist()
    return ticks


def test_the_start_is_found_within_its_own_bound() -> None:
    ticks = irregular(200)
    found, error = find_start(ticks, wakeups(ticks, 3_000, 20_000), START - 8_000_000, START + 2_000_000_000)
    assert abs(found - START) <= error
    assert error < 20_000


def test_a_few_missing_switches_do_no_harm() -> None:
    ticks = irregular(200)
    seen = wakeups([tick for index, tick in enumerate(ticks) if index % 9], 3_000, 20_000)
    found, error = find_start(ticks, seen, START - 8_000_000, START + 2_000_000_000)
    assert abs(found - START) <= error < 20_000


def test_the_sampling_threads_birth_bounds_the_start() -> None:
    found, error = find_start([], wakeups([1], 1, 1), START - 10_000, START + 9_000_000)
    assert found - error <= START - 10_000
    assert found + error == pytest.approx(START + 40_000, abs=2)


def test_without_switches_only_the_given_bounds_are_known() -> None:
    assert find_start([5, 6], None, 1_000, 3_000) == (2_000, 1_000)


def event(phase: str, name: str, ts: int, tid: int = 1, line: int = 7) -> dict[str, Any]:
    return {"ph": phase, "name": name, "ts": ts, "tid": tid, "pid": 9, "args": {"filename": "a.py", "line": line}}


def convert(tmp_path: Path, events: list[dict[str, Any]], **more: Any) -> tuple[list[tuple[Any, ...]], int]:
    path = tmp_path / "raw.json"
    path.write_text(json.dumps(events))
    names: dict[str, int] = {}
    options: dict[str, Any] = {"resolve": lambda pthread, name, time: None, "ends": {}, "last": START + 10**9, **more}
    rows, unknown = ChromeTrace(path).rows(START, names, **options)
    texts = list(names)
    return [(*row[:3], texts[row[3]], row[4]) for row in rows.tolist()], unknown


def test_nested_frames_of_one_thread(tmp_path: Path) -> None:
    events = [event("B", "thread (55): MainThread", 0), event("B", "f", 0), event("B", "g", 2)]
    events += [event("E", "g", 5), event("E", "f", 9), event("E", "thread (55): MainThread", 9)]
    rows, unknown = convert(tmp_path, events)
    assert sorted(rows) == [
        (START, START + 9_000, 55, "f (a.py:7)", 0),
        (START + 2_000, START + 5_000, 55, "g (a.py:7)", 1),
    ]
    assert unknown == 0


def test_no_frame_outlives_its_thread(tmp_path: Path) -> None:
    thread = "thread (55): worker"
    events = [event("B", thread, 0), event("B", "f", 0), event("E", "f", 900), event("E", thread, 900)]
    rows, _ = convert(tmp_path, events, ends={55: [START - 5, START + 400_000]})
    assert rows == [(START, START + 400_000, 55, "f (a.py:7)", 0)]


def test_threads_known_by_pthread_id_only(tmp_path: Path) -> None:
    events = []
    for number, tid in (("0x7F00", 1), ("0x8F00", 2)):
        events += [event("B", f"thread ({number}): T", 0, tid), event("B", "f", 1, tid)]
        events += [event("E", "f", 3, tid), event("E", f"thread ({number}): T", 3, tid)]
    rows, unknown = convert(tmp_path, events, resolve=lambda pthread, name, time: 77 if pthread == 0x7F00 else None)
    assert [row[2] for row in rows] == [77]
    assert unknown == 1


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [("/app/a.py", 7, "f (/app/a.py:7)"), ("/app/a.py", 0, "f (/app/a.py)"), ("", 0, "f")],
)
def test_frames_are_told_with_their_place(file: str, line: int, told: str, tmp_path: Path) -> None:
    frame = {**event("B", "f", 1), "args": {"filename": file, "line": line}}
    thread = {**event("B", "thread (55): MainThread", 0), "args": {"filename": "", "line": 0}}
    events = [thread, frame, {**frame, "ph": "E", "ts": 5}, {**thread, "ph": "E", "ts": 5}]
    ((_, _, _, text, _),) = convert(tmp_path, events)[0]
    assert text == told


def test_another_programs_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a thread"):
        convert(tmp_path, [event("B", "main", 0)])


@pytest.mark.parametrize("name", ["a\nb\rc", "\u2028", ") \n: (", "thread (0x1): x\n", ""])
def test_a_thread_may_have_any_name(name: str, tmp_path: Path) -> None:
    events = [event("B", f"thread (55): {name}", 0), event("B", "f", 0), event("E", "f", 5), event("E", "thread", 5)]
    assert convert(tmp_path, events) == ([(START, START + 5_000, 55, "f (a.py:7)", 0)], 0)


class Sampler:
    """What py-spy left of one process: `events`, in a file."""

    def __init__(self, pid: int, path: Path, events: list[dict[str, Any]]) -> None:
        self.target, self.begin, self.end, self.cpu_seconds = pid, START, START + 10**9, 0.0
        path.write_text(json.dumps(events))
        self._path = path

    def trace(self) -> ChromeTrace:
        return ChromeTrace(self._path)

    def clock_start(self, trace: ChromeTrace) -> tuple[int, int]:
        return START, 0

    def counts(self) -> tuple[int, int]:
        return 1, 0

    def remove_files(self) -> None:
        self._path.unlink()


def test_a_file_that_makes_no_sense_costs_its_own_samples_only(tmp_path: Path) -> None:
    whole = [event("B", "thread (8): T", 0), event("B", "f", 0), event("E", "f", 5), event("E", "thread (8): T", 5)]
    collector = PySpyCollector()
    collector._folder = tmp_path
    collector._finished = [
        cast("PySpyProcess", Sampler(pid, tmp_path / f"{pid}.json", events))
        for pid, events in ((7, [event("B", "main", 0)]), (8, whole))
    ]
    collector._stacks = {pid: ThreadStacks(pid) for pid in (7, 8)}
    report = collector.stop()
    assert report.status == "ok"
    assert "py-spy's file for process 7 makes no sense" in report.cost
    assert [path.name for path in tmp_path.iterdir()] == ["py-spy-8.spans.npz"]


@pytest.mark.parametrize("name", [b"a\x0cb", b"a\rb", "\u2028".encode(), b"\xff"])
def test_a_mapped_file_may_have_any_name(name: bytes, tmp_path: Path) -> None:
    """The stacks of threads are found among what is mapped, whatever that is called."""
    path = os.path.join(os.fsencode(tmp_path), name)
    Path(os.fsdecode(path)).write_bytes(b"x" * 4096)
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    stacks = ThreadStacks(os.getpid())
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
            deadline = time.monotonic() + 60
            while stacks.tid(thread.ident or 0, "", 0) is None and time.monotonic() < deadline:
                stacks.look(1)
    finally:
        end.set()
        thread.join()
    assert stacks.tid(thread.ident or 0, "", 0) == thread.native_id
