"""The figures of a recording per process, per thread and per GIL, with a verdict and the quality next to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from giltrace.analysis.finding_results import BlameTotal, Phase, Verdict
from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.phases import find_phases
from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.lock_results import Whereabouts
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.culprit_sites import CulpritSites
from giltrace.analysis.measure.explained import explain
from giltrace.analysis.measure.limits import describe_limits
from giltrace.analysis.measure.roles import roles
from giltrace.analysis.measure.sampling import describe_sampling
from giltrace.analysis.measure.tasks import NO_TASKS, TaskTables, find_tasks, merged_tables
from giltrace.recording.collected import CollectorReport
from giltrace.timeline.axis import Ints
from giltrace.timeline.invariants import held_and_free
from giltrace.timeline.model import Flag, Process, State, Timeline

#: So many lines are told for which threads waited.
TOP_CULPRITS = 3
#: They are told where threads waited for that share of the process's time, and each of them made up that share of it.
LEAST_WAITED = 0.01
LEAST_CULPRIT = 0.05
#: So many places are told where threads were without the GIL, each with that share of the time.
TOP_WHEREABOUTS = 3
LEAST_WHEREABOUTS = 0.1


class ThreadSummary(NamedTuple):
    """One thread. Times in ns; shares are of its life, 1 being all of it.

    `cores` are those it ran on, or without scheduling data those it acquired the GIL on. `states_ns` has all seven
    states; it is empty and the three `off_*` times are None without scheduling data. `off_gil_ns` is always known.
    `role` is what threads that do the same work share, see `analysis.measure.roles`.
    """

    tid: int
    name: str
    life_ns: int
    holds: int
    held_ns: int
    held_share: float
    waits: int
    waited_ns: int
    waited_share: float
    longest_wait_ns: int
    p50_wait_ns: int
    p99_wait_ns: int
    forced_releases: int
    off_gil_ns: int
    off_running_ns: int | None
    off_runnable_ns: int | None
    off_blocked_ns: int | None
    cores: tuple[int, ...]
    states_ns: dict[State, int]
    lost: int
    role: str = ""


class GilSummary(NamedTuple):
    """One GIL. `contended_ns` is how long at least one thread waited for it.

    `latency_median_ns` is over all hand-offs, free time included; `wake_latency_median_ns` over those whose taker
    already waited at the release. Both are None without such hand-offs.
    """

    gil: int
    held_ns: int
    free_ns: int
    contended_ns: int
    hand_offs: int
    latency_median_ns: int | None
    wake_latency_median_ns: int | None
    switch_requests: int
    forced_releases: int


class ProcessSummary(NamedTuple):
    """One process; `threads`, the chosen ones, in the order of the timeline.

    `became`: see `Process`. `limits`: see `ProcessReport`. `culprits` are the lines for which its threads waited
    longest, each by itself; `phases` what it was like when, if that changed; `whereabouts` where threads were without
    the GIL; `tasks` what the kinds of tasks lost that a scheduler ran in it. `summarise` finds these.
    """

    pid: int
    ppid: int
    python: str
    cmdline: str
    wall_ns: int
    has_sched: bool
    threads: tuple[ThreadSummary, ...]
    gils: tuple[GilSummary, ...]
    verdict: Verdict
    lost: int
    violations: tuple[str, ...]
    note: str
    became: str = ""
    limits: str = ""
    culprits: tuple[BlameTotal, ...] = ()
    phases: tuple[Phase, ...] = ()
    whereabouts: tuple[Whereabouts, ...] = ()
    tasks: TaskTables = NO_TASKS

    @property
    def waited_ns(self) -> int:
        """How long its threads waited for the GIL, all together."""
        return sum(thread.waited_ns for thread in self.threads)

    @property
    def told_whereabouts(self) -> tuple[Whereabouts, ...]:
        """Those of the whereabouts that it is worth to tell of: where threads lost more without the GIL than to it."""
        chosen = [row for row in self.whereabouts if not (row.site.thread == "MainThread" and row.cause == "join")]
        total = sum(row.ns for row in chosen)
        if total <= max(self.waited_ns, LEAST_WHEREABOUTS * sum(thread.life_ns for thread in self.threads)):
            return ()
        return tuple(row for row in chosen if row.ns >= LEAST_WHEREABOUTS * total)[:TOP_WHEREABOUTS]

    @property
    def told_culprits(self) -> tuple[BlameTotal, ...]:
        """Those of the culprits that it is worth to tell of."""
        waited = self.waited_ns
        if waited < LEAST_WAITED * self.wall_ns:
            return ()
        return tuple(row for row in self.culprits if row.ns >= LEAST_CULPRIT * waited and row.site.function)


class Quality(NamedTuple):
    """How good the measurement is: `lost` counts GIL events and scheduling records that could not be stored.

    `lost_stacks` counts GIL events whose stack could not be.
    `remarks` say how it was recorded, where that is not the usual way.
    `sampled` says so of a recording that is not exact.
    """

    lost: int
    sched_lost: int
    violations: tuple[str, ...]
    clock_error_ns: int
    collectors: tuple[CollectorReport, ...]
    remarks: tuple[str, ...] = ()
    sampled: str = ""
    lost_stacks: int = 0


@dataclass(frozen=True)
class Summary:
    """A recording of `wall_ns`: its processes and the quality of what is known about them.

    `tasks` are those of a scheduler, of all processes together. `part` says which part of the recording it is of.
    """

    wall_ns: int
    processes: tuple[ProcessSummary, ...]
    quality: Quality
    tasks: TaskTables = NO_TASKS
    part: tuple[str, ...] = ()


def summarise(timeline: Timeline) -> Summary:
    """Summarise a timeline; nothing in it is changed."""
    # Ones that are made for it: what is worked out of them (`timeline.once`) goes with them.
    processes = tuple(_summarised(process, timeline) for process in map(replace, timeline.processes))
    return Summary(
        wall_ns=timeline.end - timeline.start,
        processes=processes,
        part=timeline.part,
        tasks=merged_tables((process.tasks for process in processes), timeline.merged),
        quality=Quality(
            lost=timeline.lost,
            sched_lost=timeline.sched_lost,
            violations=timeline.violations,
            clock_error_ns=timeline.clock_error_ns,
            collectors=timeline.collectors,
            remarks=timeline.remarks,
            sampled=describe_sampling(timeline.sampling),
            lost_stacks=timeline.lost_stacks,
        ),
    )


def _summarised(process: Process, timeline: Timeline) -> ProcessSummary:
    figures = Costed(process, timeline.began_ns)
    return summarise_process(process, int(timeline.machine_of(process).get("cpus", 0)), figures)._replace(
        tasks=find_tasks(process, timeline.merged, figures.block_causes, figures.sites),
        culprits=CulpritSites(process, figures.sites, own_lines=True).ranked(
            process.of_chosen(process.waits), TOP_CULPRITS
        ),
        phases=find_phases(process, timeline),
        whereabouts=explain(process, figures.sites, figures.activity, figures.block_causes, figures.asleep),
    )


def summarise_process(process: Process, machine: int = 0, figures: Costed | None = None) -> ProcessSummary:
    """Summarise one process, of a machine with so many cores (0: not known); nothing in it is changed.

    Its `figures` are worked out where they are not given.
    """
    return ProcessSummary(
        pid=process.pid,
        ppid=process.ppid,
        python=process.python,
        cmdline=process.cmdline,
        wall_ns=process.end - process.start,
        has_sched=process.has_sched,
        threads=_threads(process),
        gils=tuple(_gil(process, gil) for gil in range(process.gils)),
        verdict=judge(process, figures),
        lost=process.lost,
        violations=process.violations,
        note=process.note,
        became=process.became,
        limits=describe_limits(process.cores, machine),
    )


def _threads(process: Process) -> tuple[ThreadSummary, ...]:
    lives = np.maximum(usage.lives(process), 1).tolist()
    holds = usage.hold_counts(process).tolist()
    held = usage.sum_by_thread(process, process.holds).tolist()
    waits = usage.count_by_thread(process, process.waits).tolist()
    waited = usage.sum_by_thread(process, process.waits).tolist()
    forced_rows = process.holds[(process.holds["flags"] & np.uint8(Flag.FORCED)) != 0]
    forced = usage.count_by_thread(process, forced_rows).tolist()
    length = usage.wait_lengths(process)
    longest, p50, p99 = length.longest.tolist(), length.p50.tolist(), length.p99.tolist()
    states = usage.state_sums(process).tolist()
    cores, named = _cores(process), roles(process)
    known = process.has_sched
    return tuple(
        ThreadSummary(
            tid=thread.tid,
            name=thread.name,
            life_ns=thread.end - thread.start,
            holds=holds[i],
            held_ns=held[i],
            held_share=held[i] / lives[i],
            waits=waits[i],
            waited_ns=waited[i],
            waited_share=waited[i] / lives[i],
            longest_wait_ns=longest[i],
            p50_wait_ns=p50[i],
            p99_wait_ns=p99[i],
            forced_releases=forced[i],
            off_gil_ns=max(thread.end - thread.start - held[i] - waited[i], 0),
            off_running_ns=states[i][State.OFF_RUNNING] if known else None,
            off_runnable_ns=states[i][State.OFF_RUNNABLE] if known else None,
            off_blocked_ns=states[i][State.OFF_BLOCKED] if known else None,
            cores=cores[i],
            states_ns={state: states[i][state] for state in State} if known else {},
            lost=thread.lost,
            role=named[i],
        )
        for i, thread in ((at, process.threads[at]) for at in process.chosen_threads)
    )


def _cores(process: Process) -> list[tuple[int, ...]]:
    rows = process.runs if process.has_sched else process.holds[process.holds["core"] >= 0]
    pairs = np.unique(rows["thread"].astype(np.int64) << 16 | rows["core"].astype(np.int64))
    found: list[list[int]] = [[] for _ in process.threads]
    for pair in pairs.tolist():
        found[pair >> 16].append(pair & 0xFFFF)
    return [tuple(cores) for cores in found]


def _median(values: Ints) -> int | None:
    return int(np.median(values)) if len(values) else None


def _gil(process: Process, gil: int) -> GilSummary:
    held, free = held_and_free(process, gil)
    handed = usage.hand_offs(process, gil)
    holds = usage.of_gil(process.holds, gil)
    return GilSummary(
        gil=gil,
        held_ns=held,
        free_ns=free,
        contended_ns=usage.contended_ns(process, gil),
        hand_offs=handed.number,
        latency_median_ns=handed.median,
        wake_latency_median_ns=_median(handed.latency[handed.waited]),
        switch_requests=len(usage.of_gil(process.switch_requests, gil)),
        forced_releases=int(np.count_nonzero(holds["flags"] & np.uint8(Flag.FORCED))),
    )
