"""Each thread's GIL track: green holds, red waits, violet blocks, and arrows to the acquires that were waited for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from giltrace.analysis.durations import percent
from giltrace.analysis.measure.stretches import Source
from giltrace.exporters._relations import Relations
from giltrace.exporters.perfetto import colours
from giltrace.exporters.perfetto.blocks import block_slices
from giltrace.exporters.perfetto.coarse import gil_tracks, met_tracks
from giltrace.exporters.perfetto.packets import Bools, Bytes, Field, Ints, Shape
from giltrace.exporters.perfetto.protos import packet, pb
from giltrace.exporters.perfetto.sink import Sink
from giltrace.exporters.perfetto.slices import Slices, end_shape, write_slices
from giltrace.exporters.perfetto.stacks import STACK_NAMES, StackTexts, stack_kinds
from giltrace.exporters.perfetto.thinned import Steps
from giltrace.timeline.model import Flag, Process

# What a packet carries besides what all carry, as bits of its kind: how a holder's stack is known is a `Source`, from
# _SOURCE_SHIFT on, and from _FLAGS_SHIFT on the kind holds the `Flag`s.
_ARROW = 1
_CORE = 2
_LED_TO = 1
_STACK = 2
_OWN_LINE = 4
_CULPRIT_OWN_LINE = _IN_C = 8
#: The hold stands for several.
_SEVERAL = 128
_SOURCE_SHIFT, _SOURCES = 4, 7
#: How many held the GIL during a wait.
_HOLDERS_SHIFT, _HOLDERS = 7, 3
#: Not all holds during the wait are in the trace: who had the GIL is not told.
_THINNED = 512
_FLAGS_SHIFT = 10

#: What the detail of a hold that stands for several is called: how many.
SEVERAL = "quiet holds, added up"

_PARTIAL = {
    int(Flag.PARTIAL_START): "began before the first record",
    int(Flag.PARTIAL_END): "had not ended at the last record",
    int(Flag.PARTIAL_START | Flag.PARTIAL_END): "began before the first record, had not ended at the last",
}


def write_thread_tracks(
    sink: Sink,
    process: Process,
    threads: Ints,
    names: list[str],
    labels: Ints,
    relations: Relations,
    texts: StackTexts,
    first_flow: int,
    steps: Steps | None,
) -> Ints:
    """Write the holds, waits and blocks of all threads of a process; the uuids of their tracks, shape (threads, gils).

    `threads` has the uuid, `names` the name and `labels` that as interned annotation value of each thread. The arrow
    into hold i has the flow id `first_flow` + i, those to blocks have the ones after these. The uuid is 0 where a
    thread never met that GIL. In a thinned trace `steps` are where the events are not.
    """
    tracks = _tracks(sink, process, threads, names, steps)
    waits = _waits(sink, process, tracks, labels, texts, None if steps is None else steps.explained)
    holds = _holds(sink, process, tracks, relations, texts, first_flow)
    into_blocks = first_flow + len(process.holds)
    blocks = block_slices(sink, process, first_tracks(tracks), names, labels, texts, into_blocks)
    write_slices(sink, (waits, holds, *blocks, *(() if steps is None else (steps.slices(sink, process, tracks),))))
    return tracks


def first_tracks(tracks: Ints) -> Ints:
    """Each thread's first GIL track, of all `tracks`; 0 where it has none."""
    first: Ints = tracks[np.arange(len(tracks)), (tracks > 0).argmax(axis=1)]
    return first


def _tracks(sink: Sink, process: Process, threads: Ints, names: list[str], steps: Steps | None) -> Ints:
    """Describe the GIL tracks.

    The UI numbers those of all threads and the groups of all GILs on end, by name, and shows what has a number above 50
    below the processes: these names come after those of groups. What has one above 10 it shows below a thread's
    Running track, but where `giltrace view` serves the UI.
    """
    met, own = met_tracks(process), gil_tracks(process)
    if steps is not None:
        met[steps.met] = True
        own[steps.met] |= steps.own
    tracks = np.zeros(met.shape, np.int64)
    without = np.flatnonzero(~own.any(axis=1)).tolist()
    for thread, gil in np.argwhere(met):
        parent = int(threads[thread])
        name = f"GIL of {names[thread]}" if process.gils <= 1 else f"GIL of {names[thread]}, GIL {gil}"
        name = f"blocks of {names[thread]}" if thread in without else name
        tracks[thread, gil] = sink.track(("gil", parent, int(gil)), parent, name=name, rank=int(gil))
    return tracks


