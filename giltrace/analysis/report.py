"""Every analysis of a recording in one report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from giltrace.analysis.finding_results import Convoy, Hog
from giltrace.analysis.findings.bottleneck import bottleneck
from giltrace.analysis.findings.convoy import find_convoys
from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.event_loops import find_event_loops
from giltrace.analysis.findings.hogs import find_hogs
from giltrace.analysis.findings.phases import find_phases
from giltrace.analysis.findings.ranked import find_findings
from giltrace.analysis.findings.untold import with_untold
from giltrace.analysis.fleet import find_fleet
from giltrace.analysis.lock_results import LockBlame
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.attribution import attribute
from giltrace.analysis.measure.blame import find_blame
from giltrace.analysis.measure.block_causes import GIVEN_BACK, BlockCause
from giltrace.analysis.measure.decomposition import decompose
from giltrace.analysis.measure.explained import explain
from giltrace.analysis.measure.own_code import own_holds
from giltrace.analysis.measure.sampling import describe_sampling
from giltrace.analysis.measure.tasks import TaskTables, find_tasks, merged_tables
from giltrace.analysis.measure.wait_causes import UNHEEDED_NS
from giltrace.analysis.replay.released import released
from giltrace.analysis.replay.what_if import what_if, without_lock
from giltrace.analysis.results import SCHEMA, GilReport, ProcessReport, Quality, Report, ThreadReport, WhatIf
from giltrace.analysis.summary import GilSummary, ThreadSummary, summarise_process
from giltrace.timeline.model import Flag, Process, Timeline

#: A lock that cost less than this share of a process's time is not replayed.
_LEAST_LOCK = 0.05
#: So many lines of a critical path are told, the longest.
_MOST_ON_PATH = 1_000


def analyse(timeline: Timeline) -> Report:
    """Analyse a timeline; nothing in it is changed. Works without scheduling data and without stacks.

    Of processes of which some threads only are chosen, what these waited and held is told, and who made them wait;
    verdict, GILs and what-if are those of the whole process.
    """
    # One that is made for it: what is worked out of it (`timeline.once`) goes with it before the next one's turn.
    processes = tuple(_process(replace(process), timeline) for process in timeline.processes)
    held, waited = (sum(getattr(one.quality, field) for one in processes) for field in ("own_held_ns", "own_waited_ns"))
    tasks = merged_tables((TaskTables(one.tasks, one.task_blame) for one in processes), timeline.merged)
    return Report(
        schema=SCHEMA,
        duration_ns=timeline.end - timeline.start,
        processes=processes,
        quality=_quality(timeline, timeline, held, waited),
        gils_at_once=usage.gils_at_once(timeline.processes),
        part=timeline.part,
        tasks=tasks.prefixes,
        task_blame=tasks.blame,
        fleet=find_fleet(timeline, processes, tasks),
        caught=timeline.trigger.sentence if timeline.trigger is not None and timeline.trigger.cause else "",
    )


def _quality(timeline: Timeline, what: Timeline | Process, own_held_ns: int, own_waited_ns: int) -> Quality:
    return Quality(
        lost_events=what.lost,
        invariant_violations=len(what.violations),
        clock_error_ns=timeline.clock_error_ns,
        collectors=timeline.collectors,
        violations=what.violations,
        sampled=describe_sampling(what.sampling),
        sampling=what.sampling,
        remarks=timeline.remarks,
        own_held_ns=own_held_ns,
        own_waited_ns=own_waited_ns,
        lost_stacks=what.lost_stacks,
    )


def _own_work(process: Process) -> tuple[int, int]:
    """How long giltrace's own code in the process held the GIL, and how much of the waits fell into that, in ns."""
    own = own_holds(process)
    if not own.any():
        return 0, 0
    told = process.of_chosen(process.waits)
    shares = attribute(process, np.zeros(len(process.waits), np.int64), own.astype(np.int64), told)
    return int(usage.lengths(process.holds)[own].sum()), int(shares.ns[shares.culprit == 1].sum())


