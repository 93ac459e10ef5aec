"""The bytes of the native tracer's files, as numpy sees them; `native/tracer/layout.h` is the definition.

`tests/native/test_layout.py` compares the two, field by field.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

import numpy as np

MAGIC = 0x4543415254_4C4947  # "GILTRACE", little endian
CHUNK_MAGIC = 0x4B435447  # "GTCK", little endian
STRETCH_MAGIC = 0x54535447  # "GTST", little endian
VERSION = 3
#: Which are read: of the first are no stretches, of the first two no blocks.
VERSIONS = (1, 2, 3)
HEADER_SIZE = 4096
MAX_GILS = 64
#: Bytes of each chunk of a ring; of a ring smaller than SMALL_RING: of SMALL_RING_CHUNK.
RING_CHUNK = 16384
SMALL_RING = 4194304
SMALL_RING_CHUNK = 4096
#: Bytes of a chunk that is a piece of the file by itself, at least, and of each in a stretch.
LEAST_CHUNK = 4096
SMALL_CHUNK = 512
#: Of the hooks' work one in so many uses of a GIL is timed; what takes so many ticks was interrupted.
TIMED_EVERY = 256
TIMED_MOST = 65536

#: Head of a file: one per program image and process.
HEADER = np.dtype(
    [
        ("magic", "<u8"),
        ("version", "<u4"),
        ("pid", "<u4"),
        ("ppid", "<u4"),
        ("gil_count", "<u4"),
        ("lost", "<u8"),
        ("start_ticks", "<u8"),
        ("start_ns", "<u8"),
        ("clock", "<u4"),
        ("status", "<u4"),
        ("gils", "<u8", (MAX_GILS,)),
        ("python", "S128"),
        ("executable", "S512"),
        ("cmdline", "S2048"),
        ("note", "S256"),
        ("lease_ns", "<u8"),
        ("control", "<u4"),
        ("trigger_count", "<u4"),
        ("trigger_ticks", "<u8"),
        ("trigger_length", "<u8"),
        ("trigger_kind", "<u4"),
        ("trigger_tid", "<u4"),
        ("ring_size", "<u8"),
        ("overwritten", "<u8"),
        ("complete_from", "<u8"),
        ("samples", "<u8"),
        ("sampled_ns", "<u8"),
        ("known_until_ns", "<u8"),
        ("longest_gap_ns", "<u8"),
        ("typical_gap_ns", "<u8"),
        ("switches", "<u8"),
        ("switches_missed", "<u8"),
        ("lost_stacks", "<u8"),
        ("damaged", "<u4"),
        ("confined", "<u4"),
        ("slow_ticks", "<u8"),
        ("timed_ticks", "<u8"),
        ("timed_squares", "<u8"),
        ("timed", "<u8"),
        ("timed_every", "<u4"),
        ("timed_interrupted", "<u4"),
    ]
)

#: Head of a chunk; its records follow until its end or the first record of kind 0.
CHUNK = np.dtype(
    [
        ("magic", "<u4"),
        ("size", "<u4"),
        ("thread", "<u4"),
        ("tid", "<u4"),
        ("sequence", "<u4"),
        ("reserved", "<u4"),
        ("base", "<u8"),
        ("lost", "<u8"),
        ("name", "S88"),
    ]
)

#: Head of a stretch; small chunks follow, the first of them `chunk` bytes from its begin.
STRETCH = np.dtype([("magic", "<u4"), ("size", "<u4"), ("chunk", "<u4"), ("reserved", "<u4")])

#: One event: a word of bit fields, from the low end: time (ticks since the chunk's base), kind, flags, GIL id, core.
RECORD = np.dtype("<u8")
TIME_BITS = 40
KIND_SHIFT = 40
FLAG_SHIFT = 43
GIL_SHIFT = 45
CORE_SHIFT = 51
#: The timed wait of a REQUEST or TIMEOUT takes the place of the core, in microseconds: digits, then so many bits for
#: the power of ten.
POWER_BITS = 3
#: Of a sample, there: the holder was collecting garbage.
COLLECTING = 1


class Clock(IntEnum):
    """What a record's time counts."""

    MONOTONIC_NS = 0
    TSC = 1