def _holds(
    sink: Sink, process: Process, tracks: Ints, relations: Relations, texts: StackTexts, first_flow: int
) -> Slices:
    holds = process.holds
    flow = first_flow + np.arange(len(holds), dtype=np.int64)
    uuid = tracks[holds["thread"], holds["gil"]]
    own_line = texts.own_line[texts.places.hold_stack]
    native = texts.places.native
    several = np.zeros(len(holds), np.int64)
    several[process.gathered["hold"]] = process.gathered["count"]
    in_c = np.zeros(len(holds), np.int64)
    in_c[list(native)] = sink.argument_values(list(native.values()))

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
            own_line=own_line[rows],
            in_c=in_c[rows],
            several=several[rows],
        )

    def finish(kind: int, rows: Ints) -> Bytes:
        arrow = flow[relations.following[rows]] if kind else flow[rows]
        return end_shape(bool(kind)).fill(time=holds["end"][rows], uuid=uuid[rows], flow=arrow)

    kind = (
        (holds["flags"].astype(np.int64) << _FLAGS_SHIFT)
        | _ARROW * relations.arrow_in
        | _CORE * (holds["core"] >= 0)
        | _OWN_LINE * (own_line > 0)
        | _IN_C * (in_c > 0)
        | _SEVERAL * (several > 0)
        | (stack_kinds(texts.places.hold_source, texts.hold) << _SOURCE_SHIFT)
    )
    return Slices(holds["start"], holds["end"], kind, relations.arrow_out.astype(np.int64), begin, finish)


def _waits(
    sink: Sink, process: Process, tracks: Ints, labels: Ints, texts: StackTexts, explained: Bools | None
) -> Slices:
    waits, places = process.waits, texts.places
    uuid = tracks[waits["thread"], waits["gil"]]
    own_line, culprit_own_line = texts.own_line[places.wait_stack], texts.own_line[places.culprit_stack]
    holders = places.culprits
    told = 1 if explained is None else explained.astype(np.int64)
    length = np.maximum(waits["end"] - waits["start"], 1)[:, None]
    permille = (1000 * (holders.ns / length) + 0.5).astype(np.int64)
    percents = np.zeros(1001, np.int64)
    used = np.flatnonzero(np.bincount(permille.ravel(), minlength=len(percents)))
    percents[used] = sink.argument_values([percent(one / 1000) for one in used.tolist()])

    @cache
    def shape(kind: int) -> Shape:
        return _wait_shape(sink, kind)

    def begin(kind: int, rows: Ints) -> Bytes:
        chosen = waits[rows]
        held = {}
        for place in range(kind >> _HOLDERS_SHIFT & _HOLDERS):
            held[f"holder {place}"] = labels[holders.thread[rows, place]]
            held[f"ns {place}"] = holders.ns[rows, place]
            held[f"share {place}"] = percents[permille[rows, place]]
        return shape(kind).fill(
            time=chosen["start"],
            uuid=uuid[rows],
            timeouts=chosen["timeouts"],
            hold=chosen["hold"],
            stack=texts.wait[rows],
            own_line=own_line[rows],
            culprit_stack=texts.culprit[rows],
            culprit_own_line=culprit_own_line[rows],
            **held,
        )

    def finish(kind: int, rows: Ints) -> Bytes:
        return end_shape(False).fill(time=waits["end"][rows], uuid=uuid[rows])

    kind = (
        (waits["flags"].astype(np.int64) << _FLAGS_SHIFT)
        | _LED_TO * (waits["hold"] >= 0)
        | _STACK * (texts.wait > 0)
        | _OWN_LINE * (own_line > 0)
        | told * _CULPRIT_OWN_LINE * (culprit_own_line > 0)
        | told * (stack_kinds(places.culprit_source, texts.culprit) << _SOURCE_SHIFT)
        | told * ((holders.thread >= 0).sum(axis=1) << _HOLDERS_SHIFT)
        | (1 - told) * _THINNED
    )
    return Slices(waits["start"], waits["end"], kind, np.zeros(len(waits), np.int64), begin, finish)


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
    stack_name = _stack_name(kind)
    reason = "forced" if flags & Flag.FORCED else "voluntary"
    if flags & Flag.PARTIAL_END:
        reason = "still held at the end"

    def build(value: Mapping[str, int]) -> Any:
        notes = [sink.text("release", reason)]
        if kind & _CORE:
            notes.append(sink.annotation("core", uint_value=value["core"]))
        notes.append(sink.annotation("gil", uint_value=value["gil"]))
        notes.append(sink.annotation("hold", uint_value=value["hold"]))
        if kind & _SEVERAL:
            notes.append(sink.annotation(SEVERAL, uint_value=value["several"]))
        if kind & _OWN_LINE:
            notes.append(sink.annotation("own line", string_value_iid=value["own_line"]))
        if stack_name:
            notes.append(sink.annotation(stack_name, string_value_iid=value["stack"]))
        if kind & _IN_C:
            notes.append(sink.annotation("in C", string_value_iid=value["in_c"]))
        event = _begin(sink, value["uuid"], "holds GIL", colours.GREEN, notes + _partial(sink, flags))
        if kind & _ARROW:
            event.terminating_flow_ids.append(value["flow"])
        return packet(timestamp=value["time"], track_event=event)

    columns = {"time": Field.TIME, "uuid": Field.UUID, "gil": Field.SMALL, "hold": Field.COUNT}
    columns |= {"core": Field.SMALL} if kind & _CORE else {}
    columns |= {"own_line": Field.IID} if kind & _OWN_LINE else {}
    columns |= {"stack": Field.IID} if stack_name else {}
    columns |= {"in_c": Field.IID} if kind & _IN_C else {}
    columns |= {"several": Field.COUNT} if kind & _SEVERAL else {}
    return Shape(build, columns | ({"flow": Field.FLOW} if kind & _ARROW else {}))


