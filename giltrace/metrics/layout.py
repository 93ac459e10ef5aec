"""The bytes of the tracer's count-<pid>-<n>.bin, as numpy sees them; `native/tracer/count_layout.h` is the definition.

`tests/native/test_layout.py` compares the two, field by field.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from giltrace.metrics.reading import BUCKETS

MAGIC = 0x544E554F43_4C4947  # "GILCOUNT", little endian
VERSION = 2
#: Bytes that the file grows by.
PIECE = 32768
MOST_PIECES = 160
#: Stacks that each table has a place for.
PLACES = 128
#: In a number of a stack: garbage was collected there.
COLLECTS = 0x80000000
#: What a unit of time is, by the second, and the bits of `scale` below it.
UNITS = 1 << 30
SCALE_BITS = 32


class Table(IntEnum):
    """Which question a table of stacks answers."""

    CULPRITS = 0
    VICTIMS = 1
    SLEEPERS = 2


class TallyState(IntEnum):
    """Whose a tally is."""

    FREE = 0
    LIVES = 1
    ENDED = 2
    BEGINS = 3  #: that of a thread which has no name yet
    LEFT = 4  #: that of a thread which lives and uses another GIL now


class Length(IntEnum):
    """What has a length."""

    HOLDS = 0
    WAITS = 1
    SLEEPS = 2


TABLE = np.dtype(
    [
        ("version", "<u4"),
        ("used", "<u4"),
        ("missed", "<u8"),
        ("stacks", "<u4", (PLACES,)),
        ("times", "<u8", (PLACES,)),
        ("ticks", "<u8", (PLACES,)),
        ("error", "<u8", (PLACES,)),
    ]
)
HEAD = np.dtype(
    [
        ("magic", "<u8"),
        ("version", "<u4"),
        ("pid", "<u4"),
        ("start_ticks", "<u8"),
        ("start_ns", "<u8"),
        ("scale", "<u8"),
        ("lost", "<u8"),
        ("pieces", "<u4"),
        ("folds", "<u4"),
        ("reading", "<u4"),
        ("reserved", "<u4", (3,)),
        ("tables", TABLE, (len(Table),)),
    ]
)
TALLY = np.dtype(
    [
        ("state", "<u4"),
        ("version", "<u4"),
        ("tid", "<u4"),
        ("threads", "<u4"),
        ("number", "<u8", (len(Length),)),
        ("sum", "<u8", (len(Length),)),
        ("since", "<u8", (len(Length),)),
        ("longest", "<u8", (len(Length),)),
        ("forced", "<u8"),
        ("requests", "<u8"),
        ("reading", "<u4"),
        ("asleep", "<u4"),
        ("hint", "<u2", (len(Table),)),
        ("gil", "<u2"),
        ("reserved", "<u2", (4,)),
        ("buckets", "<u8", (len(Length), BUCKETS)),
        ("name", "S88"),
        ("scratch", "<u8", (32,)),
        ("padding", "<u8", (2,)),
    ]
)
#: Where the first tally lies; in each further piece it is at the beginning.
FIRST_TALLY = -(-HEAD.itemsize // TALLY.itemsize) * TALLY.itemsize
