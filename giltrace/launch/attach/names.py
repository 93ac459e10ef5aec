"""The threads that a process already has: their stacks, and the names that nobody but the process knows."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from giltrace.collectors.pyspy import find_program
from giltrace.errors import TargetError
from giltrace.launch.attach.process import Process
from giltrace.process.interpreter import find_interpreter, steadily
from giltrace.process.thread_names import NamedThread, NameDump
from giltrace.recording.sleepers import Frame

#: So long py-spy is given.
_SECONDS = 10.0
#: Names that the tracer keeps for threads that have not come by yet, and more (native/tracer/names.c).
_MOST_TOLD = 200


class KnownThread(NamedTuple):
    """What a thread is called, and its Python stack, innermost first; empty if that is not known."""

    name: str
    frames: tuple[Frame, ...] = ()


def known_threads(process: Process) -> dict[int, KnownThread]:
    """Return what is known of each thread of `process` by its id here: the name is Python's, else the kernel's."""
    known: dict[int, KnownThread] = {}
    for tid in process.tids():
        with contextlib.suppress(OSError):  # it may have just ended
            known[tid] = KnownThread(process.comm(tid))
    known |= {tid: thread for tid, thread in _by_pyspy(process).items() if tid in known}
    if process.pid in known:
        known[process.pid] = known[process.pid]._replace(name="MainThread")
    return known


def names_to_tell(process: Process) -> list[tuple[int, str]]:
    """What a tracer in `process` should be told of the threads that are there: what libc knows each by, and its name.

    Empty where that cannot be found out.
    """
    threads = _dumped(process)
    return [(thread.pthread, thread.name) for thread in threads if thread.pthread and thread.name][:_MOST_TOLD]


def _dumped(process: Process) -> list[NamedThread]:
    """What py-spy reads of a process that goes on meanwhile; empty if it cannot."""
    program = find_program()
    if program is None:
        return []
    try:
        return NameDump(program, process.pid).threads(_SECONDS)
    except OSError:
        return []


def _by_pyspy(process: Process) -> dict[int, KnownThread]:
    """The same, by the ids that its threads have here."""
    threads = _dumped(process)
    if not threads:
        return {}
    try:
        if not all(thread.own for thread in threads):
            threads = _with_ids(process, threads)
        # In a pid namespace of its own it counts them otherwise.
        here = {inside: tid for tid, inside in map(process.ids, process.tids())}
    except (OSError, KeyError, TargetError):
        return {}  # it ends
    return {here[one.own]: KnownThread(one.name, one.frames) for one in threads if one.own in here}


def _with_ids(process: Process, threads: list[NamedThread]) -> list[NamedThread]:
    """Up to 3.10 Python does not know the kernel's ids of its threads. The C library does."""
    interpreter = find_interpreter(process.pid)
    memory = interpreter.memory
    try:
        at = steadily(interpreter.pthread_tid_offset)
        found = []
        for thread in threads:
            with contextlib.suppress(OSError):  # its stack is gone: it has just ended
                found.append(thread._replace(own=memory.word(thread.pthread + at, 4)))
        return found
    finally:
        memory.close()
