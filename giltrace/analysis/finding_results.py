"""What the analyses find wrong, and the verdict; see `analysis.results`. The summary of a recording needs no more."""

from __future__ import annotations

from dataclasses import dataclass, field

from giltrace.analysis.site import Site
from giltrace.recording.perf_types import ANONYMOUS


@dataclass(frozen=True)
class Verdict:
    """`kind` is one of `kinds.KINDS`; `summary` says it in a sentence, `advice` what to do.

    `evidence` holds the figures; their names end in the unit: `_ns`, `_share` (of 1), `_ratio`; the others are counts.
    """

    kind: str
    summary: str
    advice: str = ""
    evidence: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """Something that waits for the GIL were lost to, a `cause` as `findings.ranked` calls it, in a `summary`.

    All threads lost `ns` to it in `waits` waits, `max_ns` in one of them; `path_ns` of that lies on the critical path:
    what threads had done by the end (`ProcessReport.end_of`) would have been done so much sooner without, at most. It
    began `since_ns` into the process.
    The site `victim` lost most; most of it while `culprit` had the GIL, which is None where nobody ran with it.
    """

    cause: str
    summary: str
    advice: str
    ns: int
    path_ns: int
    waits: int
    max_ns: int
    since_ns: int
    victim: Site
    culprit: Site | None = None


@dataclass(frozen=True)
class Phase:
    """A stretch of a process's time, from its start, in which it had one character, and the `verdict` on that."""

    start_ns: int
    end_ns: int
    verdict: Verdict


@dataclass(frozen=True)
class BlameTotal:
    """One side of the blame: what a victim lost to all culprits, or what a culprit cost all victims."""

    site: Site
    ns: int
    waits: int
    max_ns: int
    stack: tuple[str, ...] = ()


@dataclass(frozen=True)
class SampledFunction:
    """A native function, and how many `samples` found a thread in it.

    `name` is exact; it is empty where no symbol covers the code. Then `caller` is the first function above it that has
    a name, if one is known to have led there. `file` and `caller_file` are their libraries; `file` is empty if that is
    not known, and ``//anon`` for code that was made as the program ran.
    """

    name: str
    file: str
    caller: str = ""
    caller_file: str = ""
    samples: int = 0

    @property
    def library(self) -> str:
        """The name of its file."""
        return self.file.rpartition("/")[2]

    def __str__(self) -> str:
        """What to call it, and its library where it has no name."""
        if self.name:
            return self.name
        if self.file == ANONYMOUS:
            return "code that the program made as it ran"
        if not self.file:
            return "code of an unknown file"
        called = f", called from {self.caller}" if self.caller else ""
        elsewhere = f" of {self.caller_file.rpartition('/')[2]}" if called and self.caller_file != self.file else ""
        return f"a function without a name of {self.library}{called}{elsewhere}"


@dataclass(frozen=True)
class Hog:
    """Holds at one site that went on after a switch request: `ns` over it in all, `max_ns` the longest.

    `held_ns` is the whole length of these holds, `site_held_ns` that of all holds at the site. If it had given the GIL
    up in these, the process would be at most `speedup_bound` times as fast; 0 where that is not worked out, or cannot
    be done: `collecting` says that they were collections of garbage. What to do about these is the `advice`, where they
    cost much. Time in which the holder had no core is left out of `ns` and `max_ns`.
    `expression` is what was called there, out of the source; empty where that is not here, or was changed since.

    `samples` says how often it was looked at which native code ran there after the request, and `functions` which that
    was, most samples first; those with the fewest may be left out. What begins with `c_` is about the first of them:
    its name (None without one), its file, its samples, and it with the caller that it is told by.
    """

    site: Site
    count: int
    ns: int
    max_ns: int
    held_ns: int
    stack: tuple[str, ...] = ()
    c_function: str | None = None
    c_file: str | None = None
    c_samples: int = 0
    samples: int = 0
    c_stack: tuple[str, ...] = ()
    expression: str = ""
    functions: tuple[SampledFunction, ...] = ()
    site_held_ns: int = 0
    speedup_bound: float = 0.0
    collecting: bool = False
    advice: str = ""


@dataclass(frozen=True)
class IntervalEstimate:
    """What a convoy would probably make of another `sys.setswitchinterval`: an estimate, not a measurement."""

    switch_interval_ns: int
    wait_per_step_ns: int
    steps_per_s: float


@dataclass(frozen=True)
class Convoy:
    """A thread whose short steps each wait for about a switch interval.

    `steps_per_s` is over the thread's life. `switch_interval_ns` is the median of those in force when it waited.
    """

    site: Site
    tid: int
    steps: int
    steps_per_s: float
    wait_p50_ns: int
    waited_ns: int
    waited_share: float
    switch_interval_ns: int
    estimates: tuple[IntervalEstimate, ...] = ()
    stack: tuple[str, ...] = ()


@dataclass(frozen=True)
class EventLoop:
    """A thread that runs an asyncio loop (`loop` is "asyncio" or "uvloop"), and who made it wait most.

    `culprit` is None if it never waited for anyone; `culprit_ns` is what it lost to that one's function.
    """

    thread: str
    tid: int
    loop: str
    waits: int
    waited_ns: int
    wait_max_ns: int
    culprit: Site | None = None
    culprit_ns: int = 0
    culprit_stack: tuple[str, ...] = ()
