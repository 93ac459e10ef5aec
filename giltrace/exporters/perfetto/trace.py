"""A timeline as one Perfetto trace (`.pftrace`), for ui.perfetto.dev, `vizviewer`'s UI and trace processor's SQL.

From top to bottom `giltrace view` shows a group per GIL (holder, waiting threads, switch requests, critical path), CPU
scheduling, then the processes: above each thread's Running/Runnable track its GIL track, which unfolds to its function
spans and samples, and to those of other profilers' files that were merged. Other UIs begin with CPU scheduling.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from giltrace.analysis.replay.critical_path import CriticalPath
from giltrace.exporters._names import labels
from giltrace.exporters._output import output_file
from giltrace.exporters._places import Places
from giltrace.exporters._relations import relate
from giltrace.exporters.perfetto.cut import write_cut
from giltrace.exporters.perfetto.gil_group import write_group, write_quality
from giltrace.exporters.perfetto.gil_threads import first_tracks, write_thread_tracks
from giltrace.exporters.perfetto.merged import write_merged
from giltrace.exporters.perfetto.packets import Ints
from giltrace.exporters.perfetto.protos import SEQUENCE, STATE_CLEARED, pb
from giltrace.exporters.perfetto.sched import write_sched
from giltrace.exporters.perfetto.sink import Sink
from giltrace.exporters.perfetto.size import Counter, TooLarge
from giltrace.exporters.perfetto.spans import write_spans
from giltrace.exporters.perfetto.stacks import stack_texts
from giltrace.exporters.perfetto.thinned import Steps
from giltrace.exporters.perfetto.thinning import LIMIT, Thinned, thin, told_of_gathered
from giltrace.exporters.perfetto.threads import describe_others, describe_process
from giltrace.exporters.perfetto.whole import paths, write_whole
from giltrace.timeline.model import Process, Timeline

#: Places of the tracks that a thread's GIL track unfolds to.
_RANK_SPANS, _RANK_SAMPLES = 0, 1


def write(timeline: Timeline, path: Path, limit: int | None = LIMIT, first: Sequence[tuple[int, int]] = ()) -> str:
    """Write `timeline` to `path`, which then holds either the whole trace or what it held before; see `stream`.

    Raises `OutputError` if the file cannot be written.
    """
    with output_file(path) as file:
        return stream(timeline, file, limit=limit, first=first)


def stream(
    timeline: Timeline,
    file: BinaryIO,
    whole: str = "",
    limit: int | None = LIMIT,
    first: Sequence[tuple[int, int]] = (),
) -> str:
    """Write `timeline` to an open file, from its begin to its end.

    A trace that would be larger than `limit` bytes is thinned: what it leaves out is said in words, in it and by what
    is returned, which else is empty; the stretches `first`, (start, end) in ns, are kept at first. A timeline that was
    cut, and any if the `whole` is asked for, is written as it is.
    """
    bounded = limit is not None and not whole and timeline.cut is None
    known = paths(timeline)

    def size(one: Timeline, cut: Thinned | None, most: int) -> int:
        counter = Counter(most)
        with contextlib.suppress(TooLarge):
            _write(one, cut, known, counter.file)
        return counter.size

    thinned = thin(timeline, limit, size, first) if bounded and limit is not None else None
    _write(timeline, thinned, known, file)
    return _told(timeline, thinned)


def _told(timeline: Timeline, thinned: Thinned | None) -> str:
    return told_of_gathered(timeline) if thinned is None else thinned.told


def _write(timeline: Timeline, thinned: Thinned | None, known: Sequence[CriticalPath | None], file: BinaryIO) -> None:
    sink, told = Sink(file), _told(timeline, thinned)
    timeline = timeline if thinned is None else thinned.timeline
    sink.write(*_preamble(timeline))
    write_cut(sink, timeline, thinned)
    describe_others(sink, timeline)
    alone = len({process.pid for process in timeline.processes if process.gils}) <= 1
    flow = 1
    above: dict[tuple[int, int], int] = {}
    for number, process in enumerate(timeline.processes):
        by_tid = _write_process(
            sink, timeline, process, flow, alone, told, None if thinned is None else thinned.steps[number]
        )
        if process.gils or len(process.blocks):
            write_whole(sink, process, known[number], labels(process))
        above.update(((process.pid, tid), track) for tid, track in by_tid.items())
        flow += len(process.holds) + len(process.blocks)
    write_merged(sink, timeline.merged, above)
    write_sched(sink, timeline)


def _preamble(timeline: Timeline) -> tuple[object, ...]:
    """Return clocks and machine; the clocks make SQL's `ts` the CLOCK_MONOTONIC value and give absolute times."""
    offsets = {
        pb.BUILTIN_CLOCK_MONOTONIC: 0,
        pb.BUILTIN_CLOCK_BOOTTIME: timeline.boottime_offset,
        pb.BUILTIN_CLOCK_REALTIME: timeline.realtime_offset,
    }
    clocks = [{"clock_id": clock, "timestamp": timeline.start + offset} for clock, offset in offsets.items()]
    machine = {name: str(timeline.machine.get(name, "")) for name in ("sysname", "release", "version", "machine")}
    first = pb.TracePacket(
        trusted_packet_sequence_id=SEQUENCE,
        sequence_flags=STATE_CLEARED,
        trace_packet_defaults={"timestamp_clock_id": pb.BUILTIN_CLOCK_MONOTONIC},
        clock_snapshot={"clocks": clocks, "primary_trace_clock": pb.BUILTIN_CLOCK_MONOTONIC},
    )
    system = pb.SystemInfo(utsname=machine, num_cpus=int(timeline.machine.get("cpus", 0)))
    return first, pb.TracePacket(trusted_packet_sequence_id=SEQUENCE, system_info=system)


def _write_process(
    sink: Sink, timeline: Timeline, process: Process, first_flow: int, alone: bool, told: str, steps: Steps | None
) -> dict[int, int]:
    """Write what is known of a process; what spans of each of its threads, by tid, hang from.

    What the trace leaves out is `told`.
    """
    threads = describe_process(sink, process)
    write_quality(sink, timeline, process, told)
    above = threads
    if process.gils or len(process.blocks):
        names = labels(process)
        values = sink.argument_values(names)
        relations = relate(process)
        texts = stack_texts(sink, Places(process, relations, timeline.began_ns))
        for gil in range(process.gils):
            write_group(sink, process, gil, names, values, relations, texts, steps, alone=alone)
        tracks = write_thread_tracks(sink, process, threads, names, values, relations, texts, first_flow, steps)
        above = _above_spans(threads, tracks)
    by_tid = dict(zip((thread.tid for thread in process.threads), above.tolist(), strict=True))
    for spans in process.spans:
        write_spans(sink, spans, by_tid, _RANK_SAMPLES if spans.sampled else _RANK_SPANS)
    return by_tid


def _above_spans(threads: Ints, tracks: Ints) -> Ints:
    """Return what each thread's spans hang from: its first GIL track, or the thread itself where it has none.

    Beside the GIL track, the UI would place them above or below the Running track depending on how many tracks the
    whole trace has, and stacks of fifty frames would push the other threads off the screen. Below it they are folded.
    """
    first = first_tracks(tracks)
    return np.where(first > 0, first, threads)
