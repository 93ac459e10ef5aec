"""A recording on disk to its timeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from giltrace.recording.events import ProcessEvents, SchedEvents
from giltrace.recording.gil import read_processes
from giltrace.recording.meta import Meta
from giltrace.recording.sched import complete_from, read_sched
from giltrace.recording.spans import read_spans
from giltrace.timeline.build import build_timeline
from giltrace.timeline.model import CollectorReport, Timeline


def load(folder: Path) -> Timeline:
    """Read the recording `folder` and build its timeline.

    A recording that was cut short is read as far as it goes. Raises `RecordingError` if `folder` is none, or was
    written by another version.
    """
    meta = Meta.read(folder)
    processes, clock_error_ns = read_processes(folder)
    processes = [_as_seen_here(_since(process, complete_from(folder)), meta) for process in processes]
    last = max((int(process.events["time"][-1]) for process in processes if process.events.size), default=meta.start_ns)
    has_sched = any(folder.glob("sched-*.bin"))
    return build_timeline(
        processes,
        _with_names(read_sched(folder), meta) if has_sched else None,
        read_spans(folder),
        # Of a flight recorder's ring, what came before is gone.
        start=min(process.start for process in processes) if any(p.overwritten for p in processes) else meta.start_ns,
        end=meta.end_ns or last,
        realtime_offset=meta.realtime_offset_ns,
        boottime_offset=meta.boottime_offset_ns,
        clock_error_ns=clock_error_ns,
        machine=meta.machine,
        collectors=[CollectorReport(**report) for report in meta.collectors],
        trigger=meta.trigger,
    )


def _since(process: ProcessEvents, time: int) -> ProcessEvents:
    """Leave out what happened before `time`: of a ring, that of which the cores are not known any more."""
    if process.start >= time:
        return process
    kept = process.events[np.searchsorted(process.events["time"], time) :]
    gone = process.overwritten + len(process.events) - len(kept)
    return replace(process, events=kept, start=time, overwritten=gone)


def _as_seen_here(process: ProcessEvents, meta: Meta) -> ProcessEvents:
    """Give a process the ids that it has here, and threads that are older than the recording their names."""
    names = dict(meta.thread_names)
    threads = []
    for thread in process.threads:
        tid = meta.ids.get(str(thread.tid), thread.tid)
        # Once only: a later thread that has the same id has its own name.
        threads.append(replace(thread, tid=tid, name=names.pop(str(tid), thread.name)))
    pid = meta.ids.get(str(process.pid), process.pid)
    return replace(process, pid=pid, threads=tuple(threads))


def _with_names(sched: SchedEvents, meta: Meta) -> SchedEvents:
    return replace(sched, names={**sched.names, **{int(tid): name for tid, name in meta.thread_names.items()}})
