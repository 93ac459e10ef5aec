"""The kinds of perf records, for those that write and those that read them."""

from __future__ import annotations

from enum import IntEnum

#: What the kernel calls a mapping without a file.
ANONYMOUS = "//anon"


class Type(IntEnum):
    """The records that are read; there are others."""

    LOST = 2
    COMM = 3
    EXIT = 4
    FORK = 7
    SAMPLE = 9
    MMAP2 = 10
    SWITCH = 14
