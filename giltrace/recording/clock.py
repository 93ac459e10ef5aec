"""From the tracer's ticks to CLOCK_MONOTONIC nanoseconds."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from giltrace import native

FILE = "clock.bin"

#: One simultaneous reading of both clocks; `error` bounds how far apart the two readings were, in ns.
PAIR = np.dtype([("ticks", "<u8"), ("ns", "<u8"), ("error", "<u8")])


class TickClock:
    """Piecewise linear through the pairs that were read during the recording (sorted, at least one).

    Beyond the first and last pair the overall rate is continued; with a single pair a tick is taken for a ns.
    """

    def __init__(self, pairs: npt.NDArray[np.void]) -> None:
        ticks, first = np.unique(pairs["ticks"], return_index=True)
        self._origin = int(ticks[0])
        self._origin_ns = int(pairs["ns"][first[0]])
        self._ticks = (ticks - ticks[0]).astype(np.float64)
        self._ns = (pairs["ns"][first].astype(np.int64) - self._origin_ns).astype(np.float64)
        span = self._ticks[-1]
        self._rate = float(self._ns[-1] / span) if span > 0 else 1.0
        self._reading_error = int(pairs["error"].max())

    def to_ns(self, ticks: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Convert ticks (any shape) to CLOCK_MONOTONIC ns; monotone, exact to the rounding of a ns."""
        relative = (ticks.astype(np.int64) - np.int64(self._origin)).astype(np.float64)
        ns = np.interp(relative, self._ticks, self._ns)
        before, after = relative < 0, relative > self._ticks[-1]
        if before.any():
            ns[before] = relative[before] * self._rate
        if after.any():
            ns[after] = self._ns[-1] + (relative[after] - self._ticks[-1]) * self._rate
        rounded: npt.NDArray[np.int64] = np.rint(ns).astype(np.int64) + self._origin_ns
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


def append_pair(folder: Path) -> None:
    """Read both clocks now and append the pair to the recording's `clock.bin`."""
    with (folder / FILE).open("ab") as file:
        file.write(np.array([native.clock_pair()], PAIR).tobytes())


def read_pairs(folder: Path) -> npt.NDArray[np.void]:
    """All whole pairs of `clock.bin`; empty if there is no such file."""
    try:
        data = (folder / FILE).read_bytes()
    except FileNotFoundError:
        data = b""
    return np.frombuffer(data[: len(data) // PAIR.itemsize * PAIR.itemsize], PAIR)
