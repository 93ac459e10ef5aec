"""The last minute of a recording that is being written, in figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from giltrace.analysis.measure.intervals import disjoint
from giltrace.recording.events import ThreadInfo
from giltrace.recording.keep import Holding
from giltrace.recording.layout import GIL_SHIFT, MAX_GILS, Kind
from giltrace.recording.live import Update
from giltrace.recording.live_file import LiveFile
from giltrace.recording.stacks import Frame
from giltrace.text import visible
from giltrace.timeline.axis import Ints
from giltrace.views.top.buckets import Buckets, split
from giltrace.views.top.locks import AskSleepers, Locks
from giltrace.views.top.model import (
    BUCKET_NS,
    MINUTE_NS,
    Culprit,
    Deadlock,
    Detail,
    Graph,
    Line,
    ProcessRow,
    Snapshot,
    Sort,
    ThreadRow,
    ThreadState,
)
from giltrace.views.top.usage import Matcher, Usage, forced, whole_holds

#: Asks the kernel for the state and the core (-1 if unknown) of a thread (pid, tid); None if it is gone.
AskKernel = Callable[[int, int], tuple[ThreadState, int] | None]

_UNKNOWN = 0
_SITE_BITS = 20
_SITES = (1 << _SITE_BITS) - 1


@dataclass
class _Person:
    """A thread as it is known now; `stack` is the tracer's number."""

    process: _Process
    info: ThreadInfo
    ended: bool = False
    #: Whether the kernel has told of it: what is not to be seen is gone then.
    seen: bool = False
    stack: int = -1
    core: int = -1


class _Process:
    def __init__(self, file: LiveFile, since: int) -> None:
        self.file = file
        self.matcher = Matcher(since)
        self.locks = Locks(file)
        self.ended = False
        self.gils = 0
        self.ident: dict[int, int] = {}
        self.site_of_top: list[int] = []


