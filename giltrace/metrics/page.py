"""Read what tracers count (native/FORMAT.md): of one program, and of all those that count in a folder.

A process goes on counting while it is read. Nothing stops it: what has changed meanwhile is read again.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from giltrace import native
from giltrace.errors import RecordingError
from giltrace.metrics.count_file import CountFile, CutOff, OtherVersion, Scale
from giltrace.metrics.layout import Length, Table, TallyState
from giltrace.metrics.lines import Lines, Place, places
from giltrace.metrics.reading import Counts, ProcessReading, RoleKey, RoleReading, ThreadReading, total
from giltrace.metrics.roles import UNNAMED, Roles
from giltrace.process.stat import stat_fields
from giltrace.recording import layout
from giltrace.recording.door import MAX_COUNT, MAX_TIME
from giltrace.recording.gil_file import GilFile, cmdline_of, head_at, text_of
from giltrace.text import role_name

_NAME = re.compile(r"count-(\d{1,10})-(\d{1,4})\.bin")
_PYTHON = re.compile(r"3\.(\d{1,4})\.\S*")
_CUT_OFF = "the file that it counted in was cut off: what it counted since this was last read is lost"
_LIVING = (TallyState.LIVES, TallyState.LEFT)
#: The field of /proc/PID/stat that says when a process began, counted from the state.
_BEGAN = 19


class Pages:
    """All programs that count in a folder, those that have ended too until they are forgotten.

    `pid_here` tells the id here of one that is in a pid namespace of its own, None if it is there no more.
    """

    def __init__(self, folder: Path, pid_here: Callable[[int], int | None] = lambda pid: pid) -> None:
        self.folder = folder
        self._pid_here = pid_here
        self._pages: dict[str, _Page] = {}
        self._refused: dict[str, str] = {}

    @property
    def refused(self) -> tuple[str, ...]:
        """Why some were not read the last time: they are of another version."""
        return tuple(self._refused.values())

    def read(self, *, reset_longest: bool = False) -> tuple[ProcessReading, ...]:
        """What each has counted by now, in order of process ids; of an ended one, its last words.

        No figure is ever less than at the last call. With `reset_longest` what is longest begins anew, for all readers.
        Raises `RecordingError` if a file or the folder cannot be read; files of another version are `refused`.
        """
        newest: dict[int, int] = {}
        names = list(self._names())
        self._refused = {name: self._refused[name] for name, _, _ in names if name in self._refused}
        for name, pid, image in names:
            newest[pid] = max(newest.get(pid, 0), image)
            if name not in self._pages and name not in self._refused:
                try:
                    page = _Page.open(self.folder / name, pid, image, self._pid_here)
                except OtherVersion as error:
                    self._refused[name] = str(error)
                    continue
                if page is not None:
                    self._pages[name] = page
        pages = sorted(self._pages.values(), key=lambda page: (page.pid, page.image))
        readings = [page.read(reset_longest, page.image < newest.get(page.pid, 0)) for page in pages]
        return tuple(reading for reading in readings if reading is not None)

    def forget(self, pid: int) -> None:
        """Drop what a process has counted that has ended, or executes another program now, and the files."""
        newest = max((page.image for page in self._pages.values() if page.pid == pid), default=0)
        for name, page in list(self._pages.items()):
            if page.pid == pid and (page.has_ended() or page.image < newest):
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

    def __init__(
        self,
        file: CountFile,
        path: Path,
        beside: GilFile,
        pid: int,
        image: int,
        pid_here: Callable[[int], int | None],
    ) -> None:
        self.pid, self.image = pid, image
        self._pid_here = pid_here
        self._file, self._beside = file, beside
        self._paths = path, beside.path, path.with_name("stacks" + path.name.removeprefix("count"))
        version = _PYTHON.match(text_of(bytes(beside.header["python"])))
        self._python = version[0] if version is not None else ""
        self._lines = Lines(self._paths[2], (3, int(version[1])) if version is not None else (3, 0))
        self._roles: dict[str, Roles] = defaultdict(Roles)  #: by the numbers of GILs
        self._last: ProcessReading | None = None

    @classmethod
    def open(cls, path: Path, pid: int, image: int, pid_here: Callable[[int], int | None]) -> _Page | None:
        """The page at `path`; None if it is only being made, or gone. Raises `RecordingError` if it may not be read."""
        beside = path.with_name("gil" + path.name.removeprefix("count"))
        head = head_at(beside)
        try:
            file = CountFile(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RecordingError.unreadable(path, error) from None
        if head is not None and file.begun:
            return cls(file, path, GilFile.of(beside, head), pid, image, pid_here)
        file.close()
        return None

    def has_ended(self) -> bool:
        """Whether the process is gone, or has stopped to count."""
        return self._is_over(head_at(self._beside.path))

    def _is_over(self, head: bytes | None) -> bool:
        """The same by the tracer's `head` as it is now; None if that is gone."""
        if head is None or layout.Status.STOPPED in _status(head):
            return True
        here = self._pid_here(self.pid)
        try:
            fields = stat_fields(here) if here is not None else []
        except OSError:
            return True
        if not fields or fields[0] in (b"Z", b"X"):
            return True  # of a zombie only its status is left
        began = int(fields[_BEGAN]) / os.sysconf("SC_CLK_TCK")
        # Another process may have its number by now. The kernel's clock counts while the machine sleeps, too.
        asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
        return began - asleep > int(self._beside.header["start_ns"]) / 1e9 + 1

    def read(self, reset_longest: bool, replaced: bool) -> ProcessReading | None:
        """What it says now, or said before somebody cut it off; `replaced` if a later image of the process counts."""
        head = head_at(self._beside.path)
        try:
            self._last = self._read(head or self._beside.head, reset_longest, replaced or self._is_over(head))
        except CutOff:
            if self._last is not None:
                self._last = replace(self._last, ended=True, threads=(), note=_CUT_OFF)
        return self._last

    def _read(self, beside: bytes, reset_longest: bool, ended: bool) -> ProcessReading:
        ticks, now_ns, _ = native.clock_pair()
        head, found = self._file.read()
        tallies = [tally for tally in found if _makes_sense(tally)]
        reading = int(head["reading"])
        if reset_longest:
            self._file.reset_longest(reading + 1)
        scale = Scale(int(head["scale"]), 0 if ended else ticks)
        living = [tally for tally in tallies if int(tally["state"]) in _LIVING]
        alive = {} if ended else _threads(living, scale, reading)
        at = Counter((thread.role, gil) for thread, gil in alive.values())
        sleepers = [*places(head["tables"][Table.SLEEPERS]), *_asleep(living, scale.now)]
        unnamed = [scale.ns(int(table["missed"])) for table in head["tables"]]
        self._lines.update()
        return ProcessReading(
            pid=self.pid,
            command=cmdline_of(self._beside),
            python=self._python,
            free_threaded=layout.Status.FREE_THREADED in _status(beside),
            started_ns=min(int(head["start_ns"]), MAX_TIME),
            at_ns=now_ns,
            roles=tuple(
                RoleReading(role, at[role, gil], counts, gil)
                for (role, gil), counts in sorted(self._of_roles(tallies, reading, scale).items())
            ),
            threads=tuple(thread for thread, _ in alive.values()),
            culprits=self._lines.readings(places(head["tables"][Table.CULPRITS]), scale),
            victims=self._lines.readings(places(head["tables"][Table.VICTIMS]), scale),
            blocked=self._lines.readings(sleepers, scale),
            causes=self._lines.causes(sleepers, scale),
            lost=int(head["lost"]),
            unnamed_ns=(unnamed[Table.CULPRITS], unnamed[Table.VICTIMS], unnamed[Table.SLEEPERS]),
            note=text_of(bytes(GilFile.of(self._beside.path, beside).header["note"])),
            moved=frozenset(
                _gil(tally) for tally in tallies if tally["number"][Length.HOLDS] or tally["since"][Length.HOLDS]
            ),
            ended=ended,
        )

    def _of_roles(self, tallies: list[np.void], reading: int, scale: Scale) -> dict[RoleKey, Counts]:
        found: dict[str, dict[str, list[Counts]]] = {gil: defaultdict(list) for gil in self._roles}
        for tally in tallies:
            if int(tally["state"]) in (*_LIVING, TallyState.ENDED):
                of_gil = found.setdefault(_gil(tally), defaultdict(list))
                of_gil[role_name(_name(tally))].append(_counts(tally, scale, reading))
        return {
            (role, gil): counts
            for gil, of_gil in found.items()
            for role, counts in self._roles[gil].update({role: total(each) for role, each in of_gil.items()}).items()
        }

    def remove(self) -> None:
        """Remove the page's files."""
        self.close()
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _status(head: bytes) -> layout.Status:
    return layout.Status(int(np.frombuffer(head, layout.HEADER, 1)[0]["status"]))


