"""Chrome's trace events in JSON: what torch.profiler, viztracer, py-spy and many others write.

Complete events and pairs of begin and end become spans. Kineto, which writes torch.profiler's, puts a GPU's work on
tracks of device and stream; a number in it (`correlation`) leads to the call by which a thread asked for it.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

from giltrace.merging.parsed import Clock, Gathered, Malformed, Parsed, dicts, nanoseconds, whole_number
from giltrace.text import cut

_US = 1_000
#: What Kineto says of work that a device does.
_ON_DEVICE = re.compile(r"kernel|gpu_\w+|cuda_sync|mtia_\w+|xpu_\w+", re.ASCII)
#: What it says of calls that ask for it.
_CALLS = re.compile(r"(cuda|hip|xpu|mtia|privateuse1)_(runtime|driver)", re.ASCII)
_PYSPY_THREAD = re.compile(r"thread \((0x[0-9A-Fa-f]+|\d+)\)(?:: (.*))?", re.ASCII | re.DOTALL)
_PYSPY_REMEDY = "record with `py-spy record --threads --format chrometrace`, which gives threads their ids"
#: A trace of Chrome itself says which clock it has.
_CLOCK_DOMAINS: dict[object, Clock] = {"LINUX_CLOCK_MONOTONIC": "monotonic"}
_KINDS_LEFT_OUT = {"i": "instant", "I": "instant", "C": "counter value", "b": "asynchronous event"}


def is_it(content: Any) -> bool:
    """Whether JSON is a Chrome trace."""
    events = content.get("traceEvents") if isinstance(content, dict) else content
    return isinstance(events, list) and all(isinstance(one, dict) and "ph" in one for one in events[:1])


def read(content: Any) -> Parsed:
    """Read a Chrome trace. Raises `Malformed` if it is none."""
    about: dict[str, Any] = content if isinstance(content, dict) else {}
    events = list(dicts(about.get("traceEvents", content), "events"))
    kind, clock = _origin(about, events)
    base = about.get("baseTimeNanoseconds", 0)
    if not isinstance(base, int) or isinstance(base, bool) or abs(base) > 1 << 61:
        raise Malformed(f"its baseTimeNanoseconds is {cut(repr(base), 40)}, no time")
    reader = _Reader(events, base)
    if kind == "py-spy":
        reader.take_threads_from_frames()
    return reader.gathered.parsed(kind, clock, sampled=kind == "py-spy")


def _origin(about: dict[str, Any], events: list[dict[str, object]]) -> tuple[str, Clock | None]:
    """Who wrote it, and the clock of its times; None if that is not known."""
    if "viztracer_metadata" in about:
        return "viztracer", "monotonic"
    if "baseTimeNanoseconds" in about or {"schemaVersion", "deviceProperties"} <= about.keys():
        return "torch", "realtime"
    if events and events[0].get("cat") == "py-spy":
        return "py-spy", None
    metadata = about.get("metadata")
    domain = metadata.get("clock-domain") if isinstance(metadata, dict) else None
    return "chrome", _CLOCK_DOMAINS.get(domain) if isinstance(domain, str) else None


class _Reader:
    """Makes spans of events, in the file's order; times count from `base` (ns) on."""

    def __init__(self, events: list[dict[str, object]], base: int) -> None:
        self.gathered = Gathered()
        self._base = base
        self._events = events
        self._labels = _labels(events)
        self._callers = self._callers_by_correlation()
        self._open: dict[Hashable, list[tuple[int, str, str]]] = {}
        self._ids: dict[Hashable, int] = {}
        last = base
        pyspy = bool(events) and events[0].get("cat") == "py-spy"
        if pyspy:
            return  # its threads stand in its frames
        for event in events:
            last = max(last, self._take(event))
        for key, stack in self._open.items():
            for depth, (start, name, category) in enumerate(stack):
                self.gathered.add(self._track_of(key), start, last, name, category, depth=depth)

    def take_threads_from_frames(self) -> None:
        """Make spans of py-spy's frames, whose outermost says which thread it is."""
        stacks: dict[Hashable, list[tuple[int, str]]] = {}
        tids: dict[Hashable, int] = {}
        for event in self._events:
            key, phase, time = (_id(event.get("pid")), _id(event.get("tid"))), event.get("ph"), self._time(event)
            stack = stacks.setdefault(key, [])
            if phase == "B":
                name = str(event.get("name", ""))
                thread = _PYSPY_THREAD.fullmatch(name)
                if not stack and (thread is None or thread[1].startswith("0x")):
                    raise Malformed("py-spy's file does not say which threads it saw", _PYSPY_REMEDY)
                if not stack and thread is not None:
                    tids[key] = int(thread[1]) if len(thread[1]) < 10 else 0
                stack.append((time, _frame(name, event.get("args"))))
            elif phase == "E" and stack:
                start, name = stack.pop()
                if stack and time > start:
                    track = self.gathered.track((key, tids[key]), whole_number(event.get("pid")), tids[key])
                    self.gathered.add(track, start, time, name, depth=len(stack))

    def _take(self, event: dict[str, object]) -> int:
        """Take one event; return the time at which it ends."""
        phase = event.get("ph")
        if phase == "X":
            start = self._time(event)
            end = start + max(0, nanoseconds(event.get("dur", 0), _US, "the dur of an event"))
            category = _category(event)
            launcher = self._launcher(event) if _ON_DEVICE.fullmatch(category) else -1
            self.gathered.add(self._track(event, category), start, end, _name(event), category, launcher)
            return end
        if phase in ("B", "E"):
            time = self._time(event)
            key = (_id(event.get("pid")), _id(event.get("tid")))
            stack = self._open.setdefault(key, [])
            if phase == "B":
                stack.append((time, _name(event), _category(event)))
            elif stack:
                start, name, category = stack.pop()
                self.gathered.add(self._track_of(key), start, time, name, category, depth=len(stack))
            else:
                self.gathered.left_out["end without a begin"] += 1
            return time
        if phase in _KINDS_LEFT_OUT:
            self.gathered.left_out[_KINDS_LEFT_OUT[str(phase)]] += 1
        return self._base

    def _time(self, event: dict[str, object]) -> int:
        return self._base + nanoseconds(event.get("ts"), _US, "the ts of an event")

    def _track(self, event: dict[str, object], category: str) -> int:
        key = (_id(event.get("pid")), _id(event.get("tid")))
        if not _ON_DEVICE.fullmatch(category):
            return self._track_of(key)
        arguments = event.get("args")
        device = arguments.get("device", key[0]) if isinstance(arguments, dict) else key[0]
        stream = arguments.get("stream", key[1]) if isinstance(arguments, dict) else key[1]
        return self.gathered.track(("device", *key), name=f"GPU {_id(device)} stream {_id(stream)}")

    def _track_of(self, key: tuple[Hashable, Hashable] | Any) -> int:
        pid, tid = key
        label = self._labels.get(key) or f"{pid} {tid}"
        return self.gathered.track(key, whole_number(pid), whole_number(tid), label)

    def _callers_by_correlation(self) -> dict[int, tuple[Hashable, Hashable]]:
        return {
            number: (_id(event.get("pid")), _id(event.get("tid")))
            for event in self._events
            if _CALLS.fullmatch(_category(event)) and (number := _correlation(event))
        }

    def _launcher(self, event: dict[str, object]) -> int:
        key = self._callers.get(_correlation(event))
        return -1 if key is None else self._track_of(key)


