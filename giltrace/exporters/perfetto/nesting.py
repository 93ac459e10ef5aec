"""The order of begins and ends of nested spans."""

from __future__ import annotations

import numpy as np

from giltrace.exporters.perfetto.packets import Bools, Ints
from giltrace.timeline.model import Array


def nested_order(table: Array) -> tuple[Array, Ints]:
    """Return spans that nest, and the order of their begins and ends: i for the begin of span i, ~i for its end.

    `table` has dtype `SPAN`, sorted by (tid, start, depth). Spans that do not nest as their depths say are given new
    depths, and those that outlive the span around them are cut to it.
    """
    if not len(table):
        return table, np.empty(0, np.int64)
    first = np.append(True, table["tid"][1:] != table["tid"][:-1])
    if _steps_down(table["depth"].astype(np.int64), first):
        order = _order(table["depth"].astype(np.int64))
        if _in_time(table, order):
            return table, order
    table = _nest(table, first)
    return table, _order(table["depth"].astype(np.int64))


def _steps_down(depth: Ints, first: Bools) -> bool:
    """Whether every depth has a span one level up to belong to."""
    return bool(np.all(np.where(first, depth == 0, depth <= np.roll(depth, 1) + 1)))


def _in_time(table: Array, order: Ints) -> bool:
    rows = np.where(order >= 0, order, ~order)
    times = np.where(order >= 0, table["start"][rows], table["end"][rows])
    same_thread = table["tid"][rows][1:] == table["tid"][rows][:-1]
    return bool(np.all((times[1:] >= times[:-1]) | ~same_thread))


def _order(depth: Ints) -> Ints:
    """Before span i, in preorder, i begins and all but `depth[i]` of their ends have been written."""
    count = len(depth)
    index = np.arange(count)
    order = np.empty(2 * count, np.int64)
    order[2 * index - depth] = index
    order[2 * _subtree_ends(depth) - depth - 1] = ~index
    return order


def _subtree_ends(depth: Ints) -> Ints:
    """Return for each span the index of the first later one that is not inside it."""
    count = len(depth)
    ends = np.full(count, count, np.int64)
    by_depth = np.argsort(depth, kind="stable")
    levels = np.split(by_depth, np.flatnonzero(np.diff(depth[by_depth])) + 1)
    for at, level in enumerate(levels):
        ends[level[:-1]] = level[1:]
        if at:
            parents = levels[at - 1][np.searchsorted(levels[at - 1], level) - 1]
            ends[level] = np.minimum(ends[level], ends[parents])
    return ends


def _nest(table: Array, first: Bools) -> Array:
    """Assign depths by walking a stack per thread: the slow way, for spans that break their promise."""
    table = table.copy()
    depths = np.zeros(len(table), table["depth"].dtype)
    open_ends: list[int] = []
    rows = zip(table["start"].tolist(), table["end"].tolist(), first.tolist(), strict=True)
    for at, (start, end, begins) in enumerate(rows):
        if begins:
            open_ends = []
        while open_ends and open_ends[-1] <= start:
            open_ends.pop()
        depths[at] = len(open_ends)
        open_ends.append(min(end, open_ends[-1]) if open_ends else end)
        table["end"][at] = max(open_ends[-1], start)
    table["depth"] = depths
    return table
