"""Which metrics there are: a line for each, with its names, its unit, and where its figures come from.

Prometheus and OpenTelemetry each have their own conventions: a name with the unit in it and short labels here, a name
in a namespace and attributes of the semantic conventions there. Seconds, and counts, throughout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import giltrace
from giltrace.metrics.reading import Counts, Histogram, LineReading, ProcessReading, RoleReading
from giltrace.metrics.totals import Totals
from giltrace.text import cut

#: Different programs that are told apart, and characters of their command lines.
MOST_PROGRAMS, _LONGEST_COMMAND = 16, 100


class Kind(Enum):
    """How the figures of a metric behave."""

    COUNTER = "counter"  #: only grows
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Lengths:
    """A histogram: how many were in each bucket of `reading.upper_bounds`, and the sum of all in seconds."""

    buckets: Histogram
    seconds: float


Value = float | Lengths
#: Labels in the order of a family's, and a figure.
Point = tuple[tuple[str, ...], Value]


@dataclass(frozen=True)
class Family:
    """A metric: `name` is Prometheus's, without a counter's ``_total``, `instrument` OpenTelemetry's.

    `labels` are Prometheus's, and `attributes` OpenTelemetry's for the same.
    """

    name: str
    instrument: str
    kind: Kind
    unit: str  #: as UCUM has it: "s", "1", "{hold}"
    help: str
    labels: tuple[str, ...]
    attributes: tuple[str, ...]
    points: Callable[[Totals], Iterable[Point]]


_ROLE = (("role",), ("cpython.thread.role",))
_ROLE_AND_GIL = (("role", "gil"), ("cpython.thread.role", "cpython.gil.number"))
_LINE = (("line", "function"), ("code.file.path", "code.function.name"))
_CAUSE = (("cause",), ("cpython.lock.cause",))
_KIND = (("kind",), ("cpython.gil.line.kind",))
_KINDS = ("culprit", "victim", "sleeper")
_PROGRAM = (
    ("command", "python", "free_threaded"),
    ("process.command_line", "process.runtime.version", "cpython.free_threaded"),
)
_NONE: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


def _of_roles(figure: Callable[[Counts], Value]) -> Callable[[Totals], Iterable[Point]]:
    return lambda totals: [(role.key, figure(role.counts)) for role in totals.roles]


def _of_whole_roles(figure: Callable[[RoleReading], Value]) -> Callable[[Totals], Iterable[Point]]:
    return lambda totals: [((role.role,), figure(role)) for role in totals.whole_roles]


def _of_lines(lines: Callable[[Totals], tuple[LineReading, ...]]) -> Callable[[Totals], Iterable[Point]]:
    def points(totals: Totals) -> Iterable[Point]:
        for line in lines(totals):
            function = f"{line.function} (collecting garbage)" if line.collecting else line.function
            yield (line.place, function), line.ns / 1e9

    return points


def _programs(totals: Totals) -> Iterable[Point]:
    found = Counter(map(_program, totals.processes)).most_common()
    yield from ((labels, float(count)) for labels, count in found[:MOST_PROGRAMS])
    others = sum(count for _, count in found[MOST_PROGRAMS:])
    if others:
        yield ("other", "", ""), float(others)


def _program(reading: ProcessReading) -> tuple[str, str, str]:
    return cut(reading.command, _LONGEST_COMMAND), reading.python, str(reading.free_threaded).lower()


def _counter(name: str, instrument: str, unit: str, text: str, figure: Callable[[Counts], Value]) -> Family:
    return Family(name, instrument, Kind.COUNTER, unit, text, *_ROLE_AND_GIL, _of_roles(figure))


def _lengths(name: str, instrument: str, text: str, figure: Callable[[Counts], Lengths]) -> Family:
    return Family(name, instrument, Kind.HISTOGRAM, "s", text, *_ROLE_AND_GIL, _of_roles(figure))


def _lines(name: str, instrument: str, text: str, lines: Callable[[Totals], tuple[LineReading, ...]]) -> Family:
    return Family(name, instrument, Kind.COUNTER, "s", text, *_LINE, _of_lines(lines))


def _gauge(name: str, instrument: str, unit: str, text: str, figure: Callable[[Totals], float]) -> Family:
    return Family(name, instrument, Kind.GAUGE, unit, text, *_NONE, lambda totals: [((), figure(totals))])


#: A new metric is a line here, and one in docs/metrics.md.
FAMILIES: tuple[Family, ...] = (
    _counter("python_gil_holds", "cpython.gil.holds", "{hold}", "Holds of the GIL that have ended.", lambda c: c.holds),
    _counter(
        "python_gil_held_seconds",
        "cpython.gil.held.time",
        "s",
        "Time that threads of a role had the GIL.",
        lambda c: c.held_ns / 1e9,
    ),
    _counter(
        "python_gil_waits", "cpython.gil.waits", "{wait}", "Waits for the GIL that have ended.", lambda c: c.waits
    ),
    _counter(
        "python_gil_waited_seconds",
        "cpython.gil.waited.time",
        "s",
        "Time that threads of a role wanted the GIL and did not have it.",
        lambda c: c.waited_ns / 1e9,
    ),
    _counter(
        "python_gil_forced_releases",
        "cpython.gil.forced_releases",
        "{release}",
        "Releases of the GIL that another thread's switch request forced.",
        lambda c: c.forced,
    ),
    _counter(
        "python_gil_switch_requests",
        "cpython.gil.switch_requests",
        "{request}",
        "Switch requests: a thread has waited for the GIL for longer than the switch interval.",
        lambda c: c.requests,
    ),
    _lengths(
        "python_gil_hold_seconds",
        "cpython.gil.hold.duration",
        "How long holds of the GIL took.",
        lambda c: Lengths(c.hold_lengths, c.held_ns / 1e9),
    ),
    _lengths(
        "python_gil_wait_seconds",
        "cpython.gil.wait.duration",
        "How long waits for the GIL took.",
        lambda c: Lengths(c.wait_lengths, c.waited_ns / 1e9),
    ),
    Family(
        "python_lock_block_seconds",
        "cpython.lock.block.duration",
        Kind.HISTOGRAM,
        "s",
        "How long threads slept in the interpreter's own locks, each time.",
        *_ROLE,
        _of_whole_roles(lambda role: Lengths(role.counts.block_lengths, role.counts.blocked_ns / 1e9)),
    ),
    Family(
        "python_gil_longest_hold_seconds",
        "cpython.gil.hold.longest",
        Kind.GAUGE,
        "s",
        "The longest hold of the GIL that ended within the last minute.",
        *_ROLE_AND_GIL,
        _of_roles(lambda c: c.longest_hold_ns / 1e9),
    ),
    Family(
        "python_gil_longest_wait_seconds",
        "cpython.gil.wait.longest",
        Kind.GAUGE,
        "s",
        "The longest wait for the GIL that ended within the last minute.",
        *_ROLE_AND_GIL,
        _of_roles(lambda c: c.longest_wait_ns / 1e9),
    ),
    _gauge(
        "python_gil_busiest_ratio",
        "cpython.gil.busiest.utilization",
        "1",
        "Share of the last minute that a GIL was held, of the one where that is greatest.",
        lambda totals: totals.busiest,
    ),
    Family(
        "python_lock_blocked_seconds",
        "cpython.lock.blocked.time",
        Kind.COUNTER,
        "s",
        "Time that threads slept in the interpreter's own locks, by what they waited for.",
        *_CAUSE,
        lambda totals: [((cause.cause,), cause.blocked_ns / 1e9) for cause in totals.causes],
    ),
    Family(
        "python_lock_blocks",
        "cpython.lock.blocks",
        Kind.COUNTER,
        "{block}",
        "Sleeps in the interpreter's own locks, by what was waited for.",
        *_CAUSE,
        lambda totals: [((cause.cause,), float(cause.blocks)) for cause in totals.causes],
    ),
    _lines(
        "python_gil_culprit_seconds",
        "cpython.gil.culprit.time",
        "Time that a line had the GIL while others waited for it, sampled; the costliest lines only.",
        lambda totals: totals.culprits,
    ),
    _lines(
        "python_gil_victim_seconds",
        "cpython.gil.victim.time",
        "Time that a line waited for the GIL; the costliest lines only.",
        lambda totals: totals.victims,
    ),
    _lines(
        "python_lock_sleeper_seconds",
        "cpython.lock.sleeper.time",
        "Time that a line slept in the interpreter's own locks; the costliest lines only.",
        lambda totals: totals.blocked,
    ),
    Family(
        "python_gil_threads",
        "cpython.gil.threads",
        Kind.GAUGE,
        "{thread}",
        "Threads of a role that live and have used the GIL.",
        *_ROLE,
        _of_whole_roles(lambda role: float(role.threads)),
    ),
    Family(
        "python_gil_processes",
        "cpython.gil.processes",
        Kind.GAUGE,
        "{process}",
        "Processes that live and are counted, by what they run.",
        *_PROGRAM,
        _programs,
    ),
    Family(
        "python_gil_ended_processes",
        "cpython.gil.ended_processes",
        Kind.COUNTER,
        "{process}",
        "Processes that were counted and have ended.",
        *_NONE,
        lambda totals: [((), float(totals.ended))],
    ),
    Family(
        "python_gil_uncounted_threads",
        "cpython.gil.uncounted_threads",
        Kind.COUNTER,
        "{thread}",
        "Threads that found no room to count in: all figures are without them.",
        *_NONE,
        lambda totals: [((), float(totals.lost))],
    ),
    Family(
        "python_gil_unnamed_seconds",
        "cpython.gil.unnamed.time",
        Kind.COUNTER,
        "s",
        "Time that is missing from the lines of a kind: two threads had something to tell at the same instant.",
        *_KIND,
        lambda totals: [((kind,), ns / 1e9) for kind, ns in zip(_KINDS, totals.unnamed_ns, strict=True)],
    ),
    Family(
        "giltrace_info",
        "giltrace.info",
        Kind.GAUGE,
        "1",
        "The giltrace that counts.",
        ("version",),
        ("giltrace.version",),
        lambda totals: [((giltrace.__version__,), 1.0)],
    ),
)


def attributes(family: Family, labels: tuple[str, ...]) -> Mapping[str, str | int | bool]:
    """The attributes that OpenTelemetry knows a point by."""
    told: dict[str, str | int | bool] = dict(zip(family.attributes, labels, strict=True))
    if "code.file.path" in told:
        path, _, number = str(told["code.file.path"]).rpartition(":")
        if path:
            told |= {"code.file.path": path, "code.line.number": int(number)}
    if "cpython.free_threaded" in told:
        told["cpython.free_threaded"] = told["cpython.free_threaded"] == "true"
    return told
