"""From what a worker noted of its tasks to spans on its threads: `merged-tasks.npz` of its recording, or the like."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from giltrace.recording.merged import MERGED, Merged, Track, write_merged

#: What a task is called at most: keys may be as long as they like.
_MOST_KEY = 500


class Task(NamedTuple):
    """A task on the thread `tid`, 0 for a coroutine's, from `start` to `end` (ns of CLOCK_MONOTONIC there)."""

    start: int
    end: int
    tid: int
    key: str


class Kinds(NamedTuple):
    """Whose tasks they are: under which `label`, and the kind of one by its key."""

    label: str
    prefix_of: Callable[[str], str]


def write_tasks(folder: Path, log: Path, pid: int, begin: int, end: int, kinds: Kinds) -> int:
    """Put the tasks that the `log` tells into the recording `folder` of process `pid`; how many there are.

    The recording lasted from `begin` to `end`: what ran before and what still runs ends there. Raises OSError.
    """
    with log.open(encoding="utf-8", errors="replace") as file:
        tasks = list(read_tasks(file, begin, end))
    if tasks:
        write_merged(folder, _merged(tasks, pid, kinds))
    return len(tasks)


def read_tasks(lines: Iterable[str], begin: int, end: int) -> list[Task]:
    """The tasks that the lines of a log tell, in order of their begins; a torn line is left out."""
    tasks: list[Task] = []
    on_thread: dict[int, tuple[int, str]] = {}
    before: dict[str, tuple[int, int]] = {}
    asked: dict[str, int] = {}

    def close(tid: int, time: int) -> None:
        if tid in on_thread:
            start, key = on_thread.pop(tid)
            tasks.append(Task(start, max(start, time), tid, key))

    for what, time, tid, key in _notes(lines):
        if what == "before":
            before[key], on_thread[tid] = (tid, time), (begin, key)
        elif what == "after" and key in before:
            mine = before.pop(key)[0]
            if on_thread.get(mine, (0, ""))[1] == key:
                close(mine, time)
        elif what == "begin":
            asked.pop(key, None)
            close(tid, time)
            on_thread[tid] = time, key
        elif what == "end":
            close(tid, time)
        elif what == "runs":
            asked[key] = time
        elif what == "stops" and key in asked:
            tasks.append(Task(asked.pop(key), time, 0, key))
    for tid in list(on_thread):
        close(tid, max(end, on_thread[tid][0]))
    return sorted(tasks)


def _notes(lines: Iterable[str]) -> Iterable[tuple[str, int, int, str]]:
    for line in lines:
        try:
            what, time, tid, key = json.loads(line)
        except (ValueError, TypeError):
            continue
        if isinstance(time, int) and isinstance(tid, int) and isinstance(key, str):
            yield what, time, tid, key


def _merged(tasks: list[Task], pid: int, kinds: Kinds) -> Merged:
    rows = np.zeros(len(tasks), MERGED)
    names: dict[str, int] = {}
    prefixes: dict[str, int] = {}
    tracks: dict[Track, int] = {}
    free: list[int] = []
    for row, task in zip(rows, tasks, strict=True):
        track = Track(pid, task.tid, "") if task.tid else Track(0, 0, f"coroutines {_lane(free, task)}")
        row["start"], row["end"], row["launcher"] = task.start, task.end, -1
        row["name"] = names.setdefault(task.key[:_MOST_KEY], len(names))
        row["category"] = prefixes.setdefault(kinds.prefix_of(task.key)[:_MOST_KEY], len(prefixes))
        row["track"] = tracks.setdefault(track, len(tracks))
    return Merged(
        label=kinds.label,
        source=f"tasks of a {kinds.label} worker",
        sampled=False,
        clock="CLOCK_MONOTONIC, read by the thread of each task",
        clock_error_ns=0,
        tracks=tuple(tracks),
        names=tuple(names),
        categories=tuple(prefixes),
        rows=rows[np.lexsort((rows["depth"], rows["start"], rows["track"]))],
    )


def _lane(free: list[int], task: Task) -> int:
    """The first row on which nothing else is at that time: `free` has until when each is taken."""
    for number, until in enumerate(free):
        if until <= task.start:
            free[number] = task.end
            return number + 1
    free.append(task.end)
    return len(free)
