"""Native code off the GIL that lets only one thread in at a time: a lock of its own."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.durations import percent
from giltrace.analysis.findings.figures import Figures
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.results import Site, Verdict
from giltrace.timeline.axis import Ints, LifeAxis
from giltrace.timeline.model import Array, Process, State

#: Several threads were in the same call for this share of the time that they had, and one of them ran ...
SERIAL_SHARE = 0.3
#: ... while the time in which two of them ran, or would have with a core, is at most this share of that.
SERIAL_OVERLAP = 0.25


def serial(f: Figures) -> Verdict | None:
    """Is there a call off the GIL that several threads were in at once, one of which ran? Needs stacks and cores."""
    if f.process.stacks is None or f.off_running_ns < SERIAL_SHARE * f.had:
        return None
    site, rows = _busiest_call(f.process)
    alone, together = _alone(rows)
    if site is None or alone < SERIAL_SHARE * f.had or together > SERIAL_OVERLAP * alone:
        return None
    threads = len(np.unique(rows["thread"]))
    function, file, line = (
        (site.own_function, site.own_file, site.own_line) if site.own_file else (site.function, site.file, site.line)
    )
    return Verdict(
        "single-threaded",
        f"One thread at a time, off the GIL: {threads} threads called {function} ({file.rpartition('/')[2]}:{line}); "
        f"for {percent(alone / f.had)} of the time several were in that call at once, and one of them ran.",
        "The GIL is not the limit: what is called there has a lock of its own. Give each thread an object of its own "
        "(a connection, a parser, a session), or use processes.",
        {"serial_share": alone / f.had, "several_ran_share": together / f.had, "threads": threads},
    )


def _busiest_call(process: Process) -> tuple[Site | None, Array]:
    """The line off the GIL that most was run at, and the states of the threads that were there."""
    states = process.states[process.states["state"] >= State.OFF_RUNNING]
    axis = LifeAxis.of_threads(process.threads)
    released = axis.place(process.holds["thread"], process.holds["end"])
    order = np.argsort(released, kind="stable")
    at = np.searchsorted(released[order], axis.place(states["thread"], states["start"]), "right") - 1
    hold = order[np.maximum(at, 0)]
    known = (at >= 0) & (process.holds["thread"][hold] == states["thread"])
    states, hold = states[known], hold[known]
    if len(states) == 0 or process.stacks is None:
        return None, states
    calls = Sites(process).classify(states["thread"], process.stacks.hold_end[hold])
    # Threads with names of their own may be at one line.
    line: dict[tuple[str, int], int] = {}
    of_class = [
        line.setdefault((s.own_file, s.own_line) if s.own_file else (s.file, s.line), number)
        for number, s in enumerate(calls.sites)
    ]
    where: Ints = np.array(of_class, np.int64)[calls.of_row]
    ran = states["state"] == State.OFF_RUNNING
    length = (states["end"] - states["start"])[ran]
    busiest = int(np.bincount(where[ran], weights=length, minlength=len(calls.sites)).argmax())
    return calls.sites[busiest], states[where == busiest]


def _alone(rows: Array) -> tuple[int, int]:
    """How long several threads were there of which one ran, and how long several ran or could have."""
    runs = (rows["state"] == State.OFF_RUNNING).astype(np.int64)
    ready = runs + (rows["state"] == State.OFF_RUNNABLE)
    time = np.concatenate([rows["start"], rows["end"]])
    order = np.argsort(time, kind="stable")
    length = np.diff(time[order])

    def level(one: Ints) -> Ints:
        return np.cumsum(np.concatenate([one, -one])[order])[:-1]

    there, run, could = level(np.ones(len(rows), np.int64)), level(runs), level(ready)
    alone = (there >= 2) & (run == 1) & (could == 1)
    return int(length[alone].sum()), int(length[could >= 2].sum())
