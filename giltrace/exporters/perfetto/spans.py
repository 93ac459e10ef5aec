"""Function spans and runs of samples: nested slices on tracks of their threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from giltrace.exporters.perfetto.nesting import nested_order
from giltrace.exporters.perfetto.packets import Field, Shape
from giltrace.exporters.perfetto.protos import packet, pb
from giltrace.exporters.perfetto.sink import Sink
from giltrace.exporters.perfetto.slices import PIECE
from giltrace.recording.events import Spans


def write_spans(sink: Sink, spans: Spans, threads: Mapping[int, int], rank: int) -> None:
    """Write spans, each on a track of its thread, at place `rank`; `threads` maps tid to the thread's uuid.

    Spans of threads that are not in `threads` are left out.
    """
    table = spans.spans
    table = table[np.isin(table["tid"], list(threads))]
    title = f"{spans.collector} samples" if spans.sampled else spans.collector
    tids, thread = np.unique(table["tid"], return_inverse=True)
    parents = [threads[int(tid)] for tid in tids]
    tracks = np.array([sink.track(("spans", up, title), up, name=title, rank=rank) for up in parents], np.int64)
    names = sink.names(spans.names)
    category = int(sink.categories([spans.collector])[0])

    def build(value: Mapping[str, int]) -> Any:
        event = pb.TrackEvent(
            type=value["type"], track_uuid=value["uuid"], category_iids=[category], name_iid=value["name"]
        )
        return packet(timestamp=value["time"], track_event=event)

    # Ends carry name and category too: one shape for both keeps the file in the order of nesting.
    shape = Shape(build, {"time": Field.TIME, "uuid": Field.UUID, "type": Field.TYPE, "name": Field.IID})
    table, order = nested_order(table)
    for at in range(0, len(order), PIECE):
        piece = order[at : at + PIECE]
        begins = piece >= 0
        rows = np.where(begins, piece, ~piece)
        chosen = table[rows]
        sink.write_raw(
            shape.fill(
                time=np.where(begins, chosen["start"], chosen["end"]),
                uuid=tracks[thread[rows]],
                type=np.where(begins, pb.TrackEvent.TYPE_SLICE_BEGIN, pb.TrackEvent.TYPE_SLICE_END),
                name=names[chosen["name"]],
            )
        )
