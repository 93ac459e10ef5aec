"""Firefox Profiler's format, as Tachyon (Python 3.15's `profiling.sampling --gecko`) writes it.

Its times count from `meta.startTime`, in ms of CLOCK_MONOTONIC; threads have the kernel's ids, and in the place of
their process that of Tachyon. A look at a thread is
stamped when its stack has been read. Equal looks that follow each other become one span per frame.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from giltrace.merging.parsed import Clock, Gathered, Malformed, Parsed, dicts, nanoseconds, whole_number

_MS = 1_000_000
_TACHYON = "Tachyon"
#: A thread that was not looked at for so many intervals was not there, or had no stack.
_MISSED = 10


def is_it(content: Any) -> bool:
    """Whether JSON is a processed profile of the Firefox Profiler."""
    return isinstance(content, dict) and isinstance(content.get("meta"), dict) and "threads" in content


def read(content: Any) -> Parsed:
    """Read a profile. Raises `Malformed` if it is none."""
    about = content["meta"]
    tachyon = _TACHYON in str(about.get("importedFrom", ""))
    start = nanoseconds(about.get("startTime", 0), _MS, "its startTime")
    interval = max(1, nanoseconds(about.get("interval", 1), _MS, "its interval"))
    shared = content.get("shared", {})
    texts = shared.get("stringArray") if isinstance(shared, dict) else None
    if not isinstance(texts, list):
        raise Malformed("it has no shared.stringArray", "merge what Tachyon's --gecko wrote, of Python 3.15")
    gathered = Gathered()
    for thread in dicts(content["threads"], "threads"):
        _take(gathered, thread, texts, start, interval)
    clock: Clock | None = "monotonic" if tachyon else "realtime" if start else None
    parsed = gathered.parsed("tachyon" if tachyon else "firefox", clock, sampled=True, error_ns=interval)
    return replace(parsed, profilers_pid=tachyon)


def _take(gathered: Gathered, thread: dict[str, Any], texts: list[Any], start: int, interval: int) -> None:
    """Add the spans of one thread."""
    stacks = _Stacks(thread, texts)
    pid, tid = whole_number(thread.get("pid")), whole_number(thread.get("tid"))
    track = gathered.track((pid, tid, thread.get("name")), pid, tid, str(thread.get("name", "")))
    times = _column(thread, "samples", "time")
    looks = [start + nanoseconds(time, _MS, "the time of a sample") for time in times]
    opened: list[tuple[int, int]] = []
    last = looks[0] if looks else 0
    for time, stack in zip(looks, _column(thread, "samples", "stack"), strict=False):
        path = stacks.path(stack)
        if time - last > _MISSED * interval:
            _close(gathered, track, opened, 0, last + interval, stacks)
        shared = next((at for at, (one, _) in enumerate(opened) if at >= len(path) or one != path[at]), len(opened))
        _close(gathered, track, opened, shared, time, stacks)
        opened += [(frame, time) for frame in path[shared:]]
        last = time
    _close(gathered, track, opened, 0, last + interval, stacks)


def _close(
    gathered: Gathered, track: int, opened: list[tuple[int, int]], keep: int, time: int, stacks: _Stacks
) -> None:
    """End all but the `keep` outermost of the frames that are open."""
    while len(opened) > keep:
        frame, begin = opened.pop()
        gathered.add(track, begin, time, stacks.text(frame), depth=len(opened))


class _Stacks:
    """The stacks of one thread's tables: from a number to the frames, outermost first."""

    def __init__(self, thread: dict[str, Any], texts: list[Any]) -> None:
        self._prefix, self._frame = _column(thread, "stackTable", "prefix"), _column(thread, "stackTable", "frame")
        self._function, self._line = _column(thread, "frameTable", "func"), _column(thread, "frameTable", "line")
        self._name, self._file = _column(thread, "funcTable", "name"), _column(thread, "funcTable", "fileName")
        self._texts = texts
        self._paths: dict[Any, tuple[int, ...]] = {}

    def path(self, stack: Any) -> tuple[int, ...]:
        """The numbers of the frames of a stack, outermost first; none of one that is not known."""
        known = self._paths.get(stack) if isinstance(stack, int) else ()
        if known is not None:
            return known
        path: list[int] = []
        at = stack
        while isinstance(at, int) and 0 <= at < min(len(self._frame), len(self._prefix)):
            path.append(whole_number(self._frame[at]))
            if len(path) > len(self._frame):
                raise Malformed("a stack of it has no end")
            at = self._prefix[at]
        found = self._paths[stack] = tuple(reversed(path))
        return found

    def text(self, frame: int) -> str:
        """A frame in words: function (file:line)."""
        function = whole_number(_at(self._function, frame))
        name, file = (_at(self._texts, _at(column, function)) for column in (self._name, self._file))
        line = whole_number(_at(self._line, frame))
        return f"{name} ({file}:{line})" if file and line else str(name)


def _at(values: list[Any], index: Any) -> Any:
    return values[index] if isinstance(index, int) and 0 <= index < len(values) else ""


def _column(thread: dict[str, Any], table: str, name: str) -> list[Any]:
    found = thread.get(table)
    column = found.get(name) if isinstance(found, dict) else None
    if not isinstance(column, list):
        raise Malformed(f"a thread of it has no {table}.{name}", "merge what Tachyon's --gecko wrote, of Python 3.15")
    return column
