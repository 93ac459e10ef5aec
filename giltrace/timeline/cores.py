"""How much of the machine each process could use while it worked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from giltrace.recording.cores import quota_of
from giltrace.timeline.axis import NEVER, Ints
from giltrace.timeline.model import Array, Cores, Process


def with_cores(processes: Sequence[Process], rows: Array, ids: Mapping[str, int]) -> tuple[Process, ...]:
    """Tell each process the cores that it had, by the `rows` (dtype `cores.ALLOWED`, sorted by time) of a recording.

    A process that changed that while it ran had what it had while it did most of its work. One that was over before
    anybody looked had what its parent had, who handed it down. `ids` has ids here by those that a process sees itself.
    """
    if not len(rows):
        return tuple(processes)
    parents = {process.pid: ids.get(str(process.ppid), process.ppid) for process in processes}
    by_pid = rows[np.argsort(rows["pid"], kind="stable")]
    pids, first = np.unique(by_pid["pid"], return_index=True)
    known = dict(zip(pids.tolist(), np.split(by_pid, first[1:]), strict=True))
    return tuple(replace(process, cores=_cores(process, _line(process.pid, parents), known)) for process in processes)


def _line(pid: int, parents: Mapping[int, int]) -> list[int]:
    """A process, its parent, and so on, as far as they are known."""
    line = [pid]
    while (parent := parents.get(line[-1], 0)) and parent not in line:
        line.append(parent)
    return line


def _cores(process: Process, line: Sequence[int], known: Mapping[int, Array]) -> Cores | None:
    own = next((known[pid] for pid in line if pid in known), None)
    if own is None:
        return None
    start, end = own["since"].copy(), np.append(own["since"][1:], NEVER)
    start[0] = -NEVER  # as far as is known it was so before somebody looked
    start, end = np.clip(start, process.start, process.end), np.clip(end, process.start, process.end)
    best = np.lexsort((end - start, _worked(process, end) - _worked(process, start)))[-1]
    return Cores(int(own["cpus"][best]), quota_of(own[best]))


def _worked(process: Process, until: Ints) -> Ints:
    """How long all its threads ran before each instant, in ns; without scheduling data how long they held a GIL."""
    rows = process.runs if len(process.runs) else process.holds
    starts, ends = np.sort(rows["start"]) - process.start, np.sort(rows["end"]) - process.start
    until = until - process.start
    before: Ints = _sum_before(ends, until) - _sum_before(starts, until)
    still = np.searchsorted(starts, until) - np.searchsorted(ends, until)
    result: Ints = before + still * until
    return result


def _sum_before(times: Ints, until: Ints) -> Ints:
    """The sum of the sorted times before each instant."""
    sums: Ints = np.append(0, np.cumsum(times))[np.searchsorted(times, until)]
    return sums
