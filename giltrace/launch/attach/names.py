"""Names of the threads that a process already has. Nobody but the process knows those that Python gave them."""

from __future__ import annotations

import contextlib
import time

from giltrace.collectors._thread_names import NameDump
from giltrace.collectors._thread_stacks import ThreadStacks
from giltrace.collectors.pyspy import find_program
from giltrace.launch.attach.process import Process

#: So long py-spy is given.
_SECONDS = 10.0

#: Up to 3.10 threads are recognised by their stacks, which show while they sleep: looked at this often.
_LOOKS = 5
_LOOK_SECONDS = 0.004


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
        if all(thread.own for thread in threads):
            # In a pid namespace of its own it counts them otherwise.
            here = {inside: tid for tid, inside in map(process.ids, process.tids())}
            return {here[thread.own]: thread.name for thread in threads if thread.own in here}
    except (OSError, KeyError):
        return {}  # it ends
    return _by_stack(process, {thread.pthread: thread.name for thread in threads})


def _by_stack(process: Process, names: dict[int, str]) -> dict[int, str]:
    stacks = ThreadStacks(process.pid)
    for _ in range(_LOOKS):
        stacks.look(time.monotonic_ns())
        time.sleep(_LOOK_SECONDS)
    now = time.monotonic_ns()
    found = {stacks.tid(pthread, name, now): name for pthread, name in names.items()}
    return {tid: name for tid, name in found.items() if tid is not None}
