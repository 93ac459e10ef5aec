"""Where waited time went: split by cause, and attributed to the holds that took it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.measure import attribution, blame
from giltrace.analysis.measure.attribution import attribute
from giltrace.analysis.measure.blame import find_blame
from giltrace.analysis.measure.decomposition import decompose
from giltrace.analysis.measure.roles import roles
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.measure.wait_causes import wait_causes
from giltrace.analysis.results import WaitDecomposition
from giltrace.analysis.site import Site
from giltrace.timeline.model import HOLD, STATE, SWITCH_REQUEST, WAIT, Process, Stacks, State
from tests.synthetic import make_process
from tests.unit.analysis_stacks import own_site, stack_table, with_stacks
from tests.unit.gil_events import MS, PID, Kernel, Script, process

VICTIM, CULPRIT, SAMPLED = ("ask", "victim.py", 7), ("give", "culprit.py", 9), ("crunch", "culprit.py", 4)


def hog(kernel: Kernel | None = None) -> Process:
    """Thread 0 holds 0-30 ms, asked at 12 and 17 ms; thread 1 waits 7-31 ms and holds until 32 ms."""
    script = Script().acquire(0, 0).request(7 * MS, 1).timeout(12 * MS, 1).timeout(17 * MS, 1).release(30 * MS, 0)
    return process(script.acquire(31 * MS, 1).release(32 * MS, 1), kernel)


def random_process(gils: int, seed: int) -> Process:
    """A process with random switch requests and random stretches without a core."""
    made = make_process(gils=gils, threads=4, holds=300, seed=seed, empty_holds=True)
    random = np.random.default_rng(seed)
    asked = np.zeros(200, SWITCH_REQUEST)
    asked["time"] = np.sort(random.integers(made.start, made.end, 200))
    asked["gil"] = random.integers(0, gils, 200)
    held = made.holds[random.integers(0, len(made.holds), 100)]
    states = np.zeros(100, STATE)
    states["thread"] = held["thread"]
    states["start"] = held["start"] + (held["end"] - held["start"]) // 3
    states["end"] = held["end"] - (held["end"] - held["start"]) // 4
    states["state"] = random.choice([State.HOLDING_RUNNABLE, State.HOLDING_BLOCKED], 100)
    states = states[np.lexsort((states["start"], states["thread"]))]
    return replace(made, switch_requests=asked, states=states)


def test_a_wait_behind_c_code() -> None:
    assert decompose(hog()) == WaitDecomposition(5 * MS, 18 * MS, 0, 1 * MS)


def test_time_in_which_the_holder_had_no_core_is_neither_python_nor_c() -> None:
    kernel = Kernel().run(0, 8 * MS, PID).on(10 * MS, PID).off(20 * MS, PID, preempted=True).run(22 * MS, 32 * MS, PID)
    kernel.run(31 * MS, 32 * MS, 101, 1).ended(32 * MS, PID).ended(32 * MS, 101).ended(32 * MS, 102)
    # Blocked 8-10 ms, before the request at 12 ms; runnable 20-22 ms, after it.
    assert decompose(hog(kernel)) == WaitDecomposition(3 * MS, 16 * MS, 4 * MS, 1 * MS, 2 * MS, 2 * MS)


def test_a_holder_that_only_lost_its_core_after_the_request_is_not_in_c() -> None:
    kernel = Kernel().on(0, PID).off(12 * MS + 1000, PID, preempted=True).run(29 * MS + 500_000, 32 * MS, PID)
    kernel.ended(32 * MS, PID).ended(32 * MS, 101).ended(32 * MS, 102)
    found = decompose(hog(kernel))
    assert (found.holder_c_ns, found.holder_no_core_ns, found.holder_blocked_ns) == (0, 17 * MS + 499_000, 0)
    assert found.total_ns == 24 * MS


@pytest.mark.parametrize(("gils", "seed"), [(1, 1), (1, 2), (2, 3), (3, 4)])
def test_causes_add_up_to_every_wait(gils: int, seed: int) -> None:
    made = random_process(gils, seed)
    causes = wait_causes(made)
    assert (causes >= 0).all()
    assert (causes.sum(axis=1) == made.waits["end"] - made.waits["start"]).all()
    assert (causes.sum(axis=0) > 0).all()
    told = decompose(made)
    assert told.holder_off_core_ns == causes[:, 2:4].sum()
    assert [told.holder_python_ns, told.holder_c_ns, told.wake_up_ns] == causes[:, [0, 1, 4]].sum(axis=0).tolist()


def test_overlapping_holds_of_a_damaged_recording_count_once() -> None:
    damaged = hog()
    holds = np.repeat(damaged.holds, 2)
    holds["end"][1] -= MS
    damaged = replace(damaged, holds=holds)
    assert decompose(damaged).total_ns == 24 * MS
    (pair,) = find_blame(damaged).pairs
    assert pair.ns == 23 * MS


def test_nothing_on_record() -> None:
    empty = process(Script().acquire(0, 0).release(5, 0))
    assert decompose(empty) == WaitDecomposition(0, 0, 0, 0)
    assert find_blame(empty) == ((), (), (), (), 0, 0)
    bare = replace(empty, holds=np.empty(0, HOLD), waits=np.empty(0, WAIT), gils=0)
    assert decompose(bare).total_ns == 0
    assert find_blame(bare).pairs == ()


def test_blame_without_stacks_names_threads() -> None:
    (pair,) = find_blame(hog()).pairs
    assert (pair.victim, pair.culprit) == (Site("thread-*"), Site("thread-*"))
    assert (pair.ns, pair.waits, pair.max_ns) == (23 * MS, 1, 23 * MS)
    assert (pair.victim_stack, pair.culprit_stack) == ((), ())


def test_functions_take_their_lines_together() -> None:
    encoder = ("iterencode", "/usr/lib/python3.11/json/encoder.py", 257)
    stacks = [[VICTIM, ("main", "app.py", 1)], [("crunch", "app.py", 4)], [encoder, ("crunch", "app.py", 5)]]
    tables = find_blame(with_stacks(hog(), stacks, hold={0: 1, 1: 1}, wait={1: 0}, request={0: 2}))
    (row,) = tables.functions
    assert row.victim == Site("thread-*", "ask", "victim.py", 0)
    assert row.culprit == Site("thread-*", "crunch", "app.py", 0)
    assert (row.ns, row.waits, row.max_ns) == (23 * MS, 1, 23 * MS)
    by_line = {pair.culprit: pair.ns for pair in tables.pairs}
    assert {line.site: line.ns for line in row.culprit_lines} == by_line
    assert Site("thread-*", *encoder, False, "crunch", "app.py", 5) in by_line
    assert sum(by_line.values()) == sum(line.ns for line in row.victim_lines) == row.ns


def test_blame_names_the_line_sampled_at_the_request() -> None:
    stacks = [[VICTIM, ("main", "app.py", 1)], [CULPRIT], [SAMPLED, ("run", "app.py", 3)]]
    told = with_stacks(hog(), stacks, hold={0: 1, 1: 1}, wait={1: 0}, request={0: 2, 1: 1}, truncated=[2])
    tables = find_blame(told)
    (pair,) = tables.pairs
    assert pair.victim == own_site("thread-*", "ask", "victim.py", 7)
    assert pair.culprit == own_site("thread-*", "crunch", "culprit.py", 4)
    assert pair.victim_stack == ("ask (victim.py:7)", "main (app.py:1)")
    assert pair.culprit_stack == ("crunch (culprit.py:4)", "run (app.py:3)", "...")
    unsampled = with_stacks(hog(), stacks, hold={0: 1, 1: 1}, wait={1: 0})
    assert find_blame(unsampled).pairs[0].culprit.function == "give"


def test_both_directions_add_up_the_pairs() -> None:
    made = make_process(threads=5, holds=400, names=("main", "cpu-1", "cpu-2", "disk", "net"))
    tables = find_blame(made)
    assert [p.ns for p in tables.pairs] == sorted((p.ns for p in tables.pairs), reverse=True)
    for side, totals in (("victim", tables.victims), ("culprit", tables.culprits)):
        for total in totals:
            own = [pair for pair in tables.pairs if getattr(pair, side) == total.site]
            assert total.ns == sum(pair.ns for pair in own)
            assert total.max_ns >= max(pair.max_ns for pair in own)
    assert {t.site.thread for t in tables.culprits} == {"main", "cpu-*", "disk", "net"}
    assert sum(t.waits for t in tables.victims) <= len(made.waits)
    lost = decompose(made)
    assert sum(pair.ns for pair in tables.pairs) == lost.total_ns - lost.wake_up_ns


def slowly(made: Process, victim: np.ndarray, culprit: np.ndarray) -> dict[tuple[int, int], tuple[int, int, int]]:
    """Blame by two plain loops: (ns, waits, longest) by pair of classes."""
    found: dict[tuple[int, int], list[int]] = {}
    for number, wait in enumerate(made.waits):
        own: dict[int, int] = {}
        for index, hold in enumerate(made.holds):
            lost = int(min(wait["end"], hold["end"]) - max(wait["start"], hold["start"]))
            if hold["gil"] == wait["gil"] and lost > 0:
                own[int(culprit[index])] = own.get(int(culprit[index]), 0) + lost
        for kind, lost in own.items():
            found.setdefault((int(victim[number]), kind), []).append(lost)
    return {pair: (sum(lost), len(lost), max(lost)) for pair, lost in found.items()}


@pytest.mark.parametrize("pass_cost", [0.0, 1e9])
@pytest.mark.parametrize("gils", [1, 2])
def test_both_ways_to_attribute_agree_with_plain_loops(
    gils: int, pass_cost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribution, "_PASS_COST", pass_cost)
    monkeypatch.setattr(attribution, "CHUNK", 50)
    made = make_process(threads=4, holds=120, gils=gils, empty_holds=True)
    random = np.random.default_rng(5)
    victim, culprit = random.integers(0, 3, len(made.waits)), random.integers(0, 6, len(made.holds))
    shares = attribute(made, victim, culprit)
    told = {
        (int(v), int(c)): (int(ns), int(waits), int(most))
        for v, c, ns, waits, most in zip(
            shares.victim, shares.culprit, shares.ns, shares.waits, shares.max_ns, strict=True
        )
    }
    assert told == slowly(made, victim, culprit)
    assert (victim[shares.wait] == shares.victim).all()


Row = tuple[int, int, int]


def slow_blame(made: Process) -> tuple[dict[tuple[Site, Site], Row], dict[Site, Row], dict[Site, Row]]:
    """(ns, waits, longest) by pair of sites, by victim and by culprit, by plain loops."""
    sites = Sites(made)
    victim = sites.classify(made.waits["thread"], sites.wait_stacks())
    culprit = sites.classify(made.holds["thread"], sites.hold_stacks())
    pairs = {
        (victim.sites[v], culprit.sites[c]): row for (v, c), row in slowly(made, victim.of_row, culprit.of_row).items()
    }
    whole = slowly(made, victim.of_row, np.zeros(len(made.holds), np.int64))
    totals: dict[Site, Row] = {}
    for (_, site), (ns, waits, most) in pairs.items():
        known = totals.get(site, (0, 0, 0))
        totals[site] = known[0] + ns, known[1] + waits, max(known[2], most)
    return pairs, {victim.sites[v]: row for (v, _), row in whole.items()}, totals


def worst_stacks(made: Process, of: Site, by: Site, most: int) -> set[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The stacks of every wait of site `of` that lost `most` to `by`, with those of the holds that took most."""
    sites = Sites(made)
    hold_stack = sites.hold_stacks()
    victim = sites.classify(made.waits["thread"], sites.wait_stacks())
    culprit = sites.classify(made.holds["thread"], hold_stack)
    found = set()
    for wait in np.flatnonzero(victim.of_row == victim.sites.index(of)).tolist():
        row = made.waits[wait]
        lost = np.minimum(made.holds["end"], row["end"]) - np.maximum(made.holds["start"], row["start"])
        mine = (made.holds["gil"] == row["gil"]) & (culprit.of_row == culprit.sites.index(by)) & (lost > 0)
        if lost[mine].sum() == most:
            longest = np.flatnonzero(mine & (lost == lost[mine].max()))
            own = sites.stack(int(sites.wait_stacks()[wait]))
            found |= {(own, sites.stack(int(hold_stack[hold]))) for hold in longest}
    return found


