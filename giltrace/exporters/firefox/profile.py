"""A timeline for the Firefox Profiler, in its "processed profile" JSON, version 60 (newer viewers upgrade it).

Each thread has a sample per hold and wait, weighted with its length, and a marker per hold, wait, switch request and
block. Times are milliseconds since the recording's start with six decimals: exact.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from giltrace import __version__
from giltrace.errors import UsageError
from giltrace.exporters._names import command_words, labels
from giltrace.exporters._text import Cells, decimals, integers, where, write_array
from giltrace.exporters.firefox.markers import SCHEMA, Markers
from giltrace.exporters.firefox.tables import CATEGORIES, HOLDING, WAITING, SharedTables
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process, Thread, Timeline

_VERSION = 60
_MS = 1_000_000


def stream(timeline: Timeline, file: BinaryIO) -> None:
    """Write `timeline` to an open file; raises `UsageError` if no use of a GIL, nor of a lock, is on record."""
    if not any(len(one.holds) or len(one.waits) or len(one.blocks) for one in timeline.processes):
        raise UsageError("no use of the GIL is on record", "see `giltrace report` for what is in the recording")
    file.write(b'{"meta":' + _json(_meta(timeline)) + b',"libs":[],"threads":[')
    shared = SharedTables()
    separator = b""
    for process in timeline.processes:
        writer = _Writer(file, process, shared, timeline.start, timeline.began_ns)
        for number in process.chosen_threads:
            file.write(separator)
            writer.thread(number)
            separator = b",\n"
    file.write(b'],"shared":' + _json(shared.json()) + b"}\n")


def _meta(timeline: Timeline) -> dict[str, Any]:
    machine = timeline.machine
    return {
        "interval": 1,
        "startTime": timeline.began_ns / _MS,
        "startTimeAsClockMonotonicNanosecondsSinceBoot": timeline.start,
        "processType": 0,
        "product": " ".join(command_words(timeline.processes[0])[:1]),
        "importedFrom": f"giltrace {__version__}",
        "stackwalk": 1,
        "version": 30,
        "preprocessedProfileVersion": _VERSION,
        "symbolicationNotSupported": True,
        "usesOnlyOneStackType": True,
        "sourceCodeIsNotOnSearchfox": True,
        "keepProfileThreadOrder": True,
        "platform": str(machine.get("sysname", "")),
        "oscpu": " ".join(str(machine.get(name, "")) for name in ("sysname", "release", "machine")),
        "logicalCPUs": int(machine.get("cpus", 0)),
        "categories": CATEGORIES,
        "markerSchema": SCHEMA,
    }


class _Writer:
    """Writes the threads of one process."""

    def __init__(self, file: BinaryIO, process: Process, shared: SharedTables, origin: int, recorded_ns: int) -> None:
        self._file, self._process, self._origin = file, process, origin
        self._labels = labels(process)
        self._markers = Markers(process, shared, origin, recorded_ns)
        self._hold_samples = shared.stacks(process, self._markers.hold_stacks, HOLDING)[1]
        self._wait_samples = shared.stacks(process, self._markers.wait_stacks, WAITING)[1]

    def thread(self, number: int) -> None:
        """Write one thread."""
        process, thread = self._process, self._process.threads[number]
        about = {
            "processType": "default",
            "processName": " ".join(command_words(process)[:1]),
            "processStartupTime": self._ms(process.start),
            "processShutdownTime": self._ms(process.end),
            "registerTime": self._ms(thread.start),
            "unregisterTime": self._ms(thread.end),
            "pausedRanges": [],
            "name": self._labels[number],
            "isMainThread": self._is_main(thread),
            "pid": str(process.pid),
            "tid": thread.tid,
            "showMarkersInTimeline": True,
        }
        self._file.write(_json(about)[:-1])
        holds, waits = self._markers.rows_of(number)
        self._samples(holds, waits)
        self._markers.write(self._file, number)
        self._file.write(b"}")

    def _ms(self, time: int) -> float:
        return (time - self._origin) / _MS

    def _is_main(self, thread: Thread) -> bool:
        return thread.tid == self._process.pid

    def _samples(self, holds: Ints, waits: Ints) -> None:
        """A sample where each hold and wait begins, and an empty one where neither goes on."""
        held, waited = self._process.holds[holds], self._process.waits[waits]
        start = np.concatenate((held["start"], waited["start"]))
        end = np.concatenate((held["end"], waited["end"]))
        stack = np.concatenate((self._hold_samples[holds], self._wait_samples[waits]))
        order = np.argsort(start, kind="stable")
        start, end, stack = start[order], end[order], stack[order]
        off = end[np.append(start[1:] > end[:-1], True)] if len(end) else end
        time = np.concatenate((start, off))
        weight = np.concatenate((end - start, np.zeros_like(off)))
        stack = np.concatenate((stack, np.full(len(off), -1)))
        order = np.argsort(time, kind="stable")
        columns = {
            "stack": lambda piece: numbers_or_null(stack[order[piece]]),
            "time": lambda piece: decimals(time[order[piece]] - self._origin, 6),
            "weight": lambda piece: decimals(weight[order[piece]], 6),
        }
        self._file.write(b',"samples":{"weightType":"tracing-ms","length":%d' % len(time))
        for name, cells in columns.items():
            self._file.write(b',"%s":' % name.encode())
            write_array(self._file, len(time), cells)
        self._file.write(b"}")


def numbers_or_null(values: npt.NDArray[np.int64]) -> Cells:
    """Integers, and null for those below 0."""
    known = values >= 0
    return np.concatenate((where(known, integers(np.maximum(values, 0))), where(~known, b"null")), axis=1)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
