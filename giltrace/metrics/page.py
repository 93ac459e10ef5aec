"""Read what tracers count (native/FORMAT.md): one process's file, and all those of a folder.

A process goes on counting while it is read. Nothing stops it: what has changed meanwhile is read again.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from giltrace import native
from giltrace.analysis.measure.block_causes import BlockCause, cause_of_frames
from giltrace.errors import RecordingError
from giltrace.metrics import layout
from giltrace.metrics.layout import Length, Table, TallyState
from giltrace.metrics.reading import (
    CauseReading,
    Counts,
    LineReading,
    ProcessReading,
    RoleReading,
    ThreadReading,
    total,
)
from giltrace.process.stat import stat_fields
from giltrace.recording import layout as records
from giltrace.recording.door import Source
from giltrace.recording.gil_file import GilFile, cmdline_of, text_of
from giltrace.recording.stacks import Frame, LiveStacks
from giltrace.text import visible

_NAME = re.compile(r"count-(\d{1,10})-(\d{1,4})\.bin")
_NUMBER = re.compile(r"\d+")
_PYTHON = re.compile(r"3\.(\d{1,4})\.\S*")
#: A thread that goes on is rarely met in mid-change so often; its figures are then off by the change under way.
_TRIES = 50
#: The main thread has its process's number, and no name.
_MAIN = "MainThread"
_UNNAMED = "unnamed"
#: Roles of ended threads that were too many to keep apart.
_OTHER = "other"


class Pages:
    """All processes that count in a folder, those that have ended too until they are forgotten."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pages: dict[str, _Page] = {}

    def read(self, *, reset_longest: bool = False) -> tuple[ProcessReading, ...]:
        """What each has counted by now, in order of process ids; of an ended one, its last words.

        With `reset_longest` what is longest begins anew, for all readers. Raises `RecordingError` if a file is of
        another version, or the folder cannot be read.
        """
        newest: dict[int, int] = {}
        for name, pid, image in self._names():
            newest[pid] = max(newest.get(pid, 0), image)
            if name not in self._pages:
                page = _Page.open(self.folder / name, pid, image)
                if page is not None:
                    self._pages[name] = page
        pages = sorted(self._pages.values(), key=lambda page: (page.pid, page.image))
        return tuple(page.read(reset_longest, page.image < newest.get(page.pid, 0)) for page in pages)

    def forget(self, pid: int) -> None:
        """Drop what a process has counted that has ended, and its files."""
        for name, page in list(self._pages.items()):
            if page.pid == pid and page.has_ended():
                page.remove()
                del self._pages[name]

    def close(self) -> None:
        """Let go of all files."""
        for page in self._pages.values():
            page.close()
        self._pages.clear()

    def _names(self) -> Iterator[tuple[str, int, int]]:
        try:
            names = sorted(os.listdir(self.folder))
        except OSError as error:
            raise RecordingError.unreadable(self.folder, error) from None
        for name in names:
            match = _NAME.fullmatch(name)
            if match is not None:
                yield name, int(match[1]), int(match[2])


