"""Slices of tracks on which they follow each other: begin and end packets in an order that pairs them rightly.

The reader sorts packets by time and keeps the file's order among equal times, so within equal times a track's packets
must come as: the end of what lasted, then slices of no length, then the begin of what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from giltrace.exporters.perfetto.packets import Bytes, Field, Ints, Shape
from giltrace.exporters.perfetto.protos import packet, pb
from giltrace.exporters.perfetto.sink import Sink

#: Rows per piece: large enough to amortise numpy's calls, small enough to stay in the cache.
PIECE = 1 << 15

#: Makes the packets of the given rows, shape (n, size); all these rows have the given kind.
Filler = Callable[[int, Ints], Bytes]


class Slices(NamedTuple):
    """Slices sorted by start. Rows of one kind share a packet shape; kinds are small integers, shape (n,)."""

    start: Ints
    end: Ints
    begin_kind: Ints
    end_kind: Ints
    begin: Filler
    finish: Filler


def write_slices(sink: Sink, groups: Sequence[Slices]) -> None:
    """Write slices that may share tracks: those of one track do not overlap, or are within one of a group before."""
    for piece in _pieces(groups):
        for slices, first, last in reversed(piece):
            rows = first + np.flatnonzero(slices.end[first:last] > slices.start[first:last])
            _write_kinds(sink, slices.end_kind, rows, slices.finish)
        for slices, first, last in piece:
            _write_empty(sink, slices, first + np.flatnonzero(slices.end[first:last] <= slices.start[first:last]))
        for slices, first, last in piece:
            rows = first + np.flatnonzero(slices.end[first:last] > slices.start[first:last])
            _write_kinds(sink, slices.begin_kind, rows, slices.begin)


def _pieces(groups: Sequence[Slices]) -> Iterator[list[tuple[Slices, int, int]]]:
    """Cut all groups at the same times, never between equal ones."""
    starts = np.sort(np.concatenate([group.start for group in groups]))
    cuts = np.unique(starts[PIECE::PIECE])
    edges = [np.concatenate(([0], np.searchsorted(group.start, cuts), [len(group.start)])) for group in groups]
    for at in range(len(cuts) + 1):
        yield [(group, int(edge[at]), int(edge[at + 1])) for group, edge in zip(groups, edges, strict=True)]


def _write_kinds(sink: Sink, kinds: Ints, rows: Ints, fill: Filler) -> None:
    chosen = kinds[rows]
    for kind in np.flatnonzero(np.bincount(chosen)):
        sink.write_raw(fill(int(kind), rows[chosen == kind]))


def _write_empty(sink: Sink, slices: Slices, rows: Ints) -> None:
    """Write slices of no length, each begin next to its end; those of one instant keep their order."""
    if not len(rows):
        return
    times = slices.start[rows]
    first = np.concatenate(([True], times[1:] != times[:-1]))
    positions = np.arange(len(rows))
    turn = positions - np.maximum.accumulate(np.where(first, positions, 0))
    keys = np.stack((turn, slices.begin_kind[rows], slices.end_kind[rows]), axis=1)
    for key in np.unique(keys, axis=0):
        chosen, (_, begin_kind, end_kind) = rows[(keys == key).all(axis=1)], key
        begin, end = slices.begin(int(begin_kind), chosen), slices.finish(int(end_kind), chosen)
        sink.write_raw(np.concatenate((begin, end), axis=1))


@cache
def end_shape(arrow: bool) -> Shape:
    """Return the end of a slice: columns time, uuid, and flow if an `arrow` leaves from it."""

    def build(value: Mapping[str, int]) -> Any:
        event = pb.TrackEvent(type=pb.TrackEvent.TYPE_SLICE_END, track_uuid=value["uuid"])
        if arrow:
            event.flow_ids.append(value["flow"])
        return packet(timestamp=value["time"], track_event=event)

    return Shape(build, {"time": Field.TIME, "uuid": Field.UUID} | ({"flow": Field.FLOW} if arrow else {}))
