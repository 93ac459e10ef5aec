"""The native libraries, as the recorder sees them: which there are, where they are, and the tracer's clock."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import threading
from enum import IntEnum
from pathlib import Path

from giltrace.errors import TargetError

#: Filled by `hatch_build.py`, which has the rules for the names in it.
FOLDER = Path(__file__).with_name("lib")
MACHINE = platform.machine()


def _own_libc() -> str:
    try:
        return "glibc" if (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc") else "musl"
    except (OSError, ValueError):
        return "musl"


class Mode(IntEnum):
    """What becomes of what the hooks see (native/tracer/count.h): it stands above the depth of stacks."""

    NOTHING = 0  #: it is recorded
    TOO = 1  #: and counted, too
    ONLY = 2  #: it is counted alone


#: Bits of the depth below the mode.
DEPTH_BITS = 16
#: Frames of a stack of who only counts: enough to find a program's own line below a library's.
COUNTING_DEPTH = 64
#: What this interpreter runs on: "glibc" or "musl".
LIBC = _own_libc()
#: The tracer for processes like this one, whether it was built or not.
LIBRARY = FOLDER / f"libgiltrace-{MACHINE}-{LIBC}.so"


def tracer_library(libc: str, machine: str) -> Path:
    """Return the tracer for processes of `machine` that run on `libc` ("glibc" or "musl").

    Raises `TargetError`, with the remedy, where this giltrace was built without it.
    """
    path = FOLDER / f"libgiltrace-{machine}-{libc}.so"
    if not path.exists():
        built = ", ".join(tracers()) or "none"
        raise TargetError(
            f"this giltrace has no tracer for {libc} on {machine} (it has: {built})",
            "install a wheel that was built with GILTRACE_TRACERS=all",
        )
    return path


def tracers() -> list[str]:
    """Name the tracers that were built: "glibc x86_64"."""
    parts = (path.stem.split("-") for path in sorted(FOLDER.glob("libgiltrace-*.so")))
    return [f"{libc} {machine}" for _, machine, libc in parts]


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


@functools.cache
def _with_gil() -> ctypes.PyDLL:
    # PyDLL keeps the GIL during a call: nobody else comes or goes while the hooks are put in place.
    return ctypes.PyDLL(str(LIBRARY))


def counting(stacks: int = COUNTING_DEPTH) -> int:
    """Return what tells a tracer to count instead of recording, with so many frames per stack."""
    return Mode.ONLY << DEPTH_BITS | stacks


def start(folder: Path, stacks: int, ways: bytes, ring: int = 0) -> int:
    """Trace this process into `folder`, with so many frames per stack, or `counting` so many.

    Returns 0, 1 if it is traced already, or 2 if it cannot be. With a `ring` (bytes) the newest events only are kept.
    `ways` are those by which it may put a seccomp filter on itself (`process.ways`).
    """
    library = _with_gil()
    for thread in threading.enumerate():
        if thread.ident is not None:
            library.giltrace_name_thread(ctypes.c_ulong(thread.ident), thread.name.encode(errors="replace"))
    place = os.fsencode(folder.absolute())
    return int(library.giltrace_start(place, ctypes.c_uint(stacks), ctypes.c_uint64(ring), ways))


def stop() -> bool:
    """End what `start` began; False if the process has put a seccomp filter on itself meanwhile."""
    library = _with_gil()
    library.giltrace_stop()
    return not library.giltrace_is_confined()


@functools.cache
def observer() -> ctypes.CDLL:
    """Load the library that reads GILs from outside. Raises `OSError` as `library`."""
    return ctypes.CDLL(str(FOLDER / f"observer-{MACHINE}-{LIBC}.so"))


def clock_pair() -> tuple[int, int, int]:
    """Read the tracer's clock and CLOCK_MONOTONIC at one instant, without the GIL: (ticks, ns, error in ns)."""
    out = (ctypes.c_uint64 * 3)()
    library().giltrace_clock_pair(out)
    return out[0], out[1], out[2]


def pair_cost_ns() -> float:
    """Measure what the hooks add to one release+acquire pair on this machine (takes about a millisecond)."""
    return int(library().giltrace_pair_cost_ps()) / 1000
