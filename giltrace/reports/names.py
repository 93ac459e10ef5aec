"""How places in code are called, and how long names fit in little room: cut, and never so that two look alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import takewhile

from giltrace.analysis.site import Site

_GAP = ".."


def site_name(site: Site, *, thread: bool = True) -> str:
    """Return ``role: function (file:line) [leaf (file:line)]``; of files the last part only.

    First comes the user's own line; in brackets what that led to, if it is in a library. Without a stack it is the role
    alone. What is no code of the program, but giltrace's own, is marked.
    """
    if not site.function:
        return site.thread
    told = (site.where if site.where == site.leaf else f"{site.where} [{site.leaf}]") + (
        " [giltrace]" if site.own else ""
    )
    return f"{site.thread}: {told}" if thread else told


def shortened(names: Sequence[str], width: int) -> dict[str, str]:
    """Each of the names in at most `width` columns, unless two that differ would then be the same: these stay whole."""
    short = {name: _middle(name, width) for name in names}
    for alike in _alike(short):
        differ = sum(1 for _ in takewhile(lambda chars: len(set(chars)) == 1, zip(*alike, strict=False)))
        short |= {name: _around(name, differ, width) for name in alike}
    for alike in _alike(short):
        short |= {name: name for name in alike}
    return short


def _alike(short: dict[str, str]) -> list[list[str]]:
    groups = defaultdict[str, list[str]](list)
    for name, cut in short.items():
        groups[cut].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _middle(name: str, width: int) -> str:
    if len(name) <= width:
        return name
    tail = max(width - len(_GAP), 2) // 2
    return f"{name[: max(width - len(_GAP) - tail, 1)]}{_GAP}{name[-tail:]}"


def _around(name: str, place: int, width: int) -> str:
    """Cut so that what stands at `place` can be read."""
    if len(name) <= width:
        return name
    head = max(min(place, width // 3), 1)
    room = max(width - head - len(_GAP), 1)
    return f"{name[:head]}{_GAP}{name[min(place, len(name) - room) :][:room]}"
