"""Names of the threads that a process already has. Nobody but the process knows those that Python gave them."""

from __future__ import annotations

import contextlib

from giltrace.collectors.pyspy import find_program
from giltrace.errors import TargetError
from giltrace.launch.attach.process import Process
from giltrace.process.interpreter import find_interpreter, steadily
from giltrace.process.thread_names import NamedThread, NameDump

#: So long py-spy is given.
_SECONDS = 10.0


def thread_names(process: Process) -> dict[int, str]:
    """Return the name of each thread of `process` by its id here: Python's, else the kernel's."""
    names: dict[int, str] = {}
    for tid in process.tids():
        with contextlib.suppress(OSError):  # it may have just ended
            names[tid] = process.comm(tid)
    names |= {tid: name for tid, name in _names_by_pyspy(process).items() if tid in names}
    if process.pid in names:
        names[process.pid] = "MainThread"
    return names


def _names_by_pyspy(process: Process) -> dict[int, str]:
    """What py-spy reads of a process that goes on meanwhile; empty if it cannot."""
    program = find_program()
    if program is None:
        return {}
    try:
        threads = NameDump(program, process.pid).threads(_SECONDS)
        if not all(thread.own for thread in threads):
            threads = _with_ids(process, threads)
        # In a pid namespace of its own it counts them otherwise.
        here = {inside: tid for tid, inside in map(process.ids, process.tids())}
    except (OSError, KeyError, TargetError):
        return {}  # it ends
    return {here[thread.own]: thread.name for thread in threads if thread.own in here}


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
