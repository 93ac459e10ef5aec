"""Which native function a thread was in during given times, as a sampler of native stacks saw it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.recording.events import Spans
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Array, Process

Bools = npt.NDArray[np.bool_]

_FRAME = re.compile(r"(?P<function>.*) \((?P<file>.*?)(?::\d+)?\)", re.S)

#: What a sampler calls a function of a library that has no symbol for it.
_NO_SYMBOL = "[no symbol]"


class NativeCode(NamedTuple):
    """What samples of one group of times show: the fields are those of `results.Hog`."""

    c_function: str | None = None
    c_file: str | None = None
    c_samples: int = 0
    samples: int = 0
    c_stack: tuple[str, ...] = ()


def find_native_code(process: Process, thread: Ints, start: Ints, end: Ints, group: Ints) -> dict[int, NativeCode]:
    """Say for each `group` in which native function its times (one `thread`, `start` and `end` per row) were spent.

    The times of one thread are disjoint. Groups of which there is no sample are left out. So are samples so near the
    edge of a time that they may belong to another.
    """
    tids = np.array([one.tid for one in process.threads], np.int64)[thread]
    found: dict[int, list[Ints]] = {}
    names: list[str] = []
    for spans in process.spans:
        if not spans.native:
            continue
        kind = _kinds(spans, names)
        for tid in np.unique(tids).tolist():
            mine = np.flatnonzero(tids == tid)
            mine = mine[np.argsort(start[mine], kind="stable")]
            own = spans.spans[slice(*np.searchsorted(spans.spans["tid"], [tid, tid + 1]))]
            instants = _instants(own, spans.interval_ns)
            at = np.searchsorted(start[mine], instants - spans.clock_error_ns, "right") - 1
            row = mine[np.maximum(at, 0)]
            inside = (at >= 0) & (instants + spans.clock_error_ns < end[row])
            seen, stacks = _native_frames(own, kind, instants[inside])
            for one, part in _split(stacks[seen], group[row[inside][seen]]):
                found.setdefault(one, []).append(part)
    return {one: _deepest(_joined(parts), names) for one, parts in found.items()}


def _kinds(spans: Spans, names: list[str]) -> Ints:
    """Number the native functions among the names of `spans`, lines left out, and add them to `names`; else -1."""
    number = {name: i for i, name in enumerate(names)}
    kind = np.full(len(spans.names), -1, np.int64)
    for name in spans.native:
        frame = _FRAME.fullmatch(spans.names[name])
        told = f"{frame['function']} ({frame['file']})" if frame else spans.names[name]
        kind[name] = number.setdefault(told, len(number))
    names[:] = number
    return kind


def _instants(own: Array, interval: int) -> Ints:
    """When a thread was sampled. Spans tell the samples that brought a change; those between lie at even distances."""
    edges = np.unique(np.concatenate([own["start"], own["end"]]))
    length = np.diff(edges)
    count = np.maximum(np.rint(length / interval), 1).astype(np.int64) if interval else np.ones(len(length), np.int64)
    first = np.repeat(np.cumsum(count) - count, count)
    step = np.repeat(length / np.maximum(count, 1), count)
    instants: Ints = np.repeat(edges[:-1], count) + ((np.arange(len(first)) - first) * step).astype(np.int64)
    return instants


def _native_frames(own: Array, kind: Ints, instants: Ints) -> tuple[Bools, Ints]:
    """Whether there is a stack at each instant, and its native functions below the innermost Python frame.

    The latter, outermost first, have the shape (instants, deepest stack); rows are filled up with -1.
    """
    covered = np.zeros(len(instants), np.bool_)
    depths = int(own["depth"].max(initial=0)) + 1
    found = np.full((len(instants), depths + 1), -1, np.int64)
    filled = np.zeros(len(instants), np.int64)
    for depth in range(depths):
        level = own[own["depth"] == depth]
        if len(level) == 0:
            break
        at = np.maximum(np.searchsorted(level["start"], instants, "right") - 1, 0)
        here = (level["start"][at] <= instants) & (instants < level["end"][at])
        covered |= here
        seen = kind[level["name"][at]]
        native = here & (seen >= 0)
        found[native, filled[native]] = seen[native]
        filled[native] += 1
        python = here & (seen < 0)
        found[python] = -1
        filled[python] = 0
    return covered, found


def _split(stacks: Ints, group: Ints) -> Iterator[tuple[int, Ints]]:
    order = np.argsort(group, kind="stable")
    groups, first = np.unique(group[order], return_index=True)
    for one, rows in zip(groups.tolist(), np.split(order, first[1:]) if len(groups) else [], strict=True):
        yield one, stacks[rows]


def _joined(parts: list[Ints]) -> Ints:
    width = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=-1) for part in parts])


def _deepest(stacks: Ints, names: list[str]) -> NativeCode:
    """Go down from the Python line for as long as more than half of all samples agree on the next function."""
    path: list[str] = []
    rest, agreeing = stacks, 0
    for depth in range(stacks.shape[1]):
        kinds, counts = np.unique(rest[:, depth], return_counts=True)
        most = int(counts.argmax())
        if kinds[most] < 0 or 2 * counts[most] <= len(stacks):
            break
        rest = rest[rest[:, depth] == kinds[most]]
        agreeing = len(rest)
        path.insert(0, names[int(kinds[most])])
    if not path:
        return NativeCode(samples=len(stacks))
    function, file = _name(path)
    return NativeCode(function, file, agreeing, len(stacks), tuple(path))


def _name(path: list[str]) -> tuple[str | None, str]:
    """The innermost function that has a name, unless it is in another library than the innermost one."""
    frames = [name.rpartition(" (") for name in path]
    file = frames[0][2].removesuffix(")")
    named = next((f[0] for f in frames if f[0] != _NO_SYMBOL and f[2].removesuffix(")") == file), None)
    return named, file
