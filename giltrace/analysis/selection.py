"""Asking about a part of a recording: a window of time, some processes, some threads, and what is the user's own code.

This is the one place that says what such words mean, for all commands and for Python.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from giltrace.analysis.durations import nanoseconds
from giltrace.analysis.measure.commands import words_of
from giltrace.analysis.measure.own_line import is_under
from giltrace.analysis.measure.roles import roles
from giltrace.analysis.measure.worst import all_waits, around_waits, chosen_stretches, placed
from giltrace.errors import UsageError
from giltrace.text import plural
from giltrace.timeline import part
from giltrace.timeline.axis import Bools
from giltrace.timeline.cut import cut
from giltrace.timeline.fitting import load_every
from giltrace.timeline.load import load
from giltrace.timeline.model import OtherTask, Process, Timeline

#: So many names are told of what there is, those first that are most like what was asked for.
_NAMES_TOLD = 8

#: From and to, in ns from the begin of the recording; None is its end.
Window = tuple[int, int | None]
Words = str | int | Iterable[str | int] | None


class Selection(NamedTuple):
    """What is asked about; what is empty chooses all.

    `processes` are pids or patterns for a command line, its script or its program; `threads` patterns for names and
    `roles` for roles (`analysis.measure.roles`). Of several of one kind any will do; of several kinds all are needed.
    `own` are the paths of the user's code.
    """

    windows: tuple[Window, ...] = ()
    processes: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    own: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        window: Words = None,
        after: str | None = None,
        process: Words = None,
        thread: Words = None,
        role: Words = None,
        own: Words = None,
    ) -> Selection:
        """A selection of what was typed; raises `UsageError` if a time cannot be read."""
        windows = tuple(map(parse_window, _several(window)))
        if after is not None:
            if windows:
                raise UsageError("a window and --after both say where to begin", "give one of the two")
            windows = ((_time(after), None),)
        return cls(windows, _several(process), _several(thread), _several(role), _several(own))

    @property
    def of_threads(self) -> bool:
        """Whether it chooses among the threads of a process."""
        return bool(self.threads or self.roles)


def _several(words: Words) -> tuple[str, ...]:
    return () if words is None else (str(words),) if isinstance(words, str | int) else tuple(map(str, words))


def parse_window(text: str) -> Window:
    """The window that ``1.5..2`` names, in seconds, or ``1500ms..2s``; ``1.5..`` goes on to the end."""
    first, dots, last = (word.strip() for word in text.partition(".."))
    if not dots or not (first or last):
        raise UsageError(f"{text!r} is no window", "write two times, like 1.5s..2s, or one, like 1.5s..")
    start, end = _time(first) if first else 0, _time(last) if last else None
    if end is not None and end <= start:
        raise UsageError(f"{text!r} ends before it begins", "write the earlier time first")
    return start, end


def _time(text: str) -> int:
    """Nanoseconds of a time that may go without a unit: seconds."""
    found = nanoseconds(text, unit="s")
    if found is None:
        raise UsageError(f"{text!r} is no time", "write seconds, like 1.5, or a number and ns, us, ms, s or m")
    return found


def with_every_hold(
    timeline: Timeline, folder: Path, selection: Selection, top_waits: int | None = None, *, every: bool = False
) -> Timeline:
    """What `selection` and the `top_waits` need of the recording `folder`, of which `timeline` may have sums only.

    Of such a one (`timeline.load`) it is read again, with every hold of the times that are asked about, if there are
    such; else of all time if `every` hold is asked for. Where the timeline is the part that fits (`timeline.fitting`),
    nothing before and after these times is read, and the longest waits are the part's. Raises as `load`, and
    `UsageError` where a window begins after its end.
    """
    whole = timeline.part_of
    if not timeline.gathered and whole is None:
        return timeline
    if not selection.windows and top_waits is None:
        return load_every(folder, timeline) if every else timeline
    first, last = timeline.recorded[0], max(timeline.recorded[1], timeline.end)
    kept = placed(selection.windows, *((first, last) if whole is None else whole[:2]))
    if top_waits is not None:
        (found,) = _whom([timeline], selection)
        kept += around_waits(*all_waits(found), top_waits)
    if whole is None or not kept:
        return load(folder, gathered=True, whole=kept)
    around = min(start for start, _ in kept), max(end for _, end in kept)
    return load(folder, gathered=True, whole=kept, window=around)


def select(timelines: Sequence[Timeline], selection: Selection) -> list[Timeline]:
    """The parts of the timelines for figures: shares are of the part's time, and what reaches out of it is cut off.

    Raises `UsageError` if there is more than one window, one of them lies outside of a recording, or nothing in any of
    the recordings is left.
    """
    if len(selection.windows) > 1:
        raise UsageError("figures are of one window", "give --window once")
    parts = _whom(timelines, selection)
    if selection.windows:
        parts = [_when(whole, one, selection) for whole, one in zip(timelines, parts, strict=True)]
        if not any(one.processes for one in parts):
            what = "thread of these" if selection.of_threads else "process"
            raise UsageError(f"no {what} lives in that window", _lives(timelines, selection))
    return parts


def narrow(timeline: Timeline, selection: Selection, top_waits: int | None = None) -> Timeline:
    """The part of a timeline for a trace: whatever reaches into a window, or is around its longest waits, stays whole.

    Of processes of which some threads are chosen, the `top_waits` are these threads'. Raises `UsageError` as `select`.
    """
    (found,) = _whom([timeline], selection)
    if not selection.windows and top_waits is None:
        return found
    kept = chosen_stretches(timeline, selection.windows, None)
    if top_waits is not None:
        kept += around_waits(*all_waits(found), top_waits)
    return cut(found, kept)


def _when(whole: Timeline, narrowed: Timeline, selection: Selection) -> Timeline:
    first, last = whole.recorded[0], max(whole.recorded[1], whole.end)
    ((start, end),) = placed(selection.windows, first, last)
    end = min(end, last)
    made = part.window(narrowed, start, end)
    at = [f"{(time - first) / 1e9:.3f} s" for time in (start, end, last)]
    left = tuple(one for one in made.processes if one.chosen is None or one.chosen.any())
    return replace(made, processes=left, part=(f"{at[0]} to {at[1]} of {at[2]}", *narrowed.part))


def _lives(timelines: Sequence[Timeline], selection: Selection) -> str:
    told = []
    for timeline, narrowed in zip(timelines, _whom(timelines, selection), strict=True):
        first = timeline.recorded[0]
        for process in narrowed.processes:
            lives = [process.threads[at] for at in process.chosen_threads] if selection.of_threads else [process]
            start, end = min(one.start for one in lives) - first, max(one.end for one in lives) - first
            told.append(f"process {process.pid} from {start / 1e9:.3f} s to {end / 1e9:.3f} s")
    return f"they live: {', '.join(told[:_NAMES_TOLD])}" if told else "the recording has none"


def _whom(timelines: Sequence[Timeline], selection: Selection) -> list[Timeline]:
    """The processes and threads that are asked about, with the paths of the user's code."""
    parts = list(timelines)
    if selection.processes:
        parts = [_processes(one, selection.processes) for one in parts]
        if not any(one.processes for one in parts):
            known = [f"{one.pid} ({words_of(one.cmdline)[0]})" for all_ in timelines for one in all_.processes]
            raise UsageError(
                f"the recording has no process {_or(selection.processes)}", _there(known, selection.processes)
            )
    if selection.of_threads:
        before, parts = parts, [_threads(one, selection) for one in parts]
        if not any(one.processes for one in parts):
            raise _no_thread(before, selection)
    if selection.own:
        if not any(_has_files(process, _paths(selection.own)) for one in parts for process in one.processes):
            raise UsageError(f"no recorded line is in {_or(selection.own)}", _there(_folders(parts), selection.own))
        parts = [_own(one, selection.own) for one in parts]
    return parts


