"""The threads of a process as rows, those that used the GIL most first: of many threads those of a role share one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from giltrace.analysis.summary import ThreadSummary
from giltrace.timeline.model import State, Thread

if TYPE_CHECKING:
    from giltrace.analysis.results import ThreadReport

#: Of more threads than this, those of a role share a row.
MOST_SINGLE = 12


class ThreadRow(NamedTuple):
    """What one thread, or several together, did; times in ns, and what is not known is None."""

    name: str
    threads: tuple[ThreadSummary, ...]

    @property
    def use_ns(self) -> int:
        """How long they held or wanted the GIL."""
        return self.held_ns + self.waited_ns

    @property
    def life_ns(self) -> int:
        """How long they lived, all lives together."""
        return sum(one.life_ns for one in self.threads)

    @property
    def holds(self) -> int:
        """How often they held the GIL."""
        return sum(one.holds for one in self.threads)

    @property
    def held_ns(self) -> int:
        """How long they held it."""
        return sum(one.held_ns for one in self.threads)

    @property
    def waits(self) -> int:
        """How often they waited for it."""
        return sum(one.waits for one in self.threads)

    @property
    def waited_ns(self) -> int:
        """How long they waited."""
        return sum(one.waited_ns for one in self.threads)

    @property
    def longest_wait_ns(self) -> int | None:
        """The longest wait, None if they never waited."""
        return max((one.longest_wait_ns for one in self.threads if one.waits), default=None)

    @property
    def forced(self) -> int:
        """How often they gave the GIL up because they were asked to."""
        return sum(one.forced_releases for one in self.threads)

    @property
    def states_ns(self) -> dict[State, int]:
        """How long they were in each state; empty without scheduling data."""
        known = [one.states_ns for one in self.threads if one.states_ns]
        return {state: sum(one[state] for one in known) for state in State} if known else {}

    @property
    def cores(self) -> list[int]:
        """Which cores they ran on."""
        return sorted({core for one in self.threads for core in one.cores})


def thread_rows(threads: Sequence[ThreadSummary], *, single: bool = False) -> list[ThreadRow]:
    """The rows, by use of the GIL; each thread has its own if there are few, or if each is to be `single`."""
    return sorted(_rows(threads, single or len(threads) <= MOST_SINGLE), key=lambda row: -row.use_ns)


def _rows(threads: Sequence[ThreadSummary], single: bool) -> list[ThreadRow]:
    if single:
        return [ThreadRow(thread_name(one), (one,)) for one in threads]
    by_role = defaultdict[str, list[ThreadSummary]](list)
    for one in threads:
        by_role[one.role or one.name].append(one)
    return [
        ThreadRow(f"{role} ({len(those)})" if len(those) > 1 else thread_name(those[0]), tuple(those))
        for role, those in by_role.items()
    ]


def thread_name(thread: ThreadSummary | Thread) -> str:
    """What people call a thread: by its id, if it has no name."""
    return thread.name or f"tid {thread.tid}"


def busiest(threads: Sequence[ThreadSummary | ThreadReport], most: int) -> list[int]:
    """The places of so many threads that used the GIL most, in the order that they are in."""
    use = [-(thread.held_ns + thread.waited_ns) for thread in threads]
    return sorted(sorted(range(len(use)), key=use.__getitem__)[:most])


def as_summary(thread: ThreadReport) -> ThreadSummary:
    """The thread of a report as a summary has it."""
    life = max(thread.life_ns, 1)
    states = {state: thread.states_ns[state.label] for state in State} if thread.states_ns else {}
    return ThreadSummary(
        tid=thread.tid,
        name=thread.name,
        life_ns=thread.life_ns,
        holds=thread.holds,
        held_ns=thread.held_ns,
        held_share=thread.held_ns / life,
        waits=thread.waits,
        waited_ns=thread.waited_ns,
        waited_share=thread.waited_ns / life,
        longest_wait_ns=thread.wait_max_ns,
        p50_wait_ns=thread.wait_p50_ns,
        p99_wait_ns=thread.wait_p99_ns,
        forced_releases=thread.forced,
        off_gil_ns=max(thread.life_ns - thread.held_ns - thread.waited_ns, 0),
        off_running_ns=states.get(State.OFF_RUNNING),
        off_runnable_ns=states.get(State.OFF_RUNNABLE),
        off_blocked_ns=states.get(State.OFF_BLOCKED),
        cores=thread.cores,
        states_ns=states,
        lost=thread.lost_events,
        role=thread.role,
    )
