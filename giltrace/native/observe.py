"""The observer of the native library, through ctypes: `observe.h` is the definition of what is passed."""

from __future__ import annotations

import ctypes
import functools
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from giltrace import native

#: One event: time in CLOCK_MONOTONIC ns, number of the thread, id of the GIL; kind and flags as in the file.
EVENT = np.dtype([("time", "<u8"), ("thread", "<u4"), ("gil", "<u2"), ("kind", "u1"), ("flags", "u1")])

_ROOM = 1 << 14


class End(IntEnum):
    """Why an observation is over, if it is."""

    RUNNING = 0
    STOPPED = 1
    GONE = 2  #: the process has ended
    REPLACED = 3  #: its memory is another program's
    SENSELESS = 4  #: what is read there is no GIL's state


class Setup(ctypes.Structure):
    """`struct observe_setup`: the pace, the process, and offsets within PyThreadState and struct pthread (0: none)."""

    _fields_ = (
        ("interval_ns", ctypes.c_uint64),
        ("pid", ctypes.c_uint32),
        ("thread_id", ctypes.c_uint32),
        ("native_id", ctypes.c_uint32),
        ("pthread_tid", ctypes.c_uint32),
    )


class Stats(ctypes.Structure):
    """`struct observe_stats`: how densely was sampled, and what was missed. Times in ns."""

    _fields_ = (
        ("samples", ctypes.c_uint64),
        ("sampled_ns", ctypes.c_uint64),
        ("known_until_ns", ctypes.c_uint64),
        ("longest_gap_ns", ctypes.c_uint64),
        ("squared_gaps", ctypes.c_double),
        ("switches", ctypes.c_uint64),
        ("switches_missed", ctypes.c_uint64),
        ("lost", ctypes.c_uint64),
        ("cpu_ns", ctypes.c_uint64),
        ("threads", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    library = native.observer()
    pointer = ctypes.c_void_p
    library.giltrace_observe_start.argtypes = [ctypes.POINTER(Setup), ctypes.c_uint64]
    library.giltrace_observe_start.restype = pointer
    library.giltrace_observe_add.argtypes = [pointer, ctypes.c_uint64]
    library.giltrace_observe_add.restype = ctypes.c_bool
    library.giltrace_observe_read.argtypes = [pointer, pointer, ctypes.c_size_t]
    library.giltrace_observe_read.restype = ctypes.c_size_t
    library.giltrace_observe_stats.argtypes = [pointer, ctypes.POINTER(Stats)]
    library.giltrace_observe_threads.argtypes = [pointer, ctypes.c_uint32, pointer, ctypes.c_size_t]
    library.giltrace_observe_threads.restype = ctypes.c_size_t
    library.giltrace_observe_stop.argtypes = [pointer]
    library.giltrace_observe_free.argtypes = [pointer]
    return library


class Sampler:
    """A native thread that observes the GIL at `address`, and those added later, until `stop`; then `close`.

    Raises MemoryError if it cannot start.
    """

    def __init__(self, setup: Setup, address: int) -> None:
        self._handle: int | None = _library().giltrace_observe_start(ctypes.byref(setup), address)
        if self._handle is None:
            raise MemoryError("no memory or no thread for the observer")
        self._events = np.empty(_ROOM, EVENT)

    def add(self, address: int) -> bool:
        """Observe another GIL of the process; its id is the number of those before it. False if it is one too many."""
        return bool(_library().giltrace_observe_add(self._handle, address))

    def read(self) -> npt.NDArray[np.void]:
        """The events since the last call, in order of time."""
        parts = []
        while True:
            count = _library().giltrace_observe_read(self._handle, self._events.ctypes.data, _ROOM)
            parts.append(self._events[:count].copy())
            if count < _ROOM:
                return np.concatenate(parts)

    def stats(self) -> Stats:
        """How it is going."""
        stats = Stats()
        _library().giltrace_observe_stats(self._handle, ctypes.byref(stats))
        return stats

    def threads(self, first: int) -> list[int]:
        """The kernel's ids of the threads from number `first` on."""
        tids = np.empty(_ROOM, np.uint32)
        count = _library().giltrace_observe_threads(self._handle, first, tids.ctypes.data, _ROOM)
        found: list[int] = tids[:count].tolist()
        return found

    def stop(self) -> None:
        """End the thread; what it has seen can still be read."""
        _library().giltrace_observe_stop(self._handle)

    def close(self) -> None:
        """Give everything back, after `stop`."""
        _library().giltrace_observe_free(self._handle)
        self._handle = None
