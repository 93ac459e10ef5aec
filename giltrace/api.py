"""The Python interface: a recording as numpy record arrays, pandas frames and the results of its analyses."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from giltrace import installation
from giltrace.errors import UsageError
from giltrace.recording.locate import locate
from giltrace.text import plural
from giltrace.timeline.gathered import as_they_are
from giltrace.timeline.model import (
    BLOCK,
    HOLD,
    RUN,
    STATE,
    SWITCH_REQUEST,
    WAIT,
    Array,
    BlockEnd,
    Flag,
    State,
    Timeline,
)

if TYPE_CHECKING:
    from giltrace.analysis.selection import Words
    from giltrace.reports.shown import Report, Summary

#: Structured rows whose fields are attributes too: ``holds.start`` is ``holds["start"]``.
Records = np.recarray[Any, Any]


def load(path: str | os.PathLike[str]) -> Recording:
    """Load the recording at `path`: ``"out.giltrace"``, or ``"out"`` for short.

    One that was cut short is read as far as it goes. Of a long one every hold is read only when it is asked for: its
    reports and summaries are made of sums, and of one that is too long for memory they are of the part in which threads
    waited most (`Report.part`). Raises `RecordingError` if there is none, or if it was written by another
    version.
    """
    from giltrace.timeline.fitting import load_every, load_fitting

    folder = locate(Path(path))
    timeline = load_fitting(folder)
    if timeline.gathered or timeline.part_of:
        return Recording(folder, lambda: load_every(folder, timeline), timeline)
    return Recording(folder, timeline)


def analyse(timeline: Timeline) -> Report:
    """All analyses of a timeline; nothing in it is changed. Works without scheduling data and without stacks."""
    from giltrace.analysis.report import analyse as run
    from giltrace.reports.shown import Report

    return Report.showing(run(timeline))


class Recording:
    """One recording. All times are CLOCK_MONOTONIC nanoseconds (int64), all intervals half open.

    The arrays are read-only and span all processes, one after the other; within a process, `holds`, `waits`, `blocks`
    and `switch_requests` are sorted by time, `states` and `runs` by thread and time. Their `thread` is a row of
    `threads`, whose `process` is a row of `processes`; `waits["hold"]` is a row of `holds`, -1 for none, and
    `blocks["waker"]` likewise of `threads`. A `gil` counts within its process,
    from 0, and a `lock`, from 1.
    """

    def __init__(
        self, path: Path, timeline: Timeline | Callable[[], Timeline], figures: Timeline | None = None
    ) -> None:
        """`timeline` may be a function that reads it, called when it is first asked for.

        Reports are made of the `figures`, if there are such: a timeline with the same sums.
        """
        self.path = path
        self._read = timeline if callable(timeline) else lambda: timeline
        self._of_figures = figures

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        try:
            _, holds = as_they_are(self._figures)
            told = f"{plural(len(self._figures.processes), 'process', 'processes')}, {plural(holds, 'hold')}"
        except UsageError as error:
            told = error.message
        return f"<Recording {str(self.path)!r}: {told}>"

    def _repr_html_(self) -> str | None:
        """The verdict and the threads, also over time, for a notebook; None while it cannot be read."""
        from giltrace.reports.html.fragment import of_summary

        try:
            return of_summary(self.summary(), self._figures)
        except UsageError:
            return None

    @cached_property
    def timeline(self) -> Timeline:
        """The whole model, with what the arrays leave out: stacks, spans, other tasks, the machine."""
        return self._read()

    @property
    def _figures(self) -> Timeline:
        return self.timeline if self._of_figures is None else self._of_figures

    @cached_property
    def processes(self) -> Records:
        """One row per process: `pid`, `ppid`, `python`, `cmdline`, `start`, `end`, `gils`, `has_sched`, `lost`,
        `lost_stacks`.
        """
        rows = self.timeline.processes
        return _records(
            pid=np.array([p.pid for p in rows], np.int64),
            ppid=np.array([p.ppid for p in rows], np.int64),
            python=_texts([p.python for p in rows]),
            cmdline=_texts([p.cmdline for p in rows]),
            start=np.array([p.start for p in rows], np.int64),
            end=np.array([p.end for p in rows], np.int64),
            gils=np.array([p.gils for p in rows], np.int64),
            has_sched=np.array([p.has_sched for p in rows], np.bool_),
            lost=np.array([p.lost for p in rows], np.int64),
            lost_stacks=np.array([p.lost_stacks for p in rows], np.int64),
        )

    @cached_property
    def threads(self) -> Records:
        """One row per thread: `process`, `pid`, `tid`, `name`, `start`, `end`, `lost`, `chosen` (see `select`)."""
        rows = [(at, p.pid, t) for at, p in enumerate(self.timeline.processes) for t in p.threads]
        return _records(
            process=np.array([at for at, _, _ in rows], np.int64),
            pid=np.array([pid for _, pid, _ in rows], np.int64),
            tid=np.array([t.tid for _, _, t in rows], np.int64),
            name=_texts([t.name for _, _, t in rows]),
            start=np.array([t.start for _, _, t in rows], np.int64),
            end=np.array([t.end for _, _, t in rows], np.int64),
            lost=np.array([t.lost for _, _, t in rows], np.int64),
            chosen=np.concatenate(
                [
                    np.empty(0, np.bool_),
                    *(np.isin(range(len(p.threads)), p.chosen_threads) for p in self.timeline.processes),
                ]
            ),
        )

    @cached_property
    def holds(self) -> Records:
        """One row per hold: `start`, `end`, `thread`, `gil`, `core` (-1 if unknown), `flags` (`timeline.model.Flag`).

        ``holds.flags`` is numpy's own attribute: write ``holds["flags"]``.
        """
        return self._joined("holds", HOLD)

    @cached_property
    def waits(self) -> Records:
        """One row per wait of non-zero length: `start`, `end`, `thread`, `gil`, `timeouts`, `hold`, `flags`."""
        return self._joined("waits", WAIT)

    @cached_property
    def blocks(self) -> Records:
        """One row per time that a thread slept in a lock: `start`, `end`, `thread`, `lock`, `waker` (-1 for nobody),
        `woken`, `ended` (`timeline.model.BlockEnd`), `timed`, `owned`, `cause`.

        `cause` is a `BlockCause` of `analysis.measure.block_causes`: what it was that it waited for.
        """
        from giltrace.analysis.measure.block_causes import block_causes
        from giltrace.analysis.measure.expressions import Expressions

        rows = self._joined("blocks", BLOCK)
        timeline = self.timeline
        told = [block_causes(process, Expressions(process, timeline.began_ns)) for process in timeline.processes]
        cause = np.concatenate([np.empty(0, np.uint8), *told])
        columns = {name: rows[name] for name in BLOCK.names or ()}
        return _records(**columns | {"lock": rows["lock"] + 1, "cause": cause})

    @cached_property
    def switch_requests(self) -> Records:
        """One row per switch request: `time`, `thread` (who asked), `gil`."""
        return self._joined("switch_requests", SWITCH_REQUEST)

    @cached_property
    def states(self) -> Records:
        """One row per stretch in one state: `start`, `end`, `thread`, `state` (`timeline.model.State`).

        Per thread they add up to its life. Empty without scheduling data.
        """
        return self._joined("states", STATE)

    @cached_property
    def runs(self) -> Records:
        """One row per stretch on one core: `start`, `end`, `thread`, `core`, `preempted`.

        Empty without scheduling data.
        """
        return self._joined("runs", RUN)

    def select(
        self,
        *,
        window: str | None = None,
        after: str | None = None,
        process: Words = None,
        thread: Words = None,
        role: Words = None,
        own: Words = None,
    ) -> Recording:
        """A part of it, in the words of the command line: ``select(window="1.5..2", role="worker-*")``.

        What reaches out of the `window` (seconds from the begin, or with a unit) is cut off; other processes fall away.
        Threads that are not chosen stay in the arrays, as they may be culprits: `threads` has a column `chosen`, and
        `report` and `summary` tell of the chosen ones. `own` are the paths of your own code. Where several words are
        given, any of them will do. Raises `UsageError` if nothing is left.
        """
        from giltrace.analysis.selection import Selection, select, with_every_hold

        asked = Selection.of(window=window, after=after, process=process, thread=thread, role=role, own=own)
        known = self._figures
        if asked.windows and len(known.part) <= (known.part_of is not None):
            # What was chosen already is not read anew: it would be the whole again.
            known = with_every_hold(known, self.path, asked)
        (figures,) = select([known], asked)
        if not figures.gathered and known is not self._of_figures:
            return Recording(self.path, figures)
        return Recording(self.path, lambda: select([self.timeline], asked)[0], figures)

    def report(self) -> Report:
        """All analyses: blame, hogs, convoys, what-if, verdict. Worked out once; ``print`` shows it."""
        return self._report

    def summary(self) -> Summary:
        """The figures per process, thread and GIL that ``giltrace record`` prints.

        Worked out once; ``print`` shows it.
        """
        return self._summary

    def to_pandas(self) -> Frames:
        """The same as pandas data frames, each made when it is first asked for.

        Raises `UsageError` if pandas is not installed: it is the extra ``giltrace[pandas]``.
        """
        return Frames(self)

    @cached_property
    def _report(self) -> Report:
        return analyse(self._figures)

    @cached_property
    def _summary(self) -> Summary:
        from giltrace.analysis.summary import summarise
        from giltrace.reports.shown import Summary

        return Summary.showing(summarise(self._figures))

    def _joined(self, table: str, dtype: np.dtype[np.void]) -> Records:
        """The rows of all processes, their indices counting over all processes; a single process's are not copied."""
        parts: list[Array] = [getattr(process, table) for process in self.timeline.processes]
        if len(parts) == 1:
            return _read_only(parts[0])
        rows = np.concatenate(parts) if parts else np.empty(0, dtype)
        at = threads = holds = 0
        for process, part in zip(self.timeline.processes, parts, strict=True):
            own = rows[at : at + len(part)]
            own["thread"] += np.uint32(threads)
            if table == "waits":
                own["hold"][own["hold"] >= 0] += holds
            if table == "blocks":
                own["waker"][own["waker"] >= 0] += np.int32(threads)
            at, threads, holds = at + len(part), threads + len(process.threads), holds + len(process.holds)
        return _read_only(rows)


