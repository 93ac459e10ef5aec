"""A file that a process counts in, read while it goes on: each piece as it was at one moment."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from giltrace.errors import RecordingError
from giltrace.metrics import layout
from giltrace.metrics.layout import TallyState
from giltrace.recording.door import Source

#: A thread that goes on is rarely met in mid-change so often; its figures are then off by the change under way.
_TRIES = 50
#: So often in all: the rest is taken as it is found, in a file where nothing ever settles, since it is damaged.
_MOST_TRIES = 2000


class CutOff(Exception):
    """The file has been cut off while its process counted in it."""


class Scale:
    """Makes nanoseconds of ticks, always the same of the same ticks; `now` is 0 where nothing goes on."""

    def __init__(self, scale: int, now: int) -> None:
        self.now = now
        self._scale = scale

    def ns(self, ticks: int) -> int:
        """That many ticks in nanoseconds."""
        return ticks * self._scale * 1_000_000_000 // (layout.UNITS << layout.SCALE_BITS)

    def since(self, ticks: int) -> int:
        """How long it is that something began; 0 if nothing has."""
        return self.ns(self.now - ticks) if 0 < ticks < self.now else 0


class OtherVersion(RecordingError):
    """A file was written by a tracer of another version."""


class CountFile:
    """The file at `path`. Raises OSError if it cannot be opened, `OtherVersion` if it is of one."""

    def __init__(self, path: Path) -> None:
        self._source = Source(path)
        self._path = path
        try:
            head = _first(self._source.read(0, layout.HEAD.itemsize), layout.HEAD)
            #: Whether there is something in it by now.
            self.begun = head is not None and int(head["magic"]) == layout.MAGIC
            if head is not None and self.begun and int(head["version"]) != layout.VERSION:
                raise OtherVersion(
                    f"{path} is of version {head['version']}, this giltrace reads {layout.VERSION}",
                    "read it with the giltrace that the process was started with",
                )
        except RecordingError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    def read(self) -> tuple[np.void, list[np.void]]:
        """The head and all tallies that are somebody's, none of them counted twice or in change.

        Raises `CutOff` if the file was.
        """
        tries = iter(range(_MOST_TRIES))
        for left in reversed(range(_TRIES)):
            first, second = self._whole(), self._whole()
            head, tallies = self._head_of(first), _tallies(first)
            folds = int(head["folds"])
            if folds % 2 and left:
                continue
            again = _tallies(second)[: len(tallies)]
            # What did not change from the one reading to the other is whole in the first.
            whole = (tallies["version"][: len(again)] == again["version"]) & (tallies["version"][: len(again)] % 2 == 0)
            taken = [
                tallies[at] if at < len(again) and whole[at] else self._settled(_place(at), tries)
                for at in np.flatnonzero(tallies["state"] != TallyState.FREE).tolist()
            ]
            if folds % 2 == 0 and int(self._head_of(self._source.read(0, layout.HEAD.itemsize))["folds"]) == folds:
                break
        return self._settled_tables(head), taken

    def _whole(self) -> bytes:
        self._source.refresh()
        return self._source.read(0, layout.PIECE * layout.MOST_PIECES)

    def _head_of(self, data: bytes) -> np.void:
        head = _first(data, layout.HEAD)
        if head is None or int(head["magic"]) != layout.MAGIC:
            raise CutOff(self._path)
        return head

    def _settled_tables(self, head: np.void) -> np.void:
        """A head whose tables are not in change."""
        for _ in range(_TRIES):
            again = self._head_of(self._source.read(0, layout.HEAD.itemsize))
            before, after = head["tables"]["version"], again["tables"]["version"]
            if (before == after).all() and not (before % 2).any():
                break
            head = again
        return head

    def _settled(self, at: int, tries: Iterator[int]) -> np.void:
        """The tally at that place, as it was at one moment."""
        tally = self._tally(at)
        for _ in itertools.islice(tries, _TRIES):
            again = self._tally(at)
            if again["version"] == tally["version"] and int(tally["version"]) % 2 == 0:
                break
            tally = again
        return tally

    def _tally(self, at: int) -> np.void:
        tally = _first(self._source.read(at, layout.TALLY.itemsize), layout.TALLY)
        if tally is None:
            raise CutOff(self._path)
        return tally

    def reset_longest(self, reading: int) -> None:
        """Have what is longest begin anew: what is of an earlier `reading` counts no more."""
        dtype = layout.HEAD.fields
        assert dtype is not None
        # The very file that is read: somebody may have put a link to another in its place.
        with contextlib.suppress(OSError), open(self._source.again, "r+b", buffering=0) as page:
            os.pwrite(page.fileno(), (reading & 0xFFFFFFFF).to_bytes(4, "little"), int(dtype["reading"][1]))


def _first(data: bytes, dtype: np.dtype[np.void]) -> np.void | None:
    return np.frombuffer(data, dtype, 1)[0] if len(data) >= dtype.itemsize else None


#: Tallies in the first piece, and in each other.
_IN_FIRST = (layout.PIECE - layout.FIRST_TALLY) // layout.TALLY.itemsize
_IN_OTHERS = layout.PIECE // layout.TALLY.itemsize


def _tallies(data: bytes) -> npt.NDArray[np.void]:
    """All tallies of a file, whoever's they are."""
    pieces = len(data) // layout.PIECE
    parts = [np.frombuffer(data, layout.TALLY, _IN_FIRST, layout.FIRST_TALLY)] if pieces else []
    parts += [np.frombuffer(data, layout.TALLY, _IN_OTHERS, piece * layout.PIECE) for piece in range(1, pieces)]
    return np.concatenate(parts) if parts else np.empty(0, layout.TALLY)


def _place(index: int) -> int:
    """Where in the file a tally lies."""
    if index < _IN_FIRST:
        return layout.FIRST_TALLY + index * layout.TALLY.itemsize
    piece, place = divmod(index - _IN_FIRST, _IN_OTHERS)
    return (piece + 1) * layout.PIECE + place * layout.TALLY.itemsize
