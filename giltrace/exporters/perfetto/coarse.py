"""What is in a thinned trace of the time of which not every event is: how long each thread did what, in steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from giltrace.exporters.perfetto.steps import Grid, doubled, time_in_steps
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.cut import merged_stretches
from giltrace.timeline.model import Array, Process

#: What a thread did most in a step: `Merged.doing`.
HOLDS, WAITS, OFF, BLOCKED = range(4)


class Merged(NamedTuple):
    """Steps on end in which a track's thread did mostly the same: [start, end) in ns, and ns of each doing in all."""

    track: Ints
    start: Ints
    end: Ints
    doing: Ints
    holding: Ints
    waiting: Ints
    blocked: Ints
    running: Ints


class Coarse(NamedTuple):
    """The steps of one process. A track is a `thread` at a `gil`; times are in ns, shape (tracks, steps).

    Blocks are on a thread's first track.
    `held` and `waited` are those of all threads at each GIL, shape (gils, steps), and `off` is what threads had nothing
    to do with the GIL for: these tell of all events, whatever was taken from the others.
    """

    grid: Grid
    thread: Ints
    gil: Ints
    holding: Ints
    waiting: Ints
    blocked: Ints
    running: Ints
    off: Ints
    held: Ints
    waited: Ints

    @classmethod
    def of(cls, process: Process, grid: Grid) -> Coarse:
        """All that the process did."""
        met = met_tracks(process)
        thread, gil = np.nonzero(met)
        table = _of_rows(process, grid, thread, gil, met)
        held, waited = (
            np.array([rows[gil == one].sum(axis=0) for one in range(process.gils)], np.int64).reshape(-1, grid.count)
            for rows in table[:2]
        )
        return cls(grid, thread, gil, *table, grid.step - table[0] - table[1], held, waited)

    def without(self, process: Process) -> Coarse:
        """What is left of the threads' times but for the rows of `process`, which are some of those it was made of."""
        met = np.zeros((len(process.threads), max(process.gils, 1)), np.bool_)
        met[self.thread, self.gil] = True
        told = _of_rows(process, self.grid, self.thread, self.gil, met)
        return self._replace(
            **{
                name: getattr(self, name) - gone
                for name, gone in zip(("holding", "waiting", "blocked", "running"), told, strict=True)
            },
        )

    def doubled(self) -> Coarse:
        """The same in steps twice as long."""
        names = ("holding", "waiting", "blocked", "running", "off", "held", "waited")
        tables = {name: doubled(getattr(self, name)) for name in names}
        return self._replace(grid=self.grid.doubled(), **tables)

    def merged(self, end: int) -> Merged:
        """The steps in which the threads had to do with a GIL, or were blocked; the last ends at `end`."""
        steps = self.grid.count
        cells = np.flatnonzero((self.holding > 0) | (self.waiting > 0) | (self.blocked > 0))
        times = (self.holding, self.waiting, self.blocked, self.running)
        holding, waiting, blocked, running = (one.ravel()[cells] for one in times)
        doing = np.where(waiting > holding, WAITS, HOLDS)
        # Who was blocked did without the GIL meanwhile.
        off = self.off.ravel()[cells]
        doing = np.where(off > np.maximum(holding, waiting), np.where(blocked > off - blocked, BLOCKED, OFF), doing)
        first = starts_of_runs(cells, cells // steps, doing)
        last = np.append(first[1:], len(cells)) - 1
        sums = (np.add.reduceat(one, first) if len(first) else one for one in (holding, waiting, blocked, running))
        start, until = self.spans(cells[first] % steps, cells[last] % steps, end) if len(cells) else (cells, cells)
        return Merged(cells[first] // steps, start, until, doing[first], *sums)

    def spans(self, first: Ints, last: Ints, end: int) -> tuple[Ints, Ints]:
        """Begin and end of steps `first` to `last`, the latest `end`."""
        start = self.grid.start + first * self.grid.step
        return start, np.minimum(self.grid.start + (last + 1) * self.grid.step, max(end, self.grid.start + 1))


def met_tracks(process: Process) -> Bools:
    """Which thread has a track for which GIL, shape (threads, gils).

    One that was blocked, or woke another, and had to do with no GIL, has that of the first.
    """
    met = gil_tracks(process)
    wakers = process.blocks["waker"]
    others = np.zeros(len(met), np.bool_)
    others[process.blocks["thread"]] = others[wakers[wakers >= 0]] = True
    met[others & ~met.any(axis=1), 0] = True
    return met


def gil_tracks(process: Process) -> Bools:
    """Which thread had to do with which GIL, shape (threads, gils)."""
    met = np.zeros((len(process.threads), max(process.gils, 1)), np.bool_)
    for table in (process.holds, process.waits):
        met[table["thread"], table["gil"]] = True
    return met


def starts_of_runs(cells: Ints, row: Ints, kind: Ints) -> Ints:
    """Where runs of neighbouring cells of one row and kind begin."""
    if not len(cells):
        return np.empty(0, np.int64)
    fresh = (np.diff(cells) != 1) | (np.diff(row) != 0) | (np.diff(kind) != 0)
    return np.flatnonzero(np.append(True, fresh))


def _of_rows(process: Process, grid: Grid, thread: Ints, gil: Ints, met: Bools) -> tuple[Ints, Ints, Ints, Ints]:
    number = np.full(met.shape, -1, np.int64)
    number[thread, gil] = np.arange(len(thread))

    def in_steps(rows: Array) -> Ints:
        return time_in_steps(grid, rows["start"], rows["end"], number[rows["thread"], rows["gil"]], len(thread))

    # A thread runs once, whatever GILs it meets.
    place = np.full(len(met), -1, np.int64)
    runners, track = np.unique(thread, return_inverse=True)
    place[runners] = np.arange(len(runners))
    runs = process.runs
    running = time_in_steps(grid, runs["start"], runs["end"], place[runs["thread"]], len(runners))
    blocks = process.blocks
    on = number[blocks["thread"], met[blocks["thread"]].argmax(axis=1)]
    blocked = time_in_steps(grid, blocks["start"], blocks["end"], on, len(thread))
    return in_steps(process.holds), in_steps(process.waits), blocked, running[track]


def outside(
    track: Ints,
    start: Ints,
    end: Ints,
    taken: tuple[Ints, Ints, Ints],
    kept: Ints,
    bounds: tuple[int, int],
    tracks: int,
) -> tuple[Ints, Ints, Ints]:
    """What of each interval is not `taken` by others on its track, nor `kept`: (which interval, start, end).

    `taken` has track, start and end in any order; `kept` are stretches of all tracks, shape (n, 2). Intervals of one
    track are disjoint, and sorted by (track, start).
    """
    first, length = bounds[0], max(bounds[1] - bounds[0], 0) + 2

    def placed(on: Ints, times: Ints) -> Ints:
        # The tracks' times on end: one sort is for all of them.
        axis: Ints = on * length + np.clip(times - first, 0, length - 1)
        return axis

    every = np.repeat(np.arange(tracks), len(kept))
    edges = [
        np.concatenate((placed(taken[0], taken[at]), placed(every, np.tile(kept[:, at - 1], tracks)))) for at in (1, 2)
    ]
    busy = merged_stretches(np.stack(edges, axis=1))
    free_start, free_end = np.append(0, busy[:, 1]), np.append(busy[:, 0], tracks * length)
    begin, finish = placed(track, start), placed(track, end)
    low = np.searchsorted(free_end, begin, "right")
    count = np.maximum(np.searchsorted(free_start, finish, "left") - low, 0)
    which = np.repeat(np.arange(len(track)), count)
    place = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count) + low[which]
    left, right = np.maximum(free_start[place], begin[which]), np.minimum(free_end[place], finish[which])
    there = right > left
    which = which[there]
    shift = first - track[which] * length
    return which, left[there] + shift, right[there] + shift
