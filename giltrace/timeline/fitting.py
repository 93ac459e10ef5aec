"""A recording for its figures, in bounded memory: all of it, or of one that is too long for that the part to look at.

What quiet holds there are is added up (`recording.gathering`). Where too much is left, as in hours of a busy server
whose every hold has a context switch, the figures are of one stretch: that in which threads waited most for a GIL.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from giltrace.errors import UsageError
from giltrace.recording.density import Density, PartOf, TooMany
from giltrace.recording.fleet import read_fleet
from giltrace.recording.meta import Meta
from giltrace.recording.sched import most_switches
from giltrace.timeline.load import is_long, load, unreadable_told
from giltrace.timeline.model import Timeline
from giltrace.timeline.part import window

#: Of more events than this, with context switches, there are figures of a part only: all take so many bytes each.
MOST = 16_000_000
_BYTES = 160
#: So many events has that part at most. It is smaller, for who asks about a long recording has waited for all of it
#: to be read.
_FITS = 8_000_000


def load_fitting(folder: Path, *, windows: bool = False) -> Timeline:
    """Read the recording `folder` for its figures; `Timeline.part` says which part of it that is, if it is one.

    If other `windows` of it are to be read then, that part is next to nothing. Raises as `load`.
    """
    meta = Meta.read(folder)
    with unreadable_told(folder):
        fits = not meta.finished or bool(read_fleet(folder).parts) or not _may_be_too_long(folder)
    if fits:
        return load(folder, gathered=None)
    density = Density(meta.start_ns, meta.end_ns, MOST, to_the_end=not windows)
    try:
        return load(folder, gathered=True, density=density)
    except TooMany:
        stretch = density.best(0 if windows else _FITS)
    timeline = load(folder, gathered=True, window=(stretch.start, stretch.end))
    first, last = timeline.recorded
    whole = PartOf(first, max(last, timeline.end), density.total)
    part = window(timeline, stretch.start, stretch.end)
    return replace(part, part=(_told(part, whole, stretch.share),), part_of=whole)


def load_every(folder: Path, known: Timeline) -> Timeline:
    """Read every event of the recording `folder`, of which `known` are the figures; those if they leave none out.

    Raises as `load`, and `UsageError` if there is no memory for them.
    """
    whole = known.part_of
    if not known.gathered and whole is None:
        return known
    if whole is not None and whole.events * _BYTES > (free := _free_memory()):
        needed, there = (f"{size / 1e9:.1f} GB" for size in (whole.events * _BYTES, free))
        raise UsageError(
            f"all of its {whole.events / 1e6:,.0f} million events would take some {needed} of memory; {there} are free",
            "name a part with --window A..B; `giltrace export --to parquet` has all in bounded memory",
        )
    return load(folder)


def _free_memory() -> int:
    """How many bytes of memory the machine has left; more than there can be where the kernel does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 1 << 62


def _may_be_too_long(folder: Path) -> bool:
    """Whether it is worth to count what there is."""
    return is_long(folder) or most_switches(folder) > MOST


def _told(part: Timeline, whole: PartOf, share: float) -> str:
    edges = (max(part.start, whole.start), part.end, whole.end)
    start, end, last = (f"{(time - whole.start) / 1e9:.3f} s" for time in edges)
    where = f"where threads waited most for the GIL ({share:.0%} of all)" if share else "its middle"
    return f"{start} to {end} of {last}, {where}"
