"""The tracer library, as the recorder sees it: where it is, and its clock."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

LIBRARY = Path(__file__).with_name("libgiltrace.so")


@functools.cache
def library() -> ctypes.CDLL:
    """Load the tracer library into this process, where it stays inert.

    Raises `OSError` if it was not built, or not for this platform.
    """
    loaded = ctypes.CDLL(str(LIBRARY))
    loaded.giltrace_clock_pair.argtypes = [ctypes.POINTER(ctypes.c_uint64)]
    loaded.giltrace_layout.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    loaded.giltrace_layout.restype = ctypes.c_size_t
    loaded.giltrace_pair_cost_ps.restype = ctypes.c_uint64
    return loaded


def clock_pair() -> tuple[int, int, int]:
    """Read the tracer's clock and CLOCK_MONOTONIC at one instant: (ticks, ns, error in ns)."""
    out = (ctypes.c_uint64 * 3)()
    library().giltrace_clock_pair(out)
    return out[0], out[1], out[2]


def pair_cost_ns() -> float:
    """Measure what the hooks add to one release+acquire pair on this machine (takes about a millisecond)."""
    return int(library().giltrace_pair_cost_ps()) / 1000
