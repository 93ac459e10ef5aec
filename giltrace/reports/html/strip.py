"""The threads of a process over time in one small drawing, for a notebook: SVG that needs nothing from elsewhere.

Each thread is a row of 12 units. From its foot up, a column shows which share of its time the thread held a GIL, and
from there which share it waited for one::

    |  ####      |  <- waited
    | ######  ## |  <- held
"""

from __future__ import annotations

from html import escape

import numpy as np

from giltrace.analysis.durations import duration
from giltrace.analysis.measure.intervals import covered
from giltrace.reports.html.lanes import PER_GIL, Lane, Lanes
from giltrace.reports.thread_rows import thread_name
from giltrace.text import cut
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.model import Process, State

_COLUMNS = 300
_WIDTH = 900
_NAME = 160
_ROW = 16
_HIGH = 12
_HELD, _WAITED = "#0a9a74", "#d9480f"
_LONGEST_NAME = 22
_TEXT = 'font-family="sans-serif" font-size="11" fill="currentColor"'


def strip(process: Process, threads: list[int], start: int, end: int) -> str:
    """Draw what `threads` (numbers in the process) did from `start` to `end` (ns); "" if there is nothing to draw."""
    if end <= start or not threads:
        return ""
    rows = []
    for at, (thread, lane) in enumerate(zip(threads, Lanes(process, start, end).threads(threads), strict=True)):
        state = lane.value % PER_GIL
        held = _heights(lane, state <= int(State.HOLDING_BLOCKED), end - start)
        both = np.maximum(_heights(lane, state <= int(State.WAITING), end - start), held)
        name = thread_name(process.threads[thread])
        rows.append(
            f'<g transform="translate(0 {at * _ROW})"><title>{escape(name)}</title>'
            f'<text x="0" y="10" {_TEXT}>{escape(cut(name, _LONGEST_NAME))}</text>'
            f"{_area(both, held, _WAITED)}{_area(held, np.zeros_like(held), _HELD)}</g>"
        )
    high = len(rows) * _ROW
    foot = (
        f'<text x="{_NAME}" y="{high + 11}" {_TEXT}>0</text>'
        f'<text x="{_WIDTH}" y="{high + 11}" text-anchor="end" {_TEXT}>{duration(end - start)}</text>'
        f'<text x="{(_NAME + _WIDTH) // 2}" y="{high + 11}" text-anchor="middle" {_TEXT}>'
        f'<tspan fill="{_HELD}">\u25a0</tspan> has the GIL  <tspan fill="{_WAITED}">\u25a0</tspan> waits for it</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="The threads over time" width="100%" '
        f'viewBox="0 0 {_WIDTH} {high + 16}" style="max-width:{_WIDTH}px">{"".join(rows)}{foot}</svg>'
    )


def _heights(lane: Lane, chosen: Bools, length: int) -> Ints:
    """Of each column the share of its time that the chosen stretches of a lane take, in units of height."""
    edges = np.linspace(0, length, _COLUMNS + 1).astype(np.int64)
    spent = np.diff(covered((lane.ends - lane.lengths)[chosen], lane.ends[chosen], edges))
    heights: Ints = np.rint(spent * (_COLUMNS * _HIGH / length)).astype(np.int64)
    return heights


def _area(top: Ints, foot: Ints, colour: str) -> str:
    """The columns between two heights, equal neighbours as one."""
    changes = np.flatnonzero((np.diff(top, prepend=-1) != 0) | (np.diff(foot, prepend=-1) != 0)).tolist()
    wide = (_WIDTH - _NAME) / _COLUMNS
    path = "".join(
        f"M{_NAME + begin * wide:g} {_HIGH - int(top[begin])}h{(end - begin) * wide:g}v{int(top[begin] - foot[begin])}"
        f"h{(begin - end) * wide:g}z"
        for begin, end in zip(changes, [*changes[1:], _COLUMNS], strict=True)
        if top[begin] > foot[begin]
    )
    return f'<path fill="{colour}" d="{path}"/>' if path else ""
