"""From another profiler's file to spans that a recording has beside its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from giltrace.errors import MergeError
from giltrace.merging.align import Alignment, Place, align
from giltrace.merging.formats import read
from giltrace.merging.parsed import Clock, Parsed
from giltrace.recording.merged import LABEL, MERGED, Merged, Track
from giltrace.recording.meta import Meta
from giltrace.timeline.model import Timeline


@dataclass(frozen=True)
class Outcome:
    """What became of a file: the spans, how they were placed, and how many were `outside` of the recording.

    `threads` of its tracks are threads of the recording, `others` are not. `left_out` says in words what of the file is
    no span.
    """

    merged: Merged
    alignment: Alignment
    threads: int
    others: int
    outside: int
    left_out: str


def merge(path: Path, timeline: Timeline, meta: Meta, clock: Clock | None = None, label: str | None = None) -> Outcome:
    """Read the file at `path` and put it on the clock of the recording that `timeline` and `meta` are of.

    Raises `MergeError` if it is none, or its clock cannot be known; without a `label`, the profiler's name is one.
    """
    parsed = read(path)
    if label is not None and LABEL.fullmatch(label) is None:
        raise MergeError(
            f"--label {label!r} is no label", "take up to 40 letters, digits, dots, dashes and underscores"
        )
    tracks = _as_seen_here(parsed, timeline, meta)
    places = _places(tracks, timeline)
    try:
        alignment = align(parsed, places, timeline, clock, _stepped(meta))
    except MergeError as error:
        raise MergeError(f"{path}: {error.message}", error.remedy) from None
    rows = _moved(parsed, timeline, alignment.distance)
    used = {*np.unique(rows["track"]).tolist()}
    merged = Merged(
        label=label or parsed.kind,
        source=path.name,
        sampled=parsed.sampled,
        clock=alignment.clock,
        clock_error_ns=alignment.error_ns,
        tracks=tuple(tracks),
        names=parsed.names,
        categories=parsed.categories,
        rows=rows,
    )
    threads = len(used & places.keys())
    outside = len(parsed.rows) - len(rows)
    return Outcome(merged, alignment, threads, len(used) - threads, outside, parsed.left_out_text.removeprefix(", "))


def _as_seen_here(parsed: Parsed, timeline: Timeline, meta: Meta) -> list[Track]:
    """The tracks with the ids that their threads have here, where the program had a pid namespace of its own.

    Where the process is the profiler's, it is that which has a thread of that id.
    """
    here = {process.pid for process in timeline.processes}
    owners = {thread.tid: process.pid for process in timeline.processes for thread in process.threads}
    found = []
    for track in parsed.tracks:
        if track.pid and parsed.profilers_pid:
            tid = meta.ids.get(str(track.tid), track.tid)
            found.append(track._replace(pid=owners.get(tid, track.pid), tid=tid))
        elif track.pid and track.pid not in here:
            pid, tid = (meta.ids.get(str(one), one) for one in (track.pid, track.tid))
            found.append(track._replace(pid=pid, tid=tid))
        else:
            found.append(track)
    return found


def _places(tracks: list[Track], timeline: Timeline) -> dict[int, Place]:
    """Which tracks, by number, are threads of the recording, and of which process."""
    known: dict[tuple[int, int], Place] = {}
    for number, process in enumerate(timeline.processes):
        for index, thread in enumerate(process.threads):
            known[process.pid, thread.tid] = (number, index)
    found = ((at, known.get((track.pid, track.tid))) for at, track in enumerate(tracks))
    return {at: place for at, place in found if place is not None}


def _stepped(meta: Meta) -> int | None:
    """By how much CLOCK_REALTIME was moved since the recording; None if the machine was started again, or is another.

    A clock that nobody set has not moved against CLOCK_MONOTONIC, by which it ticks.
    """
    now = time.time_ns() - time.monotonic_ns()
    return now - meta.realtime_offset_ns if meta.is_of_this_boot else None


def _moved(parsed: Parsed, timeline: Timeline, distance: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """The spans on the recording's clock, those that reach into it."""
    rows = parsed.rows.astype(MERGED)
    rows["start"] += distance
    rows["end"] += distance
    return rows[(rows["end"] >= timeline.start) & (rows["start"] <= timeline.end)]
