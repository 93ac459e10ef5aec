"""What is said of one thread's stretch of code, on made-up records."""

from __future__ import annotations

import numpy as np
import pytest

from giltrace.errors import TargetError
from giltrace.integrations.cores import Away
from giltrace.integrations.limits import Limits
from giltrace.integrations.releases import too_little_released
from giltrace.integrations.seen import Edges, Seen
from giltrace.recording.events import GIL_EVENT, ProcessEvents, ThreadInfo
from giltrace.recording.layout import Kind, RecordFlag

TEST, OTHER, ASKER = 0, 1, 2
THREADS = (ThreadInfo(100, "MainThread"), ThreadInfo(101, "worker"), ThreadInfo(102, ""))
MS = 1_000_000
NEVER_AWAY = Away(np.empty(0, np.int64), np.empty(0, np.int64))

#: (ms, thread, kind[, flags])
Record = tuple[float, int, Kind] | tuple[float, int, Kind, int]


def seen(*records: Record, end: float, away: Away = NEVER_AWAY, lost: int = 0) -> Seen:
    """A stretch from 0 to `end` ms, whose ticks are ns, with the mark at either edge."""
    marks: list[Record] = [
        (-0.5, TEST, Kind.RELEASE),
        (0, TEST, Kind.ACQUIRE),
        (end, TEST, Kind.RELEASE),
        (end + 0.5, TEST, Kind.ACQUIRE),
    ]
    events = np.zeros(len(records) + len(marks), GIL_EVENT)
    every = sorted([*marks, *records], key=lambda record: record[0])
    for row, (time, thread, kind, *flags) in enumerate(every):
        events[row] = (round((time + 1000) * MS), 0, thread, 0, kind, sum(flags), -1)
    process = ProcessEvents(1, 0, "", "", "", 0, THREADS, (1,), events, lost, "")
    edges = Edges((0, 0), (round(999.4 * MS),) * 2, (round((1000 + end + 0.6) * MS),) * 2)
    return Seen.of(process, edges, 100, {102}, away)


def away(*stretches: tuple[float, float], doubt: float = 0, cpu: float = 0) -> Away:
    start, end = (np.array([round((1000 + one[at]) * MS) for one in stretches], np.int64) for at in (0, 1))
    return Away(start, end, round(doubt * MS), round(cpu * MS))


def test_counts_what_it_held_and_what_it_did_without() -> None:
    found = seen((1, TEST, Kind.RELEASE), (9, TEST, Kind.ACQUIRE), end=10)
    assert (found.length, found.held, found.off, found.share) == (10 * MS, 2 * MS, 8 * MS, 0.8)


def test_waits_for_others_count_neither_way() -> None:
    found = seen(
        (1, TEST, Kind.RELEASE),
        (1.5, OTHER, Kind.ACQUIRE),
        (9, TEST, Kind.REQUEST),
        (50, OTHER, Kind.RELEASE),
        (52, TEST, Kind.ACQUIRE),
        end=53,
    )
    assert (found.held, found.off, found.share) == (2 * MS, 8 * MS, 0.8)
    assert found.longest_wait_ns == 41 * MS  # not the 2 ms until it had a core
    assert found.culprit_of_wait == "worker"


def test_a_forced_switch_is_no_release() -> None:
    found = seen(
        (5, OTHER, Kind.REQUEST),
        (10, OTHER, Kind.TIMEOUT, RecordFlag.SWITCH_REQUEST),
        (10.1, TEST, Kind.RELEASE, RecordFlag.FORCED),
        (10.1, TEST, Kind.REQUEST),
        (10.2, OTHER, Kind.ACQUIRE),
        (90, OTHER, Kind.RELEASE),
        (90, TEST, Kind.ACQUIRE),
        end=91,
    )
    assert (found.off, found.share) == (0, 0)
    assert found.heeded.tolist() == [True, False]
    assert found.stubborn_ns == 1 * MS


def test_what_goes_on_after_it_was_asked_has_not_heeded_it() -> None:
    records: list[Record] = [
        (0.5, OTHER, Kind.REQUEST),
        (5.5, OTHER, Kind.TIMEOUT, RecordFlag.SWITCH_REQUEST),
        (30, TEST, Kind.RELEASE, RecordFlag.FORCED),
        (30, TEST, Kind.REQUEST),
        (30.1, OTHER, Kind.ACQUIRE),
        (31, OTHER, Kind.RELEASE),
        (31, TEST, Kind.ACQUIRE),
    ]
    assert seen(*records, end=32).stubborn_ns == 30 * MS
    assert seen(*records, end=32, away=away((6, 29.9))).heeded.tolist() == [True, False]  # it had no core


def test_time_without_a_core_counts_neither_way() -> None:
    records: list[Record] = [(1, TEST, Kind.RELEASE), (9, TEST, Kind.ACQUIRE), (20, TEST, Kind.RELEASE)]
    records += [(60, TEST, Kind.ACQUIRE)]
    found = seen(*records, end=61, away=away((10, 19), (25, 58)))
    assert (found.held, found.off) == (4 * MS, 15 * MS)
    assert found.lengths.tolist() == [1 * MS, 2 * MS, 1 * MS]


