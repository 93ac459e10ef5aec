"""Context switches in the form that gives Perfetto's own CPU and Running/Runnable tracks: compact ftrace bundles."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from giltrace.exporters.perfetto.packets import Ints, packed_varints, varint
from giltrace.exporters.perfetto.protos import SEQUENCE, pb
from giltrace.exporters.perfetto.sink import Sink
from giltrace.timeline.model import Array, Timeline

_PER_BUNDLE = 1 << 14
_IDLE = 0
_NEVER = np.iinfo(np.int64).max
_PRIORITY = 120

# The kernel's codes for the state in which a thread leaves its core.
_STATE_RUNNABLE, _STATE_SLEEPING, _STATE_DEAD = 0, 1, 16


class _Tasks(NamedTuple):
    """What can run on a core; task 0 is the idle task."""

    tids: Ints
    names: list[str]


class _Runs(NamedTuple):
    """Runs sorted by (core, start): `state` is the state in which the task left the core."""

    core: Ints
    start: Ints
    end: Ints
    task: Ints
    state: Ints


def write_sched(sink: Sink, timeline: Timeline) -> None:
    """Write the switches of every core that was used, times in CLOCK_BOOTTIME as ftrace has them."""
    tasks, runs = _collect(timeline)
    begin = runs.start.min(initial=timeline.start)
    for core in np.unique(runs.core):
        own = runs.core == core
        times, nexts, states = _switches(runs.start[own], runs.end[own], runs.task[own], runs.state[own])
        # A core's first switch only tells the reader what runs there; so let it be the idle task.
        times, nexts, states = np.append(begin, times), np.append(_IDLE, nexts), np.append(_STATE_RUNNABLE, states)
        for at in range(0, len(times), _PER_BUNDLE):
            piece = slice(at, at + _PER_BUNDLE)
            shifted = times[piece] + timeline.boottime_offset
            sink.write_raw(_bundle(int(core), shifted, tasks, nexts[piece], states[piece]))


def _collect(timeline: Timeline) -> tuple[_Tasks, _Runs]:
    """Put the runs of all processes and of the other tasks together."""
    tids, names = [_IDLE], ["swapper"]
    columns: list[tuple[Ints, ...]] = []
    for process in timeline.processes:
        runs = process.runs
        state = _states(timeline, runs)
        ends = np.array([thread.end for thread in process.threads], np.int64)
        if len(runs):
            died = (runs["end"] >= ends[runs["thread"]]) & (runs["end"] < timeline.end)
            state = np.where(died, _STATE_DEAD, state)
        columns.append((runs["core"], runs["start"], runs["end"], runs["thread"].astype(np.int64) + len(tids), state))
        tids += [thread.tid for thread in process.threads]
        names += [thread.name for thread in process.threads]
    runs = timeline.other_runs
    state = _states(timeline, runs)
    columns.append((runs["core"], runs["start"], runs["end"], runs["thread"].astype(np.int64) + len(tids), state))
    tids += [task.tid for task in timeline.other_tasks]
    names += [task.name for task in timeline.other_tasks]
    core, start, end, task, state = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    order = np.lexsort((end, start, core))
    return _Tasks(np.array(tids), names), _Runs(core[order], start[order], end[order], task[order], state[order])


def _states(timeline: Timeline, runs: Array) -> Ints:
    """The state in which each run ends.

    The reader draws it up to the thread's next run. Where something was left out in between, that is asleep: it shows
    as nothing, and what the thread did there is not known.
    """
    runnable = runs["preempted"] != 0
    if timeline.cut is not None and len(runs):
        same = runs["thread"][1:] == runs["thread"][:-1]
        following = np.append(np.where(same, runs["start"][1:], timeline.end), timeline.end)
        gaps = np.array([*timeline.cut.left_out, (_NEVER, _NEVER)], np.int64)
        # The first gap that ends after the run: does it begin before the next one?
        runnable &= gaps[np.searchsorted(gaps[:, 1], runs["end"], "right"), 0] >= following
    return np.where(runnable, _STATE_RUNNABLE, _STATE_SLEEPING)


def _switches(start: Ints, end: Ints, task: Ints, state: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the switches of one core: time, the task that is next, the state in which the one before leaves."""
    gap = np.append(end[:-1] < start[1:], True)
    before = np.append(_STATE_RUNNABLE, np.where(gap, _STATE_RUNNABLE, state)[:-1])
    times = np.stack((start, end), axis=1).ravel()
    nexts = np.stack((task, np.full(len(task), _IDLE)), axis=1).ravel()
    states = np.stack((before, state), axis=1).ravel()
    kept = np.stack((np.ones(len(gap), bool), gap), axis=1).ravel()
    return times[kept], nexts[kept], states[kept]


def _bundle(core: int, times: Ints, tasks: _Tasks, nexts: Ints, states: Ints) -> bytes:
    """Return one framed packet of switches."""
    used, comm = np.unique(nexts, return_inverse=True)
    steps = np.diff(times)
    # Five bytes hold a step of up to 34 s.
    step_width = 5 if steps.max(initial=0) < 1 << 35 else 8
    compact = b"".join(
        (
            _packed("switch_timestamp", varint(int(times[0])) + packed_varints(steps, step_width)),
            _packed("switch_prev_state", states.astype(np.uint8).tobytes()),
            _packed("switch_next_pid", packed_varints(tasks.tids[nexts], 4)),
            _packed("switch_next_prio", bytes([_PRIORITY]) * len(times)),
            _packed("switch_next_comm_index", packed_varints(comm, 3)),
        )
    )
    table = pb.FtraceEventBundle.CompactSched(intern_table=[tasks.names[task] for task in used])
    bundle = pb.FtraceEventBundle(cpu=core).SerializeToString()
    bundle += _message(pb.FtraceEventBundle, "compact_sched", table.SerializeToString() + compact)
    packet = pb.TracePacket(trusted_packet_sequence_id=SEQUENCE).SerializeToString()
    packet += _message(pb.TracePacket, "ftrace_events", bundle)
    return _message(pb.Trace, "packet", packet)


def _packed(field: str, data: bytes) -> bytes:
    return _message(pb.FtraceEventBundle.CompactSched, field, data)


def _message(parent: Any, field: str, data: bytes) -> bytes:
    """Return a length-delimited field of message class `parent`."""
    number = parent.DESCRIPTOR.fields_by_name[field].number
    return varint(number << 3 | 2) + varint(len(data)) + data
