"""Figures of the last minute, by stretch of time and by key, in memory bounded by what was active in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from giltrace.timeline.axis import Ints

# So many additions are kept as they came before equal rows are merged.
_LOOSE = 16


def split(start: Ints, end: Ints, width: int) -> tuple[Ints, Ints, Ints]:
    """Cut intervals at multiples of `width`: for each part its interval, its bucket (``time // width``), its length."""
    first = start // width
    parts = np.maximum((end - 1) // width - first, 0) + 1
    row = np.repeat(np.arange(len(start), dtype=np.int64), parts)
    bucket = np.arange(len(row), dtype=np.int64) - np.repeat(np.cumsum(parts) - parts, parts) + first[row]
    length = np.minimum(end[row], (bucket + 1) * width) - np.maximum(start[row], bucket * width)
    return row, bucket, np.maximum(length, 0)


class Buckets:
    """Rows of (bucket, key) with the columns `sums`, which are added up, and `maxima`; all int64."""

    def __init__(self, sums: tuple[str, ...], maxima: tuple[str, ...] = ()) -> None:
        self._sums, self._maxima = sums, maxima
        self._dtype = np.dtype([(name, "<i8") for name in ("bucket", "key", *sums, *maxima)])
        self._parts: list[npt.NDArray[np.void]] = [np.empty(0, self._dtype)]

    def add(self, bucket: Ints, key: Ints, **columns: npt.NDArray[Any] | int) -> None:
        """Add one row per element; columns that are not given are 0."""
        if len(bucket) == 0:
            return
        rows = np.zeros(len(bucket), self._dtype)
        rows["bucket"], rows["key"] = bucket, key
        for name, values in columns.items():
            rows[name] = values
        self._parts.append(self._merge(rows, ("bucket", "key")))
        if len(self._parts) > _LOOSE:
            self._parts = [self._rows()]

    def drop_before(self, bucket: int) -> None:
        """Forget what is older."""
        rows = self._rows()
        self._parts = [rows[rows["bucket"] >= bucket]]

    def total(self, since: int = 0) -> npt.NDArray[np.void]:
        """One row per key with its figures from bucket `since` on; sorted by key."""
        rows = self._rows()
        return self._merge(rows.compress(rows["bucket"] >= since), ("key",))

    def of(self, key: int) -> npt.NDArray[np.void]:
        """The rows of one key, sorted by bucket."""
        rows = self._rows()
        own: npt.NDArray[np.void] = rows.compress(rows["key"] == key)
        return own

    def _rows(self) -> npt.NDArray[np.void]:
        if len(self._parts) > 1:
            self._parts = [self._merge(np.concatenate(self._parts), ("bucket", "key"))]
        return self._parts[0]

    def _merge(self, rows: npt.NDArray[np.void], by: tuple[str, ...]) -> npt.NDArray[np.void]:
        order = np.lexsort(tuple(rows[name] for name in reversed(by)))
        rows = rows.take(order)
        fresh = np.zeros(len(rows), np.bool_)
        fresh[:1] = True
        for name in by:
            fresh[1:] |= rows[name][1:] != rows[name][:-1]
        head = np.flatnonzero(fresh)
        merged: npt.NDArray[np.void] = rows.take(head)
        if len(head) < len(rows):
            for name in self._sums:
                merged[name] = np.add.reduceat(rows[name], head)
            for name in self._maxima:
                merged[name] = np.maximum.reduceat(rows[name], head)
        return merged