def test_what_is_not_known_of_the_cores_counts_for_the_function() -> None:
    records: list[Record] = [(1, TEST, Kind.RELEASE), (9, TEST, Kind.ACQUIRE)]
    assert too_little_released(seen(*records, end=15), 0.9, "f")
    assert not too_little_released(seen(*records, end=15, away=away(doubt=7)), 0.9, "f")
    limits = Limits(max_hold=5 * MS)
    assert limits.broken(seen(*records, end=15), "test_f").startswith("test_f held the GIL for 6.00 ms at a time")
    assert not limits.broken(seen(*records, end=15, away=away(doubt=2)), "test_f")
    # It was on a core for 13 ms, and without the GIL for 8: the other 5 it had the GIL.
    assert seen(*records, end=15, away=away(doubt=7, cpu=13)).share_at_most == 8 / 13
    # And 4 of these in its longest hold, as all the rest is 9 ms long.
    assert seen(*records, end=15, away=away(doubt=7, cpu=13)).stubborn_ns == 4 * MS


def test_the_thread_that_only_asks_is_nobodys_fault() -> None:
    found = seen(
        (1, TEST, Kind.RELEASE),
        (1.1, ASKER, Kind.ACQUIRE),
        (2, TEST, Kind.REQUEST),
        (30, ASKER, Kind.RELEASE),
        (30, TEST, Kind.ACQUIRE),
        (31, ASKER, Kind.REQUEST),
        (40, ASKER, Kind.ACQUIRE),
        end=40,
    )
    assert (found.longest_wait_ns, found.off) == (0, 1 * MS)
    assert set(found.waits["thread"]) == {TEST}


def test_says_when_records_lack() -> None:
    with pytest.raises(TargetError, match="lost"):
        seen(end=1, lost=1)


def test_a_short_call_is_told_to_be_one() -> None:
    message = too_little_released(seen(end=0.012), 0.9, "zlib.crc32")
    assert message.splitlines() == [
        "zlib.crc32 was without the GIL for 0.0% of its 12.0 us; wanted: 90.0%",
        "  longest hold: 12.0 us in zlib.crc32 itself",
        "  to do: pass it more work: a call that takes less than 100 us tells little",
    ]


def test_all_limits_that_were_broken_are_told() -> None:
    found = seen(
        (1, TEST, Kind.RELEASE),
        (1.5, OTHER, Kind.ACQUIRE),
        (2, TEST, Kind.REQUEST),
        (30, OTHER, Kind.RELEASE),
        (30, TEST, Kind.ACQUIRE),
        end=50,
    )
    told = Limits(max_hold=5 * MS, max_wait=10 * MS, releases=0.5).broken(found, "test_x")
    assert [line for line in told.splitlines() if not line.startswith(" ")] == [
        "test_x held the GIL for 20.0 ms at a time; max_hold is 5.00 ms",
        "test_x waited 28.0 ms for the GIL; max_wait is 10.0 ms",
        "test_x was without the GIL for 4.5% of its 22.0 ms; wanted: 50.0%",
    ]
    assert "  for worker" in told
    assert Limits(max_hold=50 * MS, max_wait=50 * MS, releases=0.01).broken(found, "test_x") == ""


def test_the_closest_mark_counts_for_each_limit() -> None:
    marks: list[tuple[tuple[object, ...], dict[str, object]]] = [
        ((), {"max_hold": "1ms"}),
        ((), {"max_hold": "5s", "releases": 1}),
    ]
    assert Limits.of(marks) == Limits(max_hold=MS, releases=1)


@pytest.mark.parametrize(
    ("unnamed", "named", "message"),
    [
        (("5ms",), {}, "gil('5ms'): name the limit: max_hold, max_wait, releases"),
        ((), {}, "gil() has no limit: give it one of max_hold, max_wait, releases"),
        ((), {"hold": "5ms"}, "gil(hold='5ms'): there is no such limit; there are max_hold, max_wait, releases"),
        ((), {"max_wait": 5}, 'gil(max_wait=5): 5 is no duration: write a number and ns, us, ms, s or m, like "5ms"'),
        ((), {"max_wait": "5"}, "gil(max_wait='5'): '5' is no duration: write a number and"),
        ((), {"releases": "90%"}, "gil(releases='90%'): '90%' is no share: write a number from 0 to 1, like 0.9"),
        ((), {"releases": True}, "gil(releases=True): True is no share"),
        ((), {"releases": 1.5}, "gil(releases=1.5): 1.5 is no share"),
    ],
)
def test_a_wrong_mark_is_told_in_one_line(unnamed: tuple[object, ...], named: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=r"^gil\(") as refused:
        Limits.of([(unnamed, named)])
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)
