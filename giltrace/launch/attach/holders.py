"""Who has the GILs of a process when the tracer has come: a thread that keeps one gives it nothing to write down."""

from __future__ import annotations

from giltrace.errors import TargetError
from giltrace.launch.attach.process import Process
from giltrace.process.interpreter import find_interpreter, steadily


def gil_holders(process: Process) -> list[list[int]]:
    """[id of the process, id of the thread, address of the GIL's mutex] of each GIL, ids as seen here.

    The thread is 0 if the GIL is free. Empty where that cannot be read from outside.
    """
    try:
        interpreter = find_interpreter(process.pid)
    except TargetError:
        return []
    try:
        return [[process.pid, *one] for one in steadily(interpreter.holders)]
    except OSError:
        return []  # it changes all the time, and so the tracer hears of it; or it ends
    finally:
        interpreter.memory.close()
