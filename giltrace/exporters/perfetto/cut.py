"""What a cut, or thinning, left out of a trace, shown in it: one slice per stretch of time that was not kept."""

from __future__ import annotations

from giltrace.exporters.perfetto.protos import packet, pb
from giltrace.exporters.perfetto.sink import Sink
from giltrace.exporters.perfetto.thinning import REMEDY, Thinned, step_text
from giltrace.timeline.model import Timeline

#: The group, its only track, and the name of that track's slices. A track without a group would be hidden in the UI's
#: own group for such.
GROUP, TRACK, SLICE = "Cut", "left out", "left out of this trace"
THINNED_GROUP = "Thinned"


def write_cut(sink: Sink, timeline: Timeline, thinned: Thinned | None) -> None:
    """Write the stretches that were left out, on a track of their own; nothing if the timeline is whole.

    What reaches into a kept stretch is whole, so that parts of what happened then are there all the same. Where a trace
    was `thinned` the slices say how.
    """
    if timeline.cut is None:
        return
    group = sink.track(("cut",), name=GROUP if thinned is None else THINNED_GROUP)
    track = sink.track(("left out",), group, name=TRACK, rank=0)
    notes = [
        sink.annotation(f"{table} left out in all", int_value=getattr(timeline.cut, table))
        for table in ("holds", "waits", "runs", "spans")
    ]
    told = SLICE
    if thinned is not None:
        told = f"thinned: in steps of {step_text(thinned.step)}"
        notes = [sink.annotation("thinned", string_value=f"{thinned.told}; {REMEDY}"), *notes]
    category, name = int(sink.categories(["cut"])[0]), int(sink.names([told])[0])
    begin = pb.TrackEvent(
        type=pb.TrackEvent.TYPE_SLICE_BEGIN,
        track_uuid=track,
        category_iids=[category],
        name_iid=name,
        debug_annotations=notes,
    )
    finish = pb.TrackEvent(type=pb.TrackEvent.TYPE_SLICE_END, track_uuid=track)
    for start, end in timeline.cut.left_out:
        sink.write(packet(timestamp=start, track_event=begin), packet(timestamp=end, track_event=finish))
