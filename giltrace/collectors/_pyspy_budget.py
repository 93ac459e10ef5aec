"""What py-spy may cost: a share of the CPU time that the recorded processes take themselves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from giltrace.process.stat import stat_fields

#: py-spy may use this share of the processes' CPU time, or so many seconds if that is more.
SHARE = 0.1
LEAST_SECONDS = 0.5

#: All but the first process are sampled once they have taken so much CPU time: ten times what starting py-spy takes.
WORTH_SECONDS = 0.2
_START_SECONDS = 0.02

#: What a sample takes: 2.5 % of a core at 100 Hz, for a process with few threads.
_SAMPLE_SECONDS = 0.00025
#: The rate is divided by these, one after the other, where sampling had to be ended.
_SLOWER = (1, 5, 20)

_LOOK_NS = 250_000_000
_TICKS = os.sysconf("SC_CLK_TCK")


class Budget:
    """Keeps the account. All times of processes are CPU seconds since they were first seen."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._first: dict[int, float] = {}
        self._taken: dict[int, float] = {}
        self._share: dict[int, float] = {}
        self._spent = 0.0
        self._looked = 0

    def look(self, now: int, targets: Iterable[int], samplers: Mapping[int, int], finished: float) -> list[int]:
        """See, if it is time (`now`, in ns), what each of the processes `targets` has taken.

        `samplers` has the id of the py-spy at work on each, `finished` is what those before have spent. Returns the
        processes whose sampling should end, those with the most samples for the least work.
        """
        if now - self._looked < _LOOK_NS:
            return []
        seconds, self._looked = (now - self._looked) / 1e9, now
        for pid in targets:
            cpu = cpu_seconds(pid)
            if cpu is not None:
                taken = cpu - self._first.setdefault(pid, cpu)
                self._share[pid] = (taken - self._taken.get(pid, 0.0)) / seconds
                self._taken[pid] = taken
        spending = {pid: cpu_seconds(sampler) or 0.0 for pid, sampler in samplers.items()}
        self._spent = finished + sum(spending.values())
        if self._spent <= self.allowed:
            return []
        return sorted(spending, key=lambda pid: self._share.get(pid, 0.0))[: (len(spending) + 1) // 2]

    @property
    def allowed(self) -> float:
        """The seconds of CPU time that py-spy may have used by now."""
        return max(LEAST_SECONDS, SHARE * sum(self._taken.values()))

    def is_worth(self, pid: int) -> bool:
        """Whether a process has done enough for py-spy to be started on it."""
        return self._taken.get(pid, 0.0) >= WORTH_SECONDS

    def has_room(self) -> bool:
        """Whether another py-spy may be started."""
        return self._spent + _START_SECONDS <= self.allowed

    def rate(self, pid: int, ended: int) -> int:
        """The samples per second for a process whose sampling was `ended` so often: what its present work pays for."""
        rates = [self._rate // by for by in _SLOWER[min(ended, len(_SLOWER) - 1) :]]
        if not ended:
            return rates[0]
        return next((r for r in rates if r * _SAMPLE_SECONDS <= SHARE * self._share.get(pid, 0.0)), rates[-1])


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time that process `pid` has taken, in seconds; None if it is gone."""
    try:
        fields = stat_fields(pid)
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS
