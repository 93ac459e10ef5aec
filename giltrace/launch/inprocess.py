"""Trace the process that asks for it: `giltrace.trace`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import giltrace
from giltrace import native
from giltrace.collectors.gil import GilCollector
from giltrace.errors import TargetError
from giltrace.recording import clock
from giltrace.recording.cores import CoresLog
from giltrace.recording.folder import SUFFIX, RecordingFolder, Remedies
from giltrace.recording.meta import Meta

_REMEDIES = Remedies(
    taken="choose another name, or replace it with force=True", unwritable="choose a place that you may write to"
)
_REFUSALS = {
    1: ("this process is traced already", "end the other trace first, or do not run it under `giltrace record`"),
    2: ("the tracer could not start in this process", "see `giltrace doctor` for what is missing"),
}


@contextlib.contextmanager
def trace(name: str | os.PathLike[str], *, stacks: int = 128, force: bool = False) -> Iterator[Path]:
    """Record this process while the block runs; yields the path of the recording, ``NAME.giltrace``.

    All threads are followed, those that run already too: exactly from the first time on that each takes the GIL. What
    is recorded is the GIL with the core at each acquire, and up to `stacks` Python frames per release (0: none). Core
    switches need a recorder outside of the process (`giltrace record`): what threads do off the GIL is not known here.
    `force` replaces an earlier recording. Raises `OutputError` if it cannot be written, `TargetError` if tracing cannot
    start.
    """
    reason = GilCollector().available(None)
    if reason is not None:
        raise TargetError(f"this process cannot be traced: {reason}")
    path = Path(name)
    path = path.with_name(path.name.removesuffix(SUFFIX) + SUFFIX)
    folder = RecordingFolder(path, force=force, remedies=_REMEDIES)
    meta = Meta.begin(giltrace.__version__, sys.orig_argv)
    meta.write(path)
    # PyDLL keeps the GIL during a call: nobody else comes or goes while the hooks are put in place.
    library = ctypes.PyDLL(str(native.LIBRARY))
    clock.append_pair(path)
    for thread in threading.enumerate():
        if thread.ident is not None:
            library.giltrace_name_thread(ctypes.c_ulong(thread.ident), thread.name.encode(errors="replace"))
    refused = library.giltrace_start(os.fsencode(path.absolute()), ctypes.c_uint(stacks))
    if refused:
        folder.abandon()
        raise TargetError(*_REFUSALS[refused])
    folder.keep()
    cores = CoresLog(path, os.getpid())
    # A GIL is recognised when it is taken: this makes it known before the block begins.
    time.sleep(0)
    try:
        yield path
    finally:
        library.giltrace_stop()
        cores.look(now=True)
        clock.append_pair(path)
        meta.end_ns = time.monotonic_ns()
        meta.collectors = [asdict(GilCollector().report(path))]
        meta.state = "complete"
        meta.write(path)
