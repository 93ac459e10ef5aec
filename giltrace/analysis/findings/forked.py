"""Threads that wait while another one starts processes: a fork copies the tables of all memory, with the GIL kept."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.durations import percent
from giltrace.analysis.findings.figures import Figures
from giltrace.analysis.measure.attribution import attribute
from giltrace.analysis.measure.expressions import Expressions
from giltrace.analysis.measure.own_line import of_libraries
from giltrace.analysis.measure.sites import main_place
from giltrace.analysis.measure.stretches import cut_process, stretches
from giltrace.recording.events import StackTable
from giltrace.timeline.axis import Bools

#: It is what threads suffer from where so much of what they waited passed in it.
FORKED_SHARE = 0.5
#: What forks, by the expression at the innermost frame; processes are started by C functions of other names, too.
_FORKS = re.compile(r"(?<![\w.])(?:os\.fork|os\.forkpty|fork|forkpty|_?fork_exec|_posixsubprocess\.fork_exec)\(")
#: Of the standard library, by the file and the function: the source may not be at hand.
_OF_LIBRARY = frozenset({("subprocess.py", "_execute_child"), ("popen_fork.py", "_launch"), ("pty.py", "fork")})


class Forked(NamedTuple):
    """How long threads waited while others forked (`ns`); what to say of it, and what to do."""

    ns: int
    told: str
    advice: str


def forked(f: Figures) -> Forked | None:
    """Did most of what threads waited pass while another one forked?"""
    process = f.process
    if process.stacks is None or not len(process.stacks.table) or not len(process.waits):
        return None
    held = stretches(process)
    forks = _forks(process.stacks.table, held.stack, f.expressions)
    if not forks.any():
        return None
    # A class for what forks at each site, and one for all else.
    sites = f.sites.classify(held.holds["thread"], held.stack)
    mine = np.append(forks, False)[held.stack]
    culprit = np.where(mine, sites.of_row + 1, 0)
    shares = attribute(cut_process(process), np.zeros(len(process.waits), np.int64), culprit)
    ns = np.bincount(shares.culprit, weights=shares.ns, minlength=len(sites.sites) + 1)[1:]
    share = float(ns.sum() / max(int(f.waited.sum()), 1))
    if share < FORKED_SHARE:
        return None
    place = main_place(sites.sites, ns)
    return Forked(
        int(ns.sum()),
        f" {percent(share)} of that passed while {place.thread!r} started processes at {place.where}: the GIL is kept "
        "while the kernel makes one, and copies the tables of all memory for it where it forks.",
        "Start fewer of them, and those while there is little memory: keep a pool. multiprocessing's 'forkserver' "
        "forks a small process instead of this one; subprocess copies nothing from Python 3.10 on, unless preexec_fn "
        "is given.",
    )


def _forks(table: StackTable, used: npt.NDArray[np.int32], expressions: Expressions) -> Bools:
    """Which stacks, of those that are `used`, have a fork at their inner end."""
    library = of_libraries(table)
    found = np.zeros(len(table), np.bool_)
    # Of millions of holds there are few stacks: they are marked, not sorted.
    marked = np.zeros(len(table) + 1, np.bool_)
    marked[used] = True
    for at in np.flatnonzero(marked[:-1]).tolist():
        if table.offsets[at] == table.offsets[at + 1]:
            continue
        inner = table.frames[table.offsets[at]]
        function, file = table.strings[inner["function"]], table.strings[inner["file"]]
        known = file.rpartition("/")[2], function.rpartition(".")[2]
        of_library = bool(library[inner["file"]]) and known in _OF_LIBRARY
        found[at] = of_library or _FORKS.search(expressions.innermost(at)) is not None
    return found
