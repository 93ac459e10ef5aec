"""`giltrace compare`: what is a change and what is noise, against distributions that are known."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from math import inf, isinf

import numpy as np
import pytest
from rich.console import Console

from giltrace.analysis.compare.compare import Comparison, Figure, compare, role_of
from giltrace.analysis.compare.noise import Change, Estimate, Quantile, Ratio
from giltrace.analysis.compare.noise import compare as judge_change
from giltrace.reports.compare import as_json, print_comparison
from giltrace.timeline.model import Timeline
from tests.synthetic import make_process, make_timeline
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS, PID, Script, timeline
from tests.unit.test_summary_verdict import convoy, cpu_bound

WHOLE = np.full(100, 100 * MS)


def bins(seed: int, mean: float, neighbours: int = 1) -> Ratio:
    """A share that varies around `mean` from bin to bin, `neighbours` bins alike."""
    noise = np.random.default_rng(seed).normal(0, 0.05, len(WHOLE) // neighbours).repeat(neighbours)
    return Ratio((WHOLE * np.clip(mean + noise, 0, 1)).astype(np.int64), WHOLE)


def said(old: Ratio | Quantile, new: Ratio | Quantile, *, at_least: float = 0.0, factor: bool = False) -> str:
    return judge_change(old.estimate(), new.estimate(), at_least=at_least, factor=factor).change


def test_a_ratio_and_its_interval() -> None:
    exact = Ratio(np.full(20, 25), np.full(20, 100)).estimate()
    assert exact == (0.25, 0.25, 0.25)
    # Half of the bins 0, half 1: the standard error is 0.5 / sqrt(n - 1), about 4 of which make the interval.
    mixed = Ratio(np.tile([0, 0, 0, 0, 100, 100, 100, 100], 50), np.full(400, 100)).estimate()
    assert mixed.value == 0.5
    assert 0.08 < mixed.high - 0.5 == pytest.approx(0.5 - mixed.low)
    assert mixed.high - 0.5 < 0.25


@pytest.mark.parametrize("neighbours", [1, 2, 4])
def test_equal_shares_are_seldom_called_changed(neighbours: int) -> None:
    wrong = sum(said(bins(i, 0.4, neighbours), bins(1000 + i, 0.4, neighbours)) != "same" for i in range(300))
    assert wrong <= 4


def test_a_change_beyond_the_spread_is_found_in_both_directions() -> None:
    assert {said(bins(i, 0.4), bins(1000 + i, 0.5)) for i in range(50)} == {"higher"}
    assert {said(bins(i, 0.5), bins(1000 + i, 0.4)) for i in range(50)} == {"lower"}


def test_a_sure_but_small_change_is_none() -> None:
    old, new = (Ratio(np.full(50, part), np.full(50, 1000)) for part in (400, 419))
    assert said(old, new) == "higher"
    assert said(old, new, at_least=0.02) == "same"


def test_few_bins_tell_nothing() -> None:
    few = Ratio(np.full(7, 1), np.full(7, 10)), Ratio(np.full(7, 9), np.full(7, 10))
    assert said(*few) == "unknown"
    assert isinf(few[0].estimate().high)


def quantile(seed: int, median: float, count: int = 2000, q: float = 0.5) -> Quantile:
    random = np.random.default_rng(seed)
    values = (median * np.exp(random.normal(0, 1, count))).astype(np.int64)
    return Quantile(values, np.sort(random.integers(0, 50, count)), q)


def test_quantiles_of_equal_distributions_are_seldom_called_changed() -> None:
    wrong = sum(
        said(quantile(i, 5 * MS, q=q), quantile(1000 + i, 5 * MS, q=q), factor=True) not in ("same", "unknown")
        for i in range(100)
        for q in (0.5, 0.99)
    )
    assert wrong <= 3


def test_a_doubled_median_is_found_with_its_factor() -> None:
    old, new = quantile(1, 5 * MS), quantile(2, 10 * MS)
    found = judge_change(old.estimate(), new.estimate(), at_least=0.1, factor=True)
    assert found.change == "higher"
    assert 1.5 < found.low < 2 < found.high < 2.7


def test_of_few_values_a_high_quantile_is_unknown() -> None:
    assert said(quantile(1, 5 * MS, 100, 0.99), quantile(2, 50 * MS, 100, 0.99), factor=True) == "unknown"
    assert isinf(quantile(1, 5 * MS, 19).estimate().high)


def test_a_quantile_is_never_surer_than_its_count_and_its_bins_allow() -> None:
    alike = Quantile(np.tile(np.arange(1, 101), 20), np.arange(20).repeat(100), 0.5).estimate()
    assert alike.low < alike.value == 50 < alike.high
    # In each bin all values are equal: 60 bins tell no more than 60 values.
    clustered = Quantile(np.tile([10, 90], 30).repeat(100), np.arange(60).repeat(100), 0.45).estimate()
    assert (clustered.low, clustered.value, clustered.high) == (10, 10, 90)


def test_something_out_of_nothing_is_higher() -> None:
    nothing, some = Estimate(0, 0, 0), Estimate(3, 2, 4)
    assert judge_change(nothing, some, at_least=0.1, factor=True) == ("higher", -inf, inf)
    assert judge_change(some, nothing, at_least=0.1, factor=True).change == "lower"
    assert judge_change(nothing, nothing, at_least=0.1, factor=True).change == "same"


def test_roles() -> None:
    names = ["cpu-0", "cpu-12", "Thread-3 (work)", "ThreadPoolExecutor-0_1", "MainThread", ""]
    assert [role_of(name) for name in names] == [
        "cpu-*", "cpu-*", "Thread-* (work)", "ThreadPoolExecutor-*_*", "MainThread", "(unnamed)"
    ]  # fmt: skip


def figures(found: Comparison, role: str) -> dict[str, Figure]:
    (one,) = [one for one in found.roles if one.role == role]
    return {figure.name: figure for figure in one.figures}


def test_a_timeline_has_not_changed_from_itself() -> None:
    built = timeline(*convoy(200))
    found = compare(built, built)
    assert not found.changed
    assert found.before == found.after
    assert found.before.verdicts == ("convoy",)


def test_figures_are_those_of_the_timeline() -> None:
    built = timeline(*cpu_bound())
    (process,) = built.processes
    held, waited = (int((rows["end"] - rows["start"]).sum()) for rows in (process.holds, process.waits))
    life = sum(t.end - t.start for t in process.threads)
    of = figures(compare(built, built), "thread-*")
    assert of["held_share"].before == pytest.approx(held / life)
    assert of["waited_share"].after == pytest.approx(waited / life)
    assert of["waits_per_s"].before == pytest.approx(len(process.waits) / life * 1e9)
    assert of["wait_p50_ns"].before == int(np.median(process.waits["end"] - process.waits["start"]))


def seen(wait: int, seed: int, holder: int = 1) -> Timeline:
    """Thread 2 waits about `wait` for each of its 300 holds while thread `holder` holds."""
    random = np.random.default_rng(seed)
    script, at = Script(tids=(PID, 101, 102)), 0
    for length in (wait * random.uniform(0.7, 1.3, 300)).astype(int).tolist():
        script.hold(at, at + length + MS, holder)
        script.request(at + MS, 2).acquire(at + length + MS, 2).release(at + length + MS + 1000, 2)
        at += 20 * MS
    return timeline(script, end=at)


def test_longer_waits_are_found_and_blamed() -> None:
    found = compare(seen(3 * MS, 1), seen(6 * MS, 2))
    assert found.changed
    of = figures(found, "thread-*")
    assert {of[name].change for name in ("held_share", "waited_share", "wait_p50_ns")} == {"higher"}
    # Of 300 waits the 99th percentile is the fourth longest: not enough to know how it varies.
    assert of["wait_p99_ns"].change == "unknown"
    assert of["waits_per_s"].change == "same"
    (culprit,) = found.culprits
    (cost,) = culprit.figures
    assert (culprit.thread, cost.change) == ("thread-*", "higher")
    assert cost.before == pytest.approx(0.15, abs=0.01)
    assert cost.after == pytest.approx(0.3, abs=0.02)


def test_culprits_are_the_users_functions() -> None:
    """What they call in libraries changes with versions and data."""
    stacks = [
        [(f"inner_{at}", "/usr/lib/python3.11/json/encoder.py", at + 1), ("handle", "/srv/app.py", 7)] for at in (0, 1)
    ]
    sides = []
    for at in (0, 1):
        made = seen((3 + 3 * at) * MS, at)
        parts = tuple(with_stacks(process, stacks, hold={1: at}) for process in made.processes)
        sides.append(replace(made, processes=parts))
    (culprit,) = compare(*sides).culprits
    assert (culprit.function, culprit.file, culprit.figures[0].change) == ("handle", "app.py", "higher")


def test_the_same_behaviour_in_another_run_is_no_change() -> None:
    assert not compare(seen(5 * MS, 1), seen(5 * MS, 2)).changed


@pytest.mark.parametrize("gils", [1, 2])
def test_the_cost_of_all_culprits_is_the_time_waited_while_held(gils: int) -> None:
    built = make_timeline(make_process(threads=4, holds=300, gils=gils))
    found = compare(built, built)
    (process,) = built.processes
    total = 0
    for wait in process.waits:
        holds = process.holds[process.holds["gil"] == wait["gil"]]
        low, high = np.maximum(holds["start"], wait["start"]), np.minimum(holds["end"], wait["end"])
        total += int(np.maximum(high - low, 0).sum())
    cost = sum(culprit.figures[0].before or 0 for culprit in found.culprits) * (built.end - built.start)
    assert cost == pytest.approx(total)


def test_roles_that_come_and_go() -> None:
    old, new = (make_timeline(make_process(threads=2, names=("MainThread", name))) for name in ("old", "new"))
    found = compare(old, new)
    threads = {one.role: (one.threads_before, one.threads_after) for one in found.roles}
    assert threads == {"MainThread": (1, 1), "old": (1, 0), "new": (0, 1)}
    assert figures(found, "old")["held_share"].after is None
    assert found.changed


def test_recordings_without_any_process_compare() -> None:
    found = compare(make_timeline(), make_timeline())
    assert (found.roles, found.culprits, found.changed) == ((), (), False)


@pytest.mark.parametrize(("before", "after", "told"), [(11.72, 0.0, "lower, to none"), (0.0, 3.0, "higher, from none")])
def test_there_is_no_factor_from_or_to_nothing(before: float, after: float, told: str) -> None:
    stream, found = io.StringIO(), compare(seen(3 * MS, 1), seen(6 * MS, 2))
    change: Change = "lower" if after < before else "higher"
    role = found.roles[0]
    figure = next(one for one in role.figures if one.name == "waits_per_s")
    role = replace(role, figures=(replace(figure, before=before, after=after, change=change),))
    print_comparison(replace(found, roles=(role,)), ("a", "b"), Console(file=stream, width=80))
    (row,) = [line for line in stream.getvalue().splitlines() if " waits per s " in line]
    assert row.rstrip().endswith(told)


@pytest.mark.parametrize("width", [80, 120])
def test_printed_page(width: int) -> None:
    stream = io.StringIO()
    found = compare(seen(3 * MS, 1), seen(6 * MS, 2))
    print_comparison(found, ("a.giltrace", "b.giltrace"), Console(file=stream, width=width))
    text = stream.getvalue()
    # The first line says all in one.
    assert max(map(len, text.splitlines()[1:])) <= width
    assert text.splitlines()[1].startswith("before  a.giltrace: 6.00 s, ")
    (row,) = [line for line in text.splitlines() if " wait p50 " in line]
    assert "higher by a factor of 2." in row or "higher by a factor of 1.9" in row
    assert "waits per s" not in text
    assert text.startswith("more lost to the GIL: 1")


def test_printed_page_without_change() -> None:
    stream = io.StringIO()
    built = seen(3 * MS, 1)
    print_comparison(compare(built, built), ("a", "b"), Console(file=stream, width=80))
    assert stream.getvalue().startswith("no change beyond noise\nbefore  a: ")


def test_json_is_strict() -> None:
    found = compare(seen(3 * MS, 1), make_timeline(make_process(threads=2, holds=5)))
    told = json.loads(as_json(found, ("a", "b")), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert (told["schema"], told["before"]["recording"], told["after"]["recording"]) == ("giltrace-compare-1", "a", "b")
    assert set(told["roles"][0]["figures"][0]) == {"name", "unit", "before", "after", "change", "low", "high"}
