"""From the tracer's ticks to CLOCK_MONOTONIC nanoseconds."""

from __future__ import annotations

import time
from bisect import bisect_left
from pathlib import Path

import numpy as np
import numpy.typing as npt

from giltrace import native
from giltrace.recording.clock_file import FILE
from giltrace.recording.door import MAX_TIME, Times, read_data

#: One simultaneous reading of both clocks; `error` bounds how far apart the two readings were, in ns.
PAIR = np.dtype([("ticks", "<u8"), ("ns", "<u8"), ("error", "<u8")])


#: A reading of both clocks that took longer says nothing.
_MOST_ERROR_NS = 1_000_000_000
_EVER = Times()
#: So far (ns) from the first reading, times are not told apart any more: none of a recording is.
_FAR = float(MAX_TIME)


class TickClock:
    """Piecewise linear through the pairs that were read during the recording (at least one).

    Beyond the first and last pair the overall rate is continued; with a single pair a tick is taken for a ns. Those
    that contradict most of the others are left out.
    """

    def __init__(self, pairs: npt.NDArray[np.void]) -> None:
        pairs = _agreeing(pairs)
        ticks, ns = pairs["ticks"], pairs["ns"].astype(np.int64)
        self._origin = int(ticks[0])
        self._origin_ns = int(ns[0])
        self._ticks = (ticks - ticks[0]).astype(np.float64)
        self._ns = (ns - self._origin_ns).astype(np.float64)
        span = self._ticks[-1]
        self._rate = float(self._ns[-1] / span) if span > 0 else 1.0
        self._reading_error = int(pairs["error"].max())

    def to_ns(self, ticks: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Convert ticks (any shape) to CLOCK_MONOTONIC ns; monotone, exact to the rounding of a ns.

        Ticks that are far from any time that there may be are not told apart.
        """
        # Differences of unsigned numbers, read as signed ones, are right however large the numbers are.
        relative = (ticks.astype(np.uint64) - np.uint64(self._origin)).view(np.int64).astype(np.float64)
        ns = np.interp(relative, self._ticks, self._ns)
        before, after = relative < 0, relative > self._ticks[-1]
        if before.any():
            ns[before] = relative[before] * self._rate
        if after.any():
            ns[after] = self._ns[-1] + (relative[after] - self._ticks[-1]) * self._rate
        rounded: npt.NDArray[np.int64] = np.rint(np.clip(ns, -_FAR, _FAR)).astype(np.int64) + self._origin_ns
        return rounded

    def to_ticks(self, ns: int) -> int:
        """The tick at a CLOCK_MONOTONIC ns: the inverse of `to_ns`."""
        relative = ns - self._origin_ns
        if 0 <= relative <= self._ns[-1]:
            return self._origin + round(float(np.interp(relative, self._ns, self._ticks)))
        near, there = (0.0, 0.0) if relative < 0 else (self._ns[-1], self._ticks[-1])
        return self._origin + round(float(there + (relative - near) / self._rate))

    @property
    def error_ns(self) -> int:
        """Bound of the conversion's error: the readings' own, and how far each pair lies off its neighbours."""
        if self._ticks.size < 3:
            return self._reading_error
        guess = self._ns[:-2] + (self._ticks[1:-1] - self._ticks[:-2]) * (self._ns[2:] - self._ns[:-2]) / (
            self._ticks[2:] - self._ticks[:-2]
        )
        return self._reading_error + int(np.ceil(np.abs(guess - self._ns[1:-1]).max()))


def ticks_per_ns(seconds: float = 0.02) -> float:
    """Measure how fast the tracer's clock ticks, to about 1 in 100,000; takes `seconds`."""
    first = native.clock_pair()
    time.sleep(seconds)
    second = native.clock_pair()
    return (second[0] - first[0]) / (second[1] - first[1])


def read_pairs(folder: Path, times: Times = _EVER) -> npt.NDArray[np.void]:
    """All whole pairs of `clock.bin` whose time is one of `times`; empty if there is no such file.

    Raises `Damaged` for what is no such file.
    """
    try:
        data = read_data(folder / FILE)
    except FileNotFoundError:
        data = bytearray()
    pairs = np.frombuffer(data[: len(data) // PAIR.itemsize * PAIR.itemsize], PAIR)
    good = times.have(pairs["ns"]) & (pairs["error"] <= _MOST_ERROR_NS)
    return pairs[good]


def _agreeing(pairs: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """The pairs in order of their ticks, without those of which both clocks cannot have gone forward."""
    pairs = pairs[np.unique(pairs["ticks"], return_index=True)[1]]
    if (pairs["ns"][1:] > pairs["ns"][:-1]).all():
        return pairs
    # The longest choice whose times increase: `last[n]` ends the best one of n + 1 pairs found so far.
    last: list[int] = []
    times: list[int] = []
    before = [-1] * len(pairs)
    for at, ns in enumerate(pairs["ns"].tolist()):
        place = bisect_left(times, ns)
        before[at] = last[place - 1] if place else -1
        last[place : place + 1], times[place : place + 1] = [at], [ns]
    chosen, at = [], last[-1]
    while at >= 0:
        chosen.append(at)
        at = before[at]
    return pairs[chosen[::-1]]
