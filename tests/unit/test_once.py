"""What is worked out of a process once, and in pieces, is what it would be at once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from giltrace.analysis.findings import phases
from giltrace.analysis.measure.at_once import at_once, levels
from giltrace.analysis.replay import rows
from giltrace.analysis.replay.native_locks import Wakes
from giltrace.analysis.replay.program import read_program
from giltrace.analysis.report import analyse
from giltrace.analysis.summary import summarise
from giltrace.recording.events import SWITCH
from giltrace.recording.order import joined, smallest
from giltrace.timeline import states
from giltrace.timeline.load import load
from giltrace.timeline.model import STATE, Process, State
from giltrace.timeline.once import once
from tests.unit.gil_events import MS, Kernel, Script, process, timeline
from tests.unit.test_gathering import World
from traces.regenerate import unpack


def test_it_is_worked_out_once_for_each_question_and_anew_for_another_process() -> None:
    asked: list[tuple[int, int]] = []

    @once
    def holds(one: Process, at_least: int) -> int:
        asked.append((len(one.holds), at_least))
        return int(((one.holds["end"] - one.holds["start"]) >= at_least).sum())

    made = process(Script().hold(0, 10, 0).hold(20, 25, 0))
    assert [holds(made, least) for least in (1, 6, 1, 6)] == [2, 1, 2, 1]
    fewer = replace(made, holds=made.holds[:1])
    assert [holds(fewer, 1), holds(made, 1)] == [1, 2]
    assert asked == [(2, 1), (2, 6), (1, 1)]


def test_nothing_of_it_is_left_after_a_report() -> None:
    world = World(1)
    whole = timeline([world.recorded(2)], world.kernel, end=world.time)
    assert analyse(whole).processes
    assert summarise(whole).processes
    assert [one.known for one in whole.processes] == [{}]


@pytest.mark.parametrize("seed", range(20))
def test_the_smallest_are_the_first_of_all_in_order(seed: int) -> None:
    chance = np.random.default_rng(seed)
    values = chance.integers(0, 20, chance.integers(0, 60))
    for count in (1, 7, 59, 60, 100):
        assert smallest(values, count).tolist() == np.argsort(values, kind="stable")[:count].tolist()


def test_parts_are_joined_and_let_go_of() -> None:
    parts = [np.zeros(size, SWITCH) for size in (3, 0, 2)]
    for number, part in enumerate(parts):
        part["tid"] = number
    found = joined(iter(parts), SWITCH)
    assert (found.dtype, found["tid"].tolist()) == (SWITCH, [0, 0, 0, 2, 2])
    assert len(joined([], SWITCH)) == 0


def _random_states(seed: int) -> np.ndarray:
    chance = random.Random(seed)
    found = []
    for thread in range(chance.randint(1, 4)):
        at = chance.randint(0, 20)
        for _ in range(chance.randint(1, 30)):
            end = at + chance.randint(1, 9)
            found.append((at, end, thread, chance.randrange(len(State))))
            at = end
    return np.array(found, STATE)


def _instants(table: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Each ns, and the states of the threads that live then."""
    for now in range(int(table["start"].min()), int(table["end"].max())):
        yield now, table["state"][(table["start"] <= now) & (now < table["end"])].tolist()


@pytest.mark.parametrize("seed", range(25))
def test_levels_are_what_is_counted_at_each_instant(seed: int) -> None:
    table = _random_states(seed)
    kinds = ((State.OFF_RUNNING, State.HOLDING_RUNNING), (State.OFF_RUNNING,), (State.WAITING,))
    time, counts = next(levels(table, kinds), (np.empty(0, np.int64), [np.empty(0, np.int64)] * len(kinds)))
    for now, there in _instants(table):
        at = int(np.searchsorted(time, now, "right")) - 1
        told = [int(one[at]) if 0 <= at < len(one) else 0 for one in counts]
        assert told == [sum(state in kind for state in there) for kind in kinds]


@pytest.mark.parametrize("seed", range(25))
def test_threads_at_once_are_what_is_counted_at_each_instant(seed: int) -> None:
    table = _random_states(seed)
    running = {State.HOLDING_RUNNING, State.OFF_RUNNING}
    ready = running | {State.HOLDING_RUNNABLE, State.OFF_RUNNABLE}
    had = {State.HOLDING_RUNNING, State.HOLDING_BLOCKED}
    ran, could, several, held, starved = 0, 0, 0, 0, 0
    for now, there in _instants(table):
        runs, readies = (sum(state in kind for state in there) for kind in (running, ready))
        ran, could, several = ran + (runs > 0), could + (readies > 0), several + (readies > 1)
        lacks = readies > 0 and not runs
        starved += lacks and 30 <= now < 60
        held += any(state in had for state in there) and not lacks and 30 <= now < 60
    one = replace(process(Script().hold(0, 1, 0)), states=table)
    assert at_once(one, 30, 60) == (ran, could, several, held, starved)


@pytest.mark.parametrize("most", [10_000, 7])
@pytest.mark.parametrize("seed", range(20))
def test_running_that_goes_on_is_one_row_and_the_same_program(
    seed: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(seed)
    made = timeline([world.recorded(2)], world.kernel, end=world.time).processes[0]
    monkeypatch.setattr(rows, "MOST_STEPS", most)
    monkeypatch.setattr(rows, "_PIECE", most)
    found = [read_program(made, 2, Wakes.none(), woken=woken) for woken in (False, True)]
    fewer = rows.read_rows(made)
    monkeypatch.setattr(rows, "_joined", lambda each, kept: each.keep(kept))
    plain = replace(made)
    for one, woken in zip(found, (False, True), strict=True):
        other = read_program(plain, 2, Wakes.none(), woken=woken)
        for name in ("first", "delay", "cpu", "awaits"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist()
        assert (one.spawns, one.roots, one.tail) == (other.spawns, other.roots, other.tail)
    assert len(fewer.thread) < len(rows.read_rows(plain).thread)


@pytest.mark.parametrize("seed", range(10))
def test_threads_that_are_tiled_a_few_at_a_time_are_in_the_same_states(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(seed)
    recorded = world.recorded(1)
    whole = timeline([recorded], world.kernel, end=world.time).processes[0]
    for piece in (1, 50):
        monkeypatch.setattr(states, "_PIECE", piece)
        found = timeline([recorded], world.kernel, end=world.time).processes[0]
        assert found.states.tolist() == whole.states.tolist()


def test_a_file_that_is_read_a_piece_at_a_time_has_the_same_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = unpack("sqlite_threads", tmp_path)
    (whole,) = load(recording).processes
    monkeypatch.setattr("giltrace.recording.gil._PIECE", 100)
    (found,) = load(recording).processes
    for name in ("holds", "waits", "switch_requests", "states"):
        assert getattr(found, name).tolist() == getattr(whole, name).tolist()


def test_a_process_of_one_character_is_not_judged_for_its_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    script, kernel = Script(), Kernel()
    for at in range(0, 2000 * MS, 10 * MS):
        script.hold(at, at + 5 * MS, 0)
        kernel.run(at, at + 6 * MS, script.tids[0], 0)
    whole = timeline(script, kernel)
    judged: list[Process] = []
    monkeypatch.setattr(phases, "judge", judged.append)
    assert phases.find_phases(whole.processes[0], whole) == ()
    assert judged == []
