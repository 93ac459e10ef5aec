"""When each thread of a program image lived, from the kernel's word where there is one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from giltrace.recording.layout import Kind
from giltrace.timeline.axis import NEVER, Bools, Ints
from giltrace.timeline.images import Image
from giltrace.timeline.kernel import Life
from giltrace.timeline.model import Array, Thread


class Cast(NamedTuple):
    """The threads of an image. Those that touched a GIL come first, in the order that the events number them.

    `born` tells per thread whether the kernel saw its birth: until it is first given a core it is runnable.
    """

    threads: tuple[Thread, ...]
    born: tuple[bool, ...]


def first_and_last(events: Array, threads: int) -> tuple[Ints, Ints]:
    """Time of each thread's first and last event (events sorted by time); NEVER and -NEVER if it has none."""
    first, last = np.full(threads, NEVER), np.full(threads, -NEVER)
    # Of several values for one index, numpy keeps the last.
    last[events["thread"]] = events["time"]
    first[events["thread"][::-1]] = events["time"][::-1]
    return first, last


def cast(image: Image, names: Mapping[int, str]) -> Cast:
    """Find every thread of the image: traced, known to the kernel only, or known from spans only."""
    first, last = first_and_last(image.known, len(image.recorded.threads))
    older = _older(image)
    by_tid: dict[int, list[Life]] = {}
    for one in image.lives:
        by_tid.setdefault(one.tid, []).append(one)
    members: list[tuple[Thread, bool]] = []
    used: dict[Life, list[int]] = {}
    for index, info in enumerate(image.recorded.threads):
        seen = int(first[index]) < NEVER
        begin, finish = (int(first[index]), int(last[index])) if seen else (image.start, image.start)
        life = _life_around(by_tid.get(info.tid, []), begin, finish)
        name = info.name or names.get(info.tid, "")
        if life is not None:
            used.setdefault(life, []).append(index)
            start, end = _within(life, image)
            thread = Thread(info.tid, name, min(start, begin), max(end, finish), info.lost)
            members.append((thread, life.born and thread.start == life.start))
        else:
            begin = image.start if info.tid == image.recorded.pid or older[index] else begin
            end = finish if image.ended[index] or not seen else max(image.end, finish)
            members.append((Thread(info.tid, name, begin, end, info.lost), False))
    for indices in used.values():
        _share(members, indices, first, last)
    for other in image.lives:
        if other not in used:
            start, end = _within(other, image)
            thread = Thread(other.tid, names.get(other.tid, ""), start, end)
            members.append((thread, other.born and start == other.start))
    members += [(thread, False) for thread in _from_spans(image, {t.tid for t, _ in members}, names)]
    return Cast(tuple(t for t, _ in members), tuple(born for _, born in members))


def _older(image: Image) -> Bools:
    """Threads that held or wanted a GIL before the tracer came: their first record is the end of something."""
    kind = np.zeros(len(image.recorded.threads), np.uint8)
    kind[image.known["thread"][::-1]] = image.known["kind"][::-1]
    older: Bools = ((kind == Kind.RELEASE) | (kind == Kind.TIMEOUT)) & (image.recorded.lost == 0)
    return older


def _life_around(lives: Sequence[Life], first: int, last: int) -> Life | None:
    """The life, of those of one tid in order, that records from `first` to `last` fit best.

    The tracer's clock and the kernel's need not agree to the nanosecond.
    """
    at = bisect_right(lives, first, key=lambda life: life.start)
    near = lives[max(at - 1, 0) : at + 1]
    return min(near, key=lambda life: max(life.start - first, last - life.end, 0), default=None)


def _within(life: Life, image: Image) -> tuple[int, int]:
    start = min(max(life.start, image.start), image.end)
    return start, max(start, min(life.end, image.end))


def _share(members: list[tuple[Thread, bool]], indices: list[int], first: Ints, last: Ints) -> None:
    """Divide one life among the traced threads that wrote records in it, one after the other."""
    indices.sort(key=lambda index: int(first[index]))
    for one, other in pairwise(indices):
        begin = int(min(first[other], members[other][0].end))
        thread, born = members[one]
        members[one] = (thread._replace(end=max(min(thread.end, begin), int(last[one]), thread.start)), born)
        members[other] = (members[other][0]._replace(start=begin), False)


def _from_spans(image: Image, known: set[int], names: Mapping[int, str]) -> list[Thread]:
    extent: dict[int, tuple[int, int]] = {}
    for collected in image.spans:
        spans = collected.spans
        for tid in np.unique(spans["tid"]).tolist():
            if tid not in known:
                own = spans[spans["tid"] == tid]
                start, end = extent.get(tid, (int(NEVER), -int(NEVER)))
                extent[tid] = (min(start, int(own["start"].min())), max(end, int(own["end"].max())))
    return [Thread(tid, names.get(tid, ""), start, end) for tid, (start, end) in sorted(extent.items())]
