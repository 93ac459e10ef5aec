"""Reads `sched-<cpu>.bin`: raw perf records as the kernel wrote them, one file per core.

Every record starts with a header (u32 type, u16 misc, u16 size) and ends with the 24 bytes that
`sample_id_all` appends: u32 pid, u32 tid, u64 time (CLOCK_MONOTONIC ns), u32 cpu, u32 reserved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from giltrace.recording.events import SWITCH, TASK, SchedEvents

_LOST, _COMM, _EXIT, _FORK, _SWITCH = 2, 3, 4, 7, 14
_MISC_OUT, _MISC_PREEMPT = 1 << 13, 1 << 14
_LAST_TYPE = 32
_TRAILER_WORDS = 3
_LOW = np.uint64(0xFFFFFFFF)

Words = npt.NDArray[np.uint64]
Index = npt.NDArray[np.int64]


def read_sched(folder: Path) -> SchedEvents:
    """Read all context switches, thread births and ends of a recording; empty without any file.

    A torn record at the end of a file, as a recorder that was killed leaves it, is dropped.
    """
    return read_perf_files(_files(folder))


def read_perf_files(paths: Iterable[Path]) -> SchedEvents:
    """Read the files of perf records at `paths`, like `read_sched`."""
    switches: list[npt.NDArray[np.void]] = []
    others: list[tuple[int, int, bytes]] = []
    lost = 0
    for path in paths:
        words = _load(path)
        starts = _record_starts(words)
        kinds = words[starts] & _LOW
        switches.append(_switches(words, starts[kinds == _SWITCH]))
        switches.append(_final_switches(words, starts[kinds == _EXIT]))
        others.extend(_raw(words, starts[(kinds == _COMM) | (kinds == _EXIT) | (kinds == _FORK)]))
        lost += _lost(words, starts[kinds == _LOST])
    merged = np.concatenate(switches) if switches else np.empty(0, SWITCH)
    merged = merged[np.argsort(merged["time"], kind="stable")]
    others.sort(key=lambda record: record[0])
    tasks, names = _lifetimes(others)
    return SchedEvents(merged, tasks, names, lost)


def read_births(folder: Path) -> set[int]:
    """Return the ids of the threads that were started, as the kernel saw it."""
    return set(_read_tasks(folder, _FORK)["tid"].tolist())


def _read_tasks(folder: Path, kind: int) -> npt.NDArray[np.void]:
    records: list[tuple[int, int, bytes]] = []
    for path in _files(folder):
        words = _load(path)
        starts = _record_starts(words)
        records.extend(_raw(words, starts[(words[starts] & _LOW) == kind]))
    return _lifetimes(sorted(records, key=lambda record: record[0]))[0]


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


def complete_from(folder: Path) -> int:
    """The time in ns from which on no core's records were left out; 0 if none ever were.

    Each core's file is turned over by itself (see `collectors._perf.Ring`), a busy core's sooner.
    """
    first = [_first_time(_load(path)) for path in folder.glob("sched-*.old.bin")]
    return max(first, default=0)


def _first_time(words: Words) -> int:
    starts = _record_starts(words)
    if not len(starts):
        return 0
    size = int(words[starts[0]] >> np.uint64(51))  # in words
    return int(words[starts[0] + size - _TRAILER_WORDS + 1])


def _files(folder: Path) -> list[Path]:
    """The files of all cores; of one that is bounded, the older half first."""
    found = (path for path in folder.glob("sched-*.bin") if re.fullmatch(r"sched-\d+(\.old)?\.bin", path.name))
    return sorted(found, key=lambda path: (path.name.split(".")[0], not path.name.endswith(".old.bin")))


def _load(path: Path) -> Words:
    data = path.read_bytes()
    return np.frombuffer(data, "<u8", count=len(data) // 8)


def _record_starts(words: Words) -> Index:
    """Return the index of the first word of every whole record, in order."""
    if not len(words):
        return np.empty(0, np.int64)
    sizes = words >> np.uint64(48)
    # Any word that could be a header; inside a record only a freak pid and tid could pass for one.
    plausible = (sizes >= 8) & (sizes & np.uint64(7) == 0) & (words & _LOW <= _LAST_TYPE) & (words & _LOW > 0)
    starts = np.flatnonzero(plausible)
    ends = starts + (sizes[starts] >> np.uint64(3)).astype(np.int64)
    if not len(starts) or starts[0] != 0 or not np.array_equal(starts[1:], ends[:-1]):
        return _walk(sizes, plausible)
    return starts if ends[-1] <= len(words) else starts[:-1]


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
    rows = np.empty(len(starts), SWITCH)
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
    rows = np.zeros(len(starts), SWITCH)
    if len(starts):
        trailer = starts + (words[starts] >> np.uint64(51)).astype(np.int64) - _TRAILER_WORDS
        rows["time"] = words[trailer + 1]
        rows["pid"] = words[starts + 1] & _LOW
        rows["tid"] = words[starts + 2] & _LOW
        rows["cpu"] = words[trailer + 2] & _LOW
    return rows


def _lost(words: Words, starts: Index) -> int:
    return int(words[starts + 2].sum()) if len(starts) else 0


def _raw(words: Words, starts: Index) -> list[tuple[int, int, bytes]]:
    """Return (time, type, body) of the rare records; the body is what lies between header and trailer."""
    data = words.tobytes() if len(starts) else b""
    records = []
    for start in starts.tolist():
        header = int(words[start])
        end = start + (header >> 51)
        time = int(words[end - _TRAILER_WORDS + 1])
        records.append((time, header & 0xFFFFFFFF, data[8 * start + 8 : 8 * (end - _TRAILER_WORDS)]))
    return records


def _lifetimes(records: list[tuple[int, int, bytes]]) -> tuple[npt.NDArray[np.void], dict[int, str]]:
    """Turn the rare records, in order of time, into births and ends, and the last name of every thread."""
    tasks: list[tuple[int, int, int, int]] = []
    names: dict[int, str] = {}
    for time, kind, body in records:
        if kind == _COMM:
            tid = int.from_bytes(body[4:8], "little")
            names[tid] = body[8:].split(b"\0", 1)[0].decode("utf-8", "replace")
            continue
        pid, _, tid, parent = (int.from_bytes(body[i : i + 4], "little") for i in range(0, 16, 4))
        tasks.append((time, pid, tid, int(kind == _FORK)))
        if kind == _FORK:
            # A thread bears its creator's name until it says otherwise, also where the id was used before.
            names.pop(tid, None)
            if parent in names:
                names[tid] = names[parent]
    return np.array(tasks, TASK) if tasks else np.empty(0, TASK), names