def _processes(timeline: Timeline, patterns: Sequence[str]) -> Timeline:
    fits = [_is_process(process, patterns) for process in timeline.processes]
    chosen = tuple(one for one, fit in zip(timeline.processes, fits, strict=True) if fit)
    told = f"{len(chosen)} of {plural(len(fits), 'process', 'processes')} ({', '.join(patterns)})"
    left = [one for one, fit in zip(timeline.processes, fits, strict=True) if not fit]
    return _with_others(replace(timeline, processes=chosen, part=(*timeline.part, told)), left)


def _is_process(process: Process, patterns: Sequence[str]) -> bool:
    program = PurePath((process.cmdline.split() or [""])[0]).name
    names = (process.cmdline, words_of(process.cmdline)[0], program)
    return any(text == str(process.pid) or any(fnmatchcase(name, text) for name in names) for text in patterns)


def _with_others(timeline: Timeline, left: Sequence[Process]) -> Timeline:
    """The cores that the other processes had are not free: they stay on record as any other program's."""
    tasks, runs = list(timeline.other_tasks), [timeline.other_runs]
    for process in left:
        rows = process.runs.copy()
        rows["thread"] += np.uint32(len(tasks))
        runs.append(rows)
        tasks += [OtherTask(process.pid, thread.tid, thread.name) for thread in process.threads]
    return replace(timeline, other_tasks=tuple(tasks), other_runs=np.concatenate(runs))


