"""Why one thread took so long: the stretch of its time that a flight recorder caught, told in one sentence.

What the thread did in that stretch is summed up by kind; the kind that took most is the cause. Looks from outside at
that moment tell what the record does not: a thread that nobody waits for leaves no word of the lines that it runs
between taking the GIL and giving it up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from giltrace.analysis.durations import duration
from giltrace.analysis.findings.figures import Figures
from giltrace.analysis.findings.stall_lines import Frames, Lines, import_line, is_idle
from giltrace.analysis.measure.activity import Doing
from giltrace.analysis.measure.attribution import attribute
from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.analysis.measure.collect_calls import calls_collect
from giltrace.analysis.measure.own_work import sampled_line
from giltrace.analysis.measure.stretches import Source, cut_process, sourced_stacks, stretches
from giltrace.analysis.measure.usage import in_state
from giltrace.text import plural
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.collections import FILE as COLLECTOR
from giltrace.timeline.model import BlockEnd, Process, State

#: What a thread may have been kept by.
CAUSES = (
    *("gil-wait", "small-holds", "collection", "import", "lock", "computing", "blocking-call", "no-core", "awaiting"),
    *("deadlock", "held", "unknown"),
)
#: One hold that makes up this share of what a thread waited for the GIL is what it waited for; else it is their number.
ONE_HOLD = 0.5
#: So many waits are many.
MANY = 4
#: Whoever collects or imports in this share of what was seen of it does that.
MOSTLY = 0.5


class Look(NamedTuple):
    """How a thread stood at a time (ns), seen from outside: its frames, innermost first, each (function, file, line).

    `collecting`: it collected garbage; `holds`: it had the GIL. `task` is the name of the asyncio task that it ran.
    """

    time: int
    tid: int
    frames: tuple[tuple[str, str, int], ...]
    collecting: bool
    holds: bool
    task: str


class Why(NamedTuple):
    """The `cause`, one of `CAUSES`; what is said of it behind a colon; the `lines`, the culprit's first; and a task.

    `seen`: somebody looked while it happened, or it needs nobody to.
    """

    cause: str
    told: str
    lines: tuple[str, ...] = ()
    task: str = ""
    seen: bool = True


class _Part(NamedTuple):
    """What a thread did for so long (ns) in all; the frames of the line that took most of it, and how often it did."""

    ns: int
    frames: Frames
    stack: int
    times: int = 0


class Stretch:
    """The time [`start`, `end`) of a `thread` (by number) of a process, of which a little more is known around it.

    `looks` are those at any thread in that time; `before` is as for `Expressions`.
    """

    def __init__(
        self, process: Process, thread: int, start: int, end: int, looks: Iterable[Look] = (), before: int = 0
    ) -> None:
        self._process, self._thread, self._start, self._end = process, thread, start, end
        self._figures = Figures(process, before)
        self._lines = Lines()
        tid = process.threads[thread].tid
        looks = [look for look in looks if start <= look.time <= end]
        self._own = [look for look in looks if look.tid == tid]
        self._others = [look for look in looks if look.tid != tid]
        found = self._figures.activity
        rows = np.flatnonzero((found.thread == thread) & (found.start < end))
        rows = rows[found.until(rows) > start]
        self._begin = np.maximum(found.start[rows], start)
        self._length = np.minimum(found.until(rows), end) - self._begin
        self._doing = found.doing[rows]
        self._stack = found.stack[rows]
        self._core = self._at_the_core(self._begin)
        self._known: dict[int, Frames] = {}

    def why(self) -> Why:
        """Tell why it took so long."""
        # A core that is not there is told before what it was wanted for.
        python = self._doing == Doing.PYTHON
        coreless = (self._doing == Doing.NO_CORE) | (python & (self._core == State.HOLDING_RUNNABLE))
        importing = self._importing(coreless)
        collecting = self._collecting(self._thread, self._own)
        idle = self._off() & self._in_selector()
        called = self._off() & ~idle & ~importing.rows
        holding = python & ~importing.rows & ~coreless
        kept = holding & (self._core == State.HOLDING_BLOCKED)
        # Of who computes where the GIL is switched off, the core says that it runs off it.
        running = holding & ~kept
        computed = self._most(running)
        # Of a hold of which only the ends are on record, the looks tell what it was.
        seen = self._share(self._own, lambda look: look.holds and bool(import_line(look.frames)))
        seen = seen if seen >= MOSTLY else 0.0
        looked, slept = int(computed.ns * seen), int(self._sum(kept) * seen)
        imported = importing.ns + looked + slept
        kinds: dict[str, tuple[int, Callable[[], Why]]] = {
            "wait": (self._sum(self._doing == Doing.WAITING), self._waited),
            "import": (imported, lambda: self._imported(imported, importing)),
            "compute": (computed.ns - looked, lambda: self._computed(computed, running, collecting)),
            "lock": (self._sum((self._doing == Doing.LOCK) & ~importing.rows), self._locked),
            "call": (self._sum(called), lambda: self._called(called)),
            "kept": (self._sum(kept) - slept, lambda: self._kept(kept)),
            "await": (self._sum(idle), lambda: self._awaited(self._sum(idle))),
            "core": (self._sum(coreless), lambda: self._coreless(coreless)),
        }
        ns, tell = max(kinds.values(), key=lambda kind: kind[0])
        found = tell() if ns > 0 else Why("unknown", "what it did is not on record")
        return found._replace(task=next((look.task for look in reversed(self._own) if look.task), ""))

    def stood(self) -> str:
        """Where the thread stood for most of the time, its own code's innermost line; empty where that is not known."""
        lines = Counter[str]()
        for look in self._own:
            lines[self._lines.innermost(look.frames)] += 1
        lines.pop("", None)
        if lines:
            return lines.most_common(1)[0][0]
        return self._lines.innermost(self._most(np.ones(len(self._doing), np.bool_)).frames)

    def coroutine(self) -> str:
        """The outermost line of what the thread's event loop ran: of a task, its coroutine's; empty if not known."""
        everywhere = np.ones(len(self._doing), np.bool_)
        stacks: list[Frames] = [look.frames for look in self._own] or [self._most(everywhere).frames]
        lines = Counter[str]()
        for frames in stacks:
            lines[self._lines.outermost(frames)] += 1
        lines.pop("", None)
        return lines.most_common(1)[0][0] if lines else ""

    # What it did, by kind.

    def _at_the_core(self, time: Ints) -> Ints:
        """The scheduler's `State` of the thread at each time; without scheduling data, that it ran."""
        states = self._process.states[self._process.states["thread"] == self._thread]
        if not len(states):
            return np.full(len(time), State.HOLDING_RUNNING, np.int64)
        found: Ints = states["state"][np.searchsorted(states["start"], time, "right") - 1].astype(np.int64)
        return found

    def _off(self) -> Bools:
        return np.isin(self._doing, (Doing.ASLEEP, Doing.NATIVE, Doing.OFF))

    def _sum(self, chosen: Bools) -> int:
        return int(self._length[chosen].sum())

    def _most(self, chosen: Bools) -> _Part:
        """All of the chosen rows, and the stack of the line that took most of them."""
        stack = self._stack[chosen]
        length = self._length[chosen]
        by_line = Counter[str]()
        best: dict[str, tuple[int, int]] = {}
        best_stacks: dict[str, list[int]] = {}
        for number in np.unique(stack).tolist():
            ns = int(length[stack == number].sum())
            frames = self._frames(number)
            if not frames or is_idle(frames):
                continue
            line = self._lines.innermost(frames)
            by_line[line] += ns
            best[line] = max(best.get(line, (0, -1)), (ns, number))
            best_stacks.setdefault(line, []).append(number)
        total = int(length.sum())
        if not by_line:
            return _Part(total, (), -1)
        line = by_line.most_common(1)[0][0]
        number = best[line][1]
        begins = chosen & ~np.append(False, chosen[:-1])
        times = np.isin(self._stack[begins], best_stacks[line])
        return _Part(total, self._frames(number), number, int(times.sum()))

    def _frames(self, stack: int) -> Frames:
        known = self._process.stacks
        if known is None or stack < 0:
            return ()
        if (line := sampled_line(self._process, stack)) is not None:
            return (line,)
        if stack not in self._known:
            table = known.table
            rows = table.frames[table.offsets[stack] : table.offsets[stack + 1]][["function", "file", "line"]].tolist()
            self._known[stack] = [(table.strings[function], table.strings[file], line) for function, file, line in rows]
        return self._known[stack]

    def _by_stack(self, fits: Callable[[Frames], bool]) -> Bools:
        """Which rows are at a stack that fits."""
        used, of = np.unique(self._stack, return_inverse=True)
        found: Bools = np.array([fits(self._frames(number)) for number in used.tolist()], np.bool_)[of.ravel()]
        return found

    # What it was kept by.

    class _Imports(NamedTuple):
        rows: Bools
        ns: int
        frames: Frames

    def _importing(self, coreless: Bools) -> _Imports:
        """Which rows are of imports: with the GIL or without it, but neither in wait for it nor for a core."""
        rows = self._by_stack(lambda frames: bool(import_line(frames))) & (self._doing != Doing.WAITING) & ~coreless
        return self._Imports(rows, self._sum(rows), self._most(rows).frames if rows.any() else ())

    def _imported(self, ns: int, importing: _Imports) -> Why:
        looked = Counter(line for look in self._own if (line := import_line(look.frames)))
        line = import_line(importing.frames)
        # Of less than that, the looks told.
        if looked and importing.ns < MOSTLY * ns:
            line = looked.most_common(1)[0][0]
        return Why("import", f"it imported for {duration(ns)}, at {line}", (line,))

    def _computed(self, part: _Part, chosen: Bools, collecting: float) -> Why:
        # Without a core it is still where it computes; asleep, it may be elsewhere.
        looked = self._looked_at(self._of_same_holds(chosen) & (self._core != State.HOLDING_BLOCKED))
        line = looked or self._lines.innermost(part.frames)
        at = f" at {line}" if line else ", at a line that is not known"
        seen = bool(looked) or (bool(line) and self._is_sampled())
        if line and not seen:
            at = f", up to {line}, where it gave the GIL up"
        lines = (line,) if line else ()
        if collecting >= MOSTLY or (not looked and calls_collect(self._figures.expressions, part.stack)):
            return Why("collection", f"it collected garbage for {duration(part.ns)}{at}", lines)
        return Why("computing", f"its own code computed for {duration(part.ns)}{at}", lines, seen=seen)

    def _is_sampled(self) -> bool:
        """Whether somebody looked at what the thread did in its longest hold: else only its end is on record."""
        holds = self._process.holds
        length = np.minimum(holds["end"], self._end) - np.maximum(holds["start"], self._start)
        mine = np.flatnonzero((holds["thread"] == self._thread) & (length > 0))
        if not len(mine):
            return False
        longest = mine[length[mine].argmax()]
        return int(sourced_stacks(self._process)[1][longest]) > Source.RELEASE

    def _called(self, chosen: Bools) -> Why:
        part = self._most(chosen)
        line = self._lines.innermost(part.frames)
        called = self._figures.expressions.at(part.stack) if part.stack >= 0 else ""
        most = np.bincount(self._doing[chosen], weights=self._length[chosen]).argmax()
        if not line:
            return Why("awaiting", f"it was off the GIL for {duration(part.ns)}, at a line that is not known")
        what = "ran native code without the GIL" if most == Doing.NATIVE else "was blocked in a call"
        several = f" ({plural(part.times, 'call')})" if part.times >= MANY else ""
        of = f": {called}" if called else ""
        return Why("blocking-call", f"it {what} for {duration(part.ns)}{several}, at {line}{of}", (line,))

    def _in_selector(self) -> Bools:
        """Which rows are at a stack of an event loop that waits."""
        return self._by_stack(is_idle)

    @staticmethod
    def _awaited(ns: int) -> Why:
        return Why("awaiting", f"it awaited something else: its loop was idle for {duration(ns)}")

    def _kept(self, chosen: Bools) -> Why:
        part = self._most(chosen)
        line = self._looked_at(chosen) or self._lines.innermost(part.frames)
        at = f", at {line}" if line else ", at a line that is not known"
        told = f"it was blocked for {duration(part.ns)} in a call that kept the GIL{at}"
        return Why("blocking-call", told, (line,) if line else ())

    def _coreless(self, chosen: Bools) -> Why:
        ns, tell = self._sum(chosen), self._imports_or_stands
        off = chosen & (self._doing == Doing.NO_CORE)
        # Who is off the GIL stands where it gave that up; what it does with the GIL, looks know better.
        if self._sum(off) >= MOSTLY * ns:
            line = tell(self._most(off).frames) or self._looked_at(off, tell, holds=False)
        else:
            line = self._looked_at(chosen & ~off, tell) or tell(self._most(chosen & ~off).frames)
        at = f", at {line}" if line else ""
        return Why("no-core", f"it had no core for {duration(ns)}{at}", (line,) if line else ())

    def _imports_or_stands(self, frames: Frames) -> str:
        return import_line(frames) or self._lines.innermost(frames)

    def _during(self, looks: Sequence[Look], chosen: Bools) -> list[Look]:
        """Those of the looks that were taken in the chosen rows."""
        row = np.searchsorted(self._begin, np.array([look.time for look in looks], np.int64), "right") - 1
        return [look for look, at in zip(looks, row.tolist(), strict=True) if at >= 0 and chosen[at]]

    def _of_same_holds(self, chosen: Bools) -> Bools:
        """The chosen rows, and all others of the holds that these are of."""
        python = self._doing == Doing.PYTHON
        hold = np.cumsum(python & ~np.append(False, python[:-1]))
        found: Bools = python & np.isin(hold, hold[chosen])
        return found

    def _looked_at(self, chosen: Bools, tell: Callable[[Frames], str] | None = None, *, holds: bool = True) -> str:
        """The line at which it was seen most in the chosen rows, by default its own, with the GIL or without it; empty
        if nobody saw it there.
        """
        tell = tell or self._lines.innermost
        looks = [look for look in self._during(self._own, chosen) if look.holds == holds]
        lines = Counter(line for look in looks if (line := tell(look.frames)))
        return lines.most_common(1)[0][0] if lines else ""

    def _waited(self) -> Why:
        """Whom it waited for, and what that one did."""
        process, held = self._process, stretches(self._process)
        waits = process.waits
        waits = waits[(waits["thread"] == self._thread) & (waits["start"] < self._end) & (waits["end"] > self._start)]
        # What they went on for before and after is not told.
        for edge in ("start", "end"):
            np.clip(waits[edge], self._start, self._end, out=waits[edge])
        ns, nobody = int((waits["end"] - waits["start"]).sum()), np.zeros(len(waits), np.int64)
        shares = attribute(replace(cut_process(process), waits=waits), nobody, np.arange(len(held.of)))
        if not len(shares.ns):
            return Why("no-core", f"it waited {duration(ns)} for a GIL that nobody had, to be woken up")
        lost, of = shares.ns, shares.culprit
        thread = held.holds["thread"][of].astype(np.int64)
        culprit = int(np.bincount(thread, weights=lost).argmax())
        mine_of = of[thread == culprit]
        lost = lost[thread == culprit]
        per_hold = np.bincount(held.of[mine_of], weights=lost)
        longest, holds = int(per_hold.max()), int(np.count_nonzero(per_hold))
        frames = self._culprits_frames(culprit, held.stack[mine_of], lost)
        name = repr(self._figures.name(culprit))
        coreless = self._without_core(culprit)
        line, own = (
            self._lines.innermost(frames),
            self._lines.innermost(self._most(self._doing == Doing.WAITING).frames),
        )
        lines = tuple(filter(None, (line, own)))
        where = f" at {line}" if line else ""
        if coreless > MOSTLY * lost.sum():
            told = f"it waited {duration(ns)} for the GIL, which thread {name} had{where}"
            return Why("no-core", f"{told}, for {duration(coreless)} without a core", lines)
        looks = [look for look in self._others if look.tid == process.threads[culprit].tid and look.holds]
        if self._collecting(culprit, looks) >= MOSTLY or (frames and frames[0][1] == COLLECTOR):
            return Why(
                "collection",
                f"it waited {duration(ns)} for the GIL while thread {name} collected garbage{where}",
                lines,
            )
        if imported := import_line(frames):
            told = f"it waited {duration(ns)} for the GIL while thread {name} imported, at {imported}"
            return Why("import", told, (imported, *lines[1:]))
        if longest < ONE_HOLD * ns and len(waits) >= MANY:
            told = f"it waited {duration(ns)} for the GIL in {plural(len(waits), 'wait')}, mostly for thread {name}"
            return Why("small-holds", f"{told}{where}, which took it {plural(holds, 'time')}", lines)
        hold = int((process.holds["end"] - process.holds["start"])[int(per_hold.argmax())])
        told = f"it waited {duration(ns)} for the GIL, which thread {name} held for {duration(hold)} without a break"
        return Why("gil-wait", told + where, lines)

    def _without_core(self, thread: int) -> int:
        """How long (ns) a thread had the GIL, and no core, while this one waited for it."""
        waits = np.flatnonzero(self._doing == Doing.WAITING)
        start = self._begin[waits]
        of = np.full(len(waits), thread)
        return int(in_state(self._process, State.HOLDING_RUNNABLE, of, start, start + self._length[waits]).sum())

    def _culprits_frames(self, culprit: int, stack: Ints, lost: Ints) -> Frames:
        """Where the culprit stood for most of the time: as seen from outside where the record has no sample of it."""
        by_line: dict[str, tuple[int, Frames]] = {}
        for number in np.unique(stack).tolist():
            frames = self._frames(number)
            if frames:
                before = by_line.get(self._lines.innermost(frames), (0, frames))
                by_line[self._lines.innermost(frames)] = before[0] + int(lost[stack == number].sum()), frames
        if by_line:
            return max(by_line.values(), key=lambda one: one[0])[1]
        tid = self._process.threads[culprit].tid
        looks = self._during(self._others, self._doing == Doing.WAITING)
        return next((look.frames for look in looks if look.tid == tid and look.holds), ())

    def _locked(self) -> Why:
        blocks = self._process.blocks
        mine = (blocks["thread"] == self._thread) & (blocks["start"] < self._end) & (blocks["end"] > self._start)
        rows = np.flatnonzero(mine)
        length = np.minimum(blocks["end"][rows], self._end) - np.maximum(blocks["start"][rows], self._start)
        block = int(rows[length.argmax()])
        known = self._process.stacks
        line = self._lines.innermost(self._frames(int(known.block[block]))) if known is not None else ""
        cause = BlockCause(int(self._figures.block_causes[block])).label.replace("-", " ")
        what = cause if cause.endswith("lock") else "lock" if cause == "lock" else f"{cause}'s lock"
        told = f"it slept {duration(int(length.sum()))} in {'an' if what[0] in 'aeiou' else 'a'} {what}"
        told += f" at {line}" if line else ""
        owner = int(blocks["waker"][block])
        if owner < 0:
            open_ = blocks["ended"][block] == BlockEnd.OPEN
            return Why(
                "lock", told + (", which nobody has given back yet" if open_ else ""), tuple(filter(None, (line,)))
            )
        other = Stretch(
            self._process, owner, max(int(blocks["start"][block]), self._start), int(blocks["woken"][block])
        )
        at = other.stood()
        told += f", which thread {self._figures.name(owner)!r} had" + (f" at {at}" if at else "")
        return Why("lock", told, tuple(filter(None, (at, line))))

    def _collecting(self, thread: int, looks: Sequence[Look]) -> float:
        """Of what was seen of a thread with the GIL in this time, the share in which it collected garbage."""
        samples, holds = self._process.samples, self._process.holds
        mine = holds[(holds["thread"] == thread) & (holds["start"] < self._end) & (holds["end"] > self._start)]
        at = np.searchsorted(mine["start"], samples["time"], "right") - 1
        inside = np.zeros(len(samples), np.bool_)
        if len(mine):
            inside = (at >= 0) & (samples["time"] < mine["end"][np.maximum(at, 0)])
            inside &= (samples["time"] >= self._start) & (samples["time"] <= self._end)
        seen = samples["collecting"][inside] != 0
        held = [look.collecting for look in looks if look.holds]
        total = len(seen) + len(held)
        return (int(seen.sum()) + sum(held)) / total if total else 0.0

    @staticmethod
    def _share(looks: Sequence[Look], fits: Callable[[Look], bool]) -> float:
        return sum(map(fits, looks)) / len(looks) if looks else 0.0
