"""What is told of a whole process, on tracks of its group: what its end hung on, and when its world stood still."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from giltrace.analysis.measure.block_causes import BlockCause, block_causes
from giltrace.analysis.replay.critical_path import CriticalPath, critical_path
from giltrace.exporters.perfetto import colours
from giltrace.exporters.perfetto.gil_group import group_track
from giltrace.exporters.perfetto.protos import packet, pb
from giltrace.exporters.perfetto.sink import Sink
from giltrace.timeline.axis import union
from giltrace.timeline.model import Process, Timeline

#: The category of both tracks.
CATEGORY = "whole"
#: So many stretches of either are told, the longest ones.
MOST_STRETCHES = 5_000
_RANK_PATH, _RANK_STOPPED = 7, 8
_PATH, _STOPPED = (45, 60), (0, 45)


def paths(timeline: Timeline) -> list[CriticalPath | None]:
    """The critical path of each process that has one; of what was cut it is not known."""
    if timeline.cut is not None:
        return [None] * len(timeline.processes)
    # Where nobody is known to have woken anybody, it is a thread's life.
    return [critical_path(process) if len(process.blocks) else None for process in timeline.processes]


def write_whole(sink: Sink, process: Process, path: CriticalPath | None, names: Sequence[str]) -> None:
    """Write the tracks of a process of which `path` is known; `names` has the name of each of its threads."""
    group = group_track(sink, process, 0)
    if path is not None and len(path.thread):
        track = sink.track(("path", group), group, name="critical path", rank=_RANK_PATH)
        chosen = np.sort(np.argsort(path.start - path.end, kind="stable")[:MOST_STRETCHES])
        titles = [names[thread] for thread in path.thread[chosen].tolist()]
        _write(sink, track, path.start[chosen], path.end[chosen], titles, _PATH)
    stopped = process.blocks[block_causes(process) == BlockCause.STOP_THE_WORLD]
    if len(stopped):
        start, end = union(stopped["start"], stopped["end"])
        chosen = np.sort(np.argsort(start - end, kind="stable")[:MOST_STRETCHES])
        by = stopped["waker"][np.searchsorted(stopped["start"], start[chosen])]
        titles = [f"stopped by {names[thread]}" if thread >= 0 else "stopped" for thread in by.tolist()]
        track = sink.track(("stopped", group), group, name="stopped world", rank=_RANK_STOPPED)
        _write(sink, track, start[chosen], end[chosen], titles, _STOPPED)


def _write(
    sink: Sink,
    track: int,
    start: np.ndarray[tuple[int], np.dtype[np.int64]],
    end: np.ndarray[tuple[int], np.dtype[np.int64]],
    titles: Sequence[str],
    colour: tuple[int, int],
) -> None:
    category = int(sink.categories([CATEGORY])[0])
    shade = int(sink.colours([colours.correlation_id("whole ", *colour)])[0])
    known = sink.names(list(titles))
    for first, last, title in zip(start.tolist(), end.tolist(), known.tolist(), strict=True):
        begin = pb.TrackEvent(
            type=pb.TrackEvent.TYPE_SLICE_BEGIN,
            track_uuid=track,
            category_iids=[category],
            name_iid=title,
            correlation_id_str_iid=shade,
        )
        sink.write(packet(timestamp=first, track_event=begin))
        finish = pb.TrackEvent(type=pb.TrackEvent.TYPE_SLICE_END, track_uuid=track)
        sink.write(packet(timestamp=last, track_event=finish))
