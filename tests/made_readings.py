"""Readings of processes that never were, and what has them for a ledger."""

from __future__ import annotations

from dataclasses import replace

from giltrace.metrics.reading import BUCKETS, CauseReading, Counts, LineReading, ProcessReading, RoleKey, RoleReading

SECOND = 1_000_000_000


def counts(holds: int, *, waits: int = 0, longest: int = 0) -> Counts:
    """Holds of 1 ms each, and waits of 2 ms."""
    lengths = [0] * BUCKETS
    lengths[14] = holds
    waited = [0] * BUCKETS
    waited[15] = waits
    return Counts(
        holds=holds,
        held_ns=holds * 1_000_000,
        waits=waits,
        waited_ns=waits * 2_000_000,
        longest_hold_ns=longest,
        longest_wait_ns=longest,
        hold_lengths=tuple(lengths),
        wait_lengths=tuple(waited),
    )


def line(number: int, ns: int, *, error_ns: int = 0, times: int = 1) -> LineReading:
    """A line of app.py."""
    return LineReading("app.py", number, "work", ns, error_ns, times)


def reading(
    pid: int = 1,
    at: float = 1.0,
    roles: dict[str, Counts] | None = None,
    culprits: tuple[LineReading, ...] = (),
    causes: tuple[CauseReading, ...] = (),
    started: float = 0.5,
    elsewhere: dict[RoleKey, Counts] | None = None,
) -> ProcessReading:
    """A process at an instant (s); each role has one thread, and has used GILs other than the main one `elsewhere`."""
    told = roles if roles is not None else {"MainThread": counts(1)}
    return ProcessReading(
        pid=pid,
        command="python app.py",
        python="3.12.3",
        free_threaded=False,
        started_ns=round(started * SECOND),
        at_ns=round(at * SECOND),
        roles=(
            *(RoleReading(role, 1, one) for role, one in told.items()),
            *(RoleReading(role, 1, one, gil) for (role, gil), one in (elsewhere or {}).items()),
        ),
        threads=(),
        culprits=culprits,
        victims=(),
        blocked=(),
        causes=causes,
    )


def ended(one: ProcessReading) -> ProcessReading:
    """The same, as last words."""
    roles = tuple(replace(role, threads=0) for role in one.roles)
    return replace(one, roles=roles, ended=True)


class MadePages:
    """Says what it was given; what has ended is there until it is forgotten."""

    refused: tuple[str, ...] = ()

    def __init__(self, *readings: ProcessReading) -> None:
        self.readings = readings
        self.forgotten: list[int] = []

    def read(self, *, reset_longest: bool = False) -> tuple[ProcessReading, ...]:
        assert reset_longest
        return self.readings

    def forget(self, pid: int) -> None:
        self.forgotten.append(pid)
        self.readings = tuple(one for one in self.readings if one.pid != pid)
