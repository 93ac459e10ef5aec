"""Limits on what a recording may show, for continuous integration: each rule passes or fails with its figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from giltrace.analysis.findings.verdict import KINDS, judge
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.roles import roles
from giltrace.errors import UsageError
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Array, Process, Timeline

#: The version of `giltrace check --json`: fields are added under it, never renamed or removed.
SCHEMA = "giltrace-check-1"

Unit = Literal["ns", "share", "count", "verdict"]


@dataclass(frozen=True)
class Rule:
    """One limit: `name` is a key of `LIMITS` with a number (ns, share of 1 or count), or "verdict" or "verdict-not"
    with kinds of verdict, one of which every process must have, or none may have.
    """

    name: str
    limit: float | tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one rule: `measured` is the worst figure found, at `where`; None if nothing was measured."""

    rule: str
    passed: bool
    measured: float | str | None
    limit: float | tuple[str, ...]
    unit: Unit
    where: str


@dataclass(frozen=True)
class CheckResult:
    """All outcomes, in the order of the rules; `lost` is how many events of the recording could not be stored, and
    `damage` says in words what of it could not be read. `part` says which part of the recording was checked.
    """

    schema: str
    passed: bool
    outcomes: tuple[Outcome, ...]
    lost: int
    damage: tuple[str, ...] = ()
    part: tuple[str, ...] = ()


class _Chosen(NamedTuple):
    """A process and each thread's role."""

    process: Process
    roles: tuple[str, ...]


class _Figure(NamedTuple):
    value: float
    where: str


def check(timeline: Timeline, rules: Sequence[Rule]) -> CheckResult:
    """Hold a timeline, or the part of one that `analysis.selection` chose, against `rules`.

    Waits, holds and shares are those of the chosen threads; a verdict is of a whole process, lost events are of the
    whole recording. A limit on times fails if nothing was measured, for then nothing is known. Raises `UsageError` if a
    rule does not exist, there is none, or there is no process.
    """
    if not rules:
        raise UsageError("nothing to check", "give at least one rule, such as --max-wait-p99 10ms; see --help")
    if not timeline.processes:
        raise UsageError("no process in the recording", "there is nothing to check")
    chosen = [_Chosen(one, tuple(roles(one))) for one in timeline.processes]
    outcomes = tuple(_outcome(rule, timeline, chosen) for rule in rules)
    passed = all(outcome.passed for outcome in outcomes)
    return CheckResult(SCHEMA, passed, outcomes, timeline.lost, timeline.damage, timeline.part)


def _outcome(rule: Rule, timeline: Timeline, chosen: Sequence[_Chosen]) -> Outcome:
    if isinstance(rule.limit, tuple):
        return _verdict_outcome(rule.name, rule.limit, chosen)
    if rule.name == "max-lost":
        return Outcome(rule.name, timeline.lost <= rule.limit, timeline.lost, rule.limit, "count", "the recording")
    if rule.name not in LIMITS:
        raise UsageError(f"there is no rule {rule.name!r}", f"there are: {', '.join([*LIMITS, 'max-lost'])}")
    unit, figures = LIMITS[rule.name]
    if not any(_measured(one.process) for one in chosen):
        why = "; ".join(sorted({one.process.note for one in chosen} - {""}))
        return Outcome(rule.name, False, None, rule.limit, unit, why or "no use of a GIL is on record")
    several = len(timeline.processes) > 1
    worst = _Figure(0, "")
    for one in chosen:
        for figure in figures(one):
            if figure.value > worst.value:
                worst = figure._replace(where=f"{figure.where}, process {one.process.pid}" if several else figure.where)
    return Outcome(rule.name, worst.value <= rule.limit, worst.value, rule.limit, unit, worst.where)


def _measured(process: Process) -> bool:
    """Whether its use of a GIL is known: on record, or impossible as in a free-threaded build."""
    return len(process.holds) > 0 or judge(process).kind == "free-threaded"