class Window:
    """Takes what a `LiveReader` gives and keeps the figures of the last minute; `since` is when they begin.

    `names` are names of threads by their ids, better ones than the tracer's.

    Memory is bounded by the threads, lines and pairs of them that were active in the last minute.
    """

    def __init__(self, since: int, names: Mapping[int, str] | None = None) -> None:
        self.since = self.until = since
        self._names = {tid: visible(name) for tid, name in (names or {}).items()}
        self._processes: dict[int, _Process] = {}
        self._people: dict[int, _Person] = {}
        self._next_ident = 0
        self._site: dict[tuple[Frame, Frame], int] = {}
        # Of each site the innermost line and the user's own.
        self._lines: list[tuple[Line, Line]] = [(Line(), Line())]
        self._threads = Buckets(("held", "waited", "holds", "waits", "forced"), ("worst",))
        self._gils = Buckets(("held", "contended", "waited", "acquires", "forced"), ("worst",))
        # Who waited for what: the key is the thread's ident and the number of a line.
        self._blame = Buckets(("cost",), ("worst",))

    def feed(self, updates: list[Update], until: int) -> None:
        """Take what happened up to `until`."""
        self.until = max(until, self.until)
        for update in updates:
            process = self._processes.get(update.file.number)
            if process is None:
                process = self._processes[update.file.number] = _Process(
                    update.file, max(update.file.start, self.since)
                )
            # A process that has ended is given whole, beyond the moment that was asked for.
            last = int(update.events["time"][-1]) if update.ended and len(update.events) else 0
            usage = process.matcher.take(update.events, max(self.until, last))
            process.locks.take(update)
            process.gils = max(process.gils, usage.gils if len(update.events) else 0)
            ident = self._meet(process, update, usage)
            self._count_threads(usage, ident)
            self._count_gils(process, usage)
            self._count_blame(process, usage, ident)
            self._count_late(process, update)
            if update.ended:
                self._end(process)
        self._forget()

    def _meet(self, process: _Process, update: Update, usage: Usage) -> Ints:
        """The ident of each of the usage's threads; what is newly known of them is noted."""
        idents = np.empty(len(usage.threads), np.int64)
        for at, number in enumerate(usage.threads.tolist()):
            ident = process.ident.get(number)
            if ident is None:
                ident = process.ident[number] = self._next_ident
                self._next_ident += 1
            idents[at] = ident
            person = self._people.get(ident)
            info = update.threads.get(number)
            if person is None:
                person = self._people[ident] = _Person(process, info or ThreadInfo(0, ""))
            person.info = info or person.info
            person.ended |= bool(usage.ended[at])
            person.stack = int(usage.stack[at]) if usage.stack[at] >= 0 else person.stack
            person.core = int(usage.core[at]) if usage.core[at] >= 0 else person.core
        return idents

    def _count_threads(self, usage: Usage, ident: Ints) -> None:
        for rows, column in ((usage.holds, "held"), (usage.waits, "waited")):
            row, bucket, length = split(rows["start"], rows["end"], BUCKET_NS)
            self._threads.add(bucket, ident[rows["thread"]][row], **{column: length})
        holds, waits = usage.holds, usage.waits
        self._threads.add(
            holds["end"] // BUCKET_NS,
            ident[holds["thread"]],
            holds=usage.fresh_holds,
            forced=forced(holds) & whole_holds(holds),
        )
        self._threads.add(
            waits["end"] // BUCKET_NS, ident[waits["thread"]], waits=usage.fresh_waits, worst=usage.waited
        )

    def _count_gils(self, process: _Process, usage: Usage) -> None:
        first = process.file.number * MAX_GILS
        for gil in range(usage.gils):
            holds = usage.holds[usage.holds["gil"] == gil]
            mine = usage.waits["gil"] == gil
            waits = usage.waits[mine]
            contended = disjoint(np.maximum(waits["start"], usage.start), waits["end"])
            spans = (
                ("held", disjoint(np.maximum(holds["start"], usage.start), holds["end"])),
                ("contended", contended),
                ("waited", (waits["start"], waits["end"])),
            )
            for column, (start, end) in spans:
                row, bucket, length = split(start, end, BUCKET_NS)
                self._gils.add(bucket, np.full(len(row), first + gil, np.int64), **{column: length})
            self._gils.add(
                holds["end"] // BUCKET_NS,
                np.full(len(holds), first + gil, np.int64),
                acquires=usage.fresh_holds[usage.holds["gil"] == gil],
                forced=forced(holds) & whole_holds(holds),
            )
            key = np.full(len(waits), first + gil, np.int64)
            self._gils.add(waits["end"] // BUCKET_NS, key, worst=usage.waited[mine])

    def _count_blame(self, process: _Process, usage: Usage, ident: Ints) -> None:
        if len(usage.waits) == 0 or len(usage.holds) == 0:
            return
        sites, culprit = np.unique(self._sites(process, usage), return_inverse=True)
        shares = usage.blame(culprit.ravel().astype(np.int64))
        key = ident[shares.victim] << _SITE_BITS | sites[shares.culprit]
        bucket = np.full(len(key), max(self.until - 1, 0) // BUCKET_NS, np.int64)
        self._blame.add(bucket, key, cost=shares.ns, worst=shares.max_ns)

    def _sites(self, process: _Process, usage: Usage) -> Ints:
        """The number of the line of each of the things that were done with a GIL."""
        stacks = process.file.stacks
        if stacks is None:
            return np.full(len(usage.done.stack), _UNKNOWN, np.int64)
        stacks.update()
        for top in stacks.tops[len(process.site_of_top) :]:
            site = self._site.get(top)
            if site is None and len(self._lines) < _SITES:
                site = self._site[top] = len(self._lines)
                self._lines.append((_told(top[0]), _told(top[1])))
            process.site_of_top.append(site if site is not None else _UNKNOWN)
        # The last one is for -1: no line is known.
        return np.array([*process.site_of_top, _UNKNOWN], np.int64)[stacks.top(usage.done.stack)]

    def _count_late(self, process: _Process, update: Update) -> None:
        """Count releases that turned out to be forced after they had been counted."""
        bucket = np.array([max(self.until - 1, 0) // BUCKET_NS])
        for piece in update.pieces:
            if piece.late_forced and piece.thread in process.ident:
                self._threads.add(bucket, np.array([process.ident[piece.thread]]), forced=1)
                gil = int(piece.records[-1]) >> GIL_SHIFT & (MAX_GILS - 1)
                self._gils.add(bucket, np.array([process.file.number * MAX_GILS + gil]), forced=1)

    def _end(self, process: _Process) -> None:
        process.ended = True
        process.matcher.under_way = process.matcher.under_way[:0]
        for ident in process.ident.values():
            if ident in self._people:
                self._people[ident].ended = True

    def _forget(self) -> None:
        """Drop what is older than a minute, and who ended before that."""
        oldest = (self.until - MINUTE_NS) // BUCKET_NS
        for table in (self._threads, self._gils, self._blame):
            table.drop_before(oldest)
        gone = [ident for ident, person in self._people.items() if person.ended]
        if not gone:
            return
        active = set(self._threads.total()["key"].tolist())
        for ident in gone:
            if ident not in active:
                del self._people[ident]
        for number, process in list(self._processes.items()):
            process.ident = {key: ident for key, ident in process.ident.items() if ident in self._people}
            if process.ended and not process.ident and len(self._processes) > 1:
                del self._processes[number]

    def snapshot(
        self,
        span_ns: int = MINUTE_NS,
        sort: Sort = Sort.WAITING,
        *,
        limit: int = 1000,
        pid: int | None = None,
        ask: AskKernel | None = None,
        sleepers: AskSleepers | None = None,
    ) -> Snapshot:
        """The figures of the last `span_ns`, of the process `pid` only if given, and at most `limit` threads.

        Figures are kept by the bucket: the span begins with the one in which it would begin.
        """
        span = self._span(span_ns)
        chosen = [p for p in self._processes.values() if pid is None or p.file.pid == pid]
        threads, more = self._rows(chosen, span, sort, limit, ask)
        keys = [p.file.number * MAX_GILS + gil for p in chosen for gil in range(p.gils)]
        gils = self._gils.total(self._first(span))
        gils = gils[np.isin(gils["key"], keys)]
        most = gils[np.argsort(gils["held"] + gils["contended"])[-1:]]
        return Snapshot(
            at_ns=self.until,
            span_ns=span,
            processes=tuple(_process_row(p) for p in chosen),
            gils=len(keys),
            graph=self._gil_graph(keys),
            held=_share(most["held"], span),
            contended=_share(most["contended"], span),
            waiting=float(gils["waited"].sum() / span),
            worst_ns=int(gils["worst"].max(initial=0)),
            acquires=int(gils["acquires"].sum()),
            forced=int(gils["forced"].sum()),
            threads=threads,
            more_threads=more,
            culprits=self._culprits(span, {i for p in chosen for i in p.ident.values()} if pid is not None else None),
            lost=sum(p.file.lost for p in chosen),
            missed=sum(p.file.missed for p in chosen),
            lost_stacks=sum(p.file.lost_stacks for p in chosen),
            deadlocks=tuple(filter(None, (self._deadlock(p, sleepers) for p in chosen if not p.ended))),
        )

    def _deadlock(self, process: _Process, sleepers: AskSleepers | None) -> Deadlock | None:
        """Threads of a process that wait for each other now, by what is on record and what is seen from outside."""
        people = {
            number: person.info._replace(name=self._name(person))
            for number, ident in process.ident.items()
            if (person := self._people.get(ident)) is not None and not person.ended
        }
        return process.locks.standstill(self.until, people, self._names, sleepers)

    def detail(self, ident: int, span_ns: int, ask: AskKernel | None = None) -> Detail | None:
        """One thread, looked at closely; None if it is no longer known."""
        person = self._people.get(ident)
        if person is None:
            return None
        span = self._span(span_ns)
        rows, _ = self._rows([person.process], span, Sort.NAME, 1 << 30, ask)
        stacks = person.process.file.stacks
        return Detail(
            row=next(row for row in rows if row.ident == ident),
            stack=tuple(map(_told, stacks.stack(person.stack))) if stacks is not None else (),
            graph=self._graph(self._threads.of(ident), "held", "waited"),
            culprits=self._culprits(span, {ident}),
        )

    def _span(self, span_ns: int) -> int:
        """How long the stretch of whole buckets is that has the last `span_ns`, as far as there is so much."""
        first = (self.until - span_ns) // BUCKET_NS * BUCKET_NS
        return max(self.until - max(first, self.since), 1)

    def _first(self, span: int) -> int:
        """The oldest bucket of a span."""
        return (self.until - span) // BUCKET_NS

    def _name(self, person: _Person) -> str:
        tid = person.info.tid
        return self._names.get(tid) or person.info.name or f"tid {tid}"

    def _rows(
        self, processes: list[_Process], span: int, sort: Sort, limit: int, ask: AskKernel | None
    ) -> tuple[tuple[ThreadRow, ...], int]:
        doing = {p.file.number: self._doing(p) for p in processes}
        idents = np.array([i for i, person in self._people.items() if person.process.file.number in doing], np.int64)
        total = self._threads.total(self._first(span))
        seen = np.isin(idents, total["key"])
        alive = np.array([not self._people[i].ended for i in idents.tolist()], np.bool_)
        idents, seen = idents[seen | alive], seen[seen | alive]
        figures = np.zeros(len(idents), total.dtype)
        figures[seen] = total[np.searchsorted(total["key"], idents[seen])]
        if sort is Sort.NAME:
            names = [(self._name(self._people[i]), i) for i in idents.tolist()]
            order = sorted(range(len(names)), key=names.__getitem__)
        else:
            column = {Sort.WAITING: "waited", Sort.HELD: "held", Sort.WORST: "worst"}[sort]
            order = np.lexsort((idents, -figures[column])).tolist()
        rows = []
        for at in order[:limit]:
            person, own = self._people[int(idents[at])], figures[at]
            line, own_line = self._line(person)
            state, core = _state(person, doing[person.process.file.number].get(int(idents[at])), ask)
            rows.append(
                ThreadRow(
                    ident=int(idents[at]),
                    pid=person.process.file.pid,
                    tid=person.info.tid,
                    name=self._name(person),
                    state=state,
                    held=min(float(own["held"]) / span, 1.0),
                    waiting=min(float(own["waited"]) / span, 1.0),
                    worst_ns=int(own["worst"]),
                    holds=int(own["holds"]),
                    waits=int(own["waits"]),
                    forced=int(own["forced"]),
                    core=core,
                    line=line,
                    own_line=own_line,
                )
            )
        return tuple(rows), max(len(order) - limit, 0)

    def holding(self) -> list[Holding]:
        """The threads that have a GIL now."""
        found = []
        for process in self._processes.values():
            for row in process.matcher.under_way:
                ident, gil = process.ident.get(int(row["thread"])), process.file.address_of(int(row["gil"]))
                if row["kind"] == Kind.ACQUIRE and ident is not None and gil and not process.ended:
                    person = self._people[ident]
                    found.append(Holding(process.file, person.info.tid, self._name(person), gil))
        return found

    def _doing(self, process: _Process) -> dict[int, ThreadState]:
        """What the threads do that hold, wait or sleep in a lock, by ident."""
        known = [(thread, ThreadState.LOCKED) for thread in process.locks.asleep if thread in process.ident]
        for row in process.matcher.under_way:
            holds = row["kind"] == Kind.ACQUIRE
            known.append((int(row["thread"]), ThreadState.HOLDING if holds else ThreadState.WAITING))
        return {process.ident[thread]: state for thread, state in known}

    def _line(self, person: _Person) -> tuple[Line, Line]:
        """The newest innermost line of a thread, and the user's own."""
        stacks = person.process.file.stacks
        top = int(stacks.top(np.array([person.stack], np.int32))[0]) if stacks is not None else -1
        if stacks is None or top < 0:
            return Line(), Line()
        leaf, own = stacks.tops[top]
        return _told(leaf), _told(own)

    def _culprits(self, span: int, victims: set[int] | None) -> tuple[Culprit, ...]:
        rows = self._blame.total(self._first(span))
        if victims is not None:
            rows = rows[np.isin(rows["key"] >> _SITE_BITS, list(victims))]
        site = rows["key"] & _SITES
        cost, worst = np.zeros(len(self._lines), np.int64), np.zeros(len(self._lines), np.int64)
        np.add.at(cost, site, rows["cost"])
        np.maximum.at(worst, site, rows["worst"])
        ranked = [i for i in np.argsort(-cost, kind="stable")[:100].tolist() if cost[i] > 0]
        return tuple(
            Culprit(leaf, int(cost[i]), float(cost[i]) / span, int(worst[i]), own)
            for i, (leaf, own) in ((i, self._lines[i]) for i in ranked)
        )

    def _gil_graph(self, keys: list[int]) -> Graph:
        graphs = [self._graph(self._gils.of(key), "held", "contended") for key in keys]
        if not graphs:
            return Graph((), ())
        return Graph(
            tuple(map(max, *(g.held for g in graphs), (0.0,) * len(graphs[0].held))),
            tuple(map(max, *(g.contended for g in graphs), (0.0,) * len(graphs[0].held))),
        )

    def _graph(self, rows: np.ndarray[tuple[int], np.dtype[np.void]], held: str, contended: str) -> Graph:
        """Shares of the whole buckets of the last minute, from when the window began."""
        end = self.until // BUCKET_NS
        first = max(end - MINUTE_NS // BUCKET_NS, -(-self.since // BUCKET_NS))
        shares = np.zeros((2, max(end - first, 0)))
        rows = rows[(rows["bucket"] >= first) & (rows["bucket"] < end)]
        for at, column in enumerate((held, contended)):
            shares[at, rows["bucket"] - first] = rows[column] / BUCKET_NS
        shares = np.minimum(shares, 1.0)
        return Graph(tuple(shares[0].tolist()), tuple(shares[1].tolist()))


def _process_row(process: _Process) -> ProcessRow:
    file = process.file
    # A thread that keeps its GIL all the time gives the tracer nothing to see.
    return ProcessRow(file.pid, file.cmdline, file.python, process.gils, "" if process.gils else file.note)


def _share(values: Ints, span: int) -> float:
    return min(float(values.sum()) / span, 1.0)


def _state(person: _Person, doing: ThreadState | None, ask: AskKernel | None) -> tuple[ThreadState, int]:
    told = ask(person.process.file.pid, person.info.tid) if ask is not None and not person.ended else None
    # One that was killed leaves no record of its end.
    gone = told[0] is ThreadState.ENDED if told is not None else ask is not None and person.seen
    person.seen |= told is not None
    # What holds or waits on record is not forgotten before its process is.
    person.ended |= gone and doing not in (ThreadState.HOLDING, ThreadState.WAITING)
    if gone or person.ended:
        return ThreadState.ENDED, person.core
    if told is None:
        return doing or ThreadState.OFF, person.core
    return doing or told[0], told[1]


def _told(frame: Frame) -> Line:
    """A frame as a line whose texts are fit to be shown."""
    function, file, number = frame
    return Line(visible(function), visible(file), number)
