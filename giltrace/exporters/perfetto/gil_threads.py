"""Each thread's GIL track: green holds, red waits, and arrows from a release to the acquire that waited for it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from giltrace.exporters._relations import Relations
from giltrace.exporters.perfetto import colours
from giltrace.exporters.perfetto.packets import Bytes, Field, Ints, Shape
from giltrace.exporters.perfetto.protos import packet, pb
from giltrace.exporters.perfetto.sink import Sink
from giltrace.exporters.perfetto.slices import Slices, write_slices
from giltrace.exporters.perfetto.stacks import StackTexts
from giltrace.timeline.model import Flag, Process

# What a packet carries besides what all carry, as bits of its kind; from _FLAGS_SHIFT on, the kind holds the `Flag`s.
_ARROW = 1
_CORE = 2
_LED_TO = 1
_CULPRIT = 2
_STACK = 4
_CULPRIT_STACK = 8
_FLAGS_SHIFT = 4

_PARTIAL = {
    int(Flag.PARTIAL_START): "began before the first record",
    int(Flag.PARTIAL_END): "had not ended at the last record",
    int(Flag.PARTIAL_START | Flag.PARTIAL_END): "began before the first record, had not ended at the last",
}


def write_thread_tracks(
    sink: Sink,
    process: Process,
    threads: Ints,
    labels: Ints,
    relations: Relations,
    texts: StackTexts,
    first_flow: int,
) -> Ints:
    """Write the holds and waits of all threads of a process; the uuids of their tracks, shape (threads, gils).

    `threads` has the uuid and `labels` the interned annotation value of each thread, shape (threads,). The arrow into
    hold i has the flow id `first_flow` + i. The uuid is 0 where a thread never met that GIL.
    """
    tracks = _tracks(sink, process, threads)
    waits = _waits(sink, process, tracks, labels, relations, texts)
    holds = _holds(sink, process, tracks, relations, texts, first_flow)
    write_slices(sink, (waits, holds))
    return tracks


def _tracks(sink: Sink, process: Process, threads: Ints) -> Ints:
    """Describe the GIL tracks.

    The UI shows the first nine of a trace above their threads' Running tracks, later ones below.
    """
    tracks = np.zeros((len(process.threads), max(process.gils, 1)), np.int64)
    met = np.zeros(tracks.shape, bool)
    for table in (process.holds, process.waits):
        met[table["thread"], table["gil"]] = True
    for thread, gil in np.argwhere(met):
        parent = int(threads[thread])
        name = "GIL" if process.gils == 1 else f"GIL {gil}"
        tracks[thread, gil] = sink.track(("gil", parent, int(gil)), parent, name=name, rank=int(gil))
    return tracks


def _holds(
    sink: Sink, process: Process, tracks: Ints, relations: Relations, texts: StackTexts, first_flow: int
) -> Slices:
    holds = process.holds
    flow = first_flow + np.arange(len(holds), dtype=np.int64)
    uuid = tracks[holds["thread"], holds["gil"]]

    @cache
    def shape(kind: int) -> Shape:
        return _hold_shape(sink, kind)

    def begin(kind: int, rows: Ints) -> Bytes:
        chosen = holds[rows]
        return shape(kind).fill(
            time=chosen["start"],
            uuid=uuid[rows],
            gil=chosen["gil"],
            hold=rows,
            core=chosen["core"],
            flow=flow[rows],
            stack=texts.hold[rows],
        )

    def finish(kind: int, rows: Ints) -> Bytes:
        arrow = flow[relations.following[rows]] if kind else flow[rows]
        return end_shape(bool(kind)).fill(time=holds["end"][rows], uuid=uuid[rows], flow=arrow)

    flags = holds["flags"].astype(np.int64) << _FLAGS_SHIFT
    kind = flags | _ARROW * relations.arrow_in | _CORE * (holds["core"] >= 0) | _STACK * (texts.hold > 0)
    return Slices(holds["start"], holds["end"], kind, relations.arrow_out.astype(np.int64), begin, finish)


def _waits(sink: Sink, process: Process, tracks: Ints, labels: Ints, relations: Relations, texts: StackTexts) -> Slices:
    waits = process.waits
    uuid = tracks[waits["thread"], waits["gil"]]

    @cache
    def shape(kind: int) -> Shape:
        return _wait_shape(sink, kind)

    def begin(kind: int, rows: Ints) -> Bytes:
        chosen = waits[rows]
        return shape(kind).fill(
            time=chosen["start"],
            uuid=uuid[rows],
            timeouts=chosen["timeouts"],
            hold=chosen["hold"],
            culprit=labels[relations.culprit[rows]],
            stack=texts.wait[rows],
            culprit_stack=texts.culprit[rows],
        )

    def finish(kind: int, rows: Ints) -> Bytes:
        return end_shape(False).fill(time=waits["end"][rows], uuid=uuid[rows])

    kind = (
        (waits["flags"].astype(np.int64) << _FLAGS_SHIFT)
        | _LED_TO * (waits["hold"] >= 0)
        | _CULPRIT * (relations.culprit >= 0)
        | _STACK * (texts.wait > 0)
        | _CULPRIT_STACK * (texts.culprit > 0)
    )
    return Slices(waits["start"], waits["end"], kind, np.zeros(len(waits), np.int64), begin, finish)


@cache
def end_shape(arrow: bool) -> Shape:
    """Return the end of a slice: columns time, uuid, and flow if an `arrow` leaves from it."""

    def build(value: Mapping[str, int]) -> Any:
        event = pb.TrackEvent(type=pb.TrackEvent.TYPE_SLICE_END, track_uuid=value["uuid"])
        if arrow:
            event.flow_ids.append(value["flow"])
        return packet(timestamp=value["time"], track_event=event)

    return Shape(build, {"time": Field.TIME, "uuid": Field.UUID} | ({"flow": Field.FLOW} if arrow else {}))


def _begin(sink: Sink, uuid: int, name: str, colour: tuple[int, int], notes: list[Any]) -> Any:
    return pb.TrackEvent(
        type=pb.TrackEvent.TYPE_SLICE_BEGIN,
        track_uuid=uuid,
        category_iids=[int(sink.categories(["gil"])[0])],
        name_iid=int(sink.names([name])[0]),
        correlation_id_str_iid=int(sink.colours([colours.correlation_id(f"{name} ", *colour)])[0]),
        debug_annotations=notes,
    )


def _partial(sink: Sink, flags: int) -> list[Any]:
    text = _PARTIAL.get(flags & int(Flag.PARTIAL_START | Flag.PARTIAL_END))
    return [sink.text("partial", text)] if text else []


def _hold_shape(sink: Sink, kind: int) -> Shape:
    flags = kind >> _FLAGS_SHIFT
    reason = "forced" if flags & Flag.FORCED else "voluntary"
    if flags & Flag.PARTIAL_END:
        reason = "still held at the end"

    def build(value: Mapping[str, int]) -> Any:
        notes = [sink.text("release", reason)]
        if kind & _CORE:
            notes.append(sink.annotation("core", uint_value=value["core"]))
        notes.append(sink.annotation("gil", uint_value=value["gil"]))
        notes.append(sink.annotation("hold", uint_value=value["hold"]))
        if kind & _STACK:
            notes.append(sink.annotation("stack", string_value_iid=value["stack"]))
        event = _begin(sink, value["uuid"], "holds GIL", colours.GREEN, notes + _partial(sink, flags))
        if kind & _ARROW:
            event.terminating_flow_ids.append(value["flow"])
        return packet(timestamp=value["time"], track_event=event)

    columns = {"time": Field.TIME, "uuid": Field.UUID, "gil": Field.SMALL, "hold": Field.COUNT}
    columns |= {"core": Field.SMALL} if kind & _CORE else {}
    columns |= {"stack": Field.IID} if kind & _STACK else {}
    return Shape(build, columns | ({"flow": Field.FLOW} if kind & _ARROW else {}))


def _wait_shape(sink: Sink, kind: int) -> Shape:
    def build(value: Mapping[str, int]) -> Any:
        notes = [sink.annotation("timeouts", uint_value=value["timeouts"])]
        if kind & _LED_TO:
            notes.append(sink.annotation("led to hold", uint_value=value["hold"]))
        if kind & _CULPRIT:
            notes.append(sink.annotation("culprit", string_value_iid=value["culprit"]))
        if kind & _CULPRIT_STACK:
            notes.append(sink.annotation("culprit stack", string_value_iid=value["culprit_stack"]))
        if kind & _STACK:
            notes.append(sink.annotation("stack", string_value_iid=value["stack"]))
        notes += _partial(sink, kind >> _FLAGS_SHIFT)
        event = _begin(sink, value["uuid"], "waits for GIL", colours.RED, notes)
        return packet(timestamp=value["time"], track_event=event)

    columns = {"time": Field.TIME, "uuid": Field.UUID, "timeouts": Field.COUNT}
    columns |= {"hold": Field.COUNT} if kind & _LED_TO else {}
    columns |= {"stack": Field.IID} if kind & _STACK else {}
    columns |= {"culprit_stack": Field.IID} if kind & _CULPRIT_STACK else {}
    return Shape(build, columns | ({"culprit": Field.IID} if kind & _CULPRIT else {}))
