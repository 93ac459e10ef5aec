"""What a file of another profiler says, still on the file's own clock."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from giltrace.recording.door import MAX_ID
from giltrace.recording.events import Array
from giltrace.recording.merged import MERGED, Track
from giltrace.text import cut, plural

Clock = Literal["monotonic", "realtime", "boottime"]

#: Starts and durations are rounded one by one: what follows may begin so much before the end of what it follows.
_ROUNDING_NS = 3
#: Sums of two are an int64 still; 1 << 61 ns after 1970 is the year 2043.
_MOST_NS = 1 << 61
_MOST_DEPTH = (1 << 16) - 1
_MOST_CATEGORIES = 1 << 16
_LONGEST_NAME = 2000


class Malformed(Exception):
    """A file is not what it should be: why, in a few words, and what to do about it."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


@dataclass(frozen=True)
class Parsed:
    """The spans of a file: as in `recording.merged.Merged`, but that times are of the file's clock.

    `kind` is the profiler. `clock` is the one that it uses, None if that is not known; `error_ns` is how far its times
    may be from what they are said to be of. Where it is `sampled`, only begins are instants at which a thread was
    looked at, and such a profiler looks at threads that can run. `left_out` counts what it has that is no span of a
    thread, by what that is. `profilers_pid`: the process ids in it are the profiler's own.
    """

    kind: str
    clock: Clock | None
    sampled: bool
    tracks: tuple[Track, ...]
    names: tuple[str, ...]
    categories: tuple[str, ...]
    rows: Array
    error_ns: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    profilers_pid: bool = False

    @property
    def left_out_text(self) -> str:
        """What was left out, in words; empty if nothing was."""
        return "".join(f", {plural(count, what)} left out" for what, count in sorted(self.left_out.items()))


class Gathered:
    """Collects the spans of a file. Times are ns of its clock."""

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self._tracks: dict[Hashable, int] = {}
        self._described: list[Track] = []
        self._names: dict[str, int] = {}
        self._categories: dict[str, int] = {}
        self._rows: list[tuple[int, int, int, int, int, int, int]] = []

    def track(self, key: Hashable, pid: int = 0, tid: int = 0, name: str = "") -> int:
        """The number of the track known by `key`: of a thread if there are `pid` and `tid`, else one of its own."""
        number = self._tracks.get(key)
        if number is None:
            number = self._tracks[key] = len(self._described)
            thread = 0 < pid <= MAX_ID and 0 < tid <= MAX_ID
            self._described.append(Track(pid, tid, name) if thread else Track(0, 0, name))
        return number

    def add(
        self, track: int, start: int, end: int, name: str, category: str = "", launcher: int = -1, depth: int = 0
    ) -> None:
        """Add a span. `launcher` is the track of the thread that asked for it; `depth` tells equal ones apart."""
        if len(self._categories) >= _MOST_CATEGORIES and category not in self._categories:
            category = next(iter(self._categories))
        number = self._names.setdefault(cut(name, _LONGEST_NAME), len(self._names))
        kind = self._categories.setdefault(category, len(self._categories))
        self._rows.append((start, max(start, end), track, number, launcher, kind, min(depth, _MOST_DEPTH)))

    def parsed(self, kind: str, clock: Clock | None, *, sampled: bool = False, error_ns: int = 0) -> Parsed:
        """All that was added, nested; spans that outlive the one around them are cut to it, and counted."""
        rows = np.array(self._rows, MERGED)
        rows = rows[np.lexsort((rows["depth"], -rows["end"], rows["start"], rows["track"]))]
        crossing = _nest(rows)
        if crossing:
            self.left_out["end of a span that outlives the one around it"] += crossing
        return Parsed(
            kind,
            clock,
            sampled,
            tuple(self._described),
            tuple(self._names),
            tuple(self._categories),
            rows[np.lexsort((rows["depth"], rows["start"], rows["track"]))],
            error_ns,
            dict(self.left_out),
        )


def _nest(rows: Array) -> int:
    """Give `rows`, sorted by (track, start, -end, depth), their depths; return how many had to be cut."""
    starts, ends, tracks = rows["start"].tolist(), rows["end"].tolist(), rows["track"].tolist()
    depths = [0] * len(rows)
    crossing = 0
    around: list[int] = []
    track = -1
    for at, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if tracks[at] != track:
            around, track = [], tracks[at]
        while around and (ends[around[-1]] <= start or ends[around[-1]] - start <= _ROUNDING_NS < end - start):
            ends[around[-1]] = min(ends[around[-1]], start)
            around.pop()
        if around and end > ends[around[-1]]:
            crossing += end - ends[around[-1]] > _ROUNDING_NS
            ends[at] = ends[around[-1]]
        depths[at] = min(len(around), _MOST_DEPTH)
        around.append(at)
    rows["end"], rows["depth"] = ends, depths
    return crossing


def nanoseconds(value: object, unit_ns: int, what: str) -> int:
    """A time or a length in the file, `unit_ns` each, in ns. Raises `Malformed` if it is none."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise Malformed(f"{what} is {cut(repr(value), 40)}, no number")
    whole = math.floor(value)
    found = whole * unit_ns + round((value - whole) * unit_ns)
    if abs(found) > _MOST_NS:
        raise Malformed(f"{what} is {cut(repr(value), 40)}, no time")
    return found


def whole_number(value: object) -> int:
    """An id in the file, 0 where it is no positive whole number: there are labels in the place of ids."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def dicts(values: object, what: str) -> Iterator[dict[str, object]]:
    """Those of `values` that are objects. Raises `Malformed` if they are no list."""
    if not isinstance(values, list):
        raise Malformed(f"its {what} are no list")
    for one in values:
        if not isinstance(one, dict):
            raise Malformed(f"one of its {what} is no object")
        yield one
