"""Follow a recording while it is being written: what is new since the last time, reading nothing twice.

Records of different threads become visible at slightly different times, and a release may become a forced one just
after it was written. So a caller asks for what happened until shortly ago (`HOLD_BACK_NS`).
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from giltrace import native
from giltrace.errors import RecordingError
from giltrace.process.stat import stat_fields
from giltrace.recording import layout
from giltrace.recording.chunks import Written
from giltrace.recording.clock import PAIR, TickClock, read_pairs
from giltrace.recording.door import Times
from giltrace.recording.events import HELD, PLACE, Array, ThreadInfo
from giltrace.recording.folder import GIL_NAME
from giltrace.recording.gil import Decoder
from giltrace.recording.gil_file import open_file
from giltrace.recording.live_file import LiveFile, Piece
from giltrace.recording.live_holders import Holders, with_holders

#: What happened longer ago than this is complete, unless a thread was kept off its core for that long in mid-record.
HOLD_BACK_NS = 100_000_000

# Later than any tick.
_ALL = 1 << 63
# What lies so far outside of what was asked for has not happened then, but is damaged.
_MARGIN_NS = 3_600_000_000_000
_PAIRS_KEPT = 512


@dataclass(frozen=True)
class Update:
    """What one process did since the last poll.

    `events` (dtype `GIL_EVENT`) is sorted by time; its `thread` and `stack` are the tracer's own numbers within `file`,
    the latter -1 for none. `threads` are those that did something; `pieces` the same records as they were written.
    `places` and `held` are as in `ProcessEvents`, the places numbered for this update alone.
    `ended`: the process is gone, nothing more will come.
    """

    file: LiveFile
    events: Array
    threads: dict[int, ThreadInfo]
    pieces: tuple[Piece, ...]
    ended: bool
    places: Array = field(default_factory=lambda: np.empty(0, PLACE))
    held: Array = field(default_factory=lambda: np.empty(0, HELD))


def is_alive(pid: int) -> bool:
    """Whether a process exists."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # what is no id is nobody's
        return False
    except PermissionError:
        pass
    return True


class Successor:
    """Tells when a process executes another program than the one that wrote its file.

    Most programs say so themselves, by a file of their own. Nothing is preloaded into a static one.
    """

    def __init__(self, file: LiveFile) -> None:
        header = file.header.header
        self._pid, self._ppid = file.pid, file.ppid
        self._program = bytes(header["executable"])
        # One that was cut is never found again; what an observer gives need not be the kernel's name.
        self._told = 0 < len(self._program) < layout.HEADER["executable"].itemsize - 1
        self._told &= layout.Status.OBSERVED not in layout.Status(int(header["status"]))
        self._met = False

    def has_come(self) -> bool:
        """Whether it does by now. Each process has the numbers that it has here, or is not this one."""
        if not self._told:
            return False
        try:
            now = os.fsencode(os.readlink(f"/proc/{self._pid}/exe")).removesuffix(b" (deleted)")
            if now == self._program:
                self._met = True
                return False
            return self._met or self._is_child()
        except (OSError, ValueError):
            return False

    def _is_child(self) -> bool:
        """In a container, the numbers are those of others: it is ours if its parent's is right too."""
        return int(stat_fields(self._pid)[1]) == self._ppid