class _Page:
    """The counts of one program image of one process."""

    def __init__(self, source: Source, beside: GilFile, pid: int, image: int) -> None:
        self.pid, self.image = pid, image
        self._source, self._path = source, source.path
        version = _PYTHON.match(text_of(bytes(beside.header["python"])))
        self._python = version[0] if version is not None else ""
        self._command = cmdline_of(beside)
        self._started_ns = int(beside.header["start_ns"])
        self._gil_path = beside.path
        self._lines = _Lines(self._sibling("stacks"), (3, int(version[1])) if version is not None else (3, 0))

    @classmethod
    def open(cls, path: Path, pid: int, image: int) -> _Page | None:
        """The page at `path`; None if it is only being made."""
        try:
            source = Source(path)
        except FileNotFoundError:
            return None
        head = _first(source.read(0, layout.HEAD.itemsize), layout.HEAD)
        beside = path.with_name("gil" + path.name.removeprefix("count"))
        with contextlib.suppress(FileNotFoundError), Source(beside) as gil:
            first = gil.read(0, records.HEADER_SIZE)
            if head is not None and int(head["magic"]) == layout.MAGIC and len(first) == records.HEADER_SIZE:
                if int(head["version"]) == layout.VERSION:
                    return cls(source, GilFile.of(beside, first), pid, image)
                raise RecordingError(
                    f"{path} is of version {head['version']}, this giltrace reads {layout.VERSION}",
                    "read it with the giltrace that the process was started with",
                )
        source.close()
        return None

    def has_ended(self) -> bool:
        """Whether the process is gone, or has stopped to count."""
        header = self._gil_header()
        if header is None or records.Status.STOPPED in records.Status(int(header["status"])):
            return True
        try:
            started = int(stat_fields(self.pid)[19]) / os.sysconf("SC_CLK_TCK")
        except OSError:
            return True
        # Another process may have its number by now. (The two clocks differ by the time that the machine slept.)
        return started - _slept_seconds() > self._started_ns / 1e9 + 1

    def read(self, reset_longest: bool, replaced: bool) -> ProcessReading:
        """What it says now; `replaced` if a later image of the process counts."""
        ended = replaced or self.has_ended()
        ticks, now_ns, _ = native.clock_pair()
        self._source.refresh()
        head, tallies = self._consistent()
        if reset_longest:
            self._reset(int(head["reading"]) + 1)
        scale = int(head["scale"])
        threads = [
            _thread(one, self.pid, _Scale(scale, 0 if ended else ticks), int(head["reading"]))
            for one in tallies
            if int(one["state"]) == TallyState.LIVES
        ]
        of_roles: dict[str, list[Counts]] = defaultdict(list)
        for thread in threads:
            of_roles[thread.role].append(thread.counts)
        for one in tallies:
            if int(one["state"]) == TallyState.ENDED:
                name = text_of(bytes(one["name"])) or (_MAIN if int(one["tid"]) == self.pid else _OTHER)
                of_roles[_role(name)].append(_counts(one, _Scale(scale, 0), int(head["reading"])))
        alive = [] if ended else threads
        self._lines.update()
        tables = head["tables"]
        asleep = [
            (int(one["asleep"]), ticks - int(one["since"][Length.SLEEPS]))
            for one in tallies
            if not ended and int(one["state"]) == TallyState.LIVES and 0 < int(one["since"][Length.SLEEPS]) < ticks
        ]
        sleepers = [*_places(tables[Table.SLEEPERS]), *((stack, 0, slept, 0) for stack, slept in asleep)]
        return ProcessReading(
            pid=self.pid,
            command=self._command,
            python=self._python,
            free_threaded=records.Status.FREE_THREADED in records.Status(int(self._status())),
            started_ns=int(head["start_ns"]),
            at_ns=now_ns,
            roles=tuple(
                RoleReading(role, sum(one.role == role for one in alive), total(of_roles[role]))
                for role in sorted(of_roles)
            ),
            threads=tuple(alive),
            culprits=self._lines.readings(_places(tables[Table.CULPRITS]), scale),
            victims=self._lines.readings(_places(tables[Table.VICTIMS]), scale),
            blocked=self._lines.readings(sleepers, scale),
            causes=self._lines.causes(sleepers, scale),
            lost=int(head["lost"]),
            note=self._note(),
            ended=ended,
        )

    def remove(self) -> None:
        """Remove the page's files."""
        self.close()
        for path in (self._path, self._gil_path, self._sibling("stacks")):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    def _sibling(self, kind: str) -> Path:
        return self._path.with_name(kind + self._path.name.removeprefix("count"))

    def _gil_header(self) -> np.void | None:
        with contextlib.suppress(OSError), Source(self._gil_path) as gil:
            return _first(gil.read(0, records.HEADER_SIZE), records.HEADER)
        return None

    def _status(self) -> int:
        header = self._gil_header()
        return int(header["status"]) if header is not None else 0

    def _note(self) -> str:
        header = self._gil_header()
        return text_of(bytes(header["note"])) if header is not None else ""

    def _consistent(self) -> tuple[np.void, list[np.void]]:
        """The head and all tallies, none of them counted twice or in change."""
        for _ in range(_TRIES):
            head = self._head()
            tallies = [tally for at in self._places_of(int(head["pieces"])) if (tally := self._tally(at)) is not None]
            folds = int(head["folds"])
            if folds % 2 == 0 and int(self._head()["folds"]) == folds:
                break
        return self._with_tables(head), tallies

    def _head(self) -> np.void:
        head = _first(self._source.read(0, layout.HEAD.itemsize), layout.HEAD)
        if head is None or int(head["magic"]) != layout.MAGIC:
            raise RecordingError(f"{self._path} was cut off", "restart the process that counts in it")
        return head

    def _with_tables(self, head: np.void) -> np.void:
        for _ in range(_TRIES):
            again = self._head()
            if (head["tables"]["version"] == again["tables"]["version"]).all() and not (
                head["tables"]["version"] % 2
            ).any():
                return head
            head = again
        return head

    def _places_of(self, pieces: int) -> Iterator[int]:
        for piece in range(min(pieces, layout.MOST_PIECES)):
            first = piece * layout.PIECE + (layout.FIRST_TALLY if piece == 0 else 0)
            last = (piece + 1) * layout.PIECE - layout.TALLY.itemsize
            yield from range(first, last + 1, layout.TALLY.itemsize)

    def _tally(self, at: int) -> np.void | None:
        """The tally at that place, as it was at one moment; None if it is nobody's."""
        tally = _first(self._source.read(at, layout.TALLY.itemsize), layout.TALLY)
        for _ in range(_TRIES):
            if tally is None or int(tally["state"]) == TallyState.FREE:
                return None
            again = _first(self._source.read(at, layout.TALLY.itemsize), layout.TALLY)
            if again is not None and again["version"] == tally["version"] and int(tally["version"]) % 2 == 0:
                return tally
            tally = again
        return tally

    def _reset(self, reading: int) -> None:
        dtype = layout.HEAD.fields
        assert dtype is not None
        with contextlib.suppress(OSError), open(self._path, "r+b", buffering=0) as page:
            os.pwrite(page.fileno(), (reading & 0xFFFFFFFF).to_bytes(4, "little"), int(dtype["reading"][1]))


