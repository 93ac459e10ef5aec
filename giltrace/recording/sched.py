"""Reads `sched-<cpu>.bin`: context switches and the lives of threads, one file of perf records per core."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from giltrace.recording.door import MAX_CPU, MAX_ID, Damaged, Times, leaving_out, matching
from giltrace.recording.events import SWITCH, TASK, Array, Exec, SchedEvents
from giltrace.recording.perf_records import (
    LOW,
    MISC_EXEC,
    Index,
    Rare,
    Words,
    first_time,
    is_broken,
    kinds,
    load,
    rare_records,
    record_starts,
    trailers,
)
from giltrace.recording.perf_types import Type
from giltrace.text import visible

_MISC_OUT, _MISC_PREEMPT = 1 << 13, 1 << 14
#: What the kernel says for a process that this one may not know of, or that is gone.
_NOBODY = (0, 0xFFFFFFFF)
_MOST_LOST = np.uint64(1 << 40)
_NAME = re.compile(r"sched-\d{1,5}(\.old)?\.bin", re.ASCII)
_EVER = Times()
#: A record of a switch has so many bytes.
_SWITCH_BYTES = 32
#: So many are looked at at a time, where only some are wanted.
_PIECE = 1 << 20

#: `SWITCH` with all the bits that the kernel's records have.
_RAW_SWITCH = np.dtype(
    [("time", "<u8"), ("pid", "<u4"), ("tid", "<u4"), ("cpu", "<u4"), ("on", "u1"), ("preempted", "u1")]
)


def read_sched(
    folder: Path,
    times: Times = _EVER,
    damage: list[str] | None = None,
    window: tuple[int, int] | None = None,
) -> SchedEvents:
    """Read all context switches, thread births and ends of a recording; empty without any file.

    A torn record at the end of a file, as a recorder that was killed leaves it, is dropped. What makes no sense or is
    not of these `times` is left out, and so are damaged files: that is added to `damage` in words. Where a `window`
    is asked for, [start, end) in ns, there are its switches, and those that tell who has a core at its edges.
    """
    return read_perf_files(sched_files(folder), times, damage, window)


def read_perf_files(
    paths: Iterable[Path],
    times: Times = _EVER,
    damage: list[str] | None = None,
    window: tuple[int, int] | None = None,
) -> SchedEvents:
    """Read the files of perf records at `paths`, like `read_sched`."""
    switches: list[npt.NDArray[np.void]] = []
    others: list[Rare] = []
    lost = 0
    refused: list[Damaged] = []
    for path in paths:
        with leaving_out(path, refused):
            words = load(path)
            starts = record_starts(words)
            types = kinds(words, starts)
            own = starts[types == Type.SWITCH]
            switches += [_switches(words, own)] if window is None else _excerpt(words, own, *window)
            switches.append(_final_switches(words, starts[types == Type.EXIT]))
            others.extend(rare_records(words, starts[np.isin(types, (Type.COMM, Type.EXIT, Type.FORK))]))
            lost += _lost(words, starts[types == Type.LOST])
            if is_broken(words, starts):
                refused.append(Damaged(path, f"all but its first {len(starts)} records"))
            del words, starts, types, own  # before the next file's
    merged = np.concatenate(switches) if switches else np.empty(0, _RAW_SWITCH)
    known = _sensible(merged, times)
    rare = [one for one in others if times.first <= one.time <= times.last and one.makes_sense()]
    rare.sort(key=lambda record: record.time)
    if damage is not None:
        left_out = int(np.isin(merged["tid"], _NOBODY, invert=True).sum()) - len(known) + len(others) - len(rare)
        damage += [error.left_out() for error in refused]
        damage += [f"records of context switches that make no sense: {left_out}"] * (left_out > 0)
    tasks, names, execs = _lifetimes(rare)
    return SchedEvents(known, tasks, names, lost, execs)


def _sensible(raw: Array, times: Times) -> Array:
    """The switches of these `times` and of numbers that there are, in order of time."""
    good = times.have(raw["time"]) & (raw["cpu"] <= MAX_CPU)
    for name in ("pid", "tid"):
        good &= (raw[name] > 0) & (raw[name] <= MAX_ID)
    if not good.all():
        raw = raw.take(np.flatnonzero(good))
    raw = raw.take(np.argsort(raw["time"], kind="stable"))
    known = np.empty(len(raw), SWITCH)
    for name in known.dtype.names or ():
        known[name] = raw[name]
    return known


def switch_times(folder: Path, times: Times = _EVER) -> npt.NDArray[np.int64]:
    """When there was a context switch, sorted: of what is damaged, as far as it can be read."""
    found = [np.empty(0, np.int64)]
    for path in sched_files(folder):
        with leaving_out(path, []):
            words = load(path)
            starts = record_starts(words)
            for at in range(0, len(starts), _PIECE):
                some = starts[at : at + _PIECE]
                time = words[some[kinds(words, some) == Type.SWITCH] + 2]
                found.append(time[times.have(time)].astype(np.int64))
            del words, starts  # before the next file's
    merged = np.concatenate(found)
    merged.sort()
    return merged


def most_switches(folder: Path) -> int:
    """So many context switches are on record at most."""
    sizes = (path.stat().st_size for path in sched_files(folder) if path.is_file())
    return sum(sizes) // _SWITCH_BYTES


def read_births(folder: Path) -> set[int]:
    """Return the ids of the threads that were started, as the kernel saw it."""
    return set(_read_tasks(folder, Type.FORK)["tid"].tolist())


def _read_tasks(folder: Path, kind: int) -> npt.NDArray[np.void]:
    records: list[Rare] = []
    for path in sched_files(folder):
        words = load(path)
        starts = record_starts(words)
        records.extend(rare_records(words, starts[kinds(words, starts) == kind]))
    known = (record for record in records if record.makes_sense())
    return _lifetimes(sorted(known, key=lambda record: record.time))[0]


def read_ends(folder: Path) -> dict[int, list[int]]:
    """Return when the threads ended, as the kernel saw it: tid to times in ns, in order (an id may be used again)."""
    tasks = _read_tasks(folder, Type.EXIT)
    times: dict[int, list[int]] = {}
    for tid, time in zip(tasks["tid"].tolist(), tasks["time"].tolist(), strict=True):
        times.setdefault(tid, []).append(time)
    return times


def count_records(folder: Path) -> tuple[int, int]:
    """Count the records in the files of a recording, and those that the kernel says it had to drop."""
    records = lost = 0
    for path in sched_files(folder):
        words = load(path)
        starts = record_starts(words)
        records += len(starts)
        lost += _lost(words, starts[kinds(words, starts) == Type.LOST])
    return records, lost


def has_sched(folder: Path) -> bool:
    """Whether the kernel was asked for context switches."""
    return bool(sched_files(folder))


def complete_from(folder: Path, times: Times = _EVER) -> int:
    """The time in ns from which on no core's records were left out; 0 if none ever were.

    Each core's file is turned over by itself (see `collectors._perf.Ring`), a busy core's sooner.
    """
    first = [0]
    for path in sched_files(folder):
        if path.name.endswith(".old.bin"):
            with leaving_out(path, []):
                first.append(first_time(load(path)))
    return max(time for time in first if time <= times.last)


def sched_files(folder: Path) -> list[Path]:
    """The files of all cores; of one that is bounded, the older half first."""
    found = matching(folder, _NAME.fullmatch)
    return sorted(found, key=lambda path: (path.name.split(".")[0], not path.name.endswith(".old.bin")))


def _switches(words: Words, starts: Index) -> npt.NDArray[np.void]:
    header = words[starts]
    who = words[starts + 1]
    rows = np.empty(len(starts), _RAW_SWITCH)
    rows["time"] = words[starts + 2]
    rows["pid"] = who & LOW
    rows["tid"] = who >> np.uint64(32)
    rows["cpu"] = words[starts + 3] & LOW
    misc = (header >> np.uint64(32)) & np.uint64(0xFFFF)
    rows["on"] = (misc & _MISC_OUT) == 0
    rows["preempted"] = (misc & _MISC_PREEMPT) != 0
    return rows


def _excerpt(words: Words, starts: Index, first: int, last: int) -> list[npt.NDArray[np.void]]:
    """The switches in [first, last) of one core, those before that tell who had it then, and those that end it after.

    Before it, those are of each thread the first two, so that it is known when all began, and all since it was given
    the core for the last time but one.
    """
    before, parts = np.empty(0, _RAW_SWITCH), []
    left = np.zeros(MAX_ID + 1, np.bool_)
    for at in range(0, len(starts), _PIECE):
        rows = _switches(words, starts[at : at + _PIECE])
        early, late = rows["time"] < first, rows["time"] >= last
        if early.any():
            before = _at_the_ends(np.concatenate([before, rows[early]]))
        parts.append(rows[~early & ~late])
        after = rows[late]
        tid = np.minimum(after["tid"], MAX_ID)
        fresh = _firsts(tid, np.flatnonzero(~left[tid]))
        parts.append(after[np.sort(fresh[fresh >= 0])])
        left[tid] = True
    return [before, *parts]


def _at_the_ends(rows: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Of each thread the first two of the rows, and all since it was given the core for the last time but one."""
    tid, number, stays = np.minimum(rows["tid"], MAX_ID), np.arange(len(rows)), np.zeros(len(rows), np.bool_)
    left = number
    for _ in range(2):
        first = _firsts(tid, left)
        stays[first[first >= 0]] = True
        left = left[~stays[left]]
    on = np.flatnonzero(rows["on"] == 1)[::-1]
    again = on[_firsts(tid, on)[tid[on]] != on]
    stays |= number >= _firsts(tid, again)[tid]
    kept: npt.NDArray[np.void] = rows[stays]
    return kept


