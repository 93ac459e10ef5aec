"""What all processes counted together, those that have ended too: what every export tells."""

from __future__ import annotations

from dataclasses import dataclass, replace

from giltrace.metrics.reading import CauseReading, Counts, LineReading, ProcessReading, RoleReading, Unnamed, total

#: The longest waits and holds that are told are those of the last so many nanoseconds, however often somebody asks.
RECENT_NS = 60_000_000_000


@dataclass(frozen=True)
class Totals:
    """The sums at one instant. Their counts only ever grow from one to the next, whatever processes come and go.

    `processes` are those that live. The longest hold and wait in a role's counts are those of the last minute
    (`RECENT_NS`), and so is the `busiest` share: of the time that a GIL was held, the greatest of all.
    """

    started_ns: int  #: of CLOCK_MONOTONIC: when the first of them began to count
    at_ns: int  #: of CLOCK_MONOTONIC
    processes: tuple[ProcessReading, ...]
    roles: tuple[RoleReading, ...]
    culprits: tuple[LineReading, ...]
    victims: tuple[LineReading, ...]
    blocked: tuple[LineReading, ...]
    causes: tuple[CauseReading, ...]
    busiest: float = 0.0
    ended: int = 0  #: processes
    lost: int = 0  #: threads that found no room to count in
    unnamed_ns: Unnamed = (0, 0, 0)
    refused: tuple[str, ...] = ()  #: why the counts of some processes are not among these

    @property
    def counts(self) -> Counts:
        """Of all threads together."""
        return total(role.counts for role in self.roles)

    @property
    def whole_roles(self) -> tuple[RoleReading, ...]:
        """The roles, each with all that its threads did with whichever GIL."""
        together: dict[str, RoleReading] = {}
        for role in self.roles:
            before = together.get(role.role, RoleReading(role.role, 0, Counts()))
            threads, counts = before.threads + role.threads, before.counts + role.counts
            together[role.role] = RoleReading(role.role, threads, counts)
        return tuple(together.values())

    def since(self, before: Totals | None) -> Totals:
        """What was added since another one; all there is where there is none before. What is longest stays as it is."""
        if before is None:
            return self
        roles = {role.key: role.counts for role in before.roles}
        return replace(
            self,
            started_ns=before.at_ns,
            roles=tuple(replace(role, counts=role.counts.since(roles.get(role.key, Counts()))) for role in self.roles),
            culprits=_lines_since(self.culprits, before.culprits),
            victims=_lines_since(self.victims, before.victims),
            blocked=_lines_since(self.blocked, before.blocked),
            causes=_causes_since(self.causes, before.causes),
            ended=self.ended - before.ended,
            lost=self.lost - before.lost,
            unnamed_ns=added(self.unnamed_ns, before.unnamed_ns),
        )


def added(now: Unnamed, before: Unnamed) -> Unnamed:
    """What was added, and no less than nothing."""
    culprits, victims, sleepers = (max(one - other, 0) for one, other in zip(now, before, strict=True))
    return culprits, victims, sleepers


def _lines_since(lines: tuple[LineReading, ...], before: tuple[LineReading, ...]) -> tuple[LineReading, ...]:
    """Those that have more than before, the costliest first."""
    known = {line.key: line for line in before}
    found = []
    for line in lines:
        was = known.get(line.key)
        # One that made room and came back begins where the one that it took the room of had ended.
        ns, times = (line.ns - line.error_ns, 0) if was is None else (line.ns - was.ns, was.times)
        if was is not None and was.error_ns != line.error_ns:
            ns, times = line.ns - line.error_ns, 0
        if ns > 0:
            found.append(replace(line, ns=ns, times=max(line.times - times, 0), error_ns=0))
    return tuple(sorted(found, key=lambda one: -one.ns))


def _causes_since(causes: tuple[CauseReading, ...], before: tuple[CauseReading, ...]) -> tuple[CauseReading, ...]:
    known = {cause.cause: cause for cause in before}
    nothing = CauseReading("", 0, 0, 0)
    return tuple(
        replace(cause, blocks=cause.blocks - was.blocks, blocked_ns=cause.blocked_ns - was.blocked_ns)
        for cause in causes
        if (was := known.get(cause.cause, nothing)) is not None
    )
