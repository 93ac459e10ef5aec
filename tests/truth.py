"""The truths that a workload's docstring states, and whether a recording of it shows them.

A truth is one line, ``Truth: METRIC OP VALUE`` or ``Truth: METRIC(THREADS) OP VALUE``. OP is one of ``= >= <= > <``.
THREADS is a shell pattern of thread names; without it a metric speaks of all worker threads: those that are not a
process's main thread, or that one where it is the only one. The metrics, computed here from the bare timeline (but
for the verdict and the cause) so that they check the analyses instead of repeating them:

====================  ============================================================================================
verdict               the kind of verdict on the process that held its GIL the longest
held_share            time that the GIL is held while any of the threads lives / that time, over all processes
wait_share            time spent waiting / life of the threads
blocked_share         time off-GIL and blocked / life of the threads; needs scheduling data
holds, waits          how many there are, of all the threads together
forced                how many holds ended by force
switch_requests       how often they asked for the GIL to be dropped
switch_interval_ms    the switch interval while they waited, the median
handoffs              how often a hold follows one by a different thread, over all GILs
longest_hold_ms       the longest hold
longest_wait_ms       the longest wait
median_wait_ms        the median of the waits that there were
low_wait_ms           their tenth percentile: what a wait takes that needs not wait for a core as well
gils_at_once          held time of all GILs / time during which at least one is held
processes             how many processes have a GIL
cores                 running time of all threads / length of the recording; needs scheduling data
blocks                how many blocks in locks there are, of all the threads together
lock_share            time in them / life of the threads
woken_share           how many of them ended by a wake whose thread is known / how many there are
median_block_ms       the median of their lengths
cause                 what the threads were blocked by for the longest (a `BlockCause`)
off_running_cores     time off-GIL and running / length of the recording; needs scheduling data
off_ready_share       time off-GIL and running, or ready to if there were a core / life of the threads; needs the same
====================  ============================================================================================

A truth holds on a busy machine too, where threads also wait for a core: its bounds leave room for that.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.kinds import KINDS
from giltrace.analysis.measure.block_causes import BlockCause, block_causes
from giltrace.analysis.measure.usage import switch_interval
from giltrace.timeline.model import Array, Flag, Process, State, Timeline

_LINE = re.compile(r"^Truth: (?P<metric>[a-z_]+)(?:\((?P<threads>[^)]+)\))? (?P<op>>=|<=|=|>|<) (?P<value>\S+)$", re.M)
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_MS = 1e6
#: What is told in words, and which there are.
_WORDS = {"verdict": KINDS, "cause": tuple(cause.label for cause in BlockCause)}


@dataclass(frozen=True)
class Truth:
    """One line of a docstring: `threads` is a pattern, or "" for the worker threads."""

    metric: str
    op: str
    value: float | str
    threads: str = ""

    def __str__(self) -> str:
        threads = f"({self.threads})" if self.threads else ""
        return f"{self.metric}{threads} {self.op} {self.value}"


def truths(path: Path) -> list[Truth]:
    """Return the truths that the program at `path` states.

    Raises:
        ValueError: a line starts with "Truth:" and is none, or names an unknown metric.
    """
    text = path.read_text(encoding="utf-8")
    found = [
        Truth(m["metric"], m["op"], m["value"] if m["metric"] in _WORDS else float(m["value"]), m["threads"] or "")
        for m in _LINE.finditer(text)
    ]
    if len(found) != text.count("Truth:"):
        raise ValueError(f"{path}: {text.count('Truth:')} lines say 'Truth:', {len(found)} of them can be read")
    for truth in found:
        known = truth.value in _WORDS[truth.metric] if truth.metric in _WORDS else truth.metric in METRICS
        if not known:
            raise ValueError(f"{path}: unknown metric or word: {truth}")
    return found


def broken(stated: list[Truth], timeline: Timeline) -> list[str]:
    """Return, in words, each of the `stated` truths that `timeline` does not show.

    Truths that need scheduling data are not judged where the recording has none.
    """
    wrong = []
    for truth in stated:
        shown = measure(truth, timeline)
        if shown is not None and not _OPERATORS[truth.op](shown, truth.value):
            wrong.append(f"{truth}: the recording shows {shown if isinstance(shown, str) else round(shown, 4)}")
    return wrong


def measure(truth: Truth, timeline: Timeline) -> float | str | None:
    """Return what `timeline` shows for the metric of `truth`; None where it lacks the data for it."""
    view = _View(timeline, truth.threads)
    if truth.metric == "verdict":
        return judge(max(view.processes, key=lambda p: int((p.holds["end"] - p.holds["start"]).sum()))).kind
    if truth.metric == "cause":
        return view.cause()
    if truth.metric in _NEED_SCHED and not view.has_sched:
        return None
    return METRICS[truth.metric](view)


class _View:
    """A timeline seen through a pattern of thread names."""

    def __init__(self, timeline: Timeline, pattern: str) -> None:
        self.timeline = timeline
        self.processes = [p for p in timeline.processes if len(p.holds)]
        self.has_sched = all(p.has_sched for p in self.processes)
        self._chosen = [(p, _chosen(p, pattern)) for p in self.processes]

    def life(self) -> int:
        return sum(p.threads[t].end - p.threads[t].start for p, chosen in self._chosen for t in chosen)

    def rows(self, name: str) -> Array:
        """Return the chosen threads' rows of the array `name` of every process."""
        parts = [getattr(p, name) for p, _ in self._chosen]
        kept = [a[np.isin(a["thread"], chosen)] for a, (_, chosen) in zip(parts, self._chosen, strict=True)]
        return np.concatenate(kept)

    def waits_by_process(self) -> list[tuple[Process, Array]]:
        return [(p, p.waits[np.isin(p.waits["thread"], chosen)]) for p, chosen in self._chosen]

    def lengths(self, name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        rows = self.rows(name)
        return np.asarray(rows["end"] - rows["start"], dtype=np.int64)

    def cause(self) -> str:
        """What the chosen threads were blocked by for the longest; empty if they were not."""
        total = np.zeros(len(BlockCause), np.int64)
        for process, chosen in self._chosen:
            rows, mine = process.blocks, np.isin(process.blocks["thread"], chosen)
            np.add.at(total, block_causes(process)[mine], (rows["end"] - rows["start"])[mine])
        return BlockCause(int(total.argmax())).label if total.any() else ""

    def in_state(self, state: State) -> int:
        rows = self.rows("states")
        return int((rows["end"] - rows["start"])[rows["state"] == state].sum())

    def spells(self) -> list[tuple[Process, int, int]]:
        """Return when the chosen threads of each process that has some lived, from the first birth to the last end."""
        lives = [(p, [p.threads[t] for t in chosen]) for p, chosen in self._chosen if chosen]
        return [(p, min(t.start for t in threads), max(t.end for t in threads)) for p, threads in lives]

    def wall(self) -> int:
        return self.timeline.end - self.timeline.start


def _chosen(process: Process, pattern: str) -> list[int]:
    threads = [t for t, thread in enumerate(process.threads) if not pattern or fnmatchcase(thread.name, pattern)]
    workers = [t for t in threads if process.threads[t].tid != process.pid]
    return threads if pattern else (workers or threads)


def _held_share(view: _View) -> float:
    # Not the life of the process: loading modules takes the longer, the busier the machine is.
    held = lived = 0
    for process, start, end in view.spells():
        inside = np.minimum(process.holds["end"], end) - np.maximum(process.holds["start"], start)
        held += int(np.maximum(inside, 0).sum())
        lived += end - start
    return held / lived


def _handoffs(view: _View) -> float:
    total = 0
    for process in view.processes:
        for gil in range(process.gils):
            owners = process.holds["thread"][process.holds["gil"] == gil]
            total += int((owners[1:] != owners[:-1]).sum())
    return total


def _gils_at_once(view: _View) -> float:
    holds = np.concatenate([p.holds for p in view.processes])
    holds = holds[np.argsort(holds["start"], kind="stable")]
    # Each hold adds to the union what lies beyond the latest end so far.
    latest = np.maximum.accumulate(np.concatenate(([holds["start"][0]], holds["end"][:-1])))
    union = np.maximum(holds["end"] - np.maximum(holds["start"], latest), 0).sum()
    return float((holds["end"] - holds["start"]).sum() / union)


def _longest_ms(name: str) -> Callable[[_View], float]:
    return lambda view: float(view.lengths(name).max(initial=0)) / _MS


def _wait_ms(percentile: int) -> Callable[[_View], float]:
    def measured(view: _View) -> float:
        lengths = view.lengths("waits")
        return float(np.percentile(lengths, percentile)) / _MS if len(lengths) else 0.0

    return measured


def _switch_interval_ms(view: _View) -> float:
    found = [switch_interval(p, w["gil"], w["start"]) for p, w in view.waits_by_process()]
    lengths = np.concatenate(found)
    return float(np.median(lengths)) / _MS if len(lengths) else 0.0


def _woken_share(view: _View) -> float:
    blocks = view.rows("blocks")
    return float((blocks["waker"] >= 0).mean()) if len(blocks) else 0.0


def _median_ms(name: str) -> Callable[[_View], float]:
    return lambda view: float(np.median(view.lengths(name))) / _MS if len(view.rows(name)) else 0.0


def _forced(view: _View) -> float:
    return float(((view.rows("holds")["flags"] & Flag.FORCED) != 0).sum())


def _cores(view: _View) -> float:
    return sum(int((p.runs["end"] - p.runs["start"]).sum()) for p in view.processes) / view.wall()


METRICS: dict[str, Callable[[_View], float]] = {
    "held_share": _held_share,
    "wait_share": lambda view: float(view.lengths("waits").sum()) / view.life(),
    "blocked_share": lambda view: view.in_state(State.OFF_BLOCKED) / view.life(),
    "holds": lambda view: float(len(view.rows("holds"))),
    "waits": lambda view: float(len(view.rows("waits"))),
    "forced": _forced,
    "switch_requests": lambda view: float(len(view.rows("switch_requests"))),
    "switch_interval_ms": _switch_interval_ms,
    "handoffs": _handoffs,
    "longest_hold_ms": _longest_ms("holds"),
    "longest_wait_ms": _longest_ms("waits"),
    "median_wait_ms": _wait_ms(50),
    "low_wait_ms": _wait_ms(10),
    "gils_at_once": _gils_at_once,
    "processes": lambda view: float(len(view.processes)),
    "cores": _cores,
    "blocks": lambda view: float(len(view.rows("blocks"))),
    "lock_share": lambda view: float(view.lengths("blocks").sum()) / view.life(),
    "woken_share": _woken_share,
    "median_block_ms": _median_ms("blocks"),
    "off_running_cores": lambda view: view.in_state(State.OFF_RUNNING) / view.wall(),
    "off_ready_share": lambda v: (v.in_state(State.OFF_RUNNING) + v.in_state(State.OFF_RUNNABLE)) / v.life(),
}
_NEED_SCHED = frozenset({"blocked_share", "cores", "off_running_cores", "off_ready_share"})
