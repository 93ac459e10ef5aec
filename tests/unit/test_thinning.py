"""A thinned trace is small enough, has the costliest waits as they were, loses no time, and says what it is."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from giltrace.exporters.perfetto import trace as perfetto
from giltrace.exporters.perfetto.size import at_least, at_most
from giltrace.exporters.perfetto.thinning import LIMIT
from giltrace.timeline.model import HOLD, RUN, WAIT, Process, Timeline
from giltrace.views.gil_tables import GilTraceProcessor
from giltrace.views.trace_processor import unavailable
from tests.synthetic import START, make_process, make_timeline

_WHY_NOT = unavailable()
pytestmark = pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT))
MS = 1_000_000


def by_turns(count: int, threads: int, wanted: np.ndarray, more: int = 0) -> Process:
    """A hold each ms, of one thread after the other, each `wanted` for so many ns before; `more` threads do nothing."""
    process = make_process(threads=threads + more, holds=10)
    start = START + 2 * MS + np.arange(count) * MS
    holds, waits, runs = np.zeros(count, HOLD), np.zeros(count - 1, WAIT), np.zeros(count, RUN)
    holds["start"], holds["end"], holds["thread"] = start, start + 900_000, np.arange(count) % threads
    waits["start"], waits["end"], waits["thread"] = (start - wanted)[1:], start[1:], holds["thread"][1:]
    waits["hold"] = np.arange(1, count)
    runs["start"], runs["end"], runs["thread"] = holds["start"], holds["end"], holds["thread"]
    runs = runs[np.lexsort((runs["start"], runs["thread"]))]
    end = START + (count + 4) * MS
    return replace(
        process,
        holds=holds,
        waits=waits[np.argsort(waits["start"], kind="stable")],
        runs=runs,
        switch_requests=process.switch_requests[:0],
        threads=tuple(one._replace(end=end) for one in process.threads),
        end=end,
    )


def starved() -> Process:
    """One thread waits all the time, while two others pass the GIL on."""
    process = by_turns(20_000, 2, np.full(20_000, 200_000), more=1)
    long = np.zeros(1, WAIT)
    long["start"], long["end"], long["thread"], long["hold"] = START + 5 * MS, process.end - MS, 2, -1
    waits = np.concatenate((process.waits, long))
    return replace(process, waits=waits[np.argsort(waits["start"], kind="stable")])


def uneven() -> Process:
    """Short waits everywhere, but for one second in which each is long."""
    at = np.arange(10_000)
    return by_turns(10_000, 3, np.where((at > 7000) & (at < 8000), 1_900_000, 200_000))


CASES: dict[str, Timeline] = {
    "few threads": make_timeline(make_process(threads=4, holds=10_000)),
    "2,000 threads": make_timeline(make_process(threads=2000, holds=8_000)),
    "eight processes": make_timeline(*(make_process(1000 * at, holds=1500, seed=at) for at in range(1, 9))),
    "three GILs": make_timeline(make_process(threads=7, holds=3000, gils=3)),
    "mostly switches": make_timeline(make_process(holds=200), others=30_000),
    "mostly spans": make_timeline(make_process(holds=500, spans=8000)),
    "no switches": make_timeline(make_process(holds=10_000, sched=False)),
    "holds of no length": make_timeline(make_process(holds=10_000, empty_holds=True, seed=9)),
    "no waits": make_timeline(replace(make_process(threads=1, holds=10_000), waits=np.zeros(0, WAIT))),
    "one waits all the time": make_timeline(starved()),
    "one second of waiting": make_timeline(uneven()),
}
ROOM = {"2,000 threads": 2_000_000}


def limit_of(case: str) -> int:
    return ROOM.get(case, 700_000)


@cache
def thinned(case: str) -> tuple[bytes, str]:
    file = io.BytesIO()
    told = perfetto.stream(CASES[case], file, limit=limit_of(case))
    return file.getvalue(), told


@cache
def loaded(case: str) -> GilTraceProcessor:
    trace = GilTraceProcessor(thinned(case)[0])
    assert trace.query("select name, value from stats where severity in ('error', 'data_loss') and value > 0") == []
    return trace


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def every_wait(timeline: Timeline) -> list[tuple[int, int, int]]:
    """Start, length and tid, the longest first."""
    found = [
        (int(row["start"]), int(row["end"] - row["start"]), process.threads[row["thread"]].tid)
        for process in timeline.processes
        for row in process.waits
    ]
    return sorted(found, key=lambda one: -one[1])


def test_it_is_no_larger_than_it_may_be_and_uses_the_room(case: str) -> None:
    whole = io.BytesIO()
    perfetto.stream(CASES[case], whole, limit=None)
    size = len(thinned(case)[0])
    assert size <= limit_of(case) < len(whole.getvalue())
    assert size > 0.6 * limit_of(case)


def test_the_size_of_the_whole_is_known_within_bounds_before_it_is_written(case: str) -> None:
    whole = io.BytesIO()
    perfetto.stream(CASES[case], whole, limit=None)
    assert at_least(CASES[case]) <= len(whole.getvalue()) <= at_most(CASES[case])


def test_what_fits_is_written_as_it_is() -> None:
    timeline = make_timeline(make_process(holds=2000, spans=10), others=3)
    whole, bounded = io.BytesIO(), io.BytesIO()
    assert perfetto.stream(timeline, whole, limit=None) == ""
    assert perfetto.stream(timeline, bounded, limit=len(whole.getvalue())) == ""
    assert bounded.getvalue() == whole.getvalue()
    assert len(whole.getvalue()) < LIMIT
    less = io.BytesIO()
    assert perfetto.stream(timeline, less, limit=len(whole.getvalue()) - 1).startswith("trace thinned: ")


@pytest.mark.parametrize("option", [{"whole": "yes"}, {"limit": None}])
def test_everything_can_be_had(option: dict[str, str]) -> None:
    file = io.BytesIO()
    timeline = CASES["mostly spans"]
    assert perfetto.stream(timeline, file, **option) == ""  # type: ignore[arg-type]
    (found,) = GilTraceProcessor(file.getvalue()).query("select count() as holds from gil_holds")
    assert found["holds"] == len(timeline.processes[0].holds)


def test_the_longest_waits_are_there_as_they_were(case: str) -> None:
    waits = every_wait(CASES[case])[:5]
    rows = loaded(case).query("select ts, dur, tid from gil_waits")
    assert {*waits} <= {(row["ts"], row["dur"], row["tid"]) for row in rows}


def test_the_culprits_are_those_of_the_whole_trace_or_not_told(case: str) -> None:
    file = io.BytesIO()
    perfetto.stream(CASES[case], file, limit=None)
    columns = "wait, culprit, culprit_ns, second_culprit, second_culprit_ns, third_culprit_ns"
    whole = {row["wait"]: row for row in GilTraceProcessor(file.getvalue()).query(f"select {columns} from gil_waits")}
    rows = loaded(case).query(f"select {columns}, id from gil_waits")
    untold = loaded(case).query(
        "select id from slice where name = 'waits for GIL' and extract_arg(arg_set_id, 'debug.culprit not told') != ''"
    )
    hidden = {row["id"] for row in untold}
    told = [row for row in rows if row["id"] not in hidden]
    for row in told:
        assert {name: row[name] for name in whole[row["wait"]]} == whole[row["wait"]]
    assert all(row["culprit"] is None for row in rows if row["id"] in hidden)
    assert len(told) > 0 or not rows


def test_no_time_of_any_thread_is_lost(case: str) -> None:
    rows = loaded(case).query(
        """select pid, tid,
             sum(iif(s.name = 'holds GIL', dur, extract_arg(s.arg_set_id, 'debug.holding (ns)'))) as holding,
             sum(iif(s.name = 'waits for GIL', dur, extract_arg(s.arg_set_id, 'debug.waiting (ns)'))) as waiting
           from slice s join thread_track k on k.id = s.track_id join thread using (utid) join process using (upid)
           where category in ('gil', 'thinned') group by pid, tid"""
    )
    found = {(row["pid"], row["tid"]): (row["holding"] or 0, row["waiting"] or 0) for row in rows}
    wanted = {}
    for process in CASES[case].processes:
        for number, thread in enumerate(process.threads):
            times = [
                int((table["end"] - table["start"])[table["thread"] == number].sum())
                for table in (process.holds, process.waits)
            ]
            if any(times):
                wanted[process.pid, thread.tid] = tuple(times)
    assert found == wanted


def test_steps_and_events_do_not_overlap(case: str) -> None:
    trace = loaded(case)
    gil_tracks = "select id from track where name glob 'GIL of *' or name glob 'holder*'"
    assert trace.query(
        f"select count() as n from slice where depth > 0 and dur > 0 and track_id in ({gil_tracks})"
    ) == [{"n": 0}]
    crossing = trace.query(
        f"""select count() as n from (
             select ts + dur as ts_end, lead(ts) over (partition by track_id order by ts, dur) as following
             from slice where dur > 0 and track_id in ({gil_tracks}))
           where ts_end > following"""
    )
    assert crossing == [{"n": 0}]
    assert trace.query("select count() as n from slice where dur < 0 and category = 'thinned'") == [{"n": 0}]


def test_where_all_events_are_there_are_no_steps(case: str) -> None:
    (found,) = loaded(case).query(
        """with
             strip as (
               select ts, dur from slice s join track k on k.id = s.track_id
               where k.name = 'left out' and category = 'cut'
             )
           select count() as n from slice s where category = 'thinned'
           and not exists (select 1 from strip where strip.ts <= s.ts and strip.ts + strip.dur >= s.ts + s.dur)
           and track_id in (select id from thread_track)"""
    )
    assert found["n"] == 0


def test_it_says_what_is_there(case: str) -> None:
    _, told = thinned(case)
    trace = loaded(case)
    found = re.fullmatch(
        r"trace thinned: ([\d,]+) of ([\d,]+) holds as they are"
        r"(?:, in (\d+) stretch(?:es)?(?: that ha(?:s|ve) ([\d.]+)% of the waiting)?)?"
        r"; elsewhere in steps of [\d.]+ m?s",
        told,
    )
    assert found is not None
    holds, every = (int(text.replace(",", "")) for text in found.groups()[:2])
    assert trace.query("select count() as n from gil_holds") == [{"n": holds}]
    assert every == sum(len(process.holds) for process in CASES[case].processes)
    (waited,) = trace.query("select ifnull(sum(dur), 0) as ns from gil_waits")
    whole = sum(length for _, length, _ in every_wait(CASES[case]))
    if whole:
        assert float(found[4]) == pytest.approx(100 * int(str(waited["ns"])) / whole, abs=0.051)
    strips = trace.query(
        """select s.ts, s.dur, s.name, extract_arg(s.arg_set_id, 'debug.thinned') as told
           from slice s join track k on k.id = s.track_id where k.name = 'left out' order by ts"""
    )
    assert all(str(row["told"]).startswith(f"{told}; giltrace export") for row in strips)
    (bounds,) = trace.query("select start_ts, end_ts from trace_bounds")
    edges = [int(str(bounds["start_ts"]))]
    for row in strips:
        edges += [int(str(row["ts"])), int(str(row["ts"])) + int(str(row["dur"]))]
    edges.append(int(str(bounds["end_ts"])))
    stretches = sum(start < end for start, end in zip(edges[::2], edges[1::2], strict=True))
    assert stretches == int(found[3] or 0)
    remarks = trace.query(
        "select extract_arg(arg_set_id, 'debug.thinned') as told from slice where category = 'gil' and told != ''"
    )
    assert {row["told"] for row in remarks} == {told}


def test_the_counters_have_the_time_of_all_events(case: str) -> None:
    timeline = CASES[case]
    for name, table, scale in (("threads waiting for the GIL", "waits", 1.0), ("GIL held, in percent", "holds", 100.0)):
        rows = loaded(case).query(
            f"""select sum(value * (following - ts)) as area from (
                 select ts, value, lead(ts, 1, (select end_ts from trace_bounds)) over later as following
                 from counter c join counter_track k on k.id = c.track_id where k.name = '{name}'
                 window later as (partition by track_id order by ts))"""
        )
        whole = sum(
            int((getattr(one, table)["end"] - getattr(one, table)["start"]).sum()) for one in timeline.processes
        )
        # A value is that of a step, also where a stretch begins within it.
        assert float(str(rows[0]["area"] or 0)) / scale == pytest.approx(whole, rel=0.02, abs=50 * MS)


def test_the_costliest_second_is_there_as_it_was() -> None:
    (process,) = CASES["one second of waiting"].processes
    rows = loaded("one second of waiting").query("select ts from gil_waits")
    lost = process.waits["end"] - process.waits["start"] > MS
    there = np.isin(process.waits["start"], [int(str(row["ts"])) for row in rows])
    assert there[lost].mean() > 0.9 > 0.3 > there[~lost].mean()


def test_no_hand_off_is_made_up_where_something_was_left_out() -> None:
    file = io.BytesIO()
    perfetto.stream(CASES["few threads"], file, limit=None)
    columns = "select ts, dur, tid, to_tid from gil_handoffs"
    whole = {tuple(row.values()) for row in GilTraceProcessor(file.getvalue()).query(columns)}
    found = {tuple(row.values()) for row in loaded("few threads").query(columns)}
    assert 0 < len(found) < len(whole)
    assert found <= whole


def test_what_is_asked_for_is_kept_first() -> None:
    timeline = CASES["few threads"]
    holds = timeline.processes[0].holds
    middle = int(holds["start"][7777])
    file = io.BytesIO()
    perfetto.stream(timeline, file, limit=400_000, first=[(middle - 20 * MS, middle + 20 * MS)])
    wanted = holds[(holds["start"] < middle + 20 * MS) & (holds["end"] > middle - 20 * MS)]
    rows = GilTraceProcessor(file.getvalue()).query("select ts, dur from gil_holds")
    assert {(int(row["start"]), int(row["end"] - row["start"])) for row in wanted} <= {
        (row["ts"], row["dur"]) for row in rows
    }


def test_a_cut_trace_is_what_was_asked_for() -> None:
    from giltrace.timeline.cut import cut

    part = cut(CASES["few threads"], [(START, START + 3_000 * MS)])
    whole, bounded = io.BytesIO(), io.BytesIO()
    perfetto.stream(part, whole, limit=None)
    assert perfetto.stream(part, bounded, limit=100_000) == ""
    assert bounded.getvalue() == whole.getvalue()
    assert len(whole.getvalue()) > 100_000
