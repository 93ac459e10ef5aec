"""What threads were blocked by, in the words of those who use locks: told by the innermost frames of their stacks.

Which kind of lock it is that a line of the program takes itself, `Lock` or `RLock`, is not known.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.expressions import Expressions
from giltrace.recording.events import StackTable
from giltrace.timeline.model import LockKind, Process

#: So many of the innermost frames are looked at.
_DEPTH = 6
#: Objects of a free-threaded build have their lock at this place, and lie at multiples of 16.
_OF_OBJECT = 10


class BlockCause(IntEnum):
    """What a thread was blocked by."""

    LOCK = 0  #: a lock that the program takes
    CONDITION = 1
    EVENT = 2
    BARRIER = 3
    SEMAPHORE = 4
    QUEUE = 5
    JOIN = 6  #: for the end of a thread
    START = 7  #: for a thread that was started
    FUTURE = 8
    IMPORT_LOCK = 9  #: for a module that another thread imports
    LOGGING_LOCK = 10  #: for a logging handler, or logging's own state
    PROCESS_LOCK = 11  #: one of `multiprocessing`, shared with other processes
    OBJECT_LOCK = 12  #: of a free-threaded build: that of a list, dict or other object
    STOP_THE_WORLD = 13  #: of a free-threaded build: until all threads stand still, or go on
    OTHER_LOCK = 14  #: the interpreter's own

    @property
    def label(self) -> str:
        """The name that reports and JSON use: "import-lock"."""
        return self.name.lower().replace("_", "-")


#: What is awaited as such: that another thread comes to that point, not that it gives something back.
AWAITED = (
    BlockCause.CONDITION,
    BlockCause.EVENT,
    BlockCause.BARRIER,
    BlockCause.QUEUE,
    BlockCause.JOIN,
    BlockCause.START,
    BlockCause.FUTURE,
)
#: What one thread has until it gives it back: neither awaited as such nor a stop of all threads.
GIVEN_BACK = tuple(cause for cause in BlockCause if cause not in (*AWAITED, BlockCause.STOP_THE_WORLD))

_THREADING = {
    "join": BlockCause.JOIN,
    "_wait_for_tstate_lock": BlockCause.JOIN,
    "_shutdown": BlockCause.JOIN,
    "start": BlockCause.START,
    "_wait": BlockCause.BARRIER,
    "_enter": BlockCause.BARRIER,
}
# Classes of `threading` whose methods wait for a condition, from 3.11 on; before, functions have no class.
_CLASSES = {"Event": BlockCause.EVENT, "Barrier": BlockCause.BARRIER, "Semaphore": BlockCause.SEMAPHORE}
# Modules of packages, by what they are called here.
_ENDS = {"multiprocessing": "/multiprocessing/synchronize.py", "futures": "/concurrent/futures/_base.py"}
# What a call of something that is no Python function says. A pool of processes goes through ``iter(tasks.get, None)``.
_CALLS = (
    (re.compile(r"\.(?:get|put)\(|\biter\([\w.]+\.get,"), BlockCause.QUEUE),
    (re.compile(r"\.result\("), BlockCause.FUTURE),
    (re.compile(r"\.join\("), BlockCause.JOIN),
)


def block_causes(process: Process, expressions: Expressions | None = None) -> npt.NDArray[np.uint8]:
    """The `BlockCause` of each block.

    What is waited for in native code, as by a `SimpleQueue`, only the source tells: the `expressions` of the process.
    """
    blocks, stacks = process.blocks, process.stacks
    kind = process.locks["kind"][blocks["lock"]]
    cause = np.full(len(blocks), BlockCause.LOCK, np.uint8)
    called = np.full(len(blocks), BlockCause.EVENT, np.uint8)
    if stacks is not None and len(stacks.block):
        used, row = np.unique(stacks.block, return_inverse=True)
        row = row.ravel()
        cause = np.array([_of_stack(stacks.table, stack) for stack in used.tolist()], np.uint8)[row]
        if expressions is not None:
            called = np.array([_of_call(expressions.innermost(stack)) for stack in used.tolist()], np.uint8)[row]
    plain = cause == BlockCause.LOCK
    # What nobody had taken who let others in was made to wake them up.
    signal = (kind == LockKind.SEMAPHORE) & (blocks["waker"] >= 0) & (blocks["owned"] == 0)
    # A queue in native code is waited for as a lock is; and up to 3.12 whoever is let in by `put` lets the next one in.
    told = signal | (kind == LockKind.EVENT) | (called != BlockCause.EVENT)
    cause = np.where(plain & told, called, cause)
    if process.free_threaded:
        at = process.locks["address"][blocks["lock"]] % np.uint64(16)
        cause[plain & (kind == LockKind.PARKED) & (at == _OF_OBJECT)] = BlockCause.OBJECT_LOCK
    cause[kind == LockKind.WORLD] = BlockCause.STOP_THE_WORLD
    cause[kind == LockKind.RAW] = BlockCause.OTHER_LOCK
    return cause


def _of_call(text: str) -> BlockCause:
    """By the expression that was called. Where a line is all that is told, it may take a lock before it calls."""
    if text.startswith("with "):
        return BlockCause.EVENT
    return next((cause for pattern, cause in _CALLS if pattern.search(text)), BlockCause.EVENT)


def _of_stack(table: StackTable, stack: int) -> BlockCause:
    if stack < 0:
        return BlockCause.LOCK
    first, last = int(table.offsets[stack]), int(table.offsets[stack + 1])
    return cause_of_frames(
        [
            (table.strings[frame["file"]], table.strings[frame["function"]])
            for frame in table.frames[first : min(last, first + _DEPTH)]
        ]
    )


def cause_of_frames(frames: Sequence[tuple[str, str]]) -> BlockCause:
    """By the files and functions of the innermost frames: `LOCK` where these do not tell."""
    if not frames:
        return BlockCause.LOCK
    module = _module(frames[0][0])
    if module in ("_bootstrap", "_bootstrap_external"):
        return BlockCause.IMPORT_LOCK
    if module == "logging":
        return BlockCause.LOGGING_LOCK
    if module == "multiprocessing":
        return BlockCause.PROCESS_LOCK
    if module == "thread" and frames[0][1] == "_worker":  # a pool's, for work
        return BlockCause.QUEUE
    if module != "threading":
        return BlockCause.LOCK
    for file, function in frames:
        module = _module(file)
        owner, _, name = function.rpartition(".")
        if module == "queue":
            return BlockCause.QUEUE
        if module == "futures":
            return BlockCause.FUTURE
        if module != "threading":
            break
        if name in _THREADING:
            return _THREADING[name]
        if owner in _CLASSES and name in ("wait", "acquire", "__enter__"):
            return BlockCause.START if _is_start(frames) else _CLASSES[owner]
    return _of_condition(frames)


def _of_condition(frames: Sequence[tuple[str, str]]) -> BlockCause:
    """Of functions of `threading` without a class, and of a condition that stands for itself."""
    names = [name.rpartition(".")[2] for file, name in frames if _module(file) == "threading"]
    if names[0] in ("__enter__", "_acquire_restore", "acquire", "__exit__", "notify", "notify_all", "set"):
        return BlockCause.LOCK
    if names[:2] == ["wait", "wait"]:
        return BlockCause.EVENT
    if names[:2] == ["wait", "acquire"]:
        return BlockCause.SEMAPHORE
    return BlockCause.CONDITION if names[0] in ("wait", "wait_for") else BlockCause.LOCK


def _is_start(frames: Sequence[tuple[str, str]]) -> bool:
    return any(_module(file) == "threading" and name.rpartition(".")[2] == "start" for file, name in frames)


def _module(file: str) -> str:
    """What tells the modules of the standard library apart that make threads wait: the package, or the file's name."""
    if "/logging/" in file:
        return "logging"
    for module, end in _ENDS.items():
        if file.endswith(end):
            return module
    if file.startswith("<frozen "):  # importlib._bootstrap
        return file.removeprefix("<frozen ")[:-1].rpartition(".")[2]
    return file.rpartition("/")[2].rpartition(".")[0]