class LiveReader:
    """Follows the recording in `folder`: its processes, those that begin later too, from `since_ns` on.

    `alive` tells whether a process, by its number in the recording, still runs. Memory is bounded by the threads that
    live, not by the recording's length. Raises `RecordingError` for a file that is damaged or of another version.
    """

    def __init__(self, folder: Path, since_ns: int = 0, alive: Callable[[int], bool] = is_alive) -> None:
        self.folder = folder
        self._since_ns = since_ns
        self._alive = alive
        self._files: dict[str, LiveFile] = {}
        self._successors: dict[str, Successor] = {}
        self._done: set[str] = set()
        self._holders = Holders(folder)
        self._pairs: deque[npt.NDArray[np.void]] = deque(maxlen=_PAIRS_KEPT)
        for pair in read_pairs(folder)[-_PAIRS_KEPT:]:
            self._pairs.append(pair)

    def poll(self, until_ns: int) -> list[Update]:
        """Return what happened up to `until_ns` (CLOCK_MONOTONIC) and was not returned before, a part per process.

        A process that has ended, or executes something else now, is given whole. One that ran before it was recorded
        is given as soon as what had been on record when its GILs were looked at is complete.
        """
        self._discover()
        ticking = any(file.clock is layout.Clock.TSC for file in self._files.values())
        if ticking:
            self._pairs.append(np.array(native.clock_pair(), PAIR))
        updates = []
        newest = {file.pid: name for name, file in self._files.items()}
        for name, file in list(self._files.items()):
            ended = not self._alive(file.pid) or newest[file.pid] != name or self._successors[name].has_come()
            held = self._holders.has(file.pid)
            if file.header.is_python and (ended or not held or until_ns >= self._holders.known_ns):
                clock = self._clock(file)
                until = _ALL if ended else _ticks_at(clock, until_ns)
                since = _ticks_at(clock, self._since_ns) if self._since_ns > file.start else 0
                pieces = tuple(file.read(until, since, last=ended))
                times = Times(max(file.start, self._since_ns) - _MARGIN_NS, until_ns + _MARGIN_NS)
                update = _update(file, pieces, clock, ended, times)
                updates.append(with_holders(update, self._holders.of(file.pid), self._since_ns) if held else update)
            if ended:
                file.close()
                del self._files[name], self._successors[name]
                self._done.add(name)
        return updates

    def begin_ns(self) -> int:
        """When the first of the recording's processes began; now, if there is none yet."""
        self._discover()
        return min((file.start for file in self._files.values()), default=time.monotonic_ns())

    def ticks_at(self, file: LiveFile, ns: int) -> int:
        """The tick of a file's clock at a CLOCK_MONOTONIC ns."""
        return _ticks_at(self._clock(file), ns)

    def close(self) -> None:
        """Let go of all files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _discover(self) -> None:
        try:
            names = set(filter(GIL_NAME.fullmatch, os.listdir(self.folder)))
        except FileNotFoundError:
            raise RecordingError(f"the recording {self.folder} is gone", "it was moved or deleted meanwhile") from None
        # The images of one process in the order of their execution.
        for name in sorted(names - self._files.keys() - self._done, key=lambda name: (len(name), name)):
            self._open(self.folder / name)

    def _open(self, path: Path) -> None:
        try:
            if open_file(path, Times()) is not None:
                self._holders.look()
                file = LiveFile(path, len(self._files) + len(self._done))
                self._files[path.name], self._successors[path.name] = file, Successor(file)
        except FileNotFoundError:
            return

    def _clock(self, file: LiveFile) -> TickClock | None:
        """The clock that turns the file's ticks into ns; None if they are that already."""
        if file.clock is layout.Clock.MONOTONIC_NS:
            return None
        return TickClock(np.concatenate([file.header.pair, np.array(self._pairs, PAIR)]))


def _ticks_at(clock: TickClock | None, ns: int) -> int:
    return ns if clock is None else clock.to_ticks(ns)


def _update(file: LiveFile, pieces: tuple[Piece, ...], clock: TickClock | None, ended: bool, times: Times) -> Update:
    parts = [piece.records for piece in pieces]
    written = Written(
        threads=np.array([piece.thread for piece in pieces], np.int64),
        bases=np.array([piece.base for piece in pieces], np.uint64),
        records=np.concatenate(parts) if parts else np.empty(0, np.uint64),
        bounds=np.cumsum([0, *map(len, parts)]),
    )
    decoder = Decoder(clock)
    events = decoder.decode(written, [piece.stack for piece in pieces])
    good = times.have(events["time"])
    if not good.all():
        file.impossible += int((~good).sum())
        events = events.compress(good)
    if (events["time"][1:] < events["time"][:-1]).any():
        events = events.take(np.argsort(events["time"], kind="stable"))
    events["stack"][events["stack"] == 0] = -1
    threads = {piece.thread: piece.info for piece in pieces}
    return Update(file, events, threads, pieces, ended, decoder.places.table, decoder.held)