@pytest.mark.parametrize("pass_cost", [0.0, 1e9])
@pytest.mark.parametrize(("gils", "lines", "most"), [(1, 3, 1000), (1, 40, 1000), (2, 12, 1000), (3, 40, 25)])
def test_blame_of_many_lines_agrees_with_plain_loops(
    gils: int, lines: int, most: int, pass_cost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribution, "_PASS_COST", pass_cost)
    monkeypatch.setattr(attribution, "CHUNK", 20)
    monkeypatch.setattr(blame, "MOST_ROWS", most)
    made = make_process(threads=7, holds=150, gils=gils, empty_holds=True, names=[f"cpu-{i}" for i in range(7)])
    random = np.random.default_rng(lines)
    # As where a recording is cut: some waits end within a hold.
    waits = made.waits.copy()
    waits["end"] -= random.integers(0, 2, len(waits)) * random.integers(0, waits["end"] - waits["start"] + 1)
    made = replace(made, waits=waits)
    # Two stacks for each line: which of them is told must be right, too.
    table = stack_table([[("f", "a.py", i // 2), ("g", "a.py", i)] for i in range(2 * lines)])
    numbers = [random.integers(-1, 2 * lines, len(rows)) for rows in (made.holds, made.waits, made.switch_requests)]
    hold, wait, asked = (number.astype(np.int32) for number in numbers)
    made = replace(made, stacks=Stacks(table, hold, hold, wait, asked))

    tables = find_blame(made)
    pairs, victims, culprits = slow_blame(made)
    assert len(tables.pairs) == min(len(pairs), most)
    for told, expected in (
        ({(row.victim, row.culprit): (row.ns, row.waits, row.max_ns) for row in tables.pairs}, pairs),
        ({row.site: (row.ns, row.waits, row.max_ns) for row in tables.victims}, victims),
        ({row.site: (row.ns, row.waits, row.max_ns) for row in tables.culprits}, culprits),
    ):
        assert told.items() <= expected.items()
        # In order, and no larger one left out.
        largest = sorted((row[0] for row in expected.values()), reverse=True)[:most]
        assert [row[0] for row in told.values()] == largest
    for row in tables.pairs:
        assert (row.victim_stack, row.culprit_stack) in worst_stacks(made, row.victim, row.culprit, row.max_ns)
    for total in tables.culprits:
        worst = [of for (of, by), (_, _, longest) in pairs.items() if (by, longest) == (total.site, total.max_ns)]
        assert total.stack in {by for of in worst for _, by in worst_stacks(made, of, total.site, total.max_ns)}


def test_roles_fold_numbers_only_where_threads_share_them() -> None:
    made = make_process(threads=6, names=("MainThread", "pool-0_1", "pool-0_2", "worker-7", "", "stage2"))
    made = replace(made, threads=tuple(t._replace(name="" if i == 4 else t.name) for i, t in enumerate(made.threads)))
    assert roles(made) == ("MainThread", "pool-*_*", "pool-*_*", "worker-7", "tid 4246", "stage2")


def test_equal_lines_are_one_site_whatever_their_stacks() -> None:
    stacks = [[VICTIM, ("a", "x.py", 1)], [VICTIM, ("b", "x.py", 2)], [("ask", "victim.py", 8)], []]
    made = with_stacks(hog(), stacks)
    kinds = Sites(made).classify(np.array([0, 0, 0, 0, 0]), np.array([0, 1, 2, 3, -1]))
    first, second, other, empty, unknown = kinds.of_row.tolist()
    assert first == second
    assert len({first, other, empty}) == 3
    assert empty == unknown
    assert [kinds.sites[i].line for i in (first, other, empty)] == [7, 8, 0]
