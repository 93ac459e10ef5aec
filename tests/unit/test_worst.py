"""Where a view begins and what a cut keeps: the worst stretch, the longest waits, and what a person names."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from giltrace.analysis.measure.worst import SHORTEST_STRETCH, Stretch, around_waits, chosen_stretches, worst_stretch
from giltrace.errors import UsageError
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process
from giltrace.views.moment import WORST, Moment, Waits, is_wait_id
from giltrace.views.perfetto_ui import page_address
from tests.synthetic import START, make_process, make_timeline

MS = 1_000_000


def lost(start: Ints, end: Ints, stretch: Stretch) -> int:
    return int(np.maximum(np.minimum(end, stretch.end) - np.maximum(start, stretch.start), 0).sum())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("origin", [0, START, 1 << 60])
def test_no_stretch_that_begins_with_a_wait_lost_more(seed: int, origin: int) -> None:
    random = np.random.default_rng(seed)
    start = origin + random.integers(0, 5_000 * MS, 300)
    end = start + random.integers(1, 80 * MS, 300)
    found = worst_stretch(start, end)
    assert found is not None
    width = found.end - found.start
    assert width == max(2 * int((end - start).max()), SHORTEST_STRETCH)
    begin = found.start + width // 10
    best = lost(start, end, Stretch(begin, begin + width))
    assert begin in start
    assert best == max(lost(start, end, Stretch(int(at), int(at) + width)) for at in start)


def test_without_waits_there_is_no_worst() -> None:
    assert worst_stretch(np.empty(0, np.int64), np.empty(0, np.int64)) is None


def test_the_longest_waits_come_first_with_a_margin() -> None:
    start = np.array([0, 100 * MS, 500 * MS, 900 * MS])
    end = start + np.array([5, 40, 1, 20]) * MS
    assert around_waits(start, end, 2) == [(96 * MS, 144 * MS), (898 * MS, 922 * MS)]
    assert len(around_waits(start, end, 99)) == 4


def test_windows_count_from_where_the_trace_begins() -> None:
    timeline = make_timeline(make_process())
    first, last = timeline.recorded
    assert chosen_stretches(timeline, [(5, 10), (20, None)], None) == [(first + 5, first + 10), (first + 20, last)]
    assert len(chosen_stretches(timeline, [], 3)) == 3


def test_a_window_beyond_the_end_is_refused_with_the_length() -> None:
    timeline = make_timeline(make_process())
    first, last = timeline.recorded
    assert len(chosen_stretches(timeline, [(0, last - first + MS)], None)) == 1
    with pytest.raises(UsageError, match="there is nothing from ") as refused:
        chosen_stretches(timeline, [(0, None), (last - first, None)], None)
    assert refused.value.remedy == f"the recording is {(last - first) / 1e9:.3f} s long"


def waits() -> Waits:
    return Waits.of_timeline(make_timeline(make_process(100, seed=2), make_process(200, holds=20, seed=3)))


def test_the_worst_moment_is_in_the_process_that_waited_most() -> None:
    found = waits()
    moment = found.at(WORST)
    assert moment is not None
    stretch = Stretch(moment.start, moment.end)
    by_pid = {pid: lost(found.start[found.pid == pid], found.end[found.pid == pid], stretch) for pid in (100, 200)}
    assert moment.pid == max(by_pid, key=lambda pid: by_pid[pid])
    assert found.bounds.start <= moment.start < moment.end <= found.bounds.end


def test_a_wait_is_found_by_its_id_and_shown_whole() -> None:
    found = waits()
    row = len(found.start) // 2
    name = f"{found.tid[row]}@{found.start[row]}"
    assert is_wait_id(name)
    moment = found.at(name)
    assert moment is not None
    assert moment.wait == (int(found.start[row]), int(found.end[row] - found.start[row]))
    assert moment.pid == int(found.pid[row])
    assert moment.start < found.start[row]
    assert moment.end > found.end[row]


def test_a_time_is_shown_in_the_middle() -> None:
    found = waits()
    moment = found.at(200 * MS)
    assert moment is not None
    assert (moment.start + moment.end) // 2 == found.bounds.start + 200 * MS
    assert moment.end - moment.start == SHORTEST_STRETCH
    begin = found.at(0)
    assert begin is not None
    assert begin.start == found.bounds.start


@pytest.mark.parametrize("where", [10**15, "1@2"])
def test_what_is_not_there_is_an_expected_error(where: str | int) -> None:
    with pytest.raises(UsageError, match="there is n"):
        waits().at(where)


def without_waits(pid: int, held: int) -> Process:
    """A process with a single hold of `held` ns."""
    process = make_process(pid, threads=2, holds=1)
    process.holds["end"] = process.holds["start"] + held
    return replace(process, waits=process.waits[:0])


def test_without_waits_the_whole_is_shown_with_the_process_that_held_the_gil_longest() -> None:
    timeline = make_timeline(make_process(5, holds=0), without_waits(100, 20 * MS), without_waits(200, 10 * MS))
    moment = Waits.of_timeline(timeline).at(WORST)
    assert moment == Moment(*timeline.recorded, 100)
    nobody = make_timeline(make_process(holds=0))
    assert Waits.of_timeline(nobody).at(WORST) == Moment(*nobody.recorded, None)


def test_a_trace_that_cannot_be_asked_is_shown_as_it_is() -> None:
    address = page_address("http://127.0.0.1:1/t/", "http://127.0.0.1:1/t/x.pftrace", None)
    arguments = parse_qs(urlsplit(address).fragment.removeprefix("!/?"))
    assert "visStart" not in arguments
    assert [command["args"] for command in json.loads(arguments["startupCommands"][0])] == [["^holder(,|$)|^left out$"]]


def test_the_address_carries_the_moment() -> None:
    trace = "http://127.0.0.1:1/t/x y.pftrace"
    address = page_address("http://127.0.0.1:1/t/?testing=1", trace, Moment(5, 9, 42, (6, 2)))
    assert address.startswith("http://127.0.0.1:1/t/?testing=1#!/?")
    arguments = {name: one for name, (one,) in parse_qs(urlsplit(address).fragment.removeprefix("!/?")).items()}
    assert arguments["url"] == trace
    assert [arguments[name] for name in ("visStart", "visEnd", "ts", "dur")] == ["5", "9", "6", "2"]
    names = [command["id"] for command in json.loads(arguments["startupCommands"])]
    assert names == [f"dev.perfetto.{verb}TracksByRegex" for verb in ("Pin", "Collapse", "Expand")]
