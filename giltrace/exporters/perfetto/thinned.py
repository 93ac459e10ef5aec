"""How a thinned trace draws one process: events where they were kept, and elsewhere, on the same tracks, steps."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.exporters._relations import waiting_counts
from giltrace.exporters.perfetto import colours
from giltrace.exporters.perfetto.coarse import Coarse, outside, starts_of_runs
from giltrace.exporters.perfetto.packets import Bytes, Field, Ints, Shape
from giltrace.exporters.perfetto.protos import packet, pb
from giltrace.exporters.perfetto.sink import Sink
from giltrace.exporters.perfetto.slices import PIECE, Slices, end_shape
from giltrace.timeline.axis import Bools
from giltrace.timeline.cut import reaching
from giltrace.timeline.model import Process

#: The category of slices that stand for steps; what is exact has others.
CATEGORY = "thinned"
#: What slices of steps are called, by what the thread did most in them, and their colours: those of events, paler.
NAMES = ("mostly holds GIL", "mostly waits for GIL", "mostly off the GIL", "mostly blocked")
_COLOURS = ((135, 76), (14, 77), (210, 77), (285, 77))
#: A fragment of steps that events interrupt has no figures of its own: the first has them all.
_FIGURES = 4


class Steps(NamedTuple):
    """What is drawn of a process beside its events: `coarse` is all that these are not.

    `kept` are the stretches in which all events are there, shape (n, 2). `explained`, one per wait, tells whether all
    holds during it are there. `told` says how it was thinned; `bounds` are the first and the last instant of the trace.
    """

    coarse: Coarse
    kept: npt.NDArray[np.int64]
    bounds: tuple[int, int]
    explained: Bools
    told: str

    @property
    def met(self) -> tuple[Ints, Ints]:
        """The threads, and the GILs that they have tracks for."""
        return self.coarse.thread, self.coarse.gil

    @property
    def own(self) -> Bools:
        """Which of these tracks are not there for blocks alone."""
        used: Bools = np.logical_or.reduce((self.coarse.holding > 0) | (self.coarse.waiting > 0), axis=1)
        return used

    def slices(self, sink: Sink, process: Process, tracks: Ints) -> Slices:
        """The threads' steps; `process` has the events, `tracks` the uuid of each thread's track of each GIL."""
        merged = self.coarse.merged(self.bounds[1])
        number = np.full(tracks.shape, -1, np.int64)
        number[self.met] = np.arange(len(self.coarse.thread))
        events = (process.holds, process.waits, process.blocks)
        blocked = process.blocks["thread"]
        gils = [process.holds["gil"], process.waits["gil"], (tracks[blocked] > 0).argmax(axis=1)]
        track = np.concatenate([number[rows["thread"], gil] for rows, gil in zip(events, gils, strict=True)])
        begun, ended = (np.concatenate([rows[edge] for rows in events]) for edge in ("start", "end"))
        which, start, end = outside(
            merged.track,
            merged.start,
            merged.end,
            (track, begun, ended),
            self.kept,
            self.bounds,
            len(self.coarse.thread),
        )
        first = np.append(True, which[1:] != which[:-1])[: len(which)]
        order = np.argsort(start, kind="stable")
        which, start, end, first = which[order], start[order], end[order], first[order]
        uuid = tracks[self.met][merged.track[which]]
        shape = _shapes(sink, self.told, running=process.has_sched)

        def begin(kind: int, rows: Ints) -> Bytes:
            chosen = which[rows]
            return shape(kind).fill(
                time=start[rows],
                uuid=uuid[rows],
                holding=merged.holding[chosen],
                waiting=merged.waiting[chosen],
                blocked=merged.blocked[chosen],
                running=merged.running[chosen],
            )

        def finish(kind: int, rows: Ints) -> Bytes:
            return end_shape(False).fill(time=end[rows], uuid=uuid[rows])

        kind = merged.doing[which] + _FIGURES * first
        return Slices(start, end, kind, np.zeros(len(start), np.int64), begin, finish)

    def holders(self, process: Process, gil: int) -> tuple[Ints, Ints, Ints]:
        """Who had a GIL for the longest of each of the steps: start, end and thread, sorted by start."""
        rows = np.flatnonzero(self.coarse.gil == gil)
        holding = self.coarse.holding[rows]
        steps = np.flatnonzero((holding > 0).any(axis=0)) if len(rows) else np.empty(0, np.int64)
        if not len(steps):
            return steps, steps, steps
        thread = self.coarse.thread[rows][holding[:, steps].argmax(axis=0)]
        first = starts_of_runs(steps, np.zeros(len(steps), np.int64), thread)
        last = np.append(first[1:], len(steps)) - 1
        start, end = self.coarse.spans(steps[first], steps[last], self.bounds[1])
        own = process.holds[process.holds["gil"] == gil]
        none = np.zeros(len(own), np.int64)
        taken = (none, own["start"], own["end"])
        which, start, end = outside(np.zeros(len(first), np.int64), start, end, taken, self.kept, self.bounds, 1)
        return start, end, thread[first][which]

    def waiting(self, process: Process, gil: int) -> tuple[Ints, npt.NDArray[np.float64]]:
        """How many threads wait for a GIL: times, and the number from each on, in steps their mean in it."""
        times, counts = waiting_counts(process, gil)
        grid = self.coarse.grid
        if len(self.kept):
            edges = self.kept[:, 0]
            at_edge = np.where(edges >= times[0], counts[np.maximum(np.searchsorted(times, edges, "right") - 1, 0)], 0)
            inside = reaching(times, times, self.kept)
            times, counts = np.append(edges, times[inside]), np.append(at_edge, counts[inside])
        else:
            times, counts = times[:0], counts[:0]
        steps = grid.start + grid.step * np.arange(grid.count)
        steps = steps[~reaching(steps, steps, self.kept)]
        # Where events end, the step that is under way goes on.
        steps = np.append(steps, self.kept[:, 1][self.kept[:, 1] < self.bounds[1]])
        mean = self.coarse.waited[gil][grid.at(steps)] / grid.step
        return np.append(times, steps), np.append(counts.astype(np.float64), mean)

    def held(self, gil: int) -> tuple[Ints, npt.NDArray[np.float64]]:
        """What part of each step a GIL was held for, in percent: times, and the share from each on."""
        grid = self.coarse.grid
        share = np.round(100 * self.coarse.held[gil] / grid.step, 2)
        fresh = np.flatnonzero(np.append(True, share[1:] != share[:-1]))
        return grid.start + grid.step * fresh, share[fresh]


def write_counter(sink: Sink, track: int, times: Ints, values: npt.NDArray[np.float64]) -> None:
    """Write the values of a counter that are no integers."""

    def build(value: Mapping[str, int]) -> Any:
        number = struct.unpack("<d", struct.pack("<Q", value["value"]))[0]
        event = pb.TrackEvent(type=pb.TrackEvent.TYPE_COUNTER, track_uuid=track, double_counter_value=number)
        return packet(timestamp=value["time"], track_event=event)

    shape = Shape(build, {"time": Field.TIME, "value": Field.FLOW})
    for at in range(0, len(times), PIECE):
        piece = slice(at, at + PIECE)
        sink.write_raw(shape.fill(time=times[piece], value=values[piece].astype(np.float64).view(np.int64)))


def _shapes(sink: Sink, told: str, *, running: bool) -> Callable[[int], Shape]:
    @cache
    def shape(kind: int) -> Shape:
        doing = kind % _FIGURES
        figures = ("holding", "waiting", "blocked", *(("running",) if running else ())) if kind >= _FIGURES else ()

        def build(value: Mapping[str, int]) -> Any:
            notes = [sink.annotation(f"{name} (ns)", uint_value=value[name]) for name in figures]
            event = pb.TrackEvent(
                type=pb.TrackEvent.TYPE_SLICE_BEGIN,
                track_uuid=value["uuid"],
                category_iids=[int(sink.categories([CATEGORY])[0])],
                name_iid=int(sink.names([NAMES[doing]])[0]),
                correlation_id_str_iid=int(
                    sink.colours([colours.correlation_id(f"{NAMES[doing]} ", *_COLOURS[doing])])[0]
                ),
                debug_annotations=[*notes, sink.text("thinned", told)],
            )
            return packet(timestamp=value["time"], track_event=event)

        columns = {"time": Field.TIME, "uuid": Field.UUID, **dict.fromkeys(figures, Field.TIME)}
        return Shape(build, columns)

    return shape
