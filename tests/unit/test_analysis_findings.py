"""Hogs, convoys and event loops, in processes made up to have them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.findings.convoy import find_convoys
from giltrace.analysis.findings.event_loops import find_event_loops
from giltrace.analysis.findings.hogs import find_hogs
from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.report import analyse
from giltrace.analysis.site import Site
from giltrace.timeline.model import STOP, Flag, Process
from tests.synthetic import make_timeline
from tests.unit.analysis_stacks import Frame, own_site, with_stacks
from tests.unit.block_events import Scene
from tests.unit.gil_events import MS, PID, US, Kernel, Script, process, timeline
from tests.unit.test_report_terminal import printed
from tests.unit.test_summary_verdict import convoy, cpu_bound, hog

STEP: Frame = ("step", "io.py", 12)


def made(what: tuple[Script, Kernel], *, sched: bool = True) -> Process:
    script, kernel = what
    return process(script, kernel if sched else None)


@pytest.mark.parametrize("sched", [True, False])
def test_hogs(sched: bool) -> None:
    found = made(hog(), sched=sched)
    told = with_stacks(found, [[("crunch", "c.py", 3)], [("give", "c.py", 4)]], hold={1: 1}, request={0: 0})
    first, second = find_hogs(told)
    # Each of the five holds takes 300 ms and is asked after 6 ms; the first one was sampled.
    assert (first.site, first.count, first.ns) == (own_site("thread-*", "give", "c.py", 4), 4, 4 * 294 * MS)
    assert (second.site, second.count, second.ns) == (own_site("thread-*", "crunch", "c.py", 3), 1, 294 * MS)
    assert (second.max_ns, second.held_ns, second.stack) == (294 * MS, 300 * MS, ("crunch (c.py:3)",))


@pytest.mark.parametrize(
    ("sleeps", "wakes", "count"), [(5_020, 9_990, 0), (4_900, 9_990, 1), (5_020, 8_000, 1), (5_500, 9_990, 1)]
)
def test_a_holder_that_waits_for_the_lock_to_give_the_gil_up_is_no_hog(sleeps: int, wakes: int, count: int) -> None:
    """Asked after 5 ms it goes to sleep at once, since who asks has the lock, and then gets no core for a while."""
    script = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0).hold(20 * US, 10_020 * US, 1)
    script.request(30 * US, 2).timeout(5_020 * US, 2).acquire(10_030 * US, 2).release(10_050 * US, 2)
    kernel = Kernel().run(20 * US, (20 + sleeps) * US, 101, 1).run((20 + wakes) * US, 10_040 * US, 101, 1)
    found = process(script, kernel.ended(11 * MS, PID).ended(11 * MS, 101).ended(11 * MS, 102))
    assert sum(one.count for one in find_hogs(found)) == count


def test_what_giltrace_does_in_the_target_is_no_hog() -> None:
    stacks = [[("work", "app.py", 2)], [("save", "/x/giltrace_viztracer.py", 9), ("run", "app.py", 1)]]
    counts = [sum(found.count for found in find_hogs(with_stacks(made(hog()), stacks, hold={1: at}))) for at in (0, 1)]
    assert counts == [5, 0]
    # What the first waiter saw counts, not where the hold ended.
    both = [with_stacks(made(hog()), stacks, hold={1: 1 - at}, request={0: at}) for at in (0, 1)]
    assert [sum(found.count for found in find_hogs(process)) for process in both] == [1, 4]


def test_what_attaching_did_is_no_hog() -> None:
    found = made(hog())
    holds = found.holds.copy()
    hogs = np.flatnonzero(holds["end"] - holds["start"] == 300 * MS)
    assert len(hogs) == 5
    # It came in the first and left in the last one, and had another one's thread stopped.
    holds["flags"][hogs[0]] |= np.uint8(Flag.PARTIAL_START)
    holds["flags"][hogs[-1]] |= np.uint8(Flag.PARTIAL_END)
    whole = replace(found, holds=holds)
    assert sum(each.count for each in find_hogs(whole)) == 5
    cut = replace(whole, left=True)
    assert sum(each.count for each in find_hogs(cut)) == 3
    second = holds[hogs[1]]
    others = (second["thread"] + 1) % len(found.threads)
    for thread, left in ((second["thread"], 2 * 294 * MS), (others, 3 * 294 * MS)):
        stops = np.array([(second["start"], second["end"], thread)], STOP)
        assert sum(each.ns for each in find_hogs(replace(cut, stops=stops))) == left
    part = np.array([(second["end"] - 100 * MS, second["end"] + MS, second["thread"])], STOP)
    assert sum(each.ns for each in find_hogs(replace(cut, stops=part))) == (3 * 294 - 100) * MS


@pytest.mark.parametrize(("held", "count"), [(150 * MS, 0), (400 * MS, 1)])
def test_a_hold_from_before_attaching_until_after_it_may_be_a_hog(held: int, count: int) -> None:
    script = Script(tids=(PID, 101)).acquire(0, 0).request(5 * MS, 1).timeout(10 * MS, 1)
    kernel = Kernel().run(0, held, PID, 0)
    (seen,) = timeline(script, kernel, end=held).processes
    assert sum(each.count for each in find_hogs(replace(seen, left=True))) == count


def test_what_giltrace_does_in_the_target_is_marked_and_its_time_told() -> None:
    stacks = [
        [("work", "app.py", 2), ("run", "app.py", 1)],
        [("work", "app.py", 2), ("save", "/x/giltrace_viztracer.py", 9), ("run", "app.py", 1)],
    ]
    process = with_stacks(made(hog()), stacks, hold={0: 0, 1: 0}, wait={0: 0})
    assert process.stacks is not None
    longest = int((process.holds["end"] - process.holds["start"]).argmax())
    process.stacks.hold_end[longest] = 1
    report = analyse(make_timeline(process))
    (told,) = report.processes
    own = {row.culprit: row.ns for row in told.blame if row.culprit.own}
    assert list(own) == [Site("thread-*", "work", "app.py", 2, own=True)]
    assert [row.site.own for row in told.culprits] == [False, True]
    held = int((process.holds["end"] - process.holds["start"])[longest])
    for quality in (report.quality, told.quality):
        assert (quality.own_held_ns, quality.own_waited_ns) == (held, sum(own.values()))
    calm = analyse(make_timeline(with_stacks(made(hog()), stacks, hold={1: 0})))
    assert (calm.quality.own_held_ns, calm.quality.own_waited_ns) == (0, 0)


def test_threads_that_drop_the_gil_when_asked_are_no_hogs() -> None:
    assert find_hogs(made(cpu_bound())) == ()


@pytest.mark.parametrize("sched", [True, False])
def test_convoy(sched: bool) -> None:
    told = with_stacks(made(convoy(100), sched=sched), [[STEP]], wait={2: 0})
    (found,) = find_convoys(told)
    assert found.site == own_site("thread-*", "step", "io.py", 12)
    assert (found.steps, found.stack) == (100, ("step (io.py:12)",))
    assert found.wait_p50_ns == 5 * MS + 20 * US
    assert found.switch_interval_ns == 5 * MS
    assert [e.switch_interval_ns for e in found.estimates] == [1 * MS, 500 * US, 100 * US]
    # A step waits out one interval: with one of 1 ms it would take 2 ms instead of 6.
    assert found.estimates[0].wait_per_step_ns == 1 * MS + 20 * US
    rates = [found.steps_per_s, *(e.steps_per_s for e in found.estimates)]
    assert rates == sorted(rates)
    assert rates[1] == pytest.approx(1e9 / (1e9 / found.steps_per_s - 4 * MS))


def test_without_stacks_a_convoy_is_known_by_its_thread() -> None:
    (found,) = find_convoys(made(convoy(100)))
    assert (found.site, found.stack) == (Site("thread-*"), ())


def in_turn(workers: int, *, served: bool) -> Process:
    """Thread 1 computes; each of the others waits for 5 ms, holds for 10 us, and waits then for what 1 has for it, or
    sleeps.
    """
    scene, at = Scene(2 + workers).hold(0, 10 * US, 0, "start"), 20 * US
    for number in range(20 * workers):
        wants, end, mine = at + MS, at + 6 * MS + 10 * US, 2 + number % workers
        scene.script.hold(at, end, 1, forced=True).request(wants, mine).timeout(wants + 5 * MS, mine)
        scene.of_hold[1, at] = scene._stack("compute")
        scene.run(at, end, 1).hold(end + 10 * US, end + 20 * US, mine, "get")
        if served:
            scene.block(at + 10 * US, wants - 10 * US, mine, at="get", by=1, wake="compute", owned=False)
        at = end + 30 * US
    return scene.hold(at, at + 5 * MS, 1, "compute").process(at + 6 * MS)


def test_threads_alike_are_told_of_once() -> None:
    told = make_timeline(in_turn(3, served=False))
    assert len(analyse(told).processes[0].convoys) == 3
    (text,) = printed(told, width=1000).split("Convoy: worker-*")[1:]
    assert text.startswith(", 3 threads alike; the one that waited most made 20 short steps (")
    assert "--all shows them" not in text.partition("What would change")[0]


def test_who_serves_one_thread_is_promised_no_more_steps() -> None:
    alone, fed = (in_turn(1, served=served) for served in (False, True))
    assert judge(alone).kind == "convoy"
    assert judge(fed).advice.startswith("The GIL costs nothing here")
    assert [len(analyse(make_timeline(one)).processes[0].convoys) for one in (alone, fed)] == [1, 0]


def test_waits_behind_hogs_are_no_convoy() -> None:
    script, at = Script(), 0
    for _ in range(20):
        script.acquire(at, 1).request(at + MS, 2).timeout(at + 6 * MS, 2).release(at + 60 * MS, 1)
        script.acquire(at + 61 * MS, 2).release(at + 61 * MS + 10 * US, 2)
        at += 62 * MS
    assert find_convoys(process(script)) == ()


def test_counting_threads_are_no_convoy() -> None:
    assert find_convoys(made(cpu_bound())) == ()


LOOP: list[Frame] = [
    ("handle", "app.py", 5),
    ("BaseEventLoop._run_once", "/usr/lib/python3.13/asyncio/base_events.py", 2000),
    ("BaseEventLoop.run_forever", "/usr/lib/python3.13/asyncio/base_events.py", 600),
]


def behind() -> Process:
    """Thread 0 waits 2-12 ms for thread 1, and 20-21 ms for thread 2."""
    script = Script().acquire(0, 1).request(2 * MS, 0).timeout(7 * MS, 0).release(12 * MS, 1)
    script.acquire(12 * MS, 0).release(13 * MS, 0).acquire(19 * MS, 2).request(20 * MS, 0).release(21 * MS, 2)
    return process(script.acquire(21 * MS, 0).release(22 * MS, 0))


def test_an_event_loop_and_its_culprit() -> None:
    told = with_stacks(
        behind(), [LOOP, [("crunch", "c.py", 3)], [("other", "d.py", 1)]], wait={0: 0}, hold={1: 1, 2: 2}
    )
    (loop,) = find_event_loops(told)
    assert (loop.thread, loop.tid, loop.loop) == ("thread-0", PID, "asyncio")
    assert (loop.waits, loop.waited_ns, loop.wait_max_ns) == (2, 11 * MS, 10 * MS)
    assert loop.culprit == own_site("thread-*", "crunch", "c.py", 3)
    assert (loop.culprit_ns, loop.culprit_stack) == (10 * MS, ("crunch (c.py:3)",))


def test_the_culprit_of_a_loop_is_a_function_and_its_hottest_line() -> None:
    """A loop of two lines costs 5 and 4 ms, one line elsewhere 6: the function with both lines is to blame."""
    script = Script((PID, 101, 102, 103))
    for thread, began, ended in ((1, 0, 5), (2, 10, 16), (3, 20, 24)):
        script = script.acquire(began * MS, thread).request(began * MS + 1, 0).release(ended * MS, thread)
        script = script.acquire(ended * MS, 0).release((ended + 1) * MS, 0)
    lines = [("crunch", "c.py", 3), ("other", "d.py", 1), ("crunch", "c.py", 4)]
    (loop,) = find_event_loops(
        with_stacks(process(script), [LOOP, *([line] for line in lines)], wait={0: 0}, hold={1: 1, 2: 2, 3: 3})
    )
    assert loop.culprit == own_site("thread-*", "crunch", "c.py", 3)
    assert (loop.culprit_ns // MS, loop.culprit_stack) == (8, ("crunch (c.py:3)",))


def test_uvloop_shows_by_its_own_frames() -> None:
    frames: list[Frame] = [("handle", "app.py", 5), ("run", "/site-packages/uvloop/__init__.py", 109)]
    (loop,) = find_event_loops(with_stacks(behind(), [frames], hold={0: 0}))
    assert loop.loop == "uvloop"


def test_a_loop_that_never_waits_has_no_culprit() -> None:
    calm = process(Script().acquire(0, 0).release(MS, 0))
    (loop,) = find_event_loops(with_stacks(calm, [LOOP], hold={0: 0}))
    assert (loop.waits, loop.culprit) == (0, None)


def test_no_loop_without_its_frames_or_without_stacks() -> None:
    assert find_event_loops(behind()) == ()
    imitation: list[Frame] = [("run_forever", "/srv/app/daemon.py", 5)]
    assert find_event_loops(with_stacks(behind(), [imitation], wait={0: 0}, hold={0: 0})) == ()


def one_core(*, native: bool) -> Process:
    """Two threads that share one core in turns of 10 ms, off the GIL or, if not `native`, holding and wanting it."""
    script, kernel = Script(tids=(PID, 101)), Kernel().born(0, 101)
    for turn in range(40):
        thread, at = turn % 2, turn * 10 * MS
        length = 100 * US if native else 10 * MS
        script.hold(at, at + length, thread)
        if not native and turn < 39:
            script.request(at + 10 * US, 1 - thread)
        kernel.run(at, at + 10 * MS, (PID, 101)[thread], preempted=True)
    kernel.ended(400 * MS, PID).ended(400 * MS, 101)
    return process(script, kernel)


def test_native_code_that_shares_its_only_core_is_parallel_all_the_same() -> None:
    assert judge(one_core(native=True)).kind == "parallel"
    assert judge(one_core(native=False)).kind == "cpu-bound-contention"
