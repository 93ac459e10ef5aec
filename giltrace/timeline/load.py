"""A recording on disk to its timeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from giltrace.errors import RecordingError
from giltrace.recording.events import ProcessEvents, SchedEvents, Spans
from giltrace.recording.gil import read_processes
from giltrace.recording.meta import Meta
from giltrace.recording.sched import complete_from, read_sched
from giltrace.recording.spans import read_spans
from giltrace.timeline.build import build_timeline
from giltrace.timeline.model import CollectorReport, Timeline


def load(folder: Path) -> Timeline:
    """Read the recording `folder` and build its timeline.

    A recording that was cut short is read as far as it goes. Raises `RecordingError` if `folder` is none, was written
    by another version, or cannot be read.
    """
    try:
        return _load(folder)
    except OSError as error:
        raise RecordingError.unreadable(error.filename or folder, error) from None


def _load(folder: Path) -> Timeline:
    meta = Meta.read(folder)
    processes, clock_error_ns = read_processes(folder)
    processes = [_as_seen_here(_since(process, complete_from(folder)), meta) for process in processes]
    last = max((int(process.events["time"][-1]) for process in processes if process.events.size), default=meta.start_ns)
    has_sched = any(folder.glob("sched-*.bin"))
    return build_timeline(
        processes,
        _with_names(read_sched(folder), meta) if has_sched else None,
        [_spans_as_seen_here(spans, meta) for spans in read_spans(folder)],
        # Of a flight recorder's ring, what came before is gone.
        start=min(process.start for process in processes) if any(p.overwritten for p in processes) else meta.start_ns,
        end=meta.end_ns or last,
        realtime_offset=meta.realtime_offset_ns,
        boottime_offset=meta.boottime_offset_ns,
        clock_error_ns=clock_error_ns,
        machine=meta.machine,
        collectors=[CollectorReport(**report) for report in meta.collectors],
        trigger=meta.trigger,
        unfinished=not meta.finished,
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
    # Seen from outside, they have these ids already.
    ids = meta.ids if process.sampling is None else {}
    threads = []
    for thread in process.threads:
        tid = ids.get(str(thread.tid), thread.tid)
        # Once only: a later thread that has the same id has its own name.
        threads.append(replace(thread, tid=tid, name=names.pop(str(tid), thread.name)))
    pid = ids.get(str(process.pid), process.pid)
    return replace(process, pid=pid, threads=tuple(threads))


def _spans_as_seen_here(spans: Spans, meta: Meta) -> Spans:
    """The same for the threads of spans. A collector may have found out the ids here itself."""
    here = set(meta.ids.values())
    inside = {int(tid): there for tid, there in meta.ids.items() if int(tid) not in here}
    used, of_row = np.unique(spans.spans["tid"], return_inverse=True)
    if not inside.keys() & set(used.tolist()):
        return spans
    rows = spans.spans.copy()
    rows["tid"] = np.array([inside.get(tid, tid) for tid in used.tolist()], rows["tid"].dtype)[of_row]
    return replace(spans, spans=rows[np.lexsort((rows["depth"], rows["start"], rows["tid"]))])


def _with_names(sched: SchedEvents, meta: Meta) -> SchedEvents:
    return replace(sched, names={**sched.names, **{int(tid): name for tid, name in meta.thread_names.items()}})
