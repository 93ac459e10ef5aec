"""What the analyses of a recording find, as frozen dataclasses; `giltrace/reports/json.py` writes them as they are.

All times are nanoseconds (int), all shares parts of 1. A stack is a tuple of ``function (file:line)``, innermost first.
"""

from __future__ import annotations

from dataclasses import dataclass

from giltrace.analysis.finding_results import BlameTotal, Convoy, EventLoop, Finding, Hog, Phase, Verdict
from giltrace.analysis.lock_results import LockBlame, OnPath, Whereabouts
from giltrace.analysis.site import Site
from giltrace.analysis.task_results import Fleet, TaskBlame, TaskPrefix
from giltrace.recording.collected import CollectorReport
from giltrace.recording.events import Sampling
from giltrace.timeline.model import EndOf

#: The version of the report: fields are added under it, never renamed or removed.
SCHEMA = "giltrace-report-1"


@dataclass(frozen=True)
class Blame:
    """What waits at `victim` lost to holds at `culprit`: `ns` in all over `waits` waits, `max_ns` in one of them.

    The stacks are one example each: those of the longest such wait.
    """

    victim: Site
    culprit: Site
    ns: int
    waits: int
    max_ns: int
    victim_stack: tuple[str, ...] = ()
    culprit_stack: tuple[str, ...] = ()


@dataclass(frozen=True)
class LineBlame:
    """The part of a `FunctionBlame` that is one line's, `ns`."""

    site: Site
    ns: int


@dataclass(frozen=True)
class FunctionBlame:
    """What waits in the user's function `victim` lost to holds in `culprit`; the lines of both are 0.

    `victim_lines` and `culprit_lines` say at which of their lines, largest first; very small ones are left out.
    """

    victim: Site
    culprit: Site
    ns: int
    waits: int
    max_ns: int
    victim_lines: tuple[LineBlame, ...] = ()
    culprit_lines: tuple[LineBlame, ...] = ()


@dataclass(frozen=True)
class WaitDecomposition:
    """Where the waited time went; the first four add up to it.

    `holder_c_ns` is time past a switch request that the holder did not heed, `holder_off_core_ns` time in which the
    holder had no core or was blocked, `wake_up_ns` time in which nobody held the GIL. `holder_no_core_ns` and
    `holder_blocked_ns` are the two parts of `holder_off_core_ns`: it could have gone on, or it slept with the GIL.
    """

    holder_python_ns: int
    holder_c_ns: int
    holder_off_core_ns: int
    wake_up_ns: int
    holder_no_core_ns: int = 0
    holder_blocked_ns: int = 0

    @property
    def total_ns(self) -> int:
        """All waited time."""
        return self.holder_python_ns + self.holder_c_ns + self.holder_off_core_ns + self.wake_up_ns


@dataclass(frozen=True)
class WhatIfPoint:
    """The replay on so many cores: how long it takes, and by how much that beats what was measured, at most.

    On fewer cores than there were, the GIL would have cost more time than was measured: a bound is never below 1.
    """

    cores: int
    makespan_ns: int
    speedup_bound: float


@dataclass(frozen=True)
class WhatIf:
    """The recording replayed without a GIL: a bound on what removing it can bring, not a prediction.

    `cores`, `makespan_ns` and `speedup_bound` are for the cores that the program had; `by_cores` has 1, 2, ... cores.
    `quota` is how many cores' worth of time it was granted, None if that is no limit. `on_all` is for all cores of the
    machine, without a quota; None if the program had those. `woken_bound` is `speedup_bound` if whoever was blocked and
    went on while another thread had the GIL was woken by that one, as locks and queues written in C do it, and not by
    the world.

    `untold_ns` is what threads waited for the GIL where the bound does not tell what they would gain: the end hardly
    hung on that, or, `by_clock`, on the clock or what came from outside. 0 where the bound tells it, or they hardly
    waited.
    """

    cores: int
    measured_ns: int
    makespan_ns: int
    speedup_bound: float
    by_cores: tuple[WhatIfPoint, ...] = ()
    quota: float | None = None
    on_all: WhatIfPoint | None = None
    woken_bound: float = 1.0
    untold_ns: int = 0
    by_clock: bool = False


@dataclass(frozen=True)
class GilReport:
    """One GIL. `contended_ns` is how long at least one thread waited for it.

    `forced` and `voluntary` add up to every release on record.
    """

    gil: int
    held_ns: int
    free_ns: int
    contended_ns: int
    holds: int
    handoffs: int
    forced: int
    voluntary: int
    switch_requests: int