def _labels(events: list[dict[str, object]]) -> dict[tuple[Hashable, Hashable], str]:
    """What the file calls its tracks that are no threads."""
    found: dict[tuple[Hashable, Hashable], str] = {}
    for event in events:
        arguments = event.get("args")
        if event.get("ph") == "M" and event.get("name") == "thread_name" and isinstance(arguments, dict):
            found[(_id(event.get("pid")), _id(event.get("tid")))] = cut(str(arguments.get("name", "")), 200)
    return found


def _id(value: object) -> int | str:
    """An id of a process or thread as written, by which its events find each other."""
    return value if isinstance(value, int) else cut(str(value), 200)


def _name(event: dict[str, object]) -> str:
    return str(event.get("name", ""))


def _category(event: dict[str, object]) -> str:
    return cut(str(event.get("cat", "")), 200)


def _correlation(event: dict[str, object]) -> int:
    arguments = event.get("args")
    return whole_number(arguments.get("correlation")) if isinstance(arguments, dict) else 0


def _frame(name: str, arguments: object) -> str:
    filename = arguments.get("filename") if isinstance(arguments, dict) else None
    line = arguments.get("line") if isinstance(arguments, dict) else None
    if not filename:
        return name
    return f"{name} ({filename}:{line})" if line else f"{name} ({filename})"
