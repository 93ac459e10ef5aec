"""What the kernel says of a thread off the GIL."""

from __future__ import annotations

from giltrace.process.stat import stat_fields
from giltrace.views.top.model import ThreadState

# The state is the first of the fields, the core the 37th.
_CORE = 36
_STATES = {"R": ThreadState.RUNNING, "S": ThreadState.BLOCKED, "D": ThreadState.BLOCKED, "T": ThreadState.BLOCKED}
_STATES |= dict.fromkeys("ZXx", ThreadState.ENDED)


def ask_kernel(pid: int, tid: int) -> tuple[ThreadState, int] | None:
    """The state of a thread off the GIL, and the core it is on or was last; None if it is gone or not to be seen."""
    try:
        fields = stat_fields(f"{pid}/task/{tid}")
    except OSError:
        return None
    return _STATES.get(fields[0].decode(), ThreadState.OFF), int(fields[_CORE])
