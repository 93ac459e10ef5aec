"""Many packets at once: one packet of each shape is built by protobuf, numpy then fills in the columns.

Columns have a fixed width: varints are padded with empty continuation bytes, which protobuf readers accept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from giltrace.exporters.perfetto.protos import framed

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]
#: Makes one packet, or several that follow each other, with the given value in each column.
Builder = Callable[[Mapping[str, int]], Any]


class Field(Enum):
    """The kinds of column: bytes taken, and whether it is a varint or a fixed64."""

    TIME = (9, "varint")
    UUID = (5, "varint")
    IID = (4, "varint")
    COUNT = (5, "varint")
    SMALL = (3, "varint")
    TYPE = (1, "varint")
    FLOW = (8, "fixed64")

    @property
    def width(self) -> int:
        """How many bytes it takes."""
        return self.value[0]

    @property
    def is_varint(self) -> bool:
        """Whether these bytes are a varint."""
        return self.value[1] == "varint"

    def filler(self, pattern: int) -> int:
        """Return a value whose every encoded byte depends on `pattern`, which is 1 or 2."""
        step = 7 if self.is_varint else 8
        # 1 and 2 are also slice begin and slice end: protobuf takes no unknown event type.
        return sum(pattern << (step * at) for at in range(self.width))


class Shape:
    """Packets that differ only in the values of `columns`."""

    def __init__(self, build: Builder, columns: Mapping[str, Field]) -> None:
        base = {name: field.filler(1) for name, field in columns.items()}
        self._image = np.frombuffer(framed(build(base)), np.uint8)
        self._slots: dict[str, tuple[int, Field]] = {}
        for name, field in columns.items():
            changed = np.frombuffer(framed(build({**base, name: field.filler(2)})), np.uint8)
            differs = np.flatnonzero(changed != self._image)
            if len(differs) != field.width or differs[-1] - differs[0] != field.width - 1:
                raise ValueError(f"column {name} is not one run of {field.width} bytes")
            self._slots[name] = (int(differs[0]), field)

    def fill(self, **columns: Ints) -> Bytes:
        """Return the packets, one per row, shape (n, size); every column of the shape has n values, not negative."""
        count = len(next(iter(columns.values())))
        rows = np.empty((count, len(self._image)), np.uint8)
        rows[:] = self._image
        for name, (offset, field) in self._slots.items():
            _put(rows, offset, columns[name].astype(np.uint64), field)
        return rows


def _put(rows: Bytes, offset: int, values: npt.NDArray[np.uint64], field: Field) -> None:
    width = field.width
    low = pad_varint(values, width) if field.is_varint else values
    done = 0
    for size in (8, 4, 2, 1):
        # Few wide stores in place of many narrow ones; a ninth byte comes from the bits above the first eight.
        while width - done >= size:
            source = low >> np.uint64(8 * done) if done < 8 else values >> np.uint64(56)
            target = np.ndarray(len(rows), f"<u{size}", rows, offset + done, (rows.strides[0],))
            target[...] = source.astype(f"<u{size}")
            done += size


def pad_varint(values: npt.NDArray[np.uint64], width: int) -> npt.NDArray[np.uint64]:
    """Return the first eight bytes of each value's varint of `width` bytes, as little-endian integers."""
    # Seven bits into each byte, by halves: 28 bits into 32, 14 into 16, 7 into 8.
    low = np.uint64((1 << 28) - 1)
    x = (values & low) | ((values & (low << np.uint64(28))) << np.uint64(4))
    x = (x & np.uint64(0x00003FFF00003FFF)) | ((x & np.uint64(0x0FFFC0000FFFC000)) << np.uint64(2))
    x = (x & np.uint64(0x007F007F007F007F)) | ((x & np.uint64(0x3F803F803F803F80)) << np.uint64(1))
    more = sum(0x80 << (8 * at) for at in range(min(width - 1, 8)))
    return np.asarray(x | np.uint64(more), np.uint64)


def packed_varints(values: Ints, width: int) -> bytes:
    """Return non-negative `values` as padded varints of `width` (at most 8) bytes each, one after the other."""
    encoded = pad_varint(values.astype(np.uint64), width)
    return encoded.view(np.uint8).reshape(-1, 8)[:, :width].tobytes()


def varint(value: int) -> bytes:
    """Return the canonical varint of a value that is not negative."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
