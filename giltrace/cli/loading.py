"""Reading a recording for a command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from giltrace.cli.progress import working

if TYPE_CHECKING:
    from giltrace.analysis.selection import Selection
    from giltrace.timeline.model import Timeline

#: Parameters of `mallopt`, as in glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4

_PAD_BYTES = 64 << 20


def load(
    folder: Path, selection: Selection | None = None, top_waits: int | None = None, *, every: bool = False
) -> Timeline:
    """Read what `selection` needs of a recording (`with_every_hold`), in a process that ends soon.

    It keeps what memory it gets.
    """
    from giltrace.analysis.selection import Selection, with_every_hold
    from giltrace.timeline.load import load as read

    _keep_freed_memory()
    with working(f"reading {folder}"):
        return with_every_hold(read(folder, gathered=None), folder, selection or Selection(), top_waits, every=every)


def load_outline(folder: Path) -> Timeline | None:
    """Read the outline of a recording, for what reads the rest in windows; None if it has to be read as a whole."""
    from giltrace.timeline.windows import outline

    _keep_freed_memory()
    with working(f"reading {folder}"):
        return outline(folder)


def require_something(timeline: Timeline, folder: Path) -> None:
    """Raise `UsageError` if the recording `folder`, read as `timeline`, has nothing that a trace could show."""
    if not any(len(table) for one in timeline.processes for table in (one.holds, one.waits, one.runs)):
        from giltrace.errors import UsageError

        notes = "; ".join(one.note for one in timeline.processes if one.note)
        raise UsageError(
            f"{folder} is empty: no use of a GIL and no core switch is on record{f' ({notes})' if notes else ''}",
            "`giltrace doctor` says what can be captured here",
        )


def _keep_freed_memory() -> None:
    """Let malloc reuse what arrays give back, instead of returning it to the kernel and asking for it again.

    Else every array of some 100 MB is mapped, filled with zeros page by page, and unmapped: half of the time that a
    large recording takes. No default for a library, whose process goes on. Does nothing without glibc.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)
    mallopt(_TOP_PAD, _PAD_BYTES)