def _asleep(tallies: list[np.void], now: int) -> Iterator[Place]:
    """Sleeps that are under way, as places of their table."""
    for tally in tallies:
        since = int(tally["since"][Length.SLEEPS])
        if 0 < since < now:
            yield int(tally["asleep"]), 0, now - since, 0


def _makes_sense(tally: np.void) -> bool:
    """Whether a tracer may have written that: who may write to the process's files may have written anything there."""
    counts = (tally[name] for name in ("number", "forced", "requests", "buckets"))
    return int(tally["gil"]) < layout.MAX_GILS and all(int(np.max(one)) < MAX_COUNT for one in counts)


def _gil(tally: np.void) -> str:
    return str(int(tally["gil"]))


def _name(tally: np.void) -> str:
    return text_of(bytes(tally["name"]).partition(b"\0")[0]) or UNNAMED


def _threads(tallies: list[np.void], scale: Scale, reading: int) -> dict[int, tuple[ThreadReading, str]]:
    """The threads by their ids, and the GIL that each used last, of what they did with all."""
    found: dict[int, tuple[ThreadReading, str]] = {}
    for tally in sorted(tallies, key=lambda one: int(one["state"]) != TallyState.LEFT):
        thread = _thread(tally, scale, reading)
        before, _ = found.get(thread.tid, (None, ""))
        if before is not None:
            thread = replace(thread, counts=before.counts + thread.counts)
        found[thread.tid] = thread, _gil(tally)
    return found


def _thread(tally: np.void, scale: Scale, reading: int) -> ThreadReading:
    name = _name(tally)
    under_way = [scale.since(int(since)) > 0 for since in tally["since"]]
    return ThreadReading(
        tid=int(tally["tid"]),
        name=name,
        role=role_name(name),
        counts=_counts(tally, scale, reading),
        holding=under_way[Length.HOLDS],
        waiting=under_way[Length.WAITS],
        blocked=under_way[Length.SLEEPS],
    )


def _counts(tally: np.void, scale: Scale, reading: int) -> Counts:
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
