"""Events to timeline: the one way from what was recorded to who held, wanted or did without the GIL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from giltrace.recording.collected import CollectorReport
from giltrace.recording.events import ProcessEvents, SchedEvents, Spans
from giltrace.recording.trigger import Trigger
from giltrace.timeline import invariants
from giltrace.timeline.axis import Ints, LifeAxis
from giltrace.timeline.blocks import match_blocks
from giltrace.timeline.collections import collecting_stacks, with_collections
from giltrace.timeline.gathered import placed
from giltrace.timeline.holds import match
from giltrace.timeline.images import Image, program_images
from giltrace.timeline.kernel import Kernel, Slot
from giltrace.timeline.model import RUN, STATE, Array, OtherTask, Process, Timeline
from giltrace.timeline.stacks import attribute
from giltrace.timeline.states import thread_states
from giltrace.timeline.switch_intervals import switch_intervals
from giltrace.timeline.threads import Cast, cast


def build_timeline(
    processes: Sequence[ProcessEvents],
    sched: SchedEvents | None,
    spans: Sequence[Spans],
    *,
    start: int,
    end: int,
    realtime_offset: int,
    boottime_offset: int,
    clock_error_ns: int,
    machine: Mapping[str, str | int],
    collectors: Sequence[CollectorReport],
    trigger: Trigger | None = None,
    unfinished: bool = False,
    damage: Sequence[str] = (),
) -> Timeline:
    """Build the timeline of one recording and check its invariants; all times in CLOCK_MONOTONIC ns.

    A pid may occur in `processes` several times: one image each, as after an exec; one that is not Python only ends the
    one before it. A pid that only `spans` know becomes a process without GIL events. `start` and `end` widen to what
    was recorded. `sched` is None where the kernel was not asked. Damage in the records raises nothing: it shows in
    `Process.violations`; `damage` is what the readers had to leave out before.
    """
    kernel = Kernel.read(sched, start, end) if sched is not None else Kernel.read(SchedEvents(), start, end)
    images = program_images(processes, spans, kernel, start, end)
    casts = [cast(image, kernel.names) for image in images]
    slots = [
        Slot(thread.tid, thread.start, thread.end, number, index)
        for number, one in enumerate(casts)
        for index, thread in enumerate(one.threads)
    ]
    pieces, owner, thread = kernel.assign(slots)
    runs = _runs_by_process(pieces, owner, thread, len(images))
    other_tasks, other_runs = _others(pieces[owner < 0], kernel.names)
    del pieces, owner, thread
    built = tuple(_process(*args) for args in zip(images, casts, runs, strict=True))
    return Timeline(
        processes=built,
        start=min([start, *(p.start for p in built)]),
        end=max([end, *(p.end for p in built)]),
        other_tasks=other_tasks,
        other_runs=other_runs,
        realtime_offset=realtime_offset,
        boottime_offset=boottime_offset,
        clock_error_ns=clock_error_ns,
        machine=dict(machine),
        collectors=tuple(collectors),
        sched_lost=sched.lost if sched is not None else 0,
        trigger=trigger,
        unfinished=unfinished,
        damage=tuple(damage),
    )


def _runs_by_process(pieces: Array, owner: Ints, thread: Ints, processes: int) -> list[Array]:
    """The runs (dtype `RUN`) of each process, sorted by (thread, start)."""
    order = np.lexsort((pieces["start"], thread, owner))
    runs = np.empty(len(order), RUN)
    for name in ("start", "end", "core", "preempted"):
        runs[name] = pieces[name][order]
    runs["thread"] = thread[order]
    at = np.searchsorted(owner[order], np.arange(processes + 1))
    return [runs[a:b] for a, b in pairwise(at.tolist())]


def _others(pieces: Array, names: Mapping[int, str]) -> tuple[tuple[OtherTask, ...], Array]:
    order = np.lexsort((pieces["start"], pieces["tid"], pieces["pid"]))
    pieces = pieces.take(order)
    fresh = np.ones(len(pieces), np.bool_)
    fresh[1:] = (pieces["tid"][1:] != pieces["tid"][:-1]) | (pieces["pid"][1:] != pieces["pid"][:-1])
    runs = np.empty(len(pieces), RUN)
    for name in ("start", "end", "core", "preempted"):
        runs[name] = pieces[name]
    runs["thread"] = np.cumsum(fresh) - 1
    heads = pieces[fresh]
    tasks = tuple(
        OtherTask(pid, tid, names.get(tid, ""))
        for pid, tid in zip(heads["pid"].tolist(), heads["tid"].tolist(), strict=True)
    )
    return tasks, runs


def _process(image: Image, members: Cast, runs: Array) -> Process:
    recorded, events = image.recorded, image.events
    outlined = recorded.outlined
    if outlined is not None:
        outlined = replace(outlined, born=members.born)
    if recorded.stacks is not None:
        if outlined is not None:
            outlined = replace(outlined, collecting=collecting_stacks(events), stacks=len(recorded.stacks))
        events, stacks = with_collections(events, recorded.stacks)
        recorded = replace(recorded, stacks=stacks)
    gils = max(len(recorded.gils), int(events["gil"].max()) + 1 if len(events) else 0)
    usage = match(events, members.threads, gils, image.start, recorded.lost)
    gathered = placed(recorded.gathered, usage.holds)
    blocked = match_blocks(events, recorded, members.threads)
    starts = np.array([t.start for t in members.threads], np.int64)
    ends = np.array([t.end for t in members.threads], np.int64)
    fits = LifeAxis.fits(starts, ends)
    has_sched = fits and bool(len(runs) or image.lives)
    if has_sched and outlined is None:
        born = np.array(members.born, np.bool_)
        states = thread_states(starts, ends, born, usage.holds, usage.waits, runs)
    else:
        states = np.empty(0, STATE)
    process = Process(
        pid=recorded.pid,
        ppid=recorded.ppid,
        python=recorded.python,
        cmdline=recorded.cmdline,
        start=min([image.start, *starts.tolist()]),
        end=max([image.end, *ends.tolist()]),
        threads=members.threads,
        gils=gils,
        holds=usage.holds,
        waits=usage.waits,
        switch_requests=usage.switch_requests,
        runs=runs if fits else runs[:0],
        states=states,
        has_sched=has_sched,
        spans=image.spans,
        switch_intervals=switch_intervals(events),
        lost=recorded.lost,
        note=recorded.note,
        unused=recorded.unused,
        became=image.became,
        end_known=image.end_known,
        overwritten=recorded.overwritten,
        sampling=recorded.sampling,
        lost_stacks=recorded.lost_stacks,
        stacks=None if recorded.stacks is None else attribute(recorded.stacks, usage, gathered, blocked),
        samples=usage.samples,
        gathered=gathered,
        passed=recorded.hand_offs,
        blocks=blocked.blocks,
        locks=blocked.locks,
        held=blocked.held,
        lock_types=blocked.types,
        free_threaded="free-threading" in recorded.python,
        outlined=outlined,
    )
    if outlined is not None:
        # It has some of its holds only.
        return process
    too_long = () if fits else ("its threads live for longer than states can be told",)
    told = (*recorded.problems, *image.problems, *too_long, *usage.violations)
    return replace(process, violations=(*told, *invariants.check(process)))
