"""Spans of other profilers' files: on the threads they are of, or on tracks of their own, in a group for each file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from giltrace.exporters.perfetto.nesting import nested_order
from giltrace.exporters.perfetto.packets import Field, Shape
from giltrace.exporters.perfetto.protos import packet, pb
from giltrace.exporters.perfetto.sink import Sink
from giltrace.exporters.perfetto.slices import PIECE
from giltrace.recording.events import SPAN
from giltrace.recording.merged import Merged, Track

#: A thread of the recording, by the ids of its process and its own, to the uuid of the track that spans hang from.
Threads = Mapping[tuple[int, int], int]

CATEGORY = "merged"
#: Their place below a thread's GIL track, after function spans and samples.
_RANK = 2


def write_merged(sink: Sink, files: Sequence[Merged], threads: Threads) -> None:
    """Write the spans of all `files`. Each says which thread it is of, or which asked for it: what waited meanwhile."""
    for place, merged in enumerate(files):
        _write(sink, merged, threads, _RANK + place)


def _write(sink: Sink, merged: Merged, threads: Threads, rank: int) -> None:
    tracks = np.array(_tracks(sink, merged, threads, rank), np.int64)
    askers = np.array([(one.pid, one.tid) for one in merged.tracks], np.int64).reshape(-1, 2)
    known = np.array([(one.pid, one.tid) in threads for one in merged.tracks], np.bool_)
    names = sink.names(merged.names)
    categories = sink.argument_values(merged.categories)
    source = int(sink.argument_values([merged.label])[0])
    table, order = nested_order(_as_spans(merged))
    rows = merged.rows
    asker = np.where(rows["launcher"] >= 0, rows["launcher"], rows["track"].astype(np.int64))
    shapes = {told: _shape(sink, source, told) for told in (False, True)}
    finish = _finish()
    for at in range(0, len(order), PIECE):
        piece = order[at : at + PIECE]
        # Begins with and without a thread, and ends: runs of one shape, in the order of nesting.
        kind = np.where(piece < 0, 2, known[asker[np.maximum(piece, 0)]])
        for run in np.split(np.arange(len(piece)), np.flatnonzero(np.diff(kind)) + 1):
            chosen = np.where(piece[run] >= 0, piece[run], ~piece[run])
            uuid = tracks[rows["track"][chosen]]
            if kind[run[0]] == 2:
                sink.write_raw(finish.fill(time=table["end"][chosen], uuid=uuid))
                continue
            columns = {
                "time": table["start"][chosen],
                "uuid": uuid,
                "name": names[rows["name"][chosen]],
                "category": categories[rows["category"][chosen]],
            }
            whose = askers[asker[chosen]]
            told = {"pid": whose[:, 0], "tid": whose[:, 1]} if kind[run[0]] else {}
            sink.write_raw(shapes[bool(told)].fill(**columns, **told))


def _as_spans(merged: Merged) -> np.ndarray[Any, np.dtype[np.void]]:
    """The rows as `nested_order` takes them, their track in the place of a thread."""
    spans = np.zeros(len(merged.rows), SPAN)
    for name in ("start", "end", "name", "depth"):
        spans[name] = merged.rows[name]
    spans["tid"] = merged.rows["track"]
    return spans


def _tracks(sink: Sink, merged: Merged, threads: Threads, rank: int) -> list[int]:
    """The uuid of the track of each of the file's tracks; those without spans have none."""
    title = f"{merged.label} samples" if merged.sampled else merged.label
    used = set(np.unique(merged.rows["track"]).tolist())
    uuids = []
    for number, track in enumerate(merged.tracks):
        thread = threads.get((track.pid, track.tid))
        if number not in used:
            uuids.append(0)
        elif thread is not None:
            uuids.append(sink.track(("merged", merged.label, thread), thread, name=title, rank=rank))
        else:
            group = sink.track(("merged", merged.label), name=f"{title} ({merged.source})")
            uuids.append(sink.track(("merged", merged.label, "own", number), group, name=_name(track), rank=number))
    return uuids


def _name(track: Track) -> str:
    return f"{track.name} (pid {track.pid}, tid {track.tid})" if track.pid else track.name


def _shape(sink: Sink, source: int, with_thread: bool) -> Shape:
    category = int(sink.categories([CATEGORY])[0])

    def build(value: Mapping[str, int]) -> Any:
        notes = [
            sink.annotation("source", string_value_iid=source),
            sink.annotation("category", string_value_iid=value["category"]),
        ]
        if with_thread:
            notes += [sink.annotation("pid", uint_value=value["pid"]), sink.annotation("tid", uint_value=value["tid"])]
        event = pb.TrackEvent(
            type=pb.TrackEvent.TYPE_SLICE_BEGIN,
            track_uuid=value["uuid"],
            category_iids=[category],
            name_iid=value["name"],
            debug_annotations=notes,
        )
        return packet(timestamp=value["time"], track_event=event)

    columns = {"time": Field.TIME, "uuid": Field.UUID, "name": Field.IID, "category": Field.IID}
    return Shape(build, {**columns, "pid": Field.COUNT, "tid": Field.COUNT} if with_thread else columns)


def _finish() -> Shape:
    def build(value: Mapping[str, int]) -> Any:
        event = pb.TrackEvent(type=pb.TrackEvent.TYPE_SLICE_END, track_uuid=value["uuid"])
        return packet(timestamp=value["time"], track_event=event)

    return Shape(build, {"time": Field.TIME, "uuid": Field.UUID})
