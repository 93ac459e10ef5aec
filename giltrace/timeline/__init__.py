"""From events to the timeline: who held, wanted or did without the GIL, and on which core."""

from giltrace.timeline.build import build_timeline
from giltrace.timeline.invariants import check

__all__ = ["build_timeline", "check"]
