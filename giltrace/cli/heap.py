"""What malloc does with memory that a command of giltrace gives back. No default for a library: its process goes on."""

from __future__ import annotations

#: Parameters of `mallopt`, as in glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8

_PAD_BYTES = 64 << 20


def keep_freed() -> None:
    """Let malloc reuse what arrays give back, instead of returning it to the kernel and asking for it again.

    Else every array of some 100 MB is mapped, filled with zeros page by page, and unmapped: half of the time that a
    large recording takes.
    """
    _set({_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: _PAD_BYTES})


def share_one() -> None:
    """Let all threads have one heap; to be called before there are any.

    Else each thread that comes and goes may leave what it had freed in one more, up to eight for each core of the
    machine: what attaches to a new process every few seconds, by a thread of its own, grows for hours.
    """
    _set({_ARENA_MAX: 1})


def _set(values: dict[int, int]) -> None:
    """Does nothing without glibc."""
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in values.items():
        mallopt(parameter, value)
