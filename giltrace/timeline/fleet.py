"""One timeline of several: the parts of a recording of several machines, on one clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from giltrace.recording.door import MAX_ID
from giltrace.recording.events import Spans
from giltrace.recording.fleet import Part
from giltrace.recording.merged import MERGED, Merged, Track
from giltrace.timeline.model import Array, Host, Member, Process, Timeline

#: What columns with times are called, whatever the table.
_TIMES = ("start", "end", "time", "woken")

_Row = TypeVar("_Row")


def join(whole: Timeline, parts: Sequence[tuple[Part, Timeline]]) -> Timeline:
    """Put the `parts` into the `whole`, whose clock is that of the recording: their times are moved to it.

    Processes and threads whose ids are there already, on another machine, get numbers that no machine gives; a
    process's own is kept as its `member`.
    """
    hosts: dict[tuple[str, str], Host] = {}
    processes: list[Process] = []
    merged: list[Merged] = []
    taken = set[int]()
    for part, timeline in parts:
        machine = {**timeline.machine, "hostname": part.host}
        hosts.setdefault((part.clock, part.host), Host(part.host, machine, part.offset_ns, part.error_ns))
        number = list(hosts).index((part.clock, part.host))
        ids = _renumbered(timeline.processes, taken)
        for process in timeline.processes:
            own = process.pid == part.pid
            member = Member(number, part.worker if own else "", part.address if own else "", process.pid)
            # As a process that gives itself a title: what tells the workers of a cluster apart leads.
            title = "-".join(f"{part.worker or part.address}@{part.host}".split())
            moved = _shifted(process, part.offset_ns, ids)
            processes.append(replace(moved, member=member, cmdline=f"{title}: {process.cmdline}"))
        merged += [_moved(one, part, ids) for one in timeline.merged]
    told = [_told(part, timeline) for part, timeline in parts]
    return replace(
        whole,
        processes=tuple(processes),
        end=max([whole.end, *(process.end for process in processes)]) if whole.unfinished else whole.end,
        clock_error_ns=max((timeline.clock_error_ns for _, timeline in parts), default=0),
        machine=parts[0][1].machine if parts else whole.machine,
        collectors=parts[0][1].collectors if parts else (),
        damage=(*whole.damage, *(line for lines in told for line in lines)),
        hosts=tuple(hosts.values()),
        merged=(*whole.merged, *_by_label(merged)),
    )


def _told(part: Part, timeline: Timeline) -> list[str]:
    lines = [f"worker {part.worker} on {part.host}: {line}" for line in (part.told, *timeline.damage) if line]
    if timeline.ended:
        lines.append(f"worker {part.worker} on {part.host}: recording ended before: {timeline.ended}")
    return lines


def _renumbered(processes: Sequence[Process], taken: set[int]) -> dict[int, int]:
    """Numbers for the ids of a part, where some are `taken`: others for all of them, so that they stay what they are
    to each other. All are taken then.
    """
    own = {process.pid for process in processes} | {one.tid for each in processes for one in each.threads}
    ids = {}
    if own & taken:
        first = max(MAX_ID, *taken) + 1
        ids = {one: first + at for at, one in enumerate(sorted(own))}
    taken |= {ids.get(one, one) for one in own}
    return ids


def _shifted(process: Process, ns: int, ids: Mapping[int, int]) -> Process:
    """The process with all its times so much later, and its `ids` in place of those it had."""
    tables: dict[str, Any] = {
        one.name: _later(getattr(process, one.name), ns)
        for one in fields(Process)
        if one.init and isinstance(getattr(process, one.name), np.ndarray) and getattr(process, one.name).dtype.names
    }
    code = process.native_code
    sampling = process.sampling
    return replace(
        process,
        **tables,
        pid=ids.get(process.pid, process.pid),
        ppid=ids.get(process.ppid, process.ppid),
        start=process.start + ns,
        end=process.end + ns,
        threads=tuple(
            one._replace(tid=ids.get(one.tid, one.tid), start=one.start + ns, end=one.end + ns)
            for one in process.threads
        ),
        spans=tuple(_spans(one, ns, ids) for one in process.spans),
        native_code=replace(code, samples=_later(code.samples, ns)),
        sampling=replace(sampling, known_until=sampling.known_until + ns) if sampling is not None else None,
    )


def _spans(spans: Spans, ns: int, ids: Mapping[int, int]) -> Spans:
    rows = _later(spans.spans, ns)
    rows["tid"] = [ids.get(tid, tid) for tid in rows["tid"].tolist()]
    return spans._replace(pid=ids.get(spans.pid, spans.pid), spans=rows)


def _later(rows: Array, ns: int) -> Array:
    """A copy of the rows, all times in it so much later."""
    rows = rows.copy()
    for name in set(_TIMES) & set(rows.dtype.names or ()):
        rows[name] += ns
    return rows


def _moved(merged: Merged, part: Part, ids: Mapping[int, int]) -> Merged:
    """Spans of a part, as they are of the whole: tracks that are no thread's are told by the worker."""

    def track(one: Track) -> Track:
        if one.pid or one.tid:
            return Track(ids.get(one.pid, one.pid), ids.get(one.tid, one.tid), one.name)
        return one._replace(name=f"{part.worker}: {one.name}")

    return merged._replace(
        rows=_later(merged.rows, part.offset_ns),
        tracks=tuple(map(track, merged.tracks)),
        clock_error_ns=merged.clock_error_ns + part.error_ns,
    )


def _by_label(files: Iterable[Merged]) -> list[Merged]:
    """What was merged under one label in several parts, as one."""
    by_label: dict[str, list[Merged]] = {}
    for one in files:
        by_label.setdefault(one.label, []).append(one)
    return [_together(each) for each in by_label.values()]


def _together(files: Sequence[Merged]) -> Merged:
    first = files[0]
    if len(files) == 1:
        return first
    tracks: dict[Track, int] = {}
    names: dict[str, int] = {}
    categories: dict[str, int] = {}
    parts = []
    for one in files:
        rows = one.rows.copy()
        of_track = _numbers(one.tracks, tracks)
        rows["track"] = of_track[one.rows["track"]]
        rows["launcher"] = np.append(of_track, -1)[one.rows["launcher"]]
        rows["name"] = _numbers(one.names, names)[one.rows["name"]]
        rows["category"] = _numbers(one.categories, categories)[one.rows["category"]]
        parts.append(rows)
    rows = np.concatenate(parts).astype(MERGED)
    return first._replace(
        tracks=tuple(tracks),
        names=tuple(names),
        categories=tuple(categories),
        clock_error_ns=max(one.clock_error_ns for one in files),
        rows=rows[np.lexsort((rows["depth"], rows["start"], rows["track"]))],
    )


def _numbers(texts: Iterable[_Row], known: dict[_Row, int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([known.setdefault(one, len(known)) for one in texts], np.int64)
