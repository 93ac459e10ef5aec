"""Reading a recording for a command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from giltrace.cli import heap
from giltrace.cli.progress import working

if TYPE_CHECKING:
    from giltrace.analysis.selection import Selection
    from giltrace.timeline.model import Timeline


def load(
    folder: Path, selection: Selection | None = None, top_waits: int | None = None, *, every: bool = False
) -> Timeline:
    """Read what `selection` needs of a recording (`with_every_hold`), in a process that ends soon.

    It keeps what memory it gets.
    """
    from giltrace.analysis.selection import Selection, with_every_hold
    from giltrace.timeline.fitting import load_fitting

    heap.keep_freed()
    selection = selection or Selection()
    with working(f"reading {folder}"):
        known = load_fitting(folder, windows=bool(selection.windows) and top_waits is None)
        return with_every_hold(known, folder, selection, top_waits, every=every)


def load_outline(folder: Path) -> Timeline | None:
    """Read the outline of a recording, for what reads the rest in windows; None if it has to be read as a whole."""
    from giltrace.timeline.windows import outline

    heap.keep_freed()
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
