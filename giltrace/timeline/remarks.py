"""What a reader of figures should know of how they were recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from giltrace.timeline.model import Timeline


def remarks_of(timeline: Timeline) -> tuple[str, ...]:
    """Why `timeline` was written, and what it leaves out, in words."""
    told = [] if timeline.trigger is None else [f"written for: {timeline.trigger}"]
    if timeline.unfinished:
        told.append("unfinished: the recorder still runs or was killed; what collectors had not written is missing")
    if timeline.ended:
        told.append(f"recording ended before the program did: {timeline.ended}")
    told += timeline.damage
    if any(not process.has_sched and len(process.holds) for process in timeline.processes):
        told.append(
            "no context switches on record: a holder without a core counts as running, waiting off the GIL is not "
            "told from native code, and a hog shows only from 50 ms on, without the C function that it was in"
        )
    if cut := sum(process.is_bounded for process in timeline.processes if process.end < timeline.end):
        told.append(f"processes whose end is not on record: {cut}; their last holds count up to the last record")
    if timeline.part_of is not None:
        told.append(timeline.part_of.remark(timeline.start, timeline.end))
    if timeline.gathered:
        told.append(
            "a long recording: quiet holds that came one after the other were added up for this; all sums and "
            "counts are exact, where within some ms each was is left out"
        )
    if timeline.sampling is not None:
        told.append("observed: which lines waited and held is not known; the trace has py-spy's samples, if any")
    for process in timeline.processes:
        if process.overwritten:
            told.append(
                f"flight recorder: pid {process.pid} is shown from {(process.start - timeline.start) / 1e9:.3f} s on; "
                f"{process.overwritten:,} earlier records were overwritten"
            )
    return tuple(told)
