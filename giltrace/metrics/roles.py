"""The roles of one process from one reading to the next: none has ever less than before, and nothing is there twice."""

from __future__ import annotations

from dataclasses import replace

from giltrace.metrics.reading import Counts, total

#: Of threads that have no name, and of all whose roles find no room.
UNNAMED = "unnamed"
#: A program may give each of its threads a name that no other has. (Of ended threads a tracer keeps fewer apart.)
MOST = 64


class Roles:
    """What each role has counted, of `MOST` roles and the nameless.

    Where a process knows too many roles already, what one more has counted goes to the nameless as its thread ends.
    Who has seen it before leaves it where it was, and takes it off the nameless.
    """

    def __init__(self) -> None:
        self._found: dict[str, Counts] = {}
        self._gone: dict[str, Counts] = {}
        self._said: dict[str, Counts] = {}

    def update(self, found: dict[str, Counts]) -> dict[str, Counts]:
        """Take in what a page says of each role now; returns what is to be said of all that were ever there."""
        fresh = sorted(found.keys() - self._found.keys() - {UNNAMED})
        now = {role: found.get(role, Counts()) for role in (*self._found, *fresh[: MOST - len(self._found)])}
        for role, before in self._found.items():
            if role not in found or _has_less(now[role], before):
                gone = replace(before.since(now[role]), longest_hold_ns=0, longest_wait_ns=0)
                self._gone[role] = self._gone.get(role, Counts()) + gone
        self._found = now
        said = {role: counts + self._gone.get(role, Counts()) for role, counts in now.items()}
        rest = found.keys() - now.keys()
        if rest or UNNAMED in self._said:
            said[UNNAMED] = total(found[role] for role in rest).since(total(self._gone.values()))
        self._said = {role: _no_less(counts, self._said.get(role, Counts())) for role, counts in said.items()}
        return dict(self._said)


def _has_less(now: Counts, before: Counts) -> bool:
    return now.holds < before.holds or now.waits < before.waits or now.blocks < before.blocks


def _no_less(counts: Counts, before: Counts) -> Counts:
    """What is under way may be over since an instant ago, and not be written down as that yet."""
    return replace(
        counts,
        held_ns=max(counts.held_ns, before.held_ns),
        waited_ns=max(counts.waited_ns, before.waited_ns),
        blocked_ns=max(counts.blocked_ns, before.blocked_ns),
    )
