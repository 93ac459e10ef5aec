"""An event loop whose thread is blocked outside of its selector: none of its tasks gets on meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.event_loops import loop_of_thread
from giltrace.analysis.findings.figures import QUIET_SHARE, Figures
from giltrace.analysis.findings.stall_lines import Frames, Lines
from giltrace.analysis.lock_results import without_text
from giltrace.analysis.measure.activity import Doing
from giltrace.analysis.measure.asleep_causes import AsleepCause, cause_of_files
from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.analysis.measure.loops import LOOPS, Place, number_of, own_frames, runs, selector_of
from giltrace.analysis.measure.standing import longest_idle, where_idle
from giltrace.text import plural
from giltrace.timeline.axis import Bools, Ints

if TYPE_CHECKING:
    from giltrace.analysis.findings.costs import Costed

#: One block is long enough to be told of a loop that was hardly blocked in all: asyncio's own debug mode tells of such.
LONG_NS = 100_000_000
#: What threads are blocked in: what they do without scheduling data may be native code, too.
_BLOCKED = (Doing.LOCK, Doing.ASLEEP, Doing.OFF)

_UVLOOP = LOOPS.index("uvloop")
_ASYNCIO = "await asyncio.sleep()", "await asyncio.to_thread(...)"
#: A notebook's kernel runs cells in its loop, which has nothing else to do meanwhile.
_OF_CELLS = "/ipykernel/"
#: What to await, by loop: instead of a sleep, and around any other call.
_INSTEAD = {
    "asyncio": _ASYNCIO,
    "uvloop": _ASYNCIO,
    "Tornado": _ASYNCIO,
    "trio": ("await trio.sleep()", "await trio.to_thread.run_sync(...)"),
    "gevent": ("gevent.sleep()", "gevent.get_hub().threadpool.apply(...)"),
}


class Blocked(NamedTuple):
    """A `thread` (by number) that runs a `loop`, blocked outside of its selector for `ns` in all, `longest` at once.

    Most of that, in `calls` calls, was at the line `where`, `what` for, in words; `slept`: for no more than time to
    pass.
    """

    thread: int
    loop: str
    ns: int
    longest: int
    where: str
    calls: int
    what: str
    slept: bool


def find_blocked_loop(f: Figures) -> Blocked | None:
    """The loop that was blocked longest, if any was; none without stacks."""
    if f.process.stacks is None or not f.holders:
        return None
    found = [_blocked(f, thread, loop) for thread, loop in sorted(_loops(f).items())]
    return max((one for one in found if one is not None), key=lambda one: one.ns, default=None)


def blocked_loop(f: Costed) -> Verdict | None:
    """Was a loop's thread blocked for much of the time, and for more of it than any thread had the GIL?"""
    one = f.blocked_loop
    if one is None or one.ns <= max(QUIET_SHARE * f.had, f.used_ns):
        return None
    return Verdict(
        "io-bound-handoff",
        f"Blocked event loop: what thread {f.name(one.thread)!r} ran in its loop ({one.loop}) blocked it for "
        f"{duration(one.ns)}, {percent(min(one.ns / f.wall, 1))} of the time, most at {_most(one)}. None of its other "
        "tasks could go on meanwhile.",
        f"The GIL is not the limit here. {_instead(one)}",
        {"blocked_ns": one.ns, "blocked_share": one.ns / f.wall, "longest_block_ns": one.longest},
    )


def hung_loop(f: Figures) -> Verdict | None:
    """Where nobody used a GIL: was a loop's thread seen to stand in what it ran, and not in its selector?"""
    for one in where_idle(f.process, longest_idle(f.process)):
        frames = [frame[:2] for frame in one.frames]
        loop = LOOPS[max(map(number_of, frames), default=0)]
        if not loop or not _is_callback(frames, loop):
            continue
        _, file, line = one.frames[0]
        cause = cause_of_files([file for _, file in frames], f.expressions.line(file, line))
        blocked = Blocked(one.thread, loop, f.wall, f.wall, one.where, 1, "", cause == AsleepCause.SLEEP)
        return Verdict(
            "io-bound-handoff",
            f"Blocked event loop: thread {f.name(one.thread)!r} did not want the GIL in {duration(f.wall)}, and stood "
            f"not in the selector of its loop ({loop}), but at {one.where}. None of its other tasks could go on "
            "meanwhile.",
            f"The GIL is not the limit here. {_instead(blocked)}",
            {"blocked_ns": f.wall, "blocked_share": 1.0, "longest_block_ns": f.wall},
        )
    return None


def blocked_beside(f: Costed) -> str:
    """That a loop was blocked for long at once, or for some of the time, in words; empty where none was."""
    one = f.blocked_loop
    if one is None or (one.longest < LONG_NS and one.ns <= QUIET_SHARE * f.had):
        return ""
    return (
        f" The event loop ({one.loop}) of thread {f.name(one.thread)!r} was blocked for {duration(one.ns)} in all, up "
        f"to {duration(one.longest)} at once, most at {_most(one)}: none of its other tasks could go on meanwhile. "
        f"{_instead(one)}"
    )


def _most(one: Blocked) -> str:
    return f"{one.where} ({one.what}, {plural(one.calls, 'time')})"


def _instead(one: Blocked) -> str:
    sleep, call = _INSTEAD[one.loop]
    if one.slept:
        return f"Use {sleep} there instead of a sleep that blocks the thread."
    return f"Let another thread do what blocks there, by {call}, or use a library that awaits."


