"""What attaching itself did in a process, so that it is not taken for the program's doing."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Footprint:
    """`stops` has the thread's id here, the begin and the end (CLOCK_MONOTONIC ns) of each time that one was stopped.

    `threads` has the same of threads that were giltrace's own.
    """

    stops: list[tuple[int, int, int]] = field(default_factory=list)
    threads: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def lengths(self) -> list[int]:
        """How long each stop was."""
        return [end - begin for _, begin, end in self.stops]
