"""What made a flight recorder write out its last moments."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trigger:
    """What a rule of a flight recorder met, or somebody's request.

    `kind` is the rule's ("wait", "hold", "stall", ...), "signal" or "request"; `rule` is how it was asked for
    ("wait>50ms"); `time_ns` is when it was met (CLOCK_MONOTONIC): for a wait its acquire, for a hold its release, else
    when what took so long was over, or was told. `length_ns`, `pid` and `tid` are 0 where they mean nothing.

    `sentence` says what happened and why, empty where that was not looked for; `thread` is the thread's name, `task`
    that of its asyncio task, `cause` one of `analysis.findings.stall.CAUSES`, and `lines` the lines that did it, and at
    which the thread stood.
    """

    kind: str
    rule: str
    time_ns: int
    length_ns: int = 0
    pid: int = 0
    tid: int = 0
    sentence: str = ""
    thread: str = ""
    task: str = ""
    cause: str = ""
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.length_ns:
            return self.rule
        who = f" by thread {self.tid}" if self.tid else ""
        return f"{self.kind} of {self.length_ns / 1e6:.1f} ms{who} ({self.rule})"