def _verdict_outcome(name: str, kinds: tuple[str, ...], chosen: Sequence[_Chosen]) -> Outcome:
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise UsageError(f"there is no verdict {unknown[0]!r}", f"there are: {', '.join(KINDS)}")
    found = [(judge(one.process).kind, one.process.pid) for one in chosen]
    wrong = [(kind, pid) for kind, pid in found if (kind in kinds) == (name == "verdict-not")]
    shown = wrong or found
    told = dict.fromkeys(kind for kind, _ in shown)
    where = ", ".join(str(pid) for _, pid in shown)
    return Outcome(name, not wrong, ", ".join(told), kinds, "verdict", f"process {where}")


def _rows(one: _Chosen, rows: Array) -> Array:
    chosen: Array = rows if one.process.chosen is None else rows[one.process.of_chosen(rows)]
    return chosen


def _by_role(one: _Chosen) -> tuple[list[str], Ints]:
    """The roles of a process, and for each thread the index of its own."""
    distinct = list(dict.fromkeys(one.roles))
    number = {role: at for at, role in enumerate(distinct)}
    return distinct, np.array([number[role] for role in one.roles], np.int64)


def _wait_p99(one: _Chosen) -> Iterator[_Figure]:
    waits = _rows(one, one.process.waits)
    distinct, role = _by_role(one)
    length = usage.lengths(waits)
    order = np.lexsort((length, role[waits["thread"]]))
    length = length[order]
    count = np.bincount(role[waits["thread"]], minlength=len(distinct))
    last = np.cumsum(count)
    for at in np.flatnonzero(count).tolist():
        # The nearest rank from above, as in the report: of up to 100 waits, the longest.
        rank = last[at] - count[at] + (99 * int(count[at]) + 99) // 100 - 1
        yield _Figure(int(length[rank]), distinct[at])


def _wait_share(one: _Chosen) -> Iterator[_Figure]:
    process = one.process
    distinct, role = _by_role(one)
    lives = usage.lives(process)
    of = process.chosen_threads
    waited = np.bincount(role[of], usage.sum_by_thread(process, process.waits)[of], len(distinct))
    lived = np.bincount(role[of], lives[of], len(distinct))
    for at in np.flatnonzero(lived > 0).tolist():
        yield _Figure(float(waited[at] / lived[at]), distinct[at])


def _longest(one: _Chosen, rows: Array) -> Iterator[_Figure]:
    rows = _rows(one, rows)
    if len(rows):
        length = usage.lengths(rows)
        worst = int(length.argmax())
        yield _Figure(int(length[worst]), _name(one.process, int(rows["thread"][worst])))


def _longest_wait(one: _Chosen) -> Iterator[_Figure]:
    return _longest(one, one.process.waits)


def _longest_hold(one: _Chosen) -> Iterator[_Figure]:
    return _longest(one, one.process.holds)


def _longest_overstay(one: _Chosen) -> Iterator[_Figure]:
    over = usage.overstays(one.process, 1)
    holds = one.process.holds[over.hold]
    thread, length = holds["thread"], np.where(one.process.of_chosen(holds), over.length, 0)
    if len(length):
        worst = int(length.argmax())
        yield _Figure(int(length[worst]), _name(one.process, int(thread[worst])))


def _name(process: Process, thread: int) -> str:
    known = process.threads[thread]
    return known.name or f"tid {known.tid}"


#: The limits on figures of threads: their unit, and what yields a process's figures, the largest of which counts.
#: The 99th percentile and the share are per role (threads whose names differ in their number), all its waits together.
LIMITS: dict[str, tuple[Unit, Callable[[_Chosen], Iterator[_Figure]]]] = {
    "max-wait": ("ns", _longest_wait),
    "max-wait-p99": ("ns", _wait_p99),
    "max-wait-share": ("share", _wait_share),
    "max-hold": ("ns", _longest_hold),
    "max-overstay": ("ns", _longest_overstay),
}
