"""Where the threads of an idle process stood and what for, and whether they may wait for each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from giltrace.analysis.findings.figures import Figures
from giltrace.analysis.lock_results import CAUSE_TEXT, without_text
from giltrace.analysis.measure.activity import Doing
from giltrace.analysis.measure.asleep_causes import AsleepCause, cause_of_files
from giltrace.analysis.measure.block_causes import GIVEN_BACK, BlockCause, cause_of_frames
from giltrace.analysis.measure.roles import python_threads
from giltrace.analysis.measure.standing import Stood, longest_idle, where_idle
from giltrace.text import plural

#: So many threads are told where they stood.
MOST_TOLD = 3

_OF_PROCESSES = tuple(cause.label for cause in AsleepCause if cause.label.startswith("process-"))
_GIVEN_BACK = tuple(cause.label for cause in GIVEN_BACK)
_WITH_THE_GIL = {Doing.PYTHON: "running Python", Doing.WAITING: "waiting for the GIL"}


class _For(NamedTuple):
    """What a thread stood there for, in words, and the label of its cause where that is told.

    `lock` is the number of the interpreter's lock that it slept in without a limit, -1 for none; `unknown`: it may have
    been in one.
    """

    text: str
    cause: str = ""
    lock: int = -1
    unknown: bool = False


def stood(f: Figures) -> str:
    """Where the threads stood and what to do about it; empty for one thread, and where that is not known."""
    instant = longest_idle(f.process)
    known = where_idle(f.process, instant)
    if len(known) < 2:
        return ""
    found = f.activity
    now = np.flatnonzero(found.start <= instant)
    now = now[found.until(now) > instant]
    row = dict(zip(found.thread[now].tolist(), now.tolist(), strict=True))
    what = [_what_for(f, one, row.get(one.thread, -1)) for one in known]
    python = python_threads(f.process)
    living = {
        at
        for at, one in enumerate(f.process.threads)
        if one.start <= instant <= one.end and (python[at] or one.tid == f.process.pid)
    }
    some = zip(known[:MOST_TOLD], what[:MOST_TOLD], strict=True)
    told = ", ".join(f"{f.name(one.thread)!r} {for_.text} at {one.where}" for one, for_ in some)
    more = f" and {plural(len(known) - MOST_TOLD, 'more thread')}" if len(known) > MOST_TOLD else ""
    advice = _advice(what, everybody=living <= {one.thread for one in known})
    return f"They stood, {told}{more}: if they should be at work, {advice}."


def _advice(what: list[_For], *, everybody: bool) -> str:
    if _may_be_deadlock(what, everybody=everybody):
        return "they may wait for each other, a deadlock"
    if any(one.cause in _OF_PROCESSES for one in what):
        return "look at the processes that they wait for"
    return "look at what they wait for there"


def _may_be_deadlock(what: list[_For], *, everybody: bool) -> bool:
    """Whether `everybody` stands in locks, as far as is known, or several in different ones of which one is to be given
    back.

    Whoever sleeps, or waits for I/O or a process, goes on by itself, and may be what others wait for.
    """
    stuck = [one for one in what if one.lock >= 0 or one.unknown]
    if everybody and len(stuck) == len(what):
        return True
    locks = {one.lock for one in stuck if not one.unknown}
    return len(locks) > 1 and any(one.cause in _GIVEN_BACK for one in stuck if not one.unknown)


def _what_for(f: Figures, one: Stood, row: int) -> _For:
    """What a thread stood there for: by the block that it was in, its stack, or its sampled frames.

    `row` is that of what it did then, -1 if that is not known.
    """
    found, process = f.activity, f.process
    block = int(found.block(np.array([row]))[0]) if row >= 0 else -1
    if block >= 0:
        cause = BlockCause(int(f.block_causes[block])).label
        timed = bool(process.blocks["timed"][block])
        return _For(CAUSE_TEXT[cause], cause, -1 if timed else int(process.blocks["lock"][block]))
    doing = Doing(int(found.doing[row])) if row >= 0 else Doing.OFF
    if doing not in (Doing.ASLEEP, Doing.OFF):
        return _For(_WITH_THE_GIL.get(doing, "") or without_text(doing.label, ""))
    # Of one that is looked at from outside, blocks are not on record.
    looked_at = process.sampling is not None
    waited = cause_of_frames([(file, function) for function, file, _ in one.frames]) if looked_at else BlockCause.LOCK
    if waited is not BlockCause.LOCK:
        return _For(CAUSE_TEXT[waited.label], waited.label, unknown=True)
    slept = _asleep(f, int(found.stack[row]) if row >= 0 else -1, one).label
    return _For(without_text(doing.label, slept), slept, unknown=looked_at and not slept)


def _asleep(f: Figures, stack: int, one: Stood) -> AsleepCause:
    """What it was asleep for, by the line that gave the GIL up, or else by its sampled frames."""
    told = AsleepCause(int(f.asleep(np.array([stack]))[0]))
    if told or not one.frames:
        return told
    _, file, line = one.frames[0]
    return cause_of_files([file for _, file, _ in one.frames], f.expressions.line(file, line))
