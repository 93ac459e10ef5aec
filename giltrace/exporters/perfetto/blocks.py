"""Blocks on the threads' GIL tracks: a slice for each, and an arrow to its end from where it was woken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from giltrace.analysis.measure.block_causes import AWAITED, BlockCause
from giltrace.exporters.perfetto import colours
from giltrace.exporters.perfetto.packets import Bytes, Field, Ints, Shape
from giltrace.exporters.perfetto.protos import packet, pb
from giltrace.exporters.perfetto.sink import Sink
from giltrace.exporters.perfetto.slices import Slices, end_shape
from giltrace.exporters.perfetto.stacks import StackTexts
from giltrace.timeline.model import BlockEnd, Process

#: The category of all that is about blocks.
CATEGORY = "block"
#: What a slice is called, before the cause; and the instants from which and to which an arrow goes, before the thread.
BLOCKED, WAKES, WOKEN = "blocked: ", "wakes ", "woken by "
#: Of what others keep, and, paler, of what is awaited as such.
_KEPT, _AWAITED = (285, 55), (285, 76)

# What a packet carries besides what all carry, as bits of its kind.
_STACK, _OWN_LINE, _WAKER, _WAKER_STACK, _WAKER_OWN_LINE = (1 << bit for bit in range(5))


def block_slices(
    sink: Sink, process: Process, tracks: Ints, names: Sequence[str], labels: Ints, texts: StackTexts, first_flow: int
) -> tuple[Slices, ...]:
    """The blocks of a process, and the instants of their wakes.

    A block lies within a hold or between two, so that all of it fits the thread's first GIL track, whose uuid is in
    `tracks`. `names` has the name of each thread and `labels` that as interned annotation value. The arrow to the end
    of block i has the flow id `first_flow` + i.
    """
    if not len(process.blocks):
        return ()
    return (
        _blocks(sink, process, tracks, labels, texts),
        *_wakes(sink, process, tracks, names, first_flow),
    )


def _blocks(sink: Sink, process: Process, tracks: Ints, labels: Ints, texts: StackTexts) -> Slices:
    blocks, places = process.blocks, texts.places
    cause = places.block_cause
    titles = [f"{BLOCKED}{one.label}" for one in BlockCause]
    name = sink.names(titles)[cause]
    palette = [
        colours.correlation_id(f"{title} ", *(_AWAITED if one in AWAITED else _KEPT))
        for title, one in zip(titles, BlockCause, strict=True)
    ]
    colour = sink.colours(palette)[cause]
    ended = sink.argument_values([one.label for one in BlockEnd])[blocks["ended"]]
    used, row = np.unique(places.block_lock, return_inverse=True)
    lock = sink.argument_values([f"Lock #{one}" for one in used.tolist()])[row.ravel()]
    tids = np.array([thread.tid for thread in process.threads], np.int64)
    stack, waker_stack = texts.stack[places.block_stack], texts.stack[places.wake_stack]
    own_line, waker_own_line = texts.own_line[places.block_stack], texts.own_line[places.wake_stack]
    woken = blocks["waker"] >= 0

    @cache
    def shape(kind: int) -> Shape:
        return _block_shape(sink, kind)

    def begin(kind: int, rows: Ints) -> Bytes:
        chosen = blocks[rows]
        return shape(kind).fill(
            time=chosen["start"],
            uuid=tracks[chosen["thread"]],
            name=name[rows],
            colour=colour[rows],
            lock=lock[rows],
            ended=ended[rows],
            waker=labels[chosen["waker"]],
            waker_tid=tids[chosen["waker"]],
            wake_up=chosen["end"] - chosen["woken"],
            stack=stack[rows],
            own_line=own_line[rows],
            waker_stack=waker_stack[rows],
            waker_own_line=waker_own_line[rows],
        )

    def finish(_: int, rows: Ints) -> Bytes:
        return end_shape(False).fill(time=blocks["end"][rows], uuid=tracks[blocks["thread"][rows]])

    kind = (
        _STACK * (stack > 0)
        | _OWN_LINE * (own_line > 0)
        | _WAKER * woken
        | _WAKER_STACK * (woken & (waker_stack > 0))
        | _WAKER_OWN_LINE * (woken & (waker_own_line > 0))
    )
    return Slices(blocks["start"], blocks["end"], kind, np.zeros(len(blocks), np.int64), begin, finish)


def _wakes(sink: Sink, process: Process, tracks: Ints, names: Sequence[str], first_flow: int) -> tuple[Slices, Slices]:
    """The instants from which arrows go, on the wakers' tracks, and those at the ends of blocks to which they go."""
    woken = np.flatnonzero(process.blocks["waker"] >= 0)
    blocks = process.blocks[woken]
    flow = first_flow + woken
    waker, thread = blocks["waker"].astype(np.int64), blocks["thread"].astype(np.int64)
    parts = []
    for times, on, named, shape in (
        (blocks["woken"], waker, sink.names([f"{WAKES}{name}" for name in names])[thread], _instant(sink, leaves=True)),
        (blocks["end"], thread, sink.names([f"{WOKEN}{name}" for name in names])[waker], _instant(sink, leaves=False)),
    ):
        order = np.argsort(times, kind="stable")
        parts.append(_instants(shape, times[order], tracks[on][order], named[order], flow[order]))
    return parts[0], parts[1]