@dataclass(frozen=True)
class ThreadReport:
    """One thread. `role` is the name under which blame counts it.

    `states_ns` has the seven states by label, in order; it is empty without scheduling data. `cores` are those
    it ran on, or without scheduling data those it acquired the GIL on.
    """

    tid: int
    name: str
    role: str
    life_ns: int
    holds: int
    held_ns: int
    hold_max_ns: int
    waits: int
    waited_ns: int
    wait_p50_ns: int
    wait_p99_ns: int
    wait_max_ns: int
    forced: int
    states_ns: dict[str, int]
    cores: tuple[int, ...]
    lost_events: int


@dataclass(frozen=True)
class Quality:
    """How good the measurement is. `lost_events` includes scheduling records; `lost_stacks` are events without theirs.

    `violations` says in words which invariants are broken, `invariant_violations` how many; `remarks` say how it was
    recorded, where that is not the usual way. `sampled` says in words
    that it is sampled, `sampling` in figures; they are empty and None if it is exact. `own_held_ns` is how long code
    that giltrace runs in the program held the GIL, `own_waited_ns` what threads waited for that.
    """

    lost_events: int
    invariant_violations: int
    clock_error_ns: int
    collectors: tuple[CollectorReport, ...]
    violations: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    sampled: str = ""
    sampling: Sampling | None = None
    own_held_ns: int = 0
    own_waited_ns: int = 0
    lost_stacks: int = 0


@dataclass(frozen=True)
class ProcessReport:
    """One process. Everything that is ranked has the largest first.

    `blame_by_function` is `blame` with the lines of each function taken together; `victims` and `culprits` are its two
    directions, each summed over the other side. How far their lines can be trusted: waiters took `holder_samples` of
    what holders did, which stand behind `sampled_ns` of the time in `culprits`; for the rest it is only known where the
    GIL was given up.
    `became` is the program that was executed in its place, if that was not Python.
    It might run on `cores_allowed` cores and use at most `cpu_quota` cores' worth of time, None if that is not known or
    there is no such limit; `limits` says so in words where that is less than the machine has.
    `whereabouts` tell where threads were without the GIL, `lock_blame` who was blocked in locks, and by whom,
    and `critical_path` what its end hung on.
    `tasks` are the kinds of tasks that a scheduler ran in it, `task_blame` what they lost, and to whose lines.
    Its time ends with the "process", or with the "recording" or the "window" that it outlived: `end_of`.
    """

    pid: int
    ppid: int
    python: str
    cmdline: str
    note: str
    duration_ns: int
    has_sched: bool
    has_stacks: bool
    gils: tuple[GilReport, ...]
    threads: tuple[ThreadReport, ...]
    wait_decomposition_ns: WaitDecomposition
    blame: tuple[Blame, ...]
    victims: tuple[BlameTotal, ...]
    culprits: tuple[BlameTotal, ...]
    hogs: tuple[Hog, ...]
    convoys: tuple[Convoy, ...]
    event_loops: tuple[EventLoop, ...]
    what_if: WhatIf
    verdict: Verdict
    quality: Quality
    became: str = ""
    holder_samples: int = 0
    sampled_ns: int = 0
    blame_by_function: tuple[FunctionBlame, ...] = ()
    findings: tuple[Finding, ...] = ()
    phases: tuple[Phase, ...] = ()
    cores_allowed: int | None = None
    cpu_quota: float | None = None
    limits: str = ""
    end_of: EndOf = "process"
    whereabouts: tuple[Whereabouts, ...] = ()
    lock_blame: tuple[LockBlame, ...] = ()
    critical_path: tuple[OnPath, ...] = ()
    tasks: tuple[TaskPrefix, ...] = ()
    task_blame: tuple[TaskBlame, ...] = ()


@dataclass(frozen=True)
class Report:
    """A recording of `duration_ns`: its processes in the order of the timeline.

    `gils_at_once` says how many GILs of all processes were held on average while at least one was. `part` says in words
    which part of the recording it is about, empty for all of it. `tasks` and `task_blame` are those of all processes
    together, `fleet` is what is to be said of a recording of several machines. `caught` is what a flight recorder wrote
    it for, in a sentence, empty where that was nothing in particular.
    """

    schema: str
    duration_ns: int
    processes: tuple[ProcessReport, ...]
    quality: Quality
    gils_at_once: float = 0.0
    part: tuple[str, ...] = ()
    tasks: tuple[TaskPrefix, ...] = ()
    task_blame: tuple[TaskBlame, ...] = ()
    fleet: Fleet | None = None
    caught: str = ""
