"""The verdict on one process: the finding that costs most, or what its threads were limited by instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.blocked_loop import blocked_beside, blocked_loop
from giltrace.analysis.findings.bottleneck import bottleneck
from giltrace.analysis.findings.contention import contended, contention
from giltrace.analysis.findings.convoy import convoy
from giltrace.analysis.findings.costs import Cause, Costed
from giltrace.analysis.findings.deadlock import deadlock
from giltrace.analysis.findings.figures import QUIET_SHARE, Figures
from giltrace.analysis.findings.hogs import asleep, asleep_unasked, collection, hog
from giltrace.analysis.findings.imports import imports
from giltrace.analysis.findings.io_bound import io_bound, one_line
from giltrace.analysis.findings.locks import lock_beside, lock_bound, stop_the_world
from giltrace.analysis.findings.long_interval import long_interval, nobody_asked
from giltrace.analysis.findings.parallel import interpreters, parallel
from giltrace.analysis.findings.serial import serial
from giltrace.analysis.findings.short_interval import short_interval
from giltrace.analysis.findings.single import single
from giltrace.analysis.findings.unused import free_threaded, gil_is_on, idle, not_recorded
from giltrace.timeline.model import Process

Rule = Callable[[Costed], Verdict | None]

#: Nothing that is said of waits makes sense of such processes.
_BEFORE: tuple[Rule, ...] = (deadlock, stop_the_world, lock_bound, free_threaded, not_recorded, idle)
#: What threads can lose to the GIL beside plain contention, by what it is lost to.
_FINDINGS: tuple[tuple[Cause, Rule], ...] = (
    (Cause.HOG, hog),
    (Cause.COLLECTION, collection),
    (Cause.ASLEEP, asleep),
    (Cause.STARVATION, long_interval),
    (Cause.CONVOY, convoy),
)
#: What a process is like if none of these costs it most.
_AFTER: tuple[Rule, ...] = (serial, parallel, contended, asleep_unasked, blocked_loop, interpreters, single)


def judge(process: Process, figures: Costed | None = None) -> Verdict:
    """Judge one process, by its `figures` where there are some.

    1. *deadlock*: threads waited for each other in a circle. *stop-the-world*, *lock-bound*: they waited for each
       other in the interpreter's locks, for much of the time and more than for the GIL. *free-threaded*: the
       interpreter was built without a GIL, and none was used.
    2. *not-recorded*: no use of a GIL is on record, so nothing can be said.
    3. *idle*: its threads hardly ran (`unused`) and nobody waited. *io-bound-handoff*: they did not, and an event
       loop was blocked by what it ran for much of the time (`blocked_loop`).
    4. *single-threaded*: one thread has the GIL nearly all the time, and the others serve it (`bottleneck`).
    5. The finding that costs most (`_costliest`), if there is one: *hog* (also collections of garbage), *convoy* (also
       starvation by a long switch interval), *cpu-bound-contention* for imports. Or *lock-bound* for less of the time
       than in 1, where locks cost more than all of them: one collection as a program ends is not what it suffers from.
    6. *single-threaded*: native code off the GIL let one thread in at a time (`serial`).
    7. *parallel*: threads ran off the GIL about as long as it was held, on more than one core at once (`parallel`).
    8. *cpu-bound-contention*: two or more threads wanted the GIL most of the time (`contention`). *hog*: somebody
       waited for much of the time for threads that slept with the GIL (`asleep_unasked`). *io-bound-handoff*: an event
       loop was blocked (`blocked_loop`).
    9. *parallel*: several GILs were held at once.
    10. *single-threaded*: one thread had nearly all of the held time, or several had it in turns with hardly a break,
        and hardly anyone waited (`single`).
    11. *io-bound-handoff* where the end hung on one line that sleeps (`one_line`), or the rest is left and waits are
        few or brief, *cpu-bound-contention* where they are not.

    Whatever it is, a long switch interval that made waits longer is named beside it (`nobody_asked`), and a short one
    that made threads pass the GIL on so often that it shows (`short_interval`).

    A wait counts for 8 to 11 as long as another thread ran with the GIL: while nobody holds it, or its holder has no
    core, threads do not compete for it.
    """
    figures = figures or Costed(process)
    verdict = _judged(figures)
    beside = gil_is_on(figures)
    # An idle process is told of it anyway.
    if verdict.kind in ("lock-bound", "single-threaded", "io-bound-handoff") and "blocked_ns" not in verdict.evidence:
        beside += blocked_beside(figures)
    if "switch_interval_ns" not in verdict.evidence:
        beside += nobody_asked(figures)
        short = short_interval(figures)
        if short is not None:
            beside += short.advice
            verdict = replace(verdict, evidence={**verdict.evidence, **short.evidence})
    return replace(verdict, advice=verdict.advice + beside) if beside else verdict


def _judged(figures: Costed) -> Verdict:
    for rule in _BEFORE:
        verdict = rule(figures)
        if verdict is not None:
            return verdict
    alone = bottleneck(figures)
    if alone is not None:
        return alone
    found = [(cause, verdict) for cause, rule in _FINDINGS if (verdict := rule(figures)) is not None]
    if not found and not _waits_much(figures):
        return _otherwise(figures)
    brought_in = imports(figures)
    if brought_in is not None:
        found.append((Cause.IMPORT, brought_in))
    return (lock_beside(figures) if found else None) or _costliest(figures, found)


def _waits_much(f: Figures) -> bool:
    return f.competed_share > QUIET_SHARE


def _costliest(f: Costed, found: list[tuple[Cause, Verdict]]) -> Verdict:
    """The verdict of the finding that costs most, or of plain contention if that costs more than any of them."""
    if not found:
        return _otherwise(f)
    ns = f.costs.deciding([Cause.CONTENTION, *(cause for cause, _ in found)], f.wall)
    cause, verdict = max(found, key=lambda one: int(ns[one[0]]))
    if ns[Cause.CONTENTION] > ns[cause]:
        plain = _otherwise(f)
        if plain.kind == "cpu-bound-contention":
            return plain
    return verdict


def _otherwise(f: Costed) -> Verdict:
    for rule in _AFTER:
        verdict = rule(f)
        if verdict is not None:
            return verdict
    return one_line(f) or (contention(f) if f.lasting_share > QUIET_SHARE else io_bound(f))
