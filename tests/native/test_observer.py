"""The observer, on a GIL that the test itself plays: the same bytes, in this process, at a pace that is the test's."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from giltrace.native.observe import End, Sampler, Setup
from giltrace.recording.layout import Kind, RecordFlag, RequestFlag

_HOLDER, _COND, _MUTEX, _SIZE = 8, 32, 80, 208
_NATIVE_ID, _STATE_SIZE = 16, 64
_INTERVAL_US = 5000

libc = ctypes.CDLL(None)


class Actor:
    """A thread of this process with a thread state, which sleeps until it is told to wait for the GIL or to end."""

    def __init__(self, gil: Gil) -> None:
        self._gil = gil
        self._todo = threading.Semaphore(0)
        self._waits = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        self.tid = threading.get_native_id()
        self.state = ctypes.create_string_buffer(_STATE_SIZE)
        struct.pack_into("<Q", self.state, _NATIVE_ID, self.tid)
        self._ready.set()
        self._todo.acquire()
        if self._waits:
            libc.pthread_mutex_lock(self._gil.at(_MUTEX))
            libc.pthread_cond_wait(self._gil.at(_COND), self._gil.at(_MUTEX))
            libc.pthread_mutex_unlock(self._gil.at(_MUTEX))
            self._todo.acquire()

    def wait(self) -> None:
        self._waits = True
        self._todo.release()

    def end(self) -> None:
        self._todo.release()
        self._thread.join()


class Gil:
    """A GIL as the interpreter keeps it, and the observer of it."""

    def __init__(self) -> None:
        self._memory = ctypes.create_string_buffer(_SIZE)
        self._switches = 1
        struct.pack_into("<Q", self._memory, 0, _INTERVAL_US)
        libc.pthread_cond_init(self.at(_COND), None)
        libc.pthread_mutex_init(self.at(_MUTEX), None)

    def at(self, offset: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(ctypes.addressof(self._memory) + offset)

    def put(self, holder: Actor | None, locked: int, switches: int = 0) -> None:
        """Change the state in one go."""
        self._switches += switches
        address = ctypes.addressof(holder.state) if holder is not None else 8
        # Not `pack_into`, which clears the place first.
        words = struct.pack("<QiiQ", address, locked, 0, self._switches)
        ctypes.memmove(self.at(_HOLDER), words, len(words))

    def await_waits(self, count: int) -> None:
        """Return once the condition has been waited for so often; in glibc its first word counts that, twice."""
        while int.from_bytes(self._memory.raw[_COND : _COND + 8], "little") >> 1 < count:
            pass

    def let_go(self) -> None:
        libc.pthread_cond_broadcast(self.at(_COND))

    def start(self) -> None:
        address = self.at(0).value
        assert address is not None
        setup = Setup(interval_ns=20_000, pid=os.getpid(), thread_id=0, native_id=_NATIVE_ID, pthread_tid=0)
        self.sampler = Sampler(setup, address)
        self.settle()

    def settle(self) -> None:
        """Wait until the state as it is now was read."""
        before = self.sampler.stats().samples
        while self.sampler.stats().samples <= before + 64 and self.sampler.stats().end == End.RUNNING:
            pass

    def events(self) -> list[tuple[int, Kind, int]]:
        """Stop observing and return all events, as (tid, kind, flags)."""
        self.sampler.stop()
        events: npt.NDArray[np.void] = self.sampler.read()
        tids = self.sampler.threads(0)
        assert (np.diff(events["time"].astype(np.int64)) >= 0).all()
        return [(tids[e["thread"]], Kind(int(e["kind"])), int(e["flags"])) for e in events]


@contextmanager
def stage(actors: int) -> Iterator[tuple[Gil, list[Actor]]]:
    gil = Gil()
    cast = [Actor(gil) for _ in range(actors)]
    try:
        yield gil, cast
    finally:
        gil.let_go()
        for actor in cast:
            actor.end()
        gil.sampler.stop()
        gil.sampler.close()


class TestWhatHappenedBetweenReadings:
    def test_hand_over_release_and_coming_back(self) -> None:
        with stage(2) as (gil, (one, other)):
            gil.put(one, locked=1)
            gil.start()
            gil.put(other, locked=1, switches=1)
            gil.settle()
            gil.put(other, locked=0)
            gil.settle()
            gil.put(other, locked=1)
            gil.settle()
            assert gil.events() == [
                (one.tid, Kind.ACQUIRE, 0),
                (one.tid, Kind.RELEASE, 0),
                (other.tid, Kind.ACQUIRE, 0),
                (other.tid, Kind.RELEASE, 0),
                (other.tid, Kind.ACQUIRE, 0),
            ]
            stats = gil.sampler.stats()
            assert (stats.switches, stats.switches_missed, stats.lost) == (1, 0, 0)

    def test_holders_that_nobody_knows_are_counted_as_missed(self) -> None:
        with stage(2) as (gil, (one, other)):
            gil.put(one, locked=1)
            gil.start()
            gil.put(other, locked=1, switches=4)
            gil.settle()
            gil.put(other, locked=0, switches=0)
            gil.settle()
            kinds = [kind for _, kind, _ in gil.events()]
            assert kinds == [Kind.ACQUIRE, Kind.RELEASE, Kind.ACQUIRE, Kind.RELEASE]
            stats = gil.sampler.stats()
            assert (stats.switches, stats.switches_missed) == (4, 3)

    def test_who_waits_is_seen_and_ends_waiting_with_the_gil(self) -> None:
        with stage(2) as (gil, (one, other)):
            gil.put(one, locked=1)
            gil.start()
            other.wait()
            gil.await_waits(1)
            gil.settle()
            gil.put(other, locked=1, switches=1)
            gil.let_go()
            gil.settle()
            assert gil.events() == [
                (one.tid, Kind.ACQUIRE, 0),
                (other.tid, Kind.REQUEST, 0),
                (one.tid, Kind.RELEASE, 0),
                (other.tid, Kind.ACQUIRE, 0),
            ]

    def test_a_wait_under_way_at_the_start_is_marked(self) -> None:
        with stage(2) as (gil, (one, other)):
            gil.put(one, locked=1)
            other.wait()
            gil.await_waits(1)
            gil.start()
            assert (other.tid, Kind.REQUEST, RequestFlag.UNDER_WAY) in gil.events()

    def test_a_hold_of_an_interval_that_ends_in_a_wait_was_forced(self) -> None:
        with stage(2) as (gil, (one, other)):
            gil.put(one, locked=1)
            gil.start()
            other.wait()
            gil.await_waits(1)
            begin = gil.sampler.stats().sampled_ns
            while gil.sampler.stats().sampled_ns < begin + 2_000 * _INTERVAL_US:
                pass
            one.wait()
            gil.await_waits(2)
            gil.put(other, locked=1, switches=1)
            gil.settle()
            gil.settle()
            assert (one.tid, Kind.RELEASE, RecordFlag.FORCED) in gil.events()


class TestWhatMakesNoSense:
    def test_ends_the_observation(self) -> None:
        with stage(1) as (gil, (one,)):
            gil.put(one, locked=1)
            gil.start()
            gil.put(one, locked=7)
            gil.settle()
            assert gil.sampler.stats().end == End.SENSELESS

    def test_a_counter_that_runs_backwards_does_too(self) -> None:
        with stage(1) as (gil, (one,)):
            gil.put(one, locked=1, switches=9)
            gil.start()
            gil.put(one, locked=1, switches=-5)
            gil.settle()
            assert gil.sampler.stats().end == End.SENSELESS

    def test_so_do_holders_that_are_no_threads(self) -> None:
        with stage(1) as (gil, (one,)):
            gil.put(one, locked=1)
            gil.start()
            while gil.sampler.stats().end == End.RUNNING:
                gil.put(None, locked=1, switches=1)
                gil.settle()
            assert gil.sampler.stats().end == End.SENSELESS
            assert gil.sampler.stats().switches_missed >= 100