def _loops(f: Figures) -> dict[int, str]:
    """The loop that each thread runs, if it runs one.

    Those of uvloop need not have a frame of their own: there the line that started the loop waits.
    """
    kind = loop_of_thread(f.process)
    rows = np.flatnonzero((kind[f.activity.thread] == 0) & np.isin(f.activity.doing, _BLOCKED))
    waiting = _fits(f, f.activity.stack[rows].astype(np.int64), lambda frames: selector_of(frames) == "uvloop")
    kind[f.activity.thread[rows[waiting]]] = _UVLOOP
    return {thread: LOOPS[kind[thread]] for thread in np.flatnonzero(kind).tolist()}


def _blocked(f: Figures, thread: int, loop: str) -> Blocked | None:
    found = f.activity
    rows = np.flatnonzero(found.thread == thread)
    # From one hold to the next it is one call, also where it had no core for a while in between.
    held = np.cumsum(found.doing[rows] == Doing.PYTHON)
    chosen = _outside(f, found.stack[rows].astype(np.int64), loop) & np.isin(found.doing[rows], _BLOCKED)
    rows, held = rows[chosen], held[chosen]
    if not len(rows):
        return None
    length = found.length(rows)
    stacks, of_row = np.unique(found.stack[rows], return_inverse=True)
    lines, of_line = Lines(), dict[str, int]()
    told = [lines.innermost(_frames(f, one)) for one in stacks.tolist()]
    for line, ns in zip(told, np.bincount(of_row.ravel(), weights=length).tolist(), strict=True):
        of_line[line] = of_line.get(line, 0) + int(ns)
    where = max(of_line, key=lambda line: of_line[line])
    mine = np.array([line == where for line in told], np.bool_)[of_row.ravel()]
    what, slept = _what(f, rows[mine], length[mine])
    return Blocked(
        thread=thread,
        loop=loop,
        ns=int(length.sum()),
        longest=int(np.bincount(held, weights=length).max()),
        where=where,
        calls=len(np.unique(held[mine])),
        what=what,
        slept=slept,
    )


def _outside(f: Figures, stack: Ints, loop: str) -> Bools:
    """Which of a loop's thread's stacks, in order of time, are those of callbacks, and not of its selector.

    Of a stack that is cut off the loop's own frames may be what is missing.
    """
    if f.process.stacks is None:
        return np.zeros(len(stack), np.bool_)
    cut = np.append(f.process.stacks.table.truncated, False)[np.where(stack < len(f.process.stacks.table), stack, -1)]
    waits = _fits(f, stack, lambda frames: bool(selector_of(frames)))
    outside = (stack >= 0) & ~waits & (cut | _fits(f, stack, lambda frames: _is_callback(frames, loop)))
    if loop == "gevent":
        # Nothing on a greenlet's stack tells that it is one: those are told that come after the hub has run.
        outside &= np.cumsum(waits) > 0
    return outside


def _is_callback(frames: Sequence[Place], loop: str) -> bool:
    """Whether it is the stack of what a loop runs, and not of the loop itself: in its selector, of whatever make."""
    if selector_of(frames) or not runs(frames, loop) or any(_OF_CELLS in file for _, file in frames):
        return False
    own = own_frames(frames)
    if loop in ("asyncio", "Tornado"):
        # Whatever that loop runs it runs by a handle; its selector it calls by itself.
        return 0 < own < len(frames) and frames[own][1].endswith("/asyncio/events.py")
    return own > 0


def _fits(f: Figures, stack: Ints, fits: Callable[[Sequence[Place]], bool]) -> Bools:
    """Which of these stacks fit, by their frames' functions and files."""
    used, of = np.unique(stack, return_inverse=True)
    told = [fits([frame[:2] for frame in _frames(f, one)]) for one in used.tolist()]
    return np.array(told, np.bool_)[of.ravel()]


def _what(f: Figures, rows: Ints, length: Ints) -> tuple[str, bool]:
    """What most of this time passed in, in words, and whether that was a sleep."""
    found = f.activity
    doing, cause = found.doing[rows].astype(np.int64), np.zeros(len(rows), np.int64)
    asleep, locked = (np.flatnonzero(doing == one) for one in (Doing.ASLEEP, Doing.LOCK))
    cause[asleep] = f.asleep(found.stack[rows[asleep]].astype(np.int64))
    cause[locked] = f.block_causes[found.block(rows[locked])]
    kind, of_row = np.unique(doing * len(BlockCause) + cause, return_inverse=True)
    most, why = divmod(int(kind[np.bincount(of_row.ravel(), weights=length).argmax()]), len(BlockCause))
    if most == Doing.LOCK:
        return without_text(Doing.LOCK.label, BlockCause(why).label), False
    told = AsleepCause(why) if most == Doing.ASLEEP else AsleepCause.UNKNOWN
    return without_text(Doing(most).label, told.label), told == AsleepCause.SLEEP


def _frames(f: Figures, stack: int) -> Frames:
    known = f.process.stacks
    if known is None or not 0 <= stack < len(known.table):
        return ()
    table = known.table
    rows = table.frames[table.offsets[stack] : table.offsets[stack + 1]][["function", "file", "line"]].tolist()
    return [(table.strings[function], table.strings[file], line) for function, file, line in rows]
