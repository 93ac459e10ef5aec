"""Rows of text from columns of numbers, without a Python call per row.

A column is a matrix of bytes, one row per row; a field shorter than the matrix is wide is filled up with NUL bytes.
Columns side by side are the text once the NULs are dropped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from giltrace.timeline.axis import Bools, Ints

#: shape (rows, width)
Cells = npt.NDArray[np.uint8]

#: Rows per piece: large enough to amortise numpy's calls, small enough for the matrices to stay small.
PIECE = 1 << 15

_ZERO = ord("0")
# Every number below 10,000 as four digits: a division for four digits instead of one.
_QUADS = (np.arange(10_000)[:, None] // np.array([1000, 100, 10, 1]) % 10 + _ZERO).astype(np.uint8)
_POWERS = 10 ** np.arange(19, dtype=np.int64)


def pieces(count: int) -> Iterator[slice]:
    """Cut `count` rows into slices of at most `PIECE`."""
    for at in range(0, count, PIECE):
        yield slice(at, min(at + PIECE, count))


def rows(*columns: bytes | Cells) -> bytes:
    """Return the text of the rows: `columns` side by side, those of type bytes the same in each row."""
    count = next(len(column) for column in columns if isinstance(column, np.ndarray))
    flat = _beside(columns, count).ravel()
    text: bytes = flat[flat != 0].tobytes()
    return text


def integers(values: npt.NDArray[Any]) -> Cells:
    """Return the digits of integers (above -2**63), with a minus where they need one."""
    return _signed(values, 1)


def decimals(values: npt.NDArray[Any], places: int) -> Cells:
    """Return integers divided by ``10**places``, exactly: nanoseconds as microseconds with 3 places."""
    digits = _signed(values, places + 1)
    point = np.full((len(digits), 1), ord("."), np.uint8)
    return np.concatenate((digits[:, :-places], point, digits[:, -places:]), axis=1)


def choices(texts: Iterable[str | bytes]) -> Callable[[npt.NDArray[Any]], Cells]:
    """Return a function from places in `texts` to the texts there."""
    coded = [text if isinstance(text, bytes) else text.encode(errors="replace") for text in texts]
    # Some texts are much longer than most: laid end to end, they only widen the pieces that use them.
    # One byte more, as there may be no text that is not empty.
    data = np.frombuffer(b"".join(coded) + b" ", np.uint8)
    length = np.array([len(text) for text in coded], np.int64)
    first = np.cumsum(length) - length

    def chosen(index: npt.NDArray[Any]) -> Cells:
        long = length[index]
        column = np.arange(int(long.max(initial=0)))
        inside = column < long[:, None]
        cells = np.zeros(inside.shape, np.uint8)
        cells[inside] = data[(first[index][:, None] + column)[inside]]
        return cells

    return chosen


def where(present: Bools, *columns: bytes | Cells) -> Cells:
    """Return `columns` side by side in the rows where they are `present`, and nothing in the others."""
    cells: Cells = _beside(columns, len(present)) * present[:, None].astype(np.uint8)
    return cells


def write_array(file: BinaryIO, count: int, cells: Callable[[slice], Cells]) -> None:
    """Write a JSON array of `count` elements; `cells` gives those of a slice."""
    file.write(b"[")
    for piece in pieces(count):
        text = rows(b",", cells(piece))
        file.write(text if piece.start else text[1:])
    file.write(b"]")


def json_text(text: str) -> bytes:
    """Return `text` as a JSON string, quotes included."""
    return json.dumps(text).encode()


def _beside(columns: Sequence[bytes | Cells], count: int) -> Cells:
    wide = []
    for column in columns:
        if isinstance(column, bytes):
            column = np.broadcast_to(np.frombuffer(column, np.uint8), (count, len(column)))
        wide.append(column)
    return np.concatenate(wide, axis=1)


def _signed(values: npt.NDArray[Any], least: int) -> Cells:
    numbers = values.astype(np.int64, copy=False)
    if not len(numbers) or int(numbers.min()) >= 0:
        return _digits(numbers, least)
    minus = np.where(numbers < 0, np.uint8(ord("-")), np.uint8(0))[:, None]
    return np.concatenate((minus, _digits(np.abs(numbers), least)), axis=1)


def _digits(values: Ints, least: int) -> Cells:
    """Digits of integers that are not negative, at least so many."""
    width = max(len(str(int(values.max(initial=0)))), least)
    quads = -(-width // 4)
    cells = np.empty((len(values), 4 * quads), np.uint8)
    rest = values
    for at in range(quads - 1, -1, -1):
        higher = rest // 10_000
        cells[:, 4 * at : 4 * at + 4] = _QUADS[rest - higher * 10_000]
        rest = higher
    length = np.maximum(np.searchsorted(_POWERS, values, "right"), least)
    cells *= np.arange(4 * quads) >= 4 * quads - length[:, None]
    return cells[:, 4 * quads - width :]
