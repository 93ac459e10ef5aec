"""What no record tells: who slept in which lock when the tracer came to a process, and since when no more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from giltrace.recording.events import FRAME, GIL_EVENT, HELD, PLACE, ProcessEvents, StackTable, ThreadInfo
from giltrace.recording.layout import Kind, Outcome
from giltrace.recording.sleepers import Frame, Sleeper
from giltrace.timeline.blocks import kind_of
from giltrace.timeline.model import LockKind

_GIVEN = (LockKind.SEMAPHORE, LockKind.PARKED)
_NOTHING = StackTable(np.empty(0, FRAME), np.zeros(1, np.int64), np.empty(0, np.bool_), ())


def with_sleepers(
    processes: Iterable[ProcessEvents], asleep: Sequence[Sleeper], names: Mapping[str, str]
) -> list[ProcessEvents]:
    """Begin the blocks that were under way: `asleep` and `names` as in `Meta`.

    From the tracer's coming on, who falls asleep is on record, and so is the first that a thread does with a GIL after
    it was woken up. Where threads do without a GIL, or records are lost, who was not seen asleep again may have been
    woken up unseen; and of lost ones nobody knows what went on after the last that is there.
    """
    told = []
    left = {one.pid for one in asleep}
    for process in processes:
        if process.pid in left and not process.not_python:
            left.remove(process.pid)  # the program that it goes on with, if it does, begins anew
            process = _with(process, [one for one in asleep if one.pid == process.pid], names)
        told.append(process)
    return told


def _with(process: ProcessEvents, asleep: Sequence[Sleeper], names: Mapping[str, str]) -> ProcessEvents:
    events, threads = process.events, list(process.threads)
    number = {info.tid: at for at, info in reversed(list(enumerate(threads)))}
    certain = process.sampling is None and "free-threading" not in process.python and not process.lost
    of_thread, first = np.unique(events["thread"], return_index=True)
    begun = dict(zip(of_thread.tolist(), events["time"][first].tolist(), strict=True))
    rows: list[tuple[int, ...]] = []
    sleeping: list[tuple[Sleeper, int]] = []
    stacks = len(process.stacks) if process.stacks is not None else 0
    for one in asleep:
        at = number.get(one.tid)
        since = begun.get(at, 0)
        if 0 < since <= one.seen_ns or one.last_ns < process.start:
            continue  # it was up, or what came between is not known: a ring has forgotten it
        if not (since or certain or one.last_ns > one.seen_ns):
            continue
        if not one.frames and not one.owner and kind_of(one.way) in _GIVEN:
            continue  # it may wait for work as well as for somebody else's lock
        if at is None:
            at = number[one.tid] = len(threads)
            threads.append(ThreadInfo(one.tid, names.get(str(one.tid), "")))
        place, stack = len(process.places) + len(sleeping), stacks if one.frames else -1
        stacks += bool(one.frames)
        rows.append((process.start, place, at, 0, Kind.SLEPT, one.way, stack))
        if since:
            rows.append((since, Outcome.WOKEN, at, 0, Kind.AWOKE, 0, -1))
        sleeping.append((one, since))
    if not sleeping:
        return process
    # Before what the thread did next, at the same instant.
    events = np.concatenate([np.array(rows, GIL_EVENT), events])
    events = events.take(np.argsort(events["time"], kind="stable"))
    made = np.array([(one.semaphore, one.lock) for one, _ in sleeping], PLACE)
    return replace(
        process,
        events=events,
        threads=tuple(threads),
        places=np.concatenate([process.places, made]),
        place_types=np.append(process.place_types, np.zeros(len(made), np.uint32)),
        held=np.concatenate([process.held, _held(events, sleeping, number)]),
        stacks=with_stacks(process.stacks, [one.frames for one, _ in sleeping if one.frames]),
        known_until=max(process.known_until, *(0 if process.lost else one.last_ns for one, _ in sleeping)),
    )


def _held(
    events: np.ndarray[tuple[int], np.dtype[np.void]],
    sleeping: Sequence[tuple[Sleeper, int]],
    number: Mapping[int, int],
) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """What threads had, as those know that sleep in it (dtype `HELD`): at each sleep of theirs meanwhile."""
    rows: list[tuple[int, int, int]] = []
    slept = events[events["kind"] == Kind.SLEPT]
    for one, until in sleeping:
        if one.owner in number and one.owner != one.tid:
            owner = number[one.owner]
            begun = slept["time"][slept["thread"] == owner]
            rows += [(time, owner, one.address) for time in begun.tolist() if not until or time < until]
    return np.array(rows, HELD)


def with_stacks(table: StackTable | None, stacks: Sequence[Sequence[Frame]]) -> StackTable:
    """Add `stacks`, innermost frame first, to the end of the table."""
    table = table if table is not None else _NOTHING
    strings = list(table.strings)
    number = {text: at for at, text in reversed(list(enumerate(strings)))}

    def known(text: str) -> int:
        if text not in number:
            number[text] = len(strings)
            strings.append(text)
        return number[text]

    frames = [(known(function), known(file), line, 0, 0) for stack in stacks for function, file, line in stack]
    ends = table.offsets[-1] + np.cumsum([len(stack) for stack in stacks], dtype=np.int64)
    return replace(
        table,
        frames=np.concatenate([table.frames, np.array(frames, FRAME)]),
        offsets=np.concatenate([table.offsets, ends]),
        truncated=np.append(table.truncated, np.zeros(len(stacks), np.bool_)),
        strings=tuple(strings),
    )
