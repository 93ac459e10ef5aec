"""speedscope's format: profiles of begins and ends can be merged, those of samples have no instants.

py-spy writes the latter: for each thread how many looks found which stack, one after the other without the times in
between at which it slept, whatever the looks' distance was. py-spy's chrometrace has the times.
"""

from __future__ import annotations

import re
from typing import Any

from giltrace.merging.parsed import Gathered, Malformed, Parsed, dicts, nanoseconds, whole_number

_UNITS = {"nanoseconds": 1, "microseconds": 1_000, "milliseconds": 1_000_000, "seconds": 1_000_000_000}
_NUMBERS = re.compile(r"(?:\b[Pp](?:rocess|id)\D{0,3}(\d{1,7})\b.*)?\b[Tt](?:hread|id)\D{0,3}(\d{1,7})\b", re.ASCII)


def is_it(content: Any) -> bool:
    """Whether JSON is speedscope's."""
    return isinstance(content, dict) and "speedscope" in str(content.get("$schema", "")) and "profiles" in content


def read(content: Any) -> Parsed:
    """Read a file of speedscope's. Raises `Malformed` if it is none."""
    shared = content.get("shared")
    frames = list(dicts(shared.get("frames") if isinstance(shared, dict) else None, "frames"))
    names = [_name(frame) for frame in frames]
    gathered = Gathered()
    for profile in dicts(content["profiles"], "profiles"):
        if profile.get("type") != "evented":
            raise Malformed(
                "its samples have no times, only an order",
                "record with `py-spy record --threads --format chrometrace` instead of --format speedscope",
            )
        _take(gathered, profile, names)
    return gathered.parsed("speedscope", None)


def _take(gathered: Gathered, profile: dict[str, Any], names: list[str]) -> None:
    unit = _UNITS.get(str(profile.get("unit")))
    if unit is None:
        raise Malformed(f"its unit is {str(profile.get('unit'))[:40]!r}, no time")
    title = str(profile.get("name", ""))
    found = _NUMBERS.search(title)
    pid, tid = (whole_number(found[1] or ""), whole_number(found[2])) if found else (0, 0)
    track = gathered.track(title, pid, tid, title)
    opened: list[tuple[int, int]] = []
    for event in dicts(profile.get("events"), "events"):
        time, frame = nanoseconds(event.get("at"), unit, "the time of an event"), event.get("frame")
        if not isinstance(frame, int) or not 0 <= frame < len(names):
            raise Malformed("an event of it has no frame")
        if event.get("type") == "O":
            opened.append((frame, time))
        elif opened and opened[-1][0] == frame:
            gathered.add(track, opened.pop()[1], time, names[frame], depth=len(opened))
        else:
            gathered.left_out["end without a begin"] += 1


def _name(frame: dict[str, Any]) -> str:
    name, file, line = frame.get("name", ""), frame.get("file"), frame.get("line")
    return f"{name} ({file}:{line})" if file and line else str(name)
