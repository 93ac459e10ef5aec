"""What the kernel says of a process or a thread, from its one line in /proc."""

from __future__ import annotations


def stat_fields(of: int | str) -> list[bytes]:
    """The fields of ``/proc/OF/stat`` from the state on, the third in proc(5); a thread is PID/task/TID.

    Raises `OSError` if it is gone, or not to be seen.
    """
    with open(f"/proc/{of}/stat", "rb") as file:
        # The name before them is in brackets and may hold anything.
        return file.read().rpartition(b")")[2].split()