class _Scale:
    """Makes nanoseconds of ticks, always the same of the same ticks; `now` is 0 where nothing goes on."""

    def __init__(self, scale: int, now: int) -> None:
        self.now = now
        self._scale = scale

    def ns(self, ticks: int) -> int:
        return ticks * self._scale * 1_000_000_000 // (layout.UNITS << layout.SCALE_BITS)

    def since(self, ticks: int) -> int:
        """How long it is that something began; 0 if nothing has."""
        return self.ns(self.now - ticks) if 0 < ticks < self.now else 0


class _Lines:
    """Knows the lines that stacks stand for, and what was waited for there."""

    def __init__(self, path: Path, version: tuple[int, int]) -> None:
        self._stacks = LiveStacks(path, version)
        self._cause: dict[int, BlockCause] = {}

    def update(self) -> None:
        self._stacks.update()

    def _own(self, stack: int) -> Frame:
        top = int(self._stacks.top(np.array([stack], np.int32))[0])
        return self._stacks.tops[top][1] if top >= 0 else ("", "", 0)

    def readings(self, places: Iterable[tuple[int, int, int, int]], scale: int) -> tuple[LineReading, ...]:
        """The lines of (stack, times, ticks, error), those with the most first."""
        sums: dict[tuple[Frame, bool], list[int]] = defaultdict(lambda: [0, 0, 0])
        for number, *figures in places:
            key = self._own(number & ~layout.COLLECTS), number & layout.COLLECTS != 0
            sums[key] = [one + other for one, other in zip(sums[key], figures, strict=True)]
        to_ns = _Scale(scale, 0).ns
        lines = [
            LineReading(visible(file), line, visible(function), to_ns(ticks), to_ns(error), times, collecting)
            for ((function, file, line), collecting), (times, ticks, error) in sums.items()
        ]
        return tuple(sorted(lines, key=lambda one: (-one.ns, one.place)))

    def causes(self, places: Iterable[tuple[int, int, int, int]], scale: int) -> tuple[CauseReading, ...]:
        """What was waited for in these stacks, the most first."""
        sums: dict[BlockCause, list[int]] = defaultdict(lambda: [0, 0, 0])
        for number, *figures in places:
            if number not in self._cause:
                frames = [(file, function) for function, file, _ in self._stacks.stack(number)]
                self._cause[number] = cause_of_frames(frames)
            cause = self._cause[number]
            sums[cause] = [one + other for one, other in zip(sums[cause], figures, strict=True)]
        to_ns = _Scale(scale, 0).ns
        causes = [
            CauseReading(cause.label, times, to_ns(ticks), to_ns(error))
            for cause, (times, ticks, error) in sums.items()
        ]
        return tuple(sorted(causes, key=lambda one: (-one.blocked_ns, one.cause)))