def _instants(shape: Shape, time: Ints, uuid: Ints, name: Ints, flow: Ints) -> Slices:
    def begin(_: int, rows: Ints) -> Bytes:
        return shape.fill(time=time[rows], uuid=uuid[rows], name=name[rows], flow=flow[rows])

    def finish(_: int, rows: Ints) -> Bytes:
        return np.empty((len(rows), 0), np.uint8)

    kind = np.zeros(len(time), np.int64)
    return Slices(time, time, kind, kind, begin, finish)


def _instant(sink: Sink, *, leaves: bool) -> Shape:
    category = int(sink.categories([CATEGORY])[0])
    colour = int(sink.colours([colours.correlation_id("wake ", *_KEPT)])[0])

    def build(value: Mapping[str, int]) -> Any:
        event = pb.TrackEvent(
            type=pb.TrackEvent.TYPE_INSTANT,
            track_uuid=value["uuid"],
            category_iids=[category],
            name_iid=value["name"],
            correlation_id_str_iid=colour,
        )
        (event.flow_ids if leaves else event.terminating_flow_ids).append(value["flow"])
        return packet(timestamp=value["time"], track_event=event)

    return Shape(build, {"time": Field.TIME, "uuid": Field.UUID, "name": Field.IID, "flow": Field.FLOW})


def _block_shape(sink: Sink, kind: int) -> Shape:
    category = int(sink.categories([CATEGORY])[0])
    columns = {"time": Field.TIME, "uuid": Field.UUID, "name": Field.IID, "colour": Field.SMALL}
    # In the order of the UI's details, of which the first few lines are in sight.
    told = {"lock": "lock", "ended": "ended"}
    told |= {"waker": "waker"} if kind & _WAKER else {}
    told |= {"waker_own_line": "waker own line"} if kind & _WAKER_OWN_LINE else {}
    told |= {"waker_stack": "waker stack"} if kind & _WAKER_STACK else {}
    told |= {"own_line": "own line"} if kind & _OWN_LINE else {}
    told |= {"stack": "stack"} if kind & _STACK else {}
    numbers = {"waker_tid": "waker tid", "wake_up": "wake-up (ns)"} if kind & _WAKER else {}

    def build(value: Mapping[str, int]) -> Any:
        notes = [sink.annotation(words, string_value_iid=value[key]) for key, words in told.items()]
        notes += [sink.annotation(words, uint_value=value[key]) for key, words in numbers.items()]
        event = pb.TrackEvent(
            type=pb.TrackEvent.TYPE_SLICE_BEGIN,
            track_uuid=value["uuid"],
            category_iids=[category],
            name_iid=value["name"],
            correlation_id_str_iid=value["colour"],
            debug_annotations=notes,
        )
        return packet(timestamp=value["time"], track_event=event)

    columns |= dict.fromkeys(told, Field.IID)
    columns |= {"waker_tid": Field.COUNT, "wake_up": Field.TIME} if kind & _WAKER else {}
    return Shape(build, columns)
