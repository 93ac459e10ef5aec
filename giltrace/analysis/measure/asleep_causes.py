"""What threads were asleep for off the GIL and in none of the interpreter's locks: told by the frames they stood in.

The innermost frames of the standard library say what is waited for, the outermost of them above all: whoever selects in
order to read a connection in order to get from a queue waits for that queue. Where the sleep is in a function that is
no Python, only its expression tells: what the source says at that line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from giltrace.analysis.measure.expressions import Expressions
from giltrace.recording.events import StackTable
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process

#: So many of the innermost frames are looked at.
_DEPTH = 8


class AsleepCause(IntEnum):
    """What a thread was asleep for, as far as that is told."""

    UNKNOWN = 0  #: I/O or a sleep
    SLEEP = 1  #: for no more than time to pass
    READY_IO = 2  #: for any of several sockets or files, as event loops are
    SOCKET = 3
    PROCESS_LOCK = 4  #: a lock or semaphore that processes share
    PROCESS_QUEUE = 5  #: a queue between processes
    PROCESS_MESSAGE = 6  #: what another process is to send
    PROCESS_END = 7  #: the end of another process, or what it writes until then

    @property
    def label(self) -> str:
        """The name that reports and JSON use: "process-queue"; empty where nothing is told."""
        return self.name.lower().replace("_", "-") if self else ""


#: Modules with functions that wait, of whichever package is made after `multiprocessing`.
_SHARED = {
    "synchronize": AsleepCause.PROCESS_LOCK,
    "queues": AsleepCause.PROCESS_QUEUE,
    "connection": AsleepCause.PROCESS_MESSAGE,
    "popen_fork": AsleepCause.PROCESS_END,
    "popen_forkserver": AsleepCause.PROCESS_END,
    "popen_spawn_posix": AsleepCause.PROCESS_END,
    "popen_loky_posix": AsleepCause.PROCESS_END,
}
_OF_SHARED = re.compile(r"/(?:multiprocessing|multiprocess|billiard|loky/backend)/(\w+)\.py$")
_FILES = (
    (re.compile(r"/concurrent/futures/process\.py$"), AsleepCause.PROCESS_MESSAGE),
    (re.compile(r"/subprocess\.py$"), AsleepCause.PROCESS_END),
    (re.compile(r"/selectors\.py$"), AsleepCause.READY_IO),
    (re.compile(r"/(?:socket|ssl|socketserver)\.py$"), AsleepCause.SOCKET),
)
_CALLS = (
    (re.compile(r"\bsleep\("), AsleepCause.SLEEP),
    (re.compile(r"\.(?:recv\w*|accept|connect|sendall|sendto|sendmsg)\("), AsleepCause.SOCKET),
    (re.compile(r"\b(?:select\.select|\w*poll\w*\.poll)\("), AsleepCause.READY_IO),
    (re.compile(r"\bos\.wait\w*\("), AsleepCause.PROCESS_END),
    # A lock of the interpreter's would be a block.
    (re.compile(r"\.acquire\("), AsleepCause.PROCESS_LOCK),
)


def asleep_causes(process: Process, used: Ints, expressions: Expressions) -> Ints:
    """The `AsleepCause` of those who slept in these stacks, given by their numbers (-1: not known)."""
    if process.stacks is None or not len(used):
        return np.zeros(len(used), np.int64)
    kinds, row = np.unique(used, return_inverse=True)
    told = [_of_stack(process.stacks.table, one, expressions) for one in kinds.tolist()]
    return np.array(told, np.int64)[row.ravel()]


def _of_stack(table: StackTable, stack: int, expressions: Expressions) -> AsleepCause:
    if stack < 0:
        return AsleepCause.UNKNOWN
    first, last = int(table.offsets[stack]), int(table.offsets[stack + 1])
    files = table.frames["file"][first : min(last, first + _DEPTH)].tolist()
    return cause_of_files([table.strings[file] for file in files], expressions.innermost(stack))


def cause_of_files(files: Sequence[str], called: str) -> AsleepCause:
    """By the files of the innermost frames, or the expression that the innermost one `called`."""
    return _of_files(files[:_DEPTH]) or _of_call(called)


def _of_files(files: Sequence[str]) -> AsleepCause:
    """By the files of the innermost frames: the outermost one that waits for something tells."""
    told = AsleepCause.UNKNOWN
    for file in files:
        shared = _OF_SHARED.search(file)
        found = _SHARED.get(shared[1]) if shared else next((one for end, one in _FILES if end.search(file)), None)
        if found is None:
            break
        told = found
    return told


def _of_call(text: str) -> AsleepCause:
    """By the expression that was called."""
    return next((cause for pattern, cause in _CALLS if pattern.search(text)), AsleepCause.UNKNOWN)
