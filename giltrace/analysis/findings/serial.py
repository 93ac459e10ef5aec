"""Native code off the GIL that lets only one thread in at a time: a lock of its own."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.durations import percent
from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.figures import Figures
from giltrace.analysis.findings.locks import own_objects
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.at_once import levels
from giltrace.analysis.measure.off_gil import off_gil
from giltrace.timeline.model import Array, State

#: Several threads were in the same call for this share of the time that they had, and one of them ran: as much as makes
#: it contention where it is the GIL ...
SERIAL_SHARE = 0.3
#: ... while the time in which two of them ran, or more would have with a core, is at most this share of that: who comes
#: out of a lock runs on for a while beside the next one.
SERIAL_OVERLAP = 0.25


def serial(f: Figures) -> Verdict | None:
    """Is there a call off the GIL that several threads were in at once, one of which ran? Needs stacks and cores."""
    if f.process.stacks is None or f.off_running_ns < SERIAL_SHARE * f.had:
        return None
    calls = off_gil(f.process, asleep=True)
    ran = calls.total(State.OFF_RUNNING)
    if not ran.any():
        return None
    busiest = int(ran.argmax())
    where = calls.sites[busiest].where
    rows = calls.states.take(calls.row[np.flatnonzero(calls.place == busiest)])
    # There is a row for each state: it is let go of before more is made of them.
    del calls
    alone, together = _alone(rows)
    if alone < SERIAL_SHARE * f.had or together > SERIAL_OVERLAP * alone:
        return None
    threads = len(np.unique(rows["thread"]))
    length = usage.lengths(rows)
    slept = [int(length[rows["state"] == state].sum()) for state in (State.HOLDING_BLOCKED, State.OFF_BLOCKED)]
    keeps = " The others waited for it with the GIL, so that none could run Python." if slept[0] > slept[1] else ""
    return Verdict(
        "single-threaded",
        f"One thread at a time, off the GIL: {threads} threads called {where}; for "
        f"{percent(alone / f.had)} of the time several were in that call at once, and one of them ran.{keeps}",
        f"The GIL is not the limit. {own_objects(f)}",
        {"serial_share": alone / f.had, "several_ran_share": together / f.had, "threads": threads},
    )


def _alone(rows: Array) -> tuple[int, int]:
    """How long several threads were there of which one ran; and how long several ran, or could have beside one.

    On a busy machine, who let another one in and that one are both ready for a while: three at least could have run.
    """
    running = (State.OFF_RUNNING,)
    alone = together = 0
    for time, (there, run, could) in levels(rows, (tuple(State), running, (*running, State.OFF_RUNNABLE))):
        length = np.diff(time)
        alone += int(length[(there >= 2) & (run == 1) & (could == 1)].sum())
        together += int(length[(run >= 2) | ((could >= 3) & (run >= 1))].sum())
    return alone, together
