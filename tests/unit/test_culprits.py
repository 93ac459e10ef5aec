"""Who held the GIL during each wait, against plain loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.measure import attribution, culprits
from giltrace.analysis.measure.culprits import MOST, Culprits, find_culprits
from giltrace.analysis.measure.stretches import stretches
from giltrace.timeline.model import HOLD, SAMPLE, WAIT, Process, Stacks
from tests.synthetic import make_process
from tests.unit.analysis_stacks import stack_table
from tests.unit.gil_events import MS, Script, process

LINES = 6


def random_process(gils: int, threads: int, seed: int) -> Process:
    """Many holds of several threads, sampled now and then; some waits go on for many of them."""
    made = make_process(gils=gils, threads=threads, holds=150, seed=seed, empty_holds=True)
    random = np.random.default_rng(seed)
    waits = made.waits.copy()
    waits["end"][::3] += 20 * (waits["end"] - waits["start"]).max()
    waits["start"][::4] += random.integers(0, 1_000_000, len(waits[::4]))
    waits["end"] = np.maximum(waits["end"], waits["start"] + 1)
    samples = np.zeros(600, SAMPLE)
    samples["time"] = np.sort(random.integers(made.start, made.end, len(samples)))
    samples["gil"] = random.integers(0, gils, len(samples))
    table = stack_table([[(f"f{at}", "a.py", at + 1)] for at in range(LINES)])

    def some(count: int) -> np.ndarray:
        return random.integers(-1, LINES, count).astype(np.int32)

    held = some(len(made.holds))
    asked = some(len(made.switch_requests))
    stacks = Stacks(table, held, held, some(len(waits)), asked, some(len(samples)))
    return replace(made, waits=waits[np.argsort(waits["start"], kind="stable")], samples=samples, stacks=stacks)


def told(made: Process) -> tuple[Culprits, np.ndarray]:
    """The culprits, and the line of each stretch."""
    held = stretches(made)
    line = held.stack.astype(np.int64) + 1
    return find_culprits(made, held, line), line


@pytest.mark.parametrize("pass_cost", [0.0, 1e9], ids=["by thread", "by overlap"])
@pytest.mark.parametrize(("gils", "threads", "seed"), [(1, 2, 1), (1, 4, 2), (1, 9, 3), (2, 6, 4), (3, 7, 5)])
def test_culprits_agree_with_plain_loops(
    gils: int, threads: int, seed: int, pass_cost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(culprits, "_PASS_COST", pass_cost)
    monkeypatch.setattr(attribution, "CHUNK", 40)
    made = random_process(gils, threads, seed)
    found, line = told(made)
    held = stretches(made).holds
    columns = ["start", "end", "gil", "thread"]
    rows = held[columns].tolist()
    several = 0
    for number, (start, end, gil, _) in enumerate(made.waits[columns].tolist()):
        by_thread: dict[int, int] = {}
        by_line: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for at, (held_from, held_to, of, thread) in enumerate(rows):
            lost = min(end, held_to) - max(start, held_from)
            if of == gil and lost > 0:
                by_thread[thread] = by_thread.get(thread, 0) + lost
                by_line.setdefault((thread, int(line[at])), []).append((lost, at))
        ranked = sorted(by_thread.items(), key=lambda item: (-item[1], item[0]))[:MOST]
        rest = MOST - len(ranked)
        assert found.thread[number].tolist() == [thread for thread, _ in ranked] + [-1] * rest
        assert found.ns[number].tolist() == [ns for _, ns in ranked] + [0] * rest
        chosen = int(found.stretch[number])
        if not ranked:
            assert chosen == -1
            continue
        mine = {key: parts for key, parts in by_line.items() if key[0] == ranked[0][0]}
        several += len(mine) > 1
        best = mine[ranked[0][0], int(line[chosen])]
        assert sum(lost for lost, _ in best) == max(sum(lost for lost, _ in parts) for parts in mine.values())
        assert {at: lost for lost, at in best}[chosen] == max(lost for lost, _ in best)
    assert several > 20
    assert (found.stretch >= 0).any()


def test_the_holds_of_a_thread_count_together() -> None:
    """Thread 1 has the longest hold, thread 0 has three shorter ones that are longer together."""
    script = Script().hold(0, 4 * MS, 0).hold(4 * MS, 9 * MS, 1).hold(9 * MS, 11 * MS, 0)
    script.hold(13 * MS, 15 * MS, 0).hold(16 * MS, 17 * MS, 2, asked=MS)
    found, _ = told(process(script))
    assert found.thread.tolist() == [[0, 1, -1]]
    assert found.ns.tolist() == [[7 * MS, 5 * MS, 0]]
    assert found.stretch.tolist() == [0]


def test_equal_shares_go_to_the_first_thread() -> None:
    script = Script().hold(MS, 2 * MS, 2).hold(2 * MS, 3 * MS, 1).hold(3 * MS, 4 * MS, 0, asked=MS)
    found, _ = told(process(script))
    assert found.thread.tolist() == [[1, 2, -1]]
    assert found.ns.tolist() == [[MS, MS, 0]]


def test_nobody_held_it_or_nothing_is_on_record() -> None:
    made = process(Script().hold(0, MS, 0).hold(3 * MS, 4 * MS, 1, asked=2 * MS))
    found, _ = told(made)
    assert (found.thread.tolist(), found.ns.tolist(), found.stretch.tolist()) == ([[-1] * 3], [[0] * 3], [-1])
    bare = replace(made, holds=np.empty(0, HOLD), waits=np.empty(0, WAIT), gils=0)
    found, _ = told(bare)
    assert (found.thread.shape, found.ns.shape, found.stretch.shape) == ((0, MOST), (0, MOST), (0,))
