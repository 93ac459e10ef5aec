"""Reads `sched-<cpu>.bin`: raw perf records as the kernel wrote them, one file per core.

Every record starts with a header (u32 type, u16 misc, u16 size) and ends with the 24 bytes that
`sample_id_all` appends: u32 pid, u32 tid, u64 time (CLOCK_MONOTONIC ns), u32 cpu, u32 reserved.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.recording.door import MAX_CPU, MAX_ID, Damaged, Times, leaving_out, matching, read_data
from giltrace.recording.events import SWITCH, TASK, Array, Exec, SchedEvents
from giltrace.text import visible

_LOST, _COMM, _EXIT, _FORK, _SWITCH = 2, 3, 4, 7, 14
_MISC_OUT, _MISC_PREEMPT = 1 << 13, 1 << 14
_MISC_EXEC = 1 << 13  # of a COMM
_LAST_TYPE = 32
_TRAILER_WORDS = 3
#: The size that a record of each type has at least: its header, what is read of it, its trailer.
_LEAST_BYTES = np.full(_LAST_TYPE + 1, 32, np.uint64)
_LEAST_BYTES[[_LOST, _COMM, _EXIT, _FORK]] = 48, 48, 56, 56
_LOW = np.uint64(0xFFFFFFFF)
#: What the kernel says for a process that this one may not know of, or that is gone.
_NOBODY = (0, 0xFFFFFFFF)
_MOST_LOST = np.uint64(1 << 40)
_NAME = re.compile(r"sched-\d{1,5}(\.old)?\.bin", re.ASCII)
_EVER = Times()

#: `SWITCH` with all the bits that the kernel's records have.
_RAW_SWITCH = np.dtype(
    [("time", "<u8"), ("pid", "<u4"), ("tid", "<u4"), ("cpu", "<u4"), ("on", "u1"), ("preempted", "u1")]
)

Words = npt.NDArray[np.uint64]
Index = npt.NDArray[np.int64]


def read_sched(folder: Path, times: Times = _EVER, damage: list[str] | None = None) -> SchedEvents:
    """Read all context switches, thread births and ends of a recording; empty without any file.

    A torn record at the end of a file, as a recorder that was killed leaves it, is dropped. What makes no sense or is
    not of these `times` is left out, and so are damaged files: that is added to `damage` in words.
    """
    return read_perf_files(_files(folder), times, damage)


def read_perf_files(paths: Iterable[Path], times: Times = _EVER, damage: list[str] | None = None) -> SchedEvents:
    """Read the files of perf records at `paths`, like `read_sched`."""
    switches: list[npt.NDArray[np.void]] = []
    others: list[_Rare] = []
    lost = 0
    refused: list[Damaged] = []
    for path in paths:
        with leaving_out(path, refused):
            words = _load(path)
            starts = _record_starts(words)
            kinds = words[starts] & _LOW
            switches.append(_switches(words, starts[kinds == _SWITCH]))
            switches.append(_final_switches(words, starts[kinds == _EXIT]))
            others.extend(_raw(words, starts[(kinds == _COMM) | (kinds == _EXIT) | (kinds == _FORK)]))
            lost += _lost(words, starts[kinds == _LOST])
            if _is_broken(words, starts):
                refused.append(Damaged(path, f"all but its first {len(starts)} records"))
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
    known = raw[good].astype(SWITCH)
    return known[np.argsort(known["time"], kind="stable")]


def read_births(folder: Path) -> set[int]:
    """Return the ids of the threads that were started, as the kernel saw it."""
    return set(_read_tasks(folder, _FORK)["tid"].tolist())


def _read_tasks(folder: Path, kind: int) -> npt.NDArray[np.void]:
    records: list[_Rare] = []
    for path in _files(folder):
        words = _load(path)
        starts = _record_starts(words)
        records.extend(_raw(words, starts[(words[starts] & _LOW) == kind]))
    known = (record for record in records if record.makes_sense())
    return _lifetimes(sorted(known, key=lambda record: record.time))[0]


def read_ends(folder: Path) -> dict[int, list[int]]:
    """Return when the threads ended, as the kernel saw it: tid to times in ns, in order (an id may be used again)."""
    tasks = _read_tasks(folder, _EXIT)
    times: dict[int, list[int]] = {}
    for tid, time in zip(tasks["tid"].tolist(), tasks["time"].tolist(), strict=True):
        times.setdefault(tid, []).append(time)
    return times


def count_records(folder: Path) -> tuple[int, int]:
    """Count the records in the files of a recording, and those that the kernel says it had to drop."""
    records = lost = 0
    for path in _files(folder):
        words = _load(path)
        starts = _record_starts(words)
        records += len(starts)
        lost += _lost(words, starts[(words[starts] & _LOW) == _LOST])
    return records, lost


def has_sched(folder: Path) -> bool:
    """Whether the kernel was asked for context switches."""
    return bool(_files(folder))


def complete_from(folder: Path, times: Times = _EVER) -> int:
    """The time in ns from which on no core's records were left out; 0 if none ever were.

    Each core's file is turned over by itself (see `collectors._perf.Ring`), a busy core's sooner.
    """
    first = [0]
    for path in _files(folder):
        if path.name.endswith(".old.bin"):
            with leaving_out(path, []):
                first.append(_first_time(_load(path)))
    return max(time for time in first if time <= times.last)


def _first_time(words: Words) -> int:
    starts = _record_starts(words)
    if not len(starts):
        return 0
    size = int(words[starts[0]] >> np.uint64(51))  # in words
    return int(words[starts[0] + size - _TRAILER_WORDS + 1])


def _files(folder: Path) -> list[Path]:
    """The files of all cores; of one that is bounded, the older half first."""
    found = matching(folder, _NAME.fullmatch)
    return sorted(found, key=lambda path: (path.name.split(".")[0], not path.name.endswith(".old.bin")))


def _load(path: Path) -> Words:
    data = read_data(path)
    return np.frombuffer(data, "<u8", count=len(data) // 8)


def _record_starts(words: Words) -> Index:
    """Return the index of the first word of every whole record, in order."""
    if not len(words):
        return np.empty(0, np.int64)
    sizes = words >> np.uint64(48)
    plausible = _plausible(words)
    starts = np.flatnonzero(plausible)
    ends = starts + (sizes[starts] >> np.uint64(3)).astype(np.int64)
    if not len(starts) or starts[0] != 0 or not np.array_equal(starts[1:], ends[:-1]):
        return _walk(sizes, plausible)
    return starts if ends[-1] <= len(words) else starts[:-1]


def _plausible(words: Words) -> npt.NDArray[np.bool_]:
    """Any word that could be a header; inside a record only a freak pid and tid could pass for one."""
    sizes = words >> np.uint64(48)
    kinds = words & _LOW
    known = (kinds > 0) & (kinds <= _LAST_TYPE) & (sizes & np.uint64(7) == 0)
    least = _LEAST_BYTES[np.where(known, kinds, 0).astype(np.int64)]
    plausible: npt.NDArray[np.bool_] = known & (sizes >= least)
    return plausible


def _is_broken(words: Words, starts: Index) -> bool:
    """Whether something other than a torn record follows the last whole one."""
    end = int(starts[-1]) + (int(words[starts[-1]]) >> 51) if len(starts) else 0
    return end < len(words) and not _plausible(words[end : end + 1])[0]


def _walk(sizes: Words, plausible: npt.NDArray[np.bool_]) -> Index:
    """Follow the records from one to the next: linear, but slower than seeing all at once."""
    steps = np.where(plausible, sizes >> np.uint64(3), 0).tolist()
    starts: list[int] = []
    position = 0
    while position < len(steps) and steps[position] and position + steps[position] <= len(steps):
        starts.append(position)
        position += steps[position]
    return np.array(starts, np.int64)


def _switches(words: Words, starts: Index) -> npt.NDArray[np.void]:
    header = words[starts]
    who = words[starts + 1]
    rows = np.empty(len(starts), _RAW_SWITCH)
    rows["time"] = words[starts + 2]
    rows["pid"] = who & _LOW
    rows["tid"] = who >> np.uint64(32)
    rows["cpu"] = words[starts + 3] & _LOW
    misc = (header >> np.uint64(32)) & np.uint64(0xFFFF)
    rows["on"] = (misc & _MISC_OUT) == 0
    rows["preempted"] = (misc & _MISC_PREEMPT) != 0
    return rows


def _final_switches(words: Words, starts: Index) -> npt.NDArray[np.void]:
    """A thread leaves its last core without a switch record: it does so where its end is recorded."""
    rows = np.zeros(len(starts), _RAW_SWITCH)
    if len(starts):
        trailer = starts + (words[starts] >> np.uint64(51)).astype(np.int64) - _TRAILER_WORDS
        rows["time"] = words[trailer + 1]
        rows["pid"] = words[starts + 1] & _LOW
        rows["tid"] = words[starts + 2] & _LOW
        rows["cpu"] = words[trailer + 2] & _LOW
    return rows


def _lost(words: Words, starts: Index) -> int:
    """How many records the kernel says it lost; one that says more than there can be is damaged."""
    counts = words[starts + 2] if len(starts) else words[:0]
    return int(counts[counts < _MOST_LOST].sum())


class _Rare(NamedTuple):
    """A record of a thread's birth, end or name; `body` is what lies between its header and its trailer."""

    time: int
    kind: int
    misc: int
    body: bytes

    @property
    def ids(self) -> tuple[int, int, int, int]:
        """Process, its parent, thread and its parent: of a COMM, process and thread."""
        first, second, third, fourth = struct.unpack_from("<4I", self.body.ljust(16, b"\0"))
        return first, second, third, fourth

    def makes_sense(self) -> bool:
        """Whether its numbers are those of a process and a thread."""
        pid, other, tid, _ = self.ids
        return 0 < pid <= MAX_ID and 0 < (other if self.kind == _COMM else tid) <= MAX_ID