def _process(process: Process, timeline: Timeline) -> ProcessReport:
    machine = int(timeline.machine_of(process).get("cpus", 0))
    began = timeline.began_ns
    figures = Costed(process, began)
    known = summarise_process(process, machine, figures)
    longest = usage.longest_holds(process)[process.chosen_threads].tolist()
    blame = find_blame(process)
    asked = _asked_by_chosen(process)
    hogs = find_hogs(asked, began)
    replayed = what_if(process, machine, figures.native)
    tasks = find_tasks(process, timeline.merged, figures.block_causes, figures.sites)
    asked_about = {thread.tid for thread in known.threads}
    return ProcessReport(
        pid=process.pid,
        ppid=process.ppid,
        python=process.python,
        cmdline=process.cmdline,
        note=process.note,
        duration_ns=process.end - process.start,
        has_sched=process.has_sched,
        has_stacks=process.stacks is not None,
        gils=tuple(_gil(process, gil) for gil in known.gils),
        threads=tuple(_thread(thread, hold_max) for thread, hold_max in zip(known.threads, longest, strict=True)),
        wait_decomposition_ns=decompose(process),
        blame=blame.pairs,
        victims=blame.victims,
        culprits=blame.culprits,
        hogs=_released(figures, hogs, replayed, usage.overstays(asked, UNHEEDED_NS)),
        convoys=tuple(one for one in _convoys(figures) if one.tid in asked_about),
        event_loops=tuple(one for one in find_event_loops(process) if one.tid in asked_about),
        what_if=with_untold(figures, replayed),
        verdict=known.verdict,
        quality=_quality(timeline, process, *_own_work(process)),
        became=process.became,
        holder_samples=blame.samples,
        sampled_ns=blame.sampled_ns,
        blame_by_function=blame.functions,
        findings=find_findings(process, figures, hogs),
        phases=find_phases(process, timeline),
        cores_allowed=process.cores.cpus if process.cores is not None else None,
        cpu_quota=process.cores.quota if process.cores is not None else None,
        limits=known.limits,
        end_of=process.end_of,
        whereabouts=explain(process, figures.sites, figures.activity, figures.block_causes, figures.asleep),
        lock_blame=_bounded(figures, machine),
        critical_path=figures.on_path[:_MOST_ON_PATH],
        tasks=tasks.prefixes,
        task_blame=tasks.blame,
    )


def _convoys(figures: Costed) -> tuple[Convoy, ...]:
    """The threads in a convoy. Who serves one thread makes no more steps than that one has work for."""
    return find_convoys(figures.process, figures) if bottleneck(figures) is None else ()


def _released(figures: Costed, hogs: tuple[Hog, ...], replayed: WhatIf, over: usage.Overstays) -> tuple[Hog, ...]:
    """The hogs, with what it would bring if each gave the GIL up: a collection of garbage cannot."""
    if figures.process.gils != 1:
        return hogs
    bounds = released(figures.process, figures.sites, hogs, replayed, over)
    return tuple(
        hog if hog.collecting else replace(hog, speedup_bound=bound) for hog, bound in zip(hogs, bounds, strict=True)
    )


def _bounded(figures: Costed, machine: int) -> tuple[LockBlame, ...]:
    """What is known of locks, with what it would bring to do without the one that cost most, if it cost much.

    An import's lock is not one to do without: who waits for it needs the module.
    """
    rows = figures.lock_blame
    given = {cause.label for cause in GIVEN_BACK}
    at = next((number for number, row in enumerate(rows) if row.cause in given and row.locks), None)
    if at is None or rows[at].ns < _LEAST_LOCK * figures.wall or rows[at].cause == BlockCause.IMPORT_LOCK.label:
        return rows
    cores = figures.process.cores.at_once if figures.process.cores is not None else max(machine, 1)
    bound = without_lock(figures.process, cores, figures.native, tuple(number - 1 for number in rows[at].locks))
    return (*rows[:at], replace(rows[at], speedup_bound=bound.speedup_bound), *rows[at + 1 :])


def _gil(process: Process, known: GilSummary) -> GilReport:
    mine = process.holds["gil"] == known.gil
    released = usage.hold_counts(process, mine & ((process.holds["flags"] & np.uint8(Flag.PARTIAL_END)) == 0)).sum()
    return GilReport(
        gil=known.gil,
        held_ns=known.held_ns,
        free_ns=known.free_ns,
        contended_ns=known.contended_ns,
        holds=int(usage.hold_counts(process, mine).sum()),
        handoffs=known.hand_offs,
        forced=known.forced_releases,
        voluntary=int(released) - known.forced_releases,
        switch_requests=known.switch_requests,
    )


def _asked_by_chosen(process: Process) -> Process:
    """The process with the switch requests of the chosen threads only: hogs are told by whom they kept waiting."""
    if process.chosen is None:
        return process
    kept = process.of_chosen(process.switch_requests)
    stacks = None if process.stacks is None else replace(process.stacks, request=process.stacks.request[kept])
    return replace(process, switch_requests=process.switch_requests[kept], stacks=stacks)


def _thread(known: ThreadSummary, hold_max: int) -> ThreadReport:
    return ThreadReport(
        tid=known.tid,
        name=known.name,
        role=known.role,
        life_ns=known.life_ns,
        holds=known.holds,
        held_ns=known.held_ns,
        hold_max_ns=hold_max,
        waits=known.waits,
        waited_ns=known.waited_ns,
        wait_p50_ns=known.p50_wait_ns,
        wait_p99_ns=known.p99_wait_ns,
        wait_max_ns=known.longest_wait_ns,
        forced=known.forced_releases,
        states_ns={state.label: ns for state, ns in known.states_ns.items()},
        cores=known.cores,
        lost_events=known.lost,
    )
