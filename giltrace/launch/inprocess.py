"""Trace the process that asks for it; `giltrace.trace` offers it."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import giltrace
from giltrace import native
from giltrace.collectors.gil import GilCollector, start_here
from giltrace.errors import TargetError
from giltrace.recording.clock_file import append_pair
from giltrace.recording.cores_log import CoresLog
from giltrace.recording.folder import SUFFIX, RecordingFolder, Remedies, claim_numbered
from giltrace.recording.meta import Meta

_REMEDIES = Remedies(
    taken="choose another name, or replace it with force=True", unwritable="choose a place that you may write to"
)


@contextlib.contextmanager
def trace_here(name: Path | None, *, stacks: int, force: bool) -> Iterator[Path]:
    """Record this process while the block runs; yields the path of the recording, ``NAME.giltrace``.

    Without a name it is one after the program, with a number if that is taken. Raises `OutputError` if it cannot be
    written, `TargetError` if tracing cannot start.
    """
    reason = GilCollector().available(None)
    if reason is not None:
        raise TargetError(f"this process cannot be traced: {reason}")
    if name is None:
        folder = claim_numbered(Path(own_name() + SUFFIX), _REMEDIES)
    else:
        path = name.with_name(name.name.removesuffix(SUFFIX) + SUFFIX)
        folder = RecordingFolder(path, force=force, remedies=_REMEDIES)
    path = folder.path
    meta = Meta.begin(giltrace.__version__, sys.orig_argv)
    meta.write(path)
    append_pair(path)
    try:
        start_here(path, stacks)
    except TargetError:
        folder.abandon()
        raise
    folder.keep()
    cores = CoresLog(path, os.getpid())
    # A GIL is recognised when it is taken: this makes it known before the block begins.
    time.sleep(0)
    try:
        yield path
    finally:
        now = time.monotonic_ns()
        # Else the process has put a seccomp filter on itself, which may kill it for that.
        if native.stop():
            meta.end_ns, meta.lived = now, [[pid, now] for pid in _lived(path)]
            cores.look(now=True)
            append_pair(path)
            meta.collectors = [asdict(GilCollector().report(path))]
            meta.state = "complete"
            meta.write(path)


def _lived(path: Path) -> list[int]:
    """The processes known to have run up to now: this one, and those of its children that go on writing."""
    # Only now: nobody who traces waits for numpy before.
    from giltrace.process.folder import Folder
    from giltrace.recording.locate import writers

    with Folder.own(path) as folder:
        return [os.getpid(), *writers(folder)]


def own_name() -> str:
    """What `giltrace record` would call a recording of the program that runs here: by its script or module."""
    main = sys.modules.get("__main__")
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None and spec.name != "__main__":
        return str(spec.name).removesuffix(".__main__")
    if file:
        path = Path(file).absolute()
        if path.stem != "__main__":
            return path.stem
        # A folder or an archive that was run.
        return path.parent.name if path.parent.is_dir() else path.parent.stem
    return "command" if sys.argv[:1] == ["-c"] else "python"
