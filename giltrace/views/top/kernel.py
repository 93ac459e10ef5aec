"""What the kernel says of a thread, from its one line in /proc."""

from __future__ import annotations

from giltrace.views.top.model import ThreadState

# Fields behind the name, which is in brackets and may hold anything: the state is the first, the core the 37th.
_CORE = 36
_STATES = {"R": ThreadState.RUNNING, "S": ThreadState.BLOCKED, "D": ThreadState.BLOCKED, "T": ThreadState.BLOCKED}


def ask_kernel(pid: int, tid: int) -> tuple[ThreadState, int] | None:
    """The state of a thread off the GIL, and the core it is on or was last; None if it is gone or not to be seen."""
    try:
        with open(f"/proc/{pid}/task/{tid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return _STATES.get(fields[0].decode(), ThreadState.OFF), int(fields[_CORE])