def _firsts(tid: npt.NDArray[np.uint32], rows: Index) -> Index:
    """The first of these rows of each thread, -1 for none; `tid` is per row."""
    found = np.full(int(tid.max(initial=0)) + 1, -1)
    # Of several values for one index, numpy keeps the last.
    found[tid[rows[::-1]]] = rows[::-1]
    return found


def _final_switches(words: Words, starts: Index) -> npt.NDArray[np.void]:
    """A thread leaves its last core without a switch record: it does so where its end is recorded."""
    rows = np.zeros(len(starts), _RAW_SWITCH)
    if len(starts):
        trailer = trailers(words, starts)
        rows["time"] = words[trailer + 1]
        rows["pid"] = words[starts + 1] & LOW
        rows["tid"] = words[starts + 2] & LOW
        rows["cpu"] = words[trailer + 2] & LOW
    return rows


def _lost(words: Words, starts: Index) -> int:
    """How many records the kernel says it lost; one that says more than there can be is damaged."""
    counts = words[starts + 2] if len(starts) else words[:0]
    return int(counts[counts < _MOST_LOST].sum())


def _lifetimes(records: list[Rare]) -> tuple[npt.NDArray[np.void], dict[int, str], tuple[Exec, ...]]:
    """Turn the rare records, in order of time, into births and ends, the last name of every thread, and execs."""
    tasks: list[tuple[int, int, int, int]] = []
    names: dict[int, str] = {}
    execs: list[Exec] = []
    alive: dict[int, set[int]] = {}
    ended: set[int] = set()
    for record in records:
        time, kind = record.time, record.kind
        if kind == Type.COMM:
            pid, tid, _, _ = record.ids
            names[tid] = visible(record.body[8:].split(b"\0", 1)[0].decode("utf-8", "replace"))
            if record.misc & MISC_EXEC:
                execs.append(Exec(time, pid, names[tid]))
                # The thread that executed it goes on with the id of the first one, which has ended if it was another.
                tasks += [(time, pid, other, 0) for other in alive.pop(pid, set()) - {pid}]
                tasks += [(time, pid, pid, 1)] if pid in ended else []
                ended.discard(pid)
            continue
        pid, _, tid, parent = record.ids
        tasks.append((time, pid, tid, int(kind == Type.FORK)))
        if kind == Type.FORK:
            alive.setdefault(pid, set()).add(tid)
            ended.discard(tid)
            # A thread bears its creator's name until it says otherwise, also where the id was used before.
            names.pop(tid, None)
            if parent in names:
                names[tid] = names[parent]
        else:
            alive.get(pid, set()).discard(tid)
            ended.add(tid)
    return np.array(tasks, TASK) if tasks else np.empty(0, TASK), names, tuple(execs)