class Kind(IntEnum):
    """What a record says. Its core is given for ACQUIRE (NO_CORE if unknown); REQUEST and TIMEOUT have a wait there."""

    NONE = 0
    REQUEST = 1  #: entered the acquire path and could not have the GIL at once; time is the request
    TIMEOUT = 2  #: a timed wait ran out
    ACQUIRE = 3  #: has the GIL
    RELEASE = 4  #: gave the GIL up
    THREAD_END = 5  #: the thread ends
    STACK = 6  #: the stack of this thread's releases from here on; its number takes the place of the time
    HOLDER_STACK = 7  #: the holder's stack as sampled at the following TIMEOUT; likewise
    # Of events only:
    SAMPLE = 8  #: a TIMEOUT that is none, but a look at the holder
    SLEPT = 9  #: a THREAD_END that is a BLOCK
    AWOKE = 10  #: one that is a BLOCK_END
    POSTED = 11  #: one that is a WAKE


class More(IntEnum):
    """What a THREAD_END is instead, if this stands in the place of its GIL; as an event it is `Kind.SAMPLE` + this."""

    BLOCK = 1  #: goes to sleep in a lock
    BLOCK_END = 2  #: does not sleep any more
    WAKE = 3  #: gives a lock away that somebody slept in, maybe


class AddressFlag(IntEnum):
    """Marks on a STACK, which then has an address in place of a stack's number."""

    SEMAPHORE = 1  #: of what the next BLOCK or WAKE is about
    LOCK = 2  #: the lock that the thread is parked for; before the SEMAPHORE
    HELD = 3  #: a semaphore that the thread has taken, at the next BLOCK


class TypeFlag(IntEnum):
    """A mark on a HOLDER_STACK, which then has a type's number in place of a stack's."""

    TYPE = 1  #: of the object whose lock the next BLOCK is about


class WakeFlag(IntFlag):
    """Marks on a WAKE."""

    LATE = 1  #: the time is after the act
    OWNED = 2  #: the thread had taken the semaphore: it gives back what was its own


class Way(IntFlag):
    """How a thread sleeps: in the place of the core of a BLOCK."""

    PARKED = 1  #: on a semaphore of its own, for a LOCK
    RAW = 2  #: likewise, for one that guards the lists of those that are parked
    TIMED = 4
    WITH_ARGUMENT = 8  #: whoever gives the lock away tells the thread something
    OWN_STATE = 16  #: parked for its own thread state: the world was stopped


class Outcome(IntEnum):
    """How a sleep ended: in the place of the core of a BLOCK_END."""

    WOKEN = 0
    TIMED_OUT = 1
    INTERRUPTED = 2
    FAILED = 3


class RecordFlag(IntFlag):
    """Marks on a record, by its kind."""

    FORCED = 1  #: RELEASE: a switch request made the eval loop yield
    SWITCH_REQUEST = 2  #: TIMEOUT: nobody had switched meanwhile, so the waiter asked the holder to drop the GIL


class RequestFlag(IntFlag):
    """Marks on a REQUEST."""

    UNDER_WAY = 1  #: the recording began while the thread was on its way to the GIL; time is the recording's start


class TimeoutFlag(IntFlag):
    """Marks on a TIMEOUT, beside `RecordFlag.SWITCH_REQUEST`."""

    SAMPLE = 1  #: no time ran out: the waiter looked at what the holder did


class Control(IntFlag):
    """What the recorder asks of a tracer."""

    CONTROL_STOP = 1  #: leave the process as it was, at the next use of a GIL
    CONTROL_CONFINED = 2  #: the process has put a seccomp filter on: make no more system calls


class Trigger(IntEnum):
    """Which limit was exceeded."""

    TRIGGER_WAIT = 1
    TRIGGER_HOLD = 2


class Status(IntFlag):
    """What the tracer found in the process."""

    HOOKED = 1  #: the GOT slots were redirected
    GIL_SEEN = 2  #: the use of a GIL was recognised
    FREE_THREADED = 4  #: the interpreter says it was built without a GIL
    STOPPED = 8  #: the tracer has left the process
    OBSERVED = 16  #: read from outside: the records are samples, and the head says how dense
    NOT_PYTHON = 32  #: a head alone, of a program that is no Python: the Python image before it has ended


#: The core of an ACQUIRE whose core is not known.
NO_CORE = 0x1FFF


def is_end(record: int) -> bool:
    """Whether a record says that its thread ends, and none of `More`."""
    return record >> KIND_SHIFT & ((1 << CORE_SHIFT - KIND_SHIFT) - 1) == Kind.THREAD_END