def _raw(words: Words, starts: Index) -> list[_Rare]:
    """Return the rare records."""
    data = words.tobytes() if len(starts) else b""
    records = []
    for start in starts.tolist():
        header = int(words[start])
        end = start + (header >> 51)
        time = int(words[end - _TRAILER_WORDS + 1])
        body = data[8 * start + 8 : 8 * (end - _TRAILER_WORDS)]
        records.append(_Rare(time, header & 0xFFFFFFFF, header >> 32 & 0xFFFF, body))
    return records


def _lifetimes(records: list[_Rare]) -> tuple[npt.NDArray[np.void], dict[int, str], tuple[Exec, ...]]:
    """Turn the rare records, in order of time, into births and ends, the last name of every thread, and execs."""
    tasks: list[tuple[int, int, int, int]] = []
    names: dict[int, str] = {}
    execs: list[Exec] = []
    alive: dict[int, set[int]] = {}
    ended: set[int] = set()
    for record in records:
        time, kind = record.time, record.kind
        if kind == _COMM:
            pid, tid, _, _ = record.ids
            names[tid] = visible(record.body[8:].split(b"\0", 1)[0].decode("utf-8", "replace"))
            if record.misc & _MISC_EXEC:
                execs.append(Exec(time, pid, names[tid]))
                # The thread that executed it goes on with the id of the first one, which has ended if it was another.
                tasks += [(time, pid, other, 0) for other in alive.pop(pid, set()) - {pid}]
                tasks += [(time, pid, pid, 1)] if pid in ended else []
                ended.discard(pid)
            continue
        pid, _, tid, parent = record.ids
        tasks.append((time, pid, tid, int(kind == _FORK)))
        if kind == _FORK:
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
