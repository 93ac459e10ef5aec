"""What the workers of a fleet lost together: to whom, at which kind of task, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.measure.tasks import TaskTables
from giltrace.analysis.results import ProcessReport
from giltrace.analysis.task_results import GIL, Fleet, TaskBlame, WorkerReport
from giltrace.timeline.model import Timeline

#: Tasks that lost less than this share of their time are told to be well.
LEAST_SHARE = 0.05

#: How tasks are kept apart, and what helps where their worker keeps them waiting, by the scheduler.
_APART = {
    "dask": "workers of one thread each (threads_per_worker=1, or dask worker --nthreads 1), or keep them apart by "
    "resources=",
    "ray": "actors without max_concurrency, and one actor for each",
}
_BESIDE_TASKS = {
    "dask": "The worker's own loop kept the GIL: send fewer, larger tasks.",
    "ray": "Threads beside the tasks kept the GIL: let a task of its own do what they do, in another process.",
}


def find_fleet(timeline: Timeline, processes: Sequence[ProcessReport], tasks: TaskTables) -> Fleet | None:
    """What is to be said of a recording of several machines, whose `processes` are in the timeline's order; else None.

    `tasks` are those of all.
    """
    if not timeline.hosts:
        return None
    workers = []
    for process, report in zip(timeline.processes, processes, strict=True):
        member = process.member
        if member is None or not member.worker:
            continue
        host = timeline.hosts[member.host]
        own = [row for row in report.tasks if row.prefix]
        beside = sum(row.waited_ns for row in report.tasks if not row.prefix)
        workers.append(
            WorkerReport(
                worker=member.worker,
                address=member.address,
                host=host.name,
                pid=process.pid,
                own_pid=member.pid,
                clock_offset_ns=host.offset_ns,
                clock_error_ns=host.error_ns,
                duration_ns=report.duration_ns,
                tasks=sum(row.tasks for row in own),
                task_ns=sum(row.ns for row in own),
                held_ns=sum(gil.held_ns for gil in report.gils),
                waited_ns=sum(row.waited_ns for row in own),
                blocked_ns=sum(row.blocked_ns for row in own),
                own_waited_ns=beside if report.tasks else sum(thread.waited_ns for thread in report.threads),
            )
        )
    return Fleet(*what_tasks_lost(tasks, len(workers)), tuple(workers))


def what_tasks_lost(tasks: TaskTables, workers: int) -> tuple[str, str]:
    """The kind of task that lost most, to whom and where; and what to do about it, in their scheduler's terms."""
    lost = Counter[tuple[str, bool]]()
    for row in tasks.blame:
        if row.prefix:
            lost[row.prefix, row.cause == GIL] += row.ns
    of_tasks = {row.prefix: row for row in tasks.prefixes}
    (prefix, by_gil), _ = lost.most_common(1)[0] if lost else (("", True), 0)
    told = of_tasks.get(prefix)
    total = (told.waited_ns if by_gil else told.blocked_ns) if told is not None else 0
    if told is None or not prefix or total < LEAST_SHARE * told.ns:
        most = percent(LEAST_SHARE)
        return f"No kind of task lost more than {most} of its time to the GIL or to locks.", ""
    rows = [row for row in tasks.blame if row.prefix == prefix and (row.cause == GIL) == by_gil]
    culprit, ns = _most(rows)
    row = max((row for row in rows if row.culprit_prefix == culprit), key=lambda one: one.ns)
    what = "waiting for the GIL" if by_gil else "asleep in locks"
    summary = (
        f"Tasks '{prefix}' lost {duration(total)} of their {duration(told.ns)} ({percent(total / told.ns)}) {what}"
    )
    if row.culprit is not None:
        did = "held it" if by_gil else "had them"
        who = f"tasks '{culprit}'" if culprit else "the worker itself"
        summary += f", {percent(min(ns / total, 1))} of that while {who} {did}"
        summary += f", most at {row.culprit.where}" if row.culprit.where else ""
    summary += f", on {row.processes} of {workers} workers."
    return summary, _advice(prefix, culprit, by_gil, tasks.scheduler)


def _most(rows: Sequence[TaskBlame]) -> tuple[str, int]:
    by = Counter[str]()
    for row in rows:
        by[row.culprit_prefix] += row.ns
    return by.most_common(1)[0]


def _advice(prefix: str, culprit: str, by_gil: bool, scheduler: str) -> str:
    if not by_gil:
        return f"See whether '{prefix}' needs that lock for so long, or can do with one of its own for each task."
    if not culprit:
        return _BESIDE_TASKS[scheduler]
    pair = f"'{prefix}' and '{culprit}'" if culprit != prefix else f"tasks '{prefix}'"
    return f"Run {pair} in processes of their own: {_APART[scheduler]}."
