"""What waits for the GIL were lost to, cause by cause, and how much of each the end hung on."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.findings.blocked_loop import Blocked, find_blocked_loop
from giltrace.analysis.findings.figures import TURN_NS, Figures
from giltrace.analysis.findings.long_interval import find_long_interval
from giltrace.analysis.lock_results import OnPath
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.attribution import attribute
from giltrace.analysis.measure.modules import IMPORTING
from giltrace.analysis.measure.stretches import cut_process, stretches
from giltrace.analysis.replay.critical_path import CriticalPath, critical_path, on_path, path_shares
from giltrace.analysis.replay.native_locks import Wakes, native_wakes
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process

#: What the end of a process hung on decides which finding costs most if it is this share of its time at least; else
#: what all threads lost does: its end may have hung on what it is not known to have waited for. Less than that hardly
#: shows in how long the program takes.
PATH_SHARE = 0.1


class Cause(IntEnum):
    """What a wait was lost to. Each ns of a wait has one cause."""

    CONTENTION = 0  #: another thread ran Python code
    CONVOY = 1  #: the same, before one of many short steps
    STARVATION = 2  #: the same, for longer than Python's own switch interval would have let it
    HOG = 3  #: another thread ran C code that did not heed a request
    COLLECTION = 4  #: ... and that collected garbage
    IMPORT = 5  #: another thread imported a module
    HAND_OFFS = 6  #: the rest of another thread's brief turn
    NO_CORE = 7  #: the holder could have gone on, but had no core
    ASLEEP = 8  #: the holder was blocked in the kernel with the GIL
    WAKE_UP = 9  #: nobody held the GIL: the waiter was being woken up


class Costs(NamedTuple):
    """`ns` (int64, shape (waits, causes)) adds up to the waits; `on_path` is the share of each on the critical path."""

    ns: Ints
    on_path: npt.NDArray[np.float64]

    def of_threads(self) -> Ints:
        """What all threads lost to each cause together, in ns."""
        lost: Ints = self.ns.sum(axis=0)
        return lost

    def deciding(self, causes: Sequence[Cause], wall: int) -> Ints:
        """What `of_path` says, if the end hung on these causes for `PATH_SHARE` of the time; else what all lost."""
        path = self.of_path()
        return path if path[list(causes)].sum() >= PATH_SHARE * wall else self.of_threads()

    def of_path(self) -> Ints:
        """How much of it the end hung on, in ns."""
        return (self.on_path @ self.ns).astype(np.int64)


class Costed(Figures):
    """The figures of a process, and what its waits cost: worked out once for all that ask."""

    @cached_property
    def blocked_loop(self) -> Blocked | None:
        """The event loop that was blocked longest."""
        return find_blocked_loop(self)

    @cached_property
    def costs(self) -> Costs:
        """See `find_costs`."""
        return find_costs(self)

    @cached_property
    def path(self) -> CriticalPath:
        """See `critical_path`."""
        return critical_path(self.process, self.native)

    @cached_property
    def on_path(self) -> tuple[OnPath, ...]:
        """See `path_shares`."""
        return path_shares(self.process, self.sites, self.activity, self.block_causes, self.path, self.asleep)

    @cached_property
    def native(self) -> Wakes:
        """See `native_wakes`."""
        return native_wakes(self.calls)


def find_costs(f: Costed) -> Costs:
    """Find the causes of every wait of a process."""
    process, waits = f.process, f.process.waits
    python, in_c, no_core, asleep, free = f.causes.T
    ns = np.zeros((len(waits), len(Cause)), np.int64)
    importing = _import_share(process, waits_ns=usage.lengths(waits) - free)
    ns[:, Cause.IMPORT] = importing * (python + in_c)
    python, in_c = (column - (importing * column).astype(np.int64) for column in (python, in_c))
    ns[:, Cause.COLLECTION] = f.collecting_share * in_c if in_c.any() else 0
    ns[:, Cause.HOG] = in_c - ns[:, Cause.COLLECTION]
    ns[np.arange(len(waits)), _why_python(f)] = python
    ns[:, Cause.NO_CORE], ns[:, Cause.ASLEEP] = no_core, asleep
    ns[:, Cause.WAKE_UP] = free
    # What rounding took from imports was Python.
    ns[:, Cause.CONTENTION] += usage.lengths(waits) - ns.sum(axis=1)
    share = on_path(process, f.path, waits) / np.maximum(usage.lengths(waits), 1)
    return Costs(ns, share)


def _why_python(f: Figures) -> Ints:
    """The cause of each wait as far as another thread ran Python code."""
    waits = f.process.waits
    why: Ints = np.where(usage.lengths(waits) < TURN_NS, np.int64(Cause.HAND_OFFS), np.int64(Cause.CONTENTION))
    caught, _, before_steps = f.convoy
    why[before_steps & np.isin(waits["thread"], caught)] = Cause.CONVOY
    found = find_long_interval(f)
    if found is not None:
        why[found.waits & np.isin(waits["thread"], found.threads)] = Cause.STARVATION
    return why


def _import_share(process: Process, waits_ns: Ints) -> npt.NDArray[np.float64]:
    """The part of each wait, as far as somebody held the GIL, in which that one imported."""
    share = np.zeros(len(waits_ns))
    if process.stacks is None or len(process.stacks.table) == 0 or len(waits_ns) == 0:
        return share
    importing = np.append(process.stacks.table.within(lambda file: file.startswith(IMPORTING)), False)
    if not importing.any():
        return share
    held = stretches(process)
    found = attribute(cut_process(process), np.arange(len(waits_ns)), importing[held.stack].astype(np.int64))
    mine = found.culprit == 1
    share[found.victim[mine]] = found.ns[mine] / np.maximum(waits_ns[found.victim[mine]], 1)
    return np.minimum(share, 1)
