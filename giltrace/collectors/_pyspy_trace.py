"""What py-spy's chrometrace file says, on the clock of the recording.

py-spy counts microseconds from an instant of its own, taken just before it starts its sampling thread. Its main
thread wakes for every sample and reads the clock then, at the irregular intervals that py-spy chooses on purpose: so
there is only one place on CLOCK_MONOTONIC where all samples fall into times at which that thread had a core.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from giltrace.recording.alignment import Readings, best_fit

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from giltrace.recording.events import SchedEvents

    Rows = npt.NDArray[np.void]

#: Samples used to find py-spy's start; more make it no more certain.
_MAX_TICKS = 400

# A thread may have any name, of several lines too.
_THREAD = re.compile(r"thread \((0x[0-9A-Fa-f]+|\d+)\)(?:: (.*))?", re.DOTALL)

#: Resolves a pthread id and the thread's name at a time (ns) to the kernel's thread id, None if unknown.
ResolveThread = Callable[[int, str, int], int | None]


def find_start(ticks: Iterable[int], switches: SchedEvents | None, first: int, last: int) -> tuple[int, int]:
    """Return when py-spy's clock started, in CLOCK_MONOTONIC ns, and the bound on that instant's error.

    `ticks` are the distinct times in its file, in us; `switches` those of its main thread; the start is known to
    lie in [`first`, `last`]. Without switches, only that is known.
    """
    import numpy as np

    if switches is not None and len(switches.tasks):
        births = switches.tasks["time"][(switches.tasks["born"] == 1) & (switches.tasks["time"] >= first)]
        last = min(last, int(births.min())) if len(births) else last
    last = max(first, last)
    times = np.array(sorted(set(ticks)), np.int64) * 1000
    if switches is None or not len(switches.switches) or not len(times):
        return (first + last) // 2, (last - first + 1) // 2
    times = times[np.unique(np.linspace(0, len(times) - 1, min(_MAX_TICKS, len(times))).astype(np.int64))]
    # A tick was cut to whole microseconds, so the clock was read up to one later.
    fit = best_fit([Readings(times, *_runs(switches.switches))], first, last, rounding=1000)
    low, high = (first, last) if fit is None else fit[:2]
    return (low + high) // 2, (high - low + 1) // 2


def _runs(switches: Rows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the begin and end of each time on a core."""
    import numpy as np

    on, time = switches["on"], switches["time"]
    begins = np.flatnonzero((on[:-1] == 1) & (on[1:] == 0))
    return time[begins], time[begins + 1]


class ChromeTrace:
    """One file of py-spy. Raises ValueError where it is not what py-spy writes."""

    def __init__(self, path: Path) -> None:
        events = json.loads(path.read_bytes())
        if not isinstance(events, list):
            raise ValueError(f"{path} holds no list of events")
        self._events: list[dict[str, Any]] = [event for event in events if event.get("ph") in ("B", "E")]
        #: Distinct times of samples and of the file's writing, in us.
        self.ticks = sorted({int(event["ts"]) for event in self._events})

    @property
    def samples(self) -> list[int]:
        """Times at which a sample differed from the one before, in us."""
        return sorted({int(event["ts"]) for event in self._events if event["ph"] == "B"})

    def rows(
        self, start: int, names: dict[str, int], resolve: ResolveThread, ends: Mapping[int, list[int]], last: int
    ) -> tuple[Rows, int]:
        """Return the spans as rows of dtype `SPAN`, adding to `names`, and the number of those without a thread.

        Its time zero is `start` (ns). No frame outlives its thread, whose ends `ends` holds, nor `last`:
        py-spy itself keeps the frames of a thread that has ended open until it ends too.
        """
        import numpy as np

        from giltrace.recording.events import SPAN

        rows: list[tuple[int, int, int, int, int]] = []
        unknown = 0
        stacks: dict[int, list[tuple[str, int]]] = {}
        threads: dict[int, tuple[int | None, int]] = {}
        for event in self._events:
            key, time = event["tid"], start + int(event["ts"]) * 1000
            stack = stacks.setdefault(key, [])
            if event["ph"] == "B":
                if not stack:
                    tid = _thread_id(event["name"], resolve, time)
                    threads[key] = (tid, _next(ends.get(tid, []), time, last) if tid is not None else last)
                stack.append((_frame_name(event), time))
                continue
            if not stack:
                continue
            name, begin = stack.pop()
            tid, limit = threads[key]
            if not stack:
                continue  # that was the thread itself, py-spy's outermost frame
            if tid is None:
                unknown += 1
            elif begin < min(time, limit):
                depth = min(len(stack) - 1, 0xFFFF)
                rows.append((begin, min(time, limit), tid, names.setdefault(name, len(names)), depth))
        return (np.array(rows, SPAN) if rows else np.empty(0, SPAN)), unknown


def _thread_id(frame: str, resolve: ResolveThread, time: int) -> int | None:
    match = _THREAD.fullmatch(frame)
    if match is None:
        raise ValueError(f"py-spy's outermost frame is {frame!r}, not a thread")
    number, name = match.groups()
    return resolve(int(number, 16), name or "", time) if number.startswith("0x") else int(number)


def _next(times: list[int], time: int, last: int) -> int:
    index = bisect.bisect_right(times, time)
    return min(times[index], last) if index < len(times) else last


def _frame_name(event: dict[str, Any]) -> str:
    filename, line = event["args"].get("filename"), event["args"].get("line")
    if not filename:
        return str(event["name"])
    return f"{event['name']} ({filename}:{line})" if line else f"{event['name']} ({filename})"
