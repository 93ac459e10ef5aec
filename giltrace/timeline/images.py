"""The program images of each process: from when to when each one was executed, and what became of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from giltrace.recording.events import GIL_EVENT, Exec, ProcessEvents, Spans
from giltrace.timeline.axis import NEVER, Bools
from giltrace.timeline.holds import usable
from giltrace.timeline.kernel import Kernel, Life
from giltrace.timeline.model import Array

#: The tracer's and the kernel's clocks may disagree by this much beyond the calibration's error.
CLOCK_SLACK_NS = 1_000


class Image(NamedTuple):
    """One program image while its timeline is built: what was recorded, and the time that it spans.

    `known` are its events and others by which it is known when its threads lived. `ended` tells per traced thread if
    its end is on record; `lives` are those of its process that reach into it. `became` is the program that was executed
    in its place, if that was not Python. It is `end_known` if somebody saw its end, or that it ran up to then.
    """

    recorded: ProcessEvents
    events: Array
    known: Array
    ended: Bools
    spans: tuple[Spans, ...]
    lives: tuple[Life, ...]
    start: int
    end: int
    problems: tuple[str, ...] = ()
    became: str = ""
    end_known: bool = False


def program_images(
    processes: Sequence[ProcessEvents], spans: Sequence[Spans], kernel: Kernel, start: int, end: int
) -> list[Image]:
    """Find the images that are Python, of processes that were traced or that only `spans` know."""
    images: list[Image] = []
    begins: dict[int, list[_Begin]] = {}
    for process in processes:
        events, ended, problems = usable(process.events, len(process.threads))
        known = events
        if len(process.edges):
            known, ended, _ = usable(process.with_edges, len(process.threads))
        begin = min(process.start, int(known["time"][0])) if len(known) else process.start
        name = os.path.basename(process.executable) if process.not_python else ""
        begins.setdefault(process.pid, []).append(_Begin(begin, name, process.not_python))
        if not process.not_python:
            images.append(Image(process, events, known, ended, (), (), begin, begin, problems))
    found = []
    for image in images:
        pid, begin = image.recorded.pid, image.start
        first = begin == min(one.time for one in begins[pid] if not one.not_python)
        following, became = _succession(begin, begins[pid], kernel.execs.get(pid, []))
        own = _spans_of(spans, pid, None if first else begin, following)
        found.append(_bounded(image._replace(spans=own, became=became), kernel, following, end))
    for process in _unrecorded(processes, spans, kernel, start):
        # When these were executed is not known: the kernel's word for it may be about what came before Python.
        own = _spans_of(spans, process.pid, None, None)
        nothing = process.events
        image = Image(process, nothing, nothing, np.empty(0, np.bool_), own, (), process.start, process.start)
        found.append(_bounded(image, kernel, None, end))
    return found


def _unrecorded(
    processes: Sequence[ProcessEvents], spans: Sequence[Spans], kernel: Kernel, start: int
) -> list[ProcessEvents]:
    """Processes that some collector saw inside, though the native tracer did not."""
    known = {process.pid for process in processes}
    missing: dict[int, int] = {}
    for one in spans:
        if one.pid not in known and len(one.spans):
            missing[one.pid] = min(missing.get(one.pid, int(one.spans["start"].min())), int(one.spans["start"].min()))
    found = []
    for pid, first in missing.items():
        born = min((life.start for life in kernel.lives.get(pid, []) if life.tid == pid), default=first)
        begin = max(start, min(born, first))
        nothing = np.empty(0, GIL_EVENT)
        found.append(ProcessEvents(pid, 0, "", "", "", begin, (), (), nothing, note="no GIL events were recorded"))
    return found


class _Begin(NamedTuple):
    """When an image began, as it says itself."""

    time: int
    name: str
    not_python: bool


def _bounded(image: Image, kernel: Kernel, following: int | None, end: int) -> Image:
    """Give an image its end, at the latest where it was replaced (`following`), and the lives that reach into it."""
    process, begin = image.recorded, image.start
    last = max(
        [begin, process.known_until, int(image.known["time"][-1]) if len(image.known) else begin]
        + [int(s.spans["end"].max()) for s in image.spans if len(s.spans)]
        + ([process.sampling.known_until] if process.sampling is not None else [])
    )
    lives = kernel.lives.get(process.pid, [])
    known = _end_of(process.pid, lives, begin, following, end) if lives else following
    finish = last if known is None else max(last, known)
    reaching = tuple(life for life in lives if life.start < finish and life.end > begin)
    seen = known is not None or process.known_until > 0
    return image._replace(lives=reaching, end=finish, end_known=seen)


def _succession(begin: int, begins: Sequence[_Begin], execs: Sequence[Exec]) -> tuple[int | None, str]:
    """When an image was replaced by another program, None if never, and that one's name if it was not Python.

    The kernel knows the instant, and the name that was executed, cut. Where it was not asked, the next image that says
    when it began has to do, by the name of its file.
    """
    later = min((one for one in begins if one.time > begin), key=lambda one: one.time, default=None)
    known = [one for one in execs if one.time > begin]
    if not known or (later is not None and later.time < known[0].time):
        return (later.time, later.name) if later is not None else (None, "")
    time, _, name = known[0]
    if later is None or (len(known) > 1 and known[1].time < later.time):
        return time, name
    if later.not_python:
        return time, later.name if later.name.startswith(name) else name
    return time, ""


def _end_of(pid: int, lives: Sequence[Life], begin: int, following: int | None, end: int) -> int:
    """The end of an image: the next image of the same pid, the end of its last thread, or of the recording."""
    main = [life for life in lives if life.tid == pid and life.start <= begin + CLOCK_SLACK_NS]
    finish = end
    if main and main[-1].end < NEVER:
        reborn = min(
            (life.start for life in lives if life.tid == pid and life.start > main[-1].start), default=NEVER - 1
        )
        finish = max(life.end for life in lives if life is main[-1] or main[-1].end < life.end <= reborn)
    return finish if following is None else min(finish, following)


def _spans_of(spans: Sequence[Spans], pid: int, begin: int | None, following: int | None) -> tuple[Spans, ...]:
    """The spans of a pid that began from `begin` on and before its next image; None is no bound."""
    own = []
    for one in spans:
        if one.pid != pid:
            continue
        since = one if begin is None else one._replace(spans=one.spans[one.spans["start"] >= begin])
        own.append(since if following is None else since.until(following))
    return tuple(own)