def _stack_name(kind: int) -> str:
    """What the holder's stack is called in a packet of this kind; empty if there is none."""
    return STACK_NAMES.get(Source(kind >> _SOURCE_SHIFT & _SOURCES), "")


def _wait_shape(sink: Sink, kind: int) -> Shape:
    stack_name = _stack_name(kind)
    holders = kind >> _HOLDERS_SHIFT & _HOLDERS

    def build(value: Mapping[str, int]) -> Any:
        # In the order of the UI's details, of which the first few lines are in sight.
        notes = []
        if holders:
            notes.append(sink.annotation("culprit", string_value_iid=value["holder 0"]))
            notes.append(sink.annotation("culprit share", string_value_iid=value["share 0"]))
        if kind & _CULPRIT_OWN_LINE:
            notes.append(sink.annotation("culprit own line", string_value_iid=value["culprit_own_line"]))
        if stack_name:
            notes.append(sink.annotation(f"culprit {stack_name}", string_value_iid=value["culprit_stack"]))
        if holders:
            notes.append(sink.annotation("culprit ns", uint_value=value["ns 0"]))
        if holders > 1:
            others = [_holder(sink, value, place) for place in range(1, holders)]
            notes.append(sink.annotation("also held by", array_values=others))
        if kind & _OWN_LINE:
            notes.append(sink.annotation("own line", string_value_iid=value["own_line"]))
        if kind & _STACK:
            notes.append(sink.annotation("stack", string_value_iid=value["stack"]))
        notes.append(sink.annotation("timeouts", uint_value=value["timeouts"]))
        if kind & _LED_TO:
            notes.append(sink.annotation("led to hold", uint_value=value["hold"]))
        if kind & _THINNED:
            notes.append(sink.text("culprit not told", "the trace was thinned: it has not all holds during this wait"))
        notes += _partial(sink, kind >> _FLAGS_SHIFT)
        event = _begin(sink, value["uuid"], "waits for GIL", colours.RED, notes)
        return packet(timestamp=value["time"], track_event=event)

    columns = {"time": Field.TIME, "uuid": Field.UUID, "timeouts": Field.COUNT}
    columns |= {"hold": Field.COUNT} if kind & _LED_TO else {}
    columns |= {"stack": Field.IID} if kind & _STACK else {}
    columns |= {"own_line": Field.IID} if kind & _OWN_LINE else {}
    columns |= {"culprit_own_line": Field.IID} if kind & _CULPRIT_OWN_LINE else {}
    columns |= {"culprit_stack": Field.IID} if stack_name else {}
    for place in range(holders):
        columns |= {f"holder {place}": Field.IID, f"ns {place}": Field.TIME, f"share {place}": Field.IID}
    return Shape(build, columns)


def _holder(sink: Sink, value: Mapping[str, int], place: int) -> Any:
    """One of those that held the GIL during a wait, beside its culprit."""
    entries = [
        sink.annotation("thread", string_value_iid=value[f"holder {place}"]),
        sink.annotation("share", string_value_iid=value[f"share {place}"]),
        sink.annotation("ns", uint_value=value[f"ns {place}"]),
    ]
    return pb.DebugAnnotation(dict_entries=entries)
