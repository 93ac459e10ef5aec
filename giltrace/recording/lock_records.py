"""What the tracer's records tell of the interpreter's own locks: the addresses that go with a block or a wake."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from giltrace.recording import layout
from giltrace.recording.events import HELD, PLACE, Array

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

_LOW = np.uint64((1 << layout.TIME_BITS) - 1)


class Places:
    """The places that threads of one process slept in, numbered from 0 on in order of their first use.

    A place is the address of a semaphore, and that of the lock that a thread was parked for, which is 0 where the
    semaphore is the lock.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int], int] = {}
        self._types: dict[int, int] = {}

    def numbers(self, semaphore: Words, lock: Words) -> npt.NDArray[np.uint32]:
        """The number of each of these places."""
        if not len(semaphore):
            return np.empty(0, np.uint32)
        order = np.lexsort((lock, semaphore))
        sorted_ = np.stack([semaphore[order], lock[order]])
        first = np.append(True, (np.diff(sorted_, axis=1) != 0).any(axis=0))
        known = [
            self._numbers.setdefault((one, other), len(self._numbers)) for one, other in sorted_[:, first].T.tolist()
        ]
        numbers = np.empty(len(order), np.uint32)
        numbers[order] = np.array(known, np.uint32)[np.cumsum(first) - 1]
        return numbers

    def learn(self, numbers: npt.NDArray[np.uint32], types: Words) -> None:
        """Note the numbers of the types of the objects that the locks of these places belong to; 0 for none."""
        known = np.flatnonzero(types)
        self._types |= dict(zip(numbers[known].tolist(), types[known].tolist(), strict=True))

    @property
    def types(self) -> npt.NDArray[np.uint32]:
        """The number of each place's type, 0 where that is not known."""
        return np.array([self._types.get(number, 0) for number in range(len(self._numbers))], np.uint32)

    @property
    def table(self) -> Array:
        """All of them (dtype `PLACE`)."""
        return np.array(list(self._numbers), PLACE)


def addressed(head: Words) -> npt.NDArray[np.bool_]:
    """Whether records hold an address, by their kinds and flags."""
    found: npt.NDArray[np.bool_] = (head & np.uint64(7) == layout.Kind.STACK) & (head != layout.Kind.STACK)
    return found


def addresses(records: Words) -> Words:
    """The addresses that records hold."""
    high = records >> np.uint64(layout.GIL_SHIFT)
    found: Words = records & _LOW | high << np.uint64(layout.TIME_BITS)
    return found


def places_of(records: Words, head: Words, since: Ints, at: Ints, places: Places) -> npt.NDArray[np.uint32]:
    """The number of the place that each of the records `at` these (BLOCK and WAKE) is about.

    `head` has the kind and flag of every record, `since` where the chunk of each of `at` begins.
    """

    def before(steps: int, word: int) -> Words:
        where = at - steps
        has = (where >= since) & (head[where] == word)
        return np.where(has, records[where], np.uint64(0))

    semaphore, lock = (
        addresses(before(steps, layout.Kind.STACK | flag << 3))
        for steps, flag in ((1, layout.AddressFlag.SEMAPHORE), (2, layout.AddressFlag.LOCK))
    )
    # The bits of kind and flag are no part of an address.
    numbers = places.numbers(semaphore, lock)
    typed = before(3, layout.Kind.HOLDER_STACK | layout.TypeFlag.TYPE << 3)
    places.learn(numbers, typed & np.uint64(0xFFFFFFFF))
    return numbers


def held_at(records: Words, head: Words, timed: Ints, time: Ints, thread: Array) -> Array:
    """What threads say that they hold (dtype `HELD`): at the next of the `timed` records, with its time and thread."""
    given = np.flatnonzero(head == (layout.Kind.STACK | layout.AddressFlag.HELD << 3))
    following = np.searchsorted(timed, given)
    given, following = given[following < len(timed)], following[following < len(timed)]
    rows = np.empty(len(given), HELD)
    rows["time"], rows["thread"] = time[following], thread[following]
    rows["semaphore"] = addresses(records[given])
    return rows


def together(parts: Iterable[Array]) -> Array:
    """All of what `held_at` returned."""
    return np.concatenate([np.empty(0, HELD), *parts])