def _threads(timeline: Timeline, selection: Selection) -> Timeline:
    marked = [(process, _are_chosen(process, selection)) for process in timeline.processes]
    left = tuple(replace(process, chosen=chosen) for process, chosen in marked if chosen.any())
    number, of = sum(int(one.sum()) for _, one in marked), sum(len(one) for _, one in marked)
    told = f"{number} of {plural(of, 'thread')} ({', '.join((*selection.threads, *selection.roles))})"
    others = [process for process, chosen in marked if not chosen.any()]
    return _with_others(replace(timeline, processes=left, part=(*timeline.part, told)), others)


def _are_chosen(process: Process, selection: Selection) -> Bools:
    of_role = _fit(roles(process), selection.roles)
    return _fit(_names(process), selection.threads) & of_role


def _names(process: Process) -> list[str]:
    return [thread.name or f"tid {thread.tid}" for thread in process.threads]


def _fit(names: Sequence[str], patterns: Sequence[str]) -> Bools:
    """Which names fit one of the patterns; all if there are none. Each distinct name is looked at once."""
    if not patterns:
        return np.ones(len(names), np.bool_)
    fits = {name: any(fnmatchcase(name, pattern) for pattern in patterns) for name in set(names)}
    return np.array([fits[name] for name in names], np.bool_)


def _no_thread(timelines: Sequence[Timeline], selection: Selection) -> UsageError:
    """None fits: say of what there is what is nearest."""
    processes = [process for one in timelines for process in one.processes]
    by_name = Counter(name for process in processes for name in _names(process))
    by_role = Counter(role for process in processes for role in roles(process))
    if selection.threads and not any(fnmatchcase(name, text) for name in by_name for text in selection.threads):
        return UsageError(f"no thread is named {_or(selection.threads)}", _there(by_name, selection.threads))
    told = [f"{role} ({number})" if number > 1 else role for role, number in by_role.items()]
    if not selection.threads:
        return UsageError(f"no thread has the role {_or(selection.roles)}", _there(told, selection.roles))
    wanted = f"no thread is named {_or(selection.threads)} and has the role {_or(selection.roles)}"
    return UsageError(wanted, _there(told, selection.roles))


def _has_files(process: Process, paths: Sequence[str]) -> bool:
    table = None if process.stacks is None else process.stacks.table
    return table is not None and any(
        is_under(table.strings[at], paths) for at in np.unique(table.frames["file"]).tolist()
    )


def _paths(own: Sequence[str]) -> tuple[str, ...]:
    """As typed, and from where it was typed: a recording may have paths as they were then and there."""
    return tuple(path for one in own for path in {os.path.normpath(one), os.path.abspath(one)})


def _own(timeline: Timeline, own: Sequence[str]) -> Timeline:
    def with_own(process: Process) -> Process:
        if process.stacks is None:
            return process
        return replace(process, stacks=replace(process.stacks, table=replace(process.stacks.table, own=paths)))

    paths = _paths(own)
    told = f"your code is what is in {', '.join(own)}"
    return replace(timeline, processes=tuple(map(with_own, timeline.processes)), part=(*timeline.part, told))


def _folders(timelines: Sequence[Timeline]) -> list[str]:
    """The folders of the files on record."""
    found = set()
    for process in (process for one in timelines for process in one.processes if process.stacks is not None):
        assert process.stacks is not None
        table = process.stacks.table
        files = (table.strings[at] for at in np.unique(table.frames["file"]).tolist())
        found |= {str(PurePath(file).parent) for file in files if not file.startswith("<")}
    return sorted(found)


def _or(patterns: Sequence[str]) -> str:
    return " or ".join(patterns)


def _there(known: Iterable[str], wanted: Sequence[str]) -> str:
    """What there is, the nearest to what was wanted first."""

    def likeness(name: str) -> float:
        return max(SequenceMatcher(None, name.lower(), one.lower()).ratio() for one in wanted)

    names = sorted(dict.fromkeys(known))
    told = sorted(names, key=likeness, reverse=True)[:_NAMES_TOLD]
    more = f" and {len(names) - len(told)} more" if len(names) > len(told) else ""
    return f"there are: {', '.join(told)}{more}" if told else "there is none"
