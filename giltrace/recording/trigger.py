"""What made a flight recorder write out its last moments."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trigger:
    """One wait or hold over its limit, or somebody's request.

    `kind` is "wait", "hold", "signal" or "request"; `rule` is how it was asked for ("wait>50ms"); `time_ns` is when it
    was met (CLOCK_MONOTONIC): for a wait its acquire, for a hold its release. `length_ns`, `pid` and `tid` are 0 where
    they mean nothing.
    """

    kind: str
    rule: str
    time_ns: int
    length_ns: int = 0
    pid: int = 0
    tid: int = 0

    def __str__(self) -> str:
        if not self.length_ns:
            return self.rule
        return f"{self.kind} of {self.length_ns / 1e6:.1f} ms by thread {self.tid} ({self.rule})"
