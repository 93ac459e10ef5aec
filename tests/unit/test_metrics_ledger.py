"""Sums over processes that come and go: none ever shrinks, whoever asks, and all stay bounded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from giltrace.metrics.families import FAMILIES, Kind, Lengths
from giltrace.metrics.ledger import MOST_GILS, MOST_ROLES, MOST_ROLES_ELSEWHERE, NAME, OTHER, Ledger
from giltrace.metrics.reading import CauseReading, Counts, LineReading, ProcessReading
from giltrace.metrics.sketch import MOST_LINES, Sketch
from giltrace.metrics.totals import Totals
from tests.made_readings import SECOND, MadePages, counts, ended, line, reading


def held(totals: Totals) -> dict[str, int]:
    return {role.role: role.counts.holds for role in totals.roles}


def growing(totals: Totals) -> dict[tuple[str, ...], float]:
    """Every figure that may only grow."""
    found: dict[tuple[str, ...], float] = {}
    for family in FAMILIES:
        if family.kind is Kind.GAUGE:
            continue
        for labels, value in family.points(totals):
            if isinstance(value, Lengths):
                found |= {(family.name, *labels, str(at)): float(n) for at, n in enumerate(value.buckets)}
                found |= {(family.name, *labels, "sum"): value.seconds}
            else:
                found |= {(family.name, *labels): value}
    return found


def test_what_is_new_goes_to_the_sums() -> None:
    pages = MadePages(reading(roles={"a": counts(3)}))
    ledger = Ledger(pages)
    assert held(ledger.update()) == {"a": 3}
    assert held(ledger.update()) == {"a": 3}
    pages.readings = (reading(roles={"a": counts(5), "b": counts(1)}),)
    assert held(ledger.update()) == {"a": 5, "b": 1}


def test_processes_are_summed_and_one_that_ended_leaves_what_it_had() -> None:
    first, second = reading(1, roles={"a": counts(3)}), reading(2, roles={"a": counts(4)})
    pages = MadePages(first, second)
    ledger = Ledger(pages)
    assert held(ledger.update()) == {"a": 7}
    last = ended(reading(1, roles={"a": counts(10)}))
    pages.readings = (last, second)
    totals = ledger.update()
    assert held(totals) == {"a": 14}
    assert [one.pid for one in totals.processes] == [2]
    assert totals.ended == 1
    assert pages.forgotten == [1]
    assert held(ledger.update()) == {"a": 14}
    # Another process may get its number.
    pages.readings = (reading(1, roles={"a": counts(2)}, started=7), second)
    assert held(ledger.update()) == {"a": 16}


def test_one_that_was_never_seen_alive_is_counted_once() -> None:
    pages = MadePages(ended(reading(1, roles={"a": counts(3)})))
    totals = Ledger(pages).update()
    assert held(totals) == {"a": 3}
    assert totals.ended == 1


def test_a_file_that_is_gone_without_last_words_takes_nothing_away() -> None:
    pages = MadePages(reading(1, roles={"a": counts(3)}))
    ledger = Ledger(pages)
    ledger.update()
    pages.readings = ()
    totals = ledger.update()
    assert held(totals) == {"a": 3}
    assert totals.ended == 1


def test_a_figure_that_flickers_is_not_counted_twice() -> None:
    pages = MadePages(reading(roles={"a": counts(10)}))
    ledger = Ledger(pages)
    for said, expected in ((10, 10), (8, 10), (10, 10), (12, 12)):
        pages.readings = (reading(roles={"a": counts(said)}),)
        assert held(ledger.update()) == {"a": expected}


def test_roles_are_bounded_and_others_stay_others() -> None:
    roles = {f"role {at}": counts(1) for at in range(100)}
    pages = MadePages(reading(roles=roles))
    ledger = Ledger(pages)
    for at in range(1, 4):
        pages.readings = (reading(roles={role: counts(at) for role in roles}),)
        totals = ledger.update()
        assert len(totals.roles) == MOST_ROLES
        assert totals.counts.holds == 100 * at
        assert held(totals)[OTHER] == (100 - MOST_ROLES + 1) * at
    threads = {role.role: role.threads for role in totals.roles}
    assert threads[OTHER] == 100 - MOST_ROLES + 1


def test_gils_are_told_apart_and_bounded(tmp_path: Path) -> None:
    elsewhere = {(f"{role} in it", str(gil)): counts(1) for gil in range(1, 40) for role in "abcdefghijk"}
    pages = MadePages(reading(elsewhere=elsewhere))
    for at in range(1, 4):
        pages.readings = (reading(elsewhere={key: counts(at) for key in elsewhere}),)
        totals = Ledger(pages, tmp_path).update()
        apart = {
            gil: [role for role in totals.roles if role.gil == gil] for _, gil in [role.key for role in totals.roles]
        }
        assert set(apart) == {*map(str, range(MOST_GILS - 1)), OTHER}
        assert (
            {len(apart[str(gil)]) for gil in range(1, MOST_GILS - 1)} == {MOST_ROLES_ELSEWHERE} == {len(apart[OTHER])}
        )
        assert sum(role.counts.holds for role in apart["3"]) == 11 * at
        assert totals.counts.holds == 39 * 11 * at + 1
        assert [role.counts.holds for role in totals.whole_roles if role.role == "a in it"] == [39 * at]


def test_the_busiest_gil_of_a_process_is_told() -> None:
    """Two that are held half of the time each are no single one that is held all of it."""
    pages = MadePages(
        reading(at=1.5, roles={"a": counts(200)}, elsewhere={("a", "1"): counts(500), ("b", "2"): counts(1)})
    )
    assert Ledger(pages).update().busiest == pytest.approx(0.5)


def test_lines_are_bounded_and_the_costliest_are_there() -> None:
    lines = tuple(line(number, number * SECOND) for number in range(1, 121))
    pages = MadePages(reading(culprits=lines))
    ledger = Ledger(pages)
    totals = ledger.update()
    assert len(totals.culprits) == MOST_LINES
    # Space-saving: what has more than its share of the room is never missing.
    share = sum(one.ns for one in lines) / MOST_LINES
    assert {one.line for one in totals.culprits} >= {one.line for one in lines if one.ns > share}
    pages.readings = (reading(culprits=(line(120, 200 * SECOND), *lines[:-1])),)
    assert ledger.update().culprits[0].line == 120


def test_a_line_that_made_room_and_came_back_is_not_counted_twice() -> None:
    pages = MadePages(reading(culprits=(line(1, 5 * SECOND),)))
    ledger = Ledger(pages)
    ledger.update()
    pages.readings = (reading(culprits=()),)
    ledger.update()
    # It took over 7 s from the one whose room it has now; 1 s is its own.
    pages.readings = (reading(culprits=(line(1, 8 * SECOND, error_ns=7 * SECOND),)),)
    (found,) = ledger.update().culprits
    assert found.ns == 6 * SECOND


def test_causes_are_summed() -> None:
    pages = MadePages(reading(causes=(CauseReading("lock", 2, 50, 0),)))
    ledger = Ledger(pages)
    ledger.update()
    pages.readings = (reading(causes=(CauseReading("lock", 3, 90, 20), CauseReading("queue", 1, 5, 0))),)
    causes = {cause.cause: (cause.blocks, cause.blocked_ns) for cause in ledger.update().causes}
    assert causes == {"lock": (3, 70), "queue": (1, 5)}


def test_the_longest_is_that_of_the_last_minute_however_often_one_asks() -> None:
    pages = MadePages()
    ledger = Ledger(pages)
    told = {}
    for at in range(1, 80):
        longest = 9_000_000 if at == 10 else 1_000_000
        pages.readings = (reading(at=at, roles={"a": counts(at, longest=longest)}),)
        (role,) = ledger.update().roles
        told[at] = role.counts.longest_wait_ns
    assert told[9] == 1_000_000
    assert {told[at] for at in range(10, 65)} == {9_000_000}
    assert told[79] == 1_000_000


def test_the_busiest_process_is_told_and_only_of_the_last_minute() -> None:
    def at(second: float, busy: float, idle: float) -> tuple[ProcessReading, ...]:
        held = (Counts(held_ns=round(one * SECOND)) for one in (busy, idle))
        return tuple(reading(pid, second, {"a": one}, started=0) for pid, one in zip((1, 2), held, strict=True))

    pages = MadePages(*at(10, 5, 0))
    ledger = Ledger(pages)
    assert ledger.update().busiest == 0.5
    for second in range(11, 200):
        pages.readings = at(second, 5, 0.25 * (second - 10))
        totals = ledger.update()
    # The first has done nothing for minutes.
    assert totals.busiest == pytest.approx(0.25, abs=0.01)


def test_several_keep_one_ledger(tmp_path: Path) -> None:
    pages = MadePages(reading(1, roles={"a": counts(3)}), reading(2, roles={"a": counts(4)}))
    one, other = Ledger(pages, tmp_path), Ledger(pages, tmp_path)
    assert held(one.update()) == held(other.update()) == {"a": 7}
    pages.readings = (ended(reading(1, roles={"a": counts(10)})), pages.readings[1])
    assert held(one.update()) == {"a": 14}
    # Another's pages still have its last words: that reader had the file open.
    stale = MadePages(ended(reading(1, roles={"a": counts(10)})), pages.readings[0])
    totals = Ledger(stale, tmp_path).update()
    assert held(totals) == {"a": 14}
    assert totals.ended == 1
    assert stale.forgotten == [1]
    assert held(other.update()) == {"a": 14}


def test_a_reader_that_ends_before_it_could_tidy_up_counts_nothing_twice(tmp_path: Path) -> None:
    last = ended(reading(1, roles={"a": counts(3)}))
    pages = MadePages(last)
    Ledger(pages, tmp_path).update()
    pages.readings = (last,)  # its file is there still
    totals = Ledger(pages, tmp_path).update()
    assert held(totals) == {"a": 3}
    assert totals.ended == 1


def test_what_is_kept_is_what_there_was(tmp_path: Path) -> None:
    told = reading(
        at=30.0,
        roles={"a": counts(3, waits=2, longest=77), "b": counts(9)},
        culprits=(line(3, 4 * SECOND, error_ns=1), replace(line(4, 5), collecting=True)),
        causes=(CauseReading("lock", 2, 50, 0),),
    )
    first = Ledger(MadePages(told), tmp_path).update()
    again = Ledger(MadePages(told), tmp_path).update()
    assert again == first


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b'{"version": 99}', b'{"version": 2}', b"\xff\x00"])
def test_a_ledger_that_is_damaged_begins_anew(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / NAME).write_bytes(damage)
    pages = MadePages(reading(roles={"a": counts(3)}))
    assert held(Ledger(pages, tmp_path).update()) == {"a": 3}
    assert json.loads((tmp_path / NAME).read_bytes())["version"] == 3


def test_an_interval_has_what_was_added_in_it() -> None:
    pages = MadePages(reading(at=1, roles={"a": counts(3)}, culprits=(line(1, 5), line(2, 50))))
    ledger = Ledger(pages)
    before = ledger.update()
    pages.readings = (
        reading(at=3, roles={"a": counts(10), "b": counts(1)}, culprits=(line(1, 9, times=4), line(2, 50), line(3, 6))),
    )
    new = ledger.update().since(before)
    assert held(new) == {"a": 7, "b": 1}
    assert [(one.line, one.ns, one.times) for one in new.culprits] == [(3, 6, 1), (1, 4, 3)]
    assert new.at_ns - new.started_ns == 2 * SECOND


def test_time_without_a_line_is_told_and_never_shrinks(tmp_path: Path) -> None:
    pages = MadePages(replace(reading(1), unnamed_ns=(5, 0, 7)), replace(reading(2), unnamed_ns=(1, 2, 0)))
    ledger = Ledger(pages, tmp_path)
    first = ledger.update()
    assert first.unnamed_ns == (6, 2, 7)
    pages.readings = (replace(reading(1), unnamed_ns=(9, 0, 6)), ended(pages.readings[1]))
    now = Ledger(pages, tmp_path).update()
    assert now.unnamed_ns == (10, 2, 7)
    assert now.since(first).unnamed_ns == (4, 0, 0)


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 1000)),
        min_size=1,
        max_size=300,
    ),
    st.integers(1, 12),
)
def test_a_sketch_never_tells_too_little_and_knows_its_error(costs: list[tuple[int, int]], most: int) -> None:
    sketch, true = Sketch(most), dict[int, int]()
    before: dict[int, int] = {}
    for number, ns in costs:
        sketch.add(line(number, 0), ns, 1)
        true[number] = true.get(number, 0) + ns
        found = {one.line: one for one in sketch.lines()}
        assert len(found) <= most
        for one in found.values():
            assert true[one.line] <= one.ns <= true[one.line] + one.error_ns
            assert one.ns >= before.get(one.line, 0)
            before[one.line] = one.ns
        assert Sketch.from_json(sketch.to_json()).lines() == sketch.lines()


_roles = st.dictionaries(st.sampled_from([f"r{n}" for n in range(40)]), st.integers(0, 50), max_size=6)
_lines = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 10**9), st.integers(0, 10**6)), max_size=8)
_steps = st.lists(st.tuples(st.integers(1, 4), _roles, _lines, st.booleans()), min_size=1, max_size=40)


@given(_steps)
@settings(max_examples=60, deadline=None)
def test_nothing_ever_shrinks_whatever_the_processes_say(
    steps: Iterable[tuple[int, dict[str, int], list[tuple[int, int, int]], bool]],
) -> None:
    """Not even where they say less than before, which torn readings of a page may."""
    pages = MadePages()
    ledger = Ledger(pages)
    before: dict[tuple[str, ...], float] = {}
    generation = dict.fromkeys(range(1, 5), 0)
    for at, (pid, roles, costs, ends) in enumerate(steps):
        lines: tuple[LineReading, ...] = tuple(
            {n: line(n, ns + error, error_ns=error) for n, ns, error in costs}.values()
        )
        told = {role: counts(holds, waits=holds) for role, holds in roles.items()}
        one = reading(pid, 10.0 + at, told, lines, started=float(generation[pid]))
        generation[pid] += ends
        others = tuple(each for each in pages.readings if each.pid != pid)
        pages.readings = (*others, ended(one) if ends else one)
        now = growing(ledger.update())
        assert {key: (was, now[key]) for key, was in before.items() if key in now and now[key] < was} == {}
        before |= now