class Frames:
    """A recording as pandas data frames. Times are ns; `duration` is `end` minus `start`.

    Rows of threads come with `pid`, `tid` and `thread`, the thread's name as a category; `state` is a category with the
    seven states in order, and so are `cause` and `ended`. The index of a frame is the row of the array of the same
    name.
    """

    def __init__(self, recording: Recording) -> None:
        try:
            import pandas
        except ImportError:
            raise UsageError("pandas is not installed", installation.with_extra("pandas")) from None
        self._pandas: Any = pandas
        self._recording = recording

    @cached_property
    def processes(self) -> Any:
        """`pid`, `ppid`, `python`, `cmdline`, `start`, `end`, `gils`, `has_sched`, `lost`, `lost_stacks`, and
        `duration`.
        """
        return self._timed(self._plain(self._recording.processes))

    @cached_property
    def threads(self) -> Any:
        """`process`, `pid`, `tid`, `name`, `start`, `end`, `lost`, `chosen`, `duration`."""
        return self._timed(self._plain(self._recording.threads))

    @cached_property
    def holds(self) -> Any:
        """`pid`, `tid`, `thread`, `start`, `end`, `gil`, `core`, `forced`, `partial`, `duration`."""
        return self._timed(self._of_threads(self._recording.holds, forced=True))

    @cached_property
    def waits(self) -> Any:
        """`pid`, `tid`, `thread`, `start`, `end`, `gil`, `timeouts`, `hold`, `partial`, `duration`."""
        return self._timed(self._of_threads(self._recording.waits))

    @cached_property
    def blocks(self) -> Any:
        """`pid`, `tid`, `thread`, `start`, `end`, `lock`, `woken`, `ended`, `timed`, `owned`, `cause`, `duration`, and
        of who ended it `waker_tid` (-1 for nobody) and `waker`, the name.
        """
        from giltrace.analysis.measure.block_causes import BlockCause

        rows, threads = self._recording.blocks, self._recording.threads
        frame = self._timed(self._of_threads(rows)).drop(columns="waker")
        for column, words in (("ended", BlockEnd), ("cause", BlockCause)):
            frame[column] = self._pandas.Categorical.from_codes(frame[column], [one.label for one in words])
        frame["timed"], frame["owned"] = frame["timed"] != 0, frame["owned"] != 0
        waker = np.asarray(rows["waker"])
        frame["waker_tid"] = np.append(np.asarray(threads["tid"]), -1)[waker]
        names, code = np.unique(np.asarray(threads["name"]), return_inverse=True)
        frame["waker"] = self._pandas.Categorical.from_codes(np.append(code, -1)[waker], names.tolist())
        return frame

    @cached_property
    def switch_requests(self) -> Any:
        """`pid`, `tid`, `thread`, `time`, `gil`."""
        return self._of_threads(self._recording.switch_requests)

    @cached_property
    def states(self) -> Any:
        """`pid`, `tid`, `thread`, `start`, `end`, `state`, `duration`."""
        frame = self._timed(self._of_threads(self._recording.states))
        labels = [state.label for state in State]
        frame["state"] = self._pandas.Categorical.from_codes(frame["state"], labels, ordered=False)
        return frame

    @cached_property
    def runs(self) -> Any:
        """`pid`, `tid`, `thread`, `start`, `end`, `core`, `preempted`, `duration`."""
        frame = self._timed(self._of_threads(self._recording.runs))
        frame["preempted"] = frame["preempted"] != 0
        return frame

    def _plain(self, rows: Records) -> Any:
        return self._pandas.DataFrame({name: np.asarray(rows[name]) for name in rows.dtype.names})

    def _of_threads(self, rows: Records, *, forced: bool = False) -> Any:
        threads = self._recording.threads
        names, code = np.unique(np.asarray(threads["name"]), return_inverse=True)
        thread = np.asarray(rows["thread"])
        columns = {
            "pid": np.asarray(threads["pid"])[thread],
            "tid": np.asarray(threads["tid"])[thread],
            "thread": self._pandas.Categorical.from_codes(code[thread], names.tolist()),
        }
        columns |= {name: np.asarray(rows[name]) for name in rows.dtype.names if name not in ("thread", "flags")}
        if "flags" in rows.dtype.names:
            flags = np.asarray(rows["flags"])
            if forced:
                columns["forced"] = (flags & np.uint8(Flag.FORCED)) != 0
            columns["partial"] = (flags & np.uint8(Flag.PARTIAL_START | Flag.PARTIAL_END)) != 0
        return self._pandas.DataFrame(columns)

    @staticmethod
    def _timed(frame: Any) -> Any:
        frame["duration"] = frame["end"] - frame["start"]
        return frame


def _texts(texts: list[str]) -> npt.NDArray[np.str_]:
    return np.array(texts, np.str_) if texts else np.empty(0, "U1")


def _records(**columns: npt.NDArray[Any]) -> Records:
    rows = np.empty(len(next(iter(columns.values()))), [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        rows[name] = column
    return _read_only(rows)


def _read_only(rows: Array) -> Records:
    view = rows.view(np.recarray)
    view.flags.writeable = False
    return view
