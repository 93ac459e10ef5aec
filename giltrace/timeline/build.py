"""Events to timeline: the one way from what was recorded to who held, wanted or did without the GIL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from giltrace.recording.events import GIL_EVENT, ProcessEvents, SchedEvents, Spans
from giltrace.recording.trigger import Trigger
from giltrace.timeline import invariants
from giltrace.timeline.axis import NEVER, Ints
from giltrace.timeline.holds import match, usable
from giltrace.timeline.kernel import Kernel, Life, Slot
from giltrace.timeline.model import RUN, STATE, Array, CollectorReport, OtherTask, Process, Timeline
from giltrace.timeline.stacks import attribute
from giltrace.timeline.states import thread_states
from giltrace.timeline.switch_intervals import switch_intervals
from giltrace.timeline.threads import Cast, Image, cast

#: The tracer's and the kernel's clocks may disagree by this much beyond the calibration's error.
CLOCK_SLACK_NS = 1_000


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
) -> Timeline:
    """Build the timeline of one recording and check its invariants; all times in CLOCK_MONOTONIC ns.

    A pid may occur in `processes` several times: one image each, as after an exec. A pid that only `spans`
    know becomes a process without GIL events. `start` and `end` widen to what was recorded. `sched` is None
    where the kernel was not asked. Damage in the records raises nothing: it shows in `Process.violations`.
    """
    kernel = Kernel.read(sched, start, end) if sched is not None else Kernel.read(SchedEvents(), start, end)
    images = _images([*processes, *_unrecorded(processes, spans, kernel, start)], spans, kernel, end)
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
    )


def _unrecorded(
    processes: Sequence[ProcessEvents], spans: Sequence[Spans], kernel: Kernel, start: int
) -> list[ProcessEvents]:
    """Processes that some collector saw inside, though the native tracer did not."""
    known = {process.pid for process in processes}
    missing: dict[int, int] = {}
    for one in spans:
        if one.pid not in known and len(one.spans):
            missing[one.pid] = min(missing.get(one.pid, int(one.spans["start"].min())), int(one.spans["start"].min()))
    found = []
    for pid, first in missing.items():
        born = min((life.start for life in kernel.lives.get(pid, []) if life.tid == pid), default=first)
        begin = max(start, min(born, first))
        nothing = np.empty(0, GIL_EVENT)
        found.append(ProcessEvents(pid, 0, "", "", "", begin, (), (), nothing, note="no GIL events were recorded"))
    return found


def _images(processes: Sequence[ProcessEvents], spans: Sequence[Spans], kernel: Kernel, end: int) -> list[Image]:
    starts: dict[int, list[int]] = {}
    cleaned = []
    for process in processes:
        events, ended, problems = usable(process.events, len(process.threads))
        begin = min(process.start, int(events["time"][0])) if len(events) else process.start
        starts.setdefault(process.pid, []).append(begin)
        cleaned.append((process, events, ended, problems, begin))
    images = []
    for process, events, ended, problems, begin in cleaned:
        following = min((s for s in starts[process.pid] if s > begin), default=None)
        first = begin == min(starts[process.pid])
        own = _spans_of(spans, process.pid, None if first else begin, following)
        last = max(
            [begin, int(events["time"][-1]) if len(events) else begin]
            + [int(s.spans["end"].max()) for s in own if len(s.spans)]
            + ([process.sampling.known_until] if process.sampling is not None else [])
        )
        lives = kernel.lives.get(process.pid, [])
        finish = max(last, _end_of(process.pid, lives, begin, following, end)) if lives else last
        reaching = tuple(life for life in lives if life.start < finish and life.end > begin)
        images.append(Image(process, events, ended, own, reaching, begin, finish, problems))
    return images


def _end_of(pid: int, lives: Sequence[Life], begin: int, following: int | None, end: int) -> int:
    """The end of an image: the next image of the same pid, the end of its last thread, or of the recording."""
    main = [life for life in lives if life.tid == pid and life.start <= begin + CLOCK_SLACK_NS]
    finish = end
    if main and main[-1].end < NEVER:
        reborn = min(
            (life.start for life in lives if life.tid == pid and life.start > main[-1].start), default=NEVER - 1
        )
        finish = max(life.end for life in lives if life is main[-1] or main[-1].end < life.end <= reborn)
    return finish if following is None else min(finish, following)


def _spans_of(spans: Sequence[Spans], pid: int, begin: int | None, following: int | None) -> tuple[Spans, ...]:
    """The spans of a pid that began from `begin` on and before its next image; None is no bound."""
    own = []
    for one in spans:
        if one.pid != pid:
            continue
        rows = one.spans
        if begin is not None:
            rows = rows[rows["start"] >= begin]
        if following is not None:
            rows = rows[rows["start"] < following]
        own.append(replace(one, spans=rows))
    return tuple(own)


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
    pieces = pieces[order]
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
    gils = max(len(recorded.gils), int(events["gil"].max()) + 1 if len(events) else 0)
    usage = match(events, members.threads, gils, image.start, lossy=recorded.lost > 0)
    starts = np.array([t.start for t in members.threads], np.int64)
    ends = np.array([t.end for t in members.threads], np.int64)
    has_sched = bool(len(runs) or image.lives)
    if has_sched:
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
        runs=runs,
        states=states,
        has_sched=has_sched,
        spans=image.spans,
        switch_intervals=switch_intervals(events),
        lost=recorded.lost,
        note=recorded.note,
        overwritten=recorded.overwritten,
        sampling=recorded.sampling,
        stacks=None
        if recorded.stacks is None
        else attribute(recorded.stacks, usage.holds, usage.waits, usage.hold_stacks, usage.request_stacks),
    )
    return replace(process, violations=(*image.problems, *usage.violations, *invariants.check(process)))