def _first(data: bytes, dtype: np.dtype[np.void]) -> np.void | None:
    return np.frombuffer(data, dtype, 1)[0] if len(data) >= dtype.itemsize else None


def _places(table: np.void) -> list[tuple[int, int, int, int]]:
    """(stack, times, ticks, error in ticks) of each place that is taken."""
    used = min(int(table["used"]), layout.PLACES)
    columns = (table[name][:used].tolist() for name in ("stacks", "times", "ticks", "error"))
    return list(zip(*columns, strict=True))


def _role(name: str) -> str:
    return _NUMBER.sub("*", name)


def _thread(tally: np.void, pid: int, scale: _Scale, reading: int) -> ThreadReading:
    name = text_of(bytes(tally["name"])) or (_MAIN if int(tally["tid"]) == pid else _UNNAMED)
    under_way = [scale.since(int(since)) > 0 for since in tally["since"]]
    return ThreadReading(
        tid=int(tally["tid"]),
        name=name,
        role=_role(name),
        counts=_counts(tally, scale, reading),
        holding=under_way[Length.HOLDS],
        waiting=under_way[Length.WAITS],
        blocked=under_way[Length.SLEEPS],
    )


def _counts(tally: np.void, scale: _Scale, reading: int) -> Counts:
    number = [int(one) for one in tally["number"]]
    since = [scale.since(int(one)) for one in tally["since"]]
    length = [scale.ns(int(one)) + more for one, more in zip(tally["sum"], since, strict=True)]
    longest = [scale.ns(int(one)) if int(tally["reading"]) == reading else 0 for one in tally["longest"]]
    buckets = [tuple(one.tolist()) for one in tally["buckets"]]
    return Counts(
        holds=number[Length.HOLDS],
        held_ns=length[Length.HOLDS],
        waits=number[Length.WAITS],
        waited_ns=length[Length.WAITS],
        forced=int(tally["forced"]),
        requests=int(tally["requests"]),
        blocks=number[Length.SLEEPS],
        blocked_ns=length[Length.SLEEPS],
        longest_hold_ns=max(longest[Length.HOLDS], since[Length.HOLDS]),
        longest_wait_ns=max(longest[Length.WAITS], since[Length.WAITS]),
        hold_lengths=buckets[Length.HOLDS],
        wait_lengths=buckets[Length.WAITS],
        block_lengths=buckets[Length.SLEEPS],
    )


def _slept_seconds() -> float:
    """How long the machine has slept since it began: CLOCK_BOOTTIME counts that, CLOCK_MONOTONIC does not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
