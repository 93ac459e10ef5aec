"""The door: how the files of a recording are opened and read, whoever made them.

A recording may come from anywhere: a bug report, another user's process, a disk that was full. So a file of it is a
regular one and no link; it is read as far as it goes, never mapped, since it may shrink meanwhile; and no memory is
taken by a number that stands in it, only by what is there. What is in it is checked by those who read it; what they
do not accept is `Damaged`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from giltrace.errors import RecordingError
from giltrace.text import visible

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: Linux gives processes, threads and cores no higher numbers (PID_MAX_LIMIT, and what a record has bits for).
MAX_ID = 1 << 22
MAX_CPU = 8190
#: Larger counts are not counted but damaged.
MAX_COUNT = 1 << 48
#: No time is later; the sum of two is still an int64.
MAX_TIME = 1 << 60

#: How long before its start and after its end something may have happened that a recording knows of: what a program
#: leaves running is traced on when the recorder has ended.
_BEFORE_NS, _AFTER_NS = 3_600 * 10**9, 30 * 86_400 * 10**9
#: Nobody records so soon after the machine was started.
_FIRST_NS = 1_000_000_000

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
_PIECE = 1 << 20


class Damaged(RecordingError):
    """A file of a recording that is not accepted: `path`, and the `reason` in a few words."""

    def __init__(self, path: Path, reason: str, remedy: str = "record again", verb: str = "is damaged:") -> None:
        super().__init__(f"{path} {verb} {reason}", remedy)
        self.path = path
        self.reason = reason

    def left_out(self) -> str:
        """What to say of it where the rest of the recording is read all the same."""
        name = self.path.name
        pid = name.split("-")[1].partition(".")[0] if name.startswith("gil-") else ""
        what = f"process {pid}: its file" if pid else visible(name)
        return f"{what} is damaged ({self.reason}): left out"


class Times(NamedTuple):
    """The stretch (ns) in which all that a recording tells has happened; other times are damaged."""

    first: int = 0
    last: int = MAX_TIME

    @classmethod
    def of(cls, start: int, end: int) -> Times:
        """Those of a recording that lasted from `start` to `end`; 0 if the latter is not known."""
        return cls(max(start - _BEFORE_NS, _FIRST_NS), min(max(start, end) + _AFTER_NS, MAX_TIME))

    def have(self, time: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Whether each time (ns) is one of them."""
        within: npt.NDArray[np.bool_] = (time >= self.first) & (time <= self.last)
        return within


class Source:
    """A file of a recording, open for reading: a context. One that nobody has any more is closed.

    Raises `Damaged` if it is no regular file, OSError if it is not there, or may not be read.
    """

    _fd = -1
    _file: io.FileIO | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            fd = os.open(path, _FLAGS)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENODEV):
                raise self._special(path) from None
            if error.errno != errno.ELOOP:
                raise
            fd = self._linked(path)
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            os.close(fd)
            raise self._special(path)
        self._fd, self._file = fd, io.FileIO(fd)
        self.size = about.st_size
        #: When it was last written to, in ns since 1970.
        self.written_ns = about.st_mtime_ns

    def close(self) -> None:
        """Let go of the file."""
        self._fd = -1
        if self._file is not None:
            self._file.close()

    def __del__(self) -> None:
        self.close()  # also when the interpreter ends, and `os` is gone

    @property
    def again(self) -> str:
        """A path by which this process can open the same file once more, whatever has become of its name."""
        return f"/proc/self/fd/{self._fd}"

    def refresh(self) -> None:
        """Look again how long it is."""
        self.size = os.fstat(self._fd).st_size

    @staticmethod
    def _linked(path: Path) -> int:
        """Open what this very process has open already, and made a link to (`giltrace.launch.attach.links`)."""
        found, own = os.readlink(path), f"/proc/{os.getpid()}/fd/"
        if not (found.startswith(own) and found.removeprefix(own).isdecimal()):
            raise Damaged(path, "it is a link", "put the file itself there")
        return os.open(found, _FLAGS & ~os.O_NOFOLLOW)

    @staticmethod
    def _special(path: Path) -> Damaged:
        return Damaged(path, "it is no regular file", "see what took its place")

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read(self, at: int, count: int) -> bytes:
        """Read `count` bytes from the place `at` on; fewer where the file ends, or has been cut off meanwhile."""
        parts = []
        count = min(count, self.size - at)
        while count > 0 and (part := os.pread(self._fd, count, at)):
            parts.append(part)
            at, count = at + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def stretches(self) -> Iterator[tuple[int, int]]:
        """Yield from where to where the file has data; in between are holes, which read as zeros, however large."""
        begin = self.data_from(0)
        while begin < self.size:
            end = min(self._sought(begin, os.SEEK_HOLE), self.size)
            yield begin, end
            begin = self.data_from(end)

    def data_from(self, at: int) -> int:
        """The first place from `at` on that has data; the file's size if there is none."""
        return self._sought(at, os.SEEK_DATA) if at < self.size else self.size

    def _sought(self, at: int, what: int) -> int:
        try:
            return os.lseek(self._fd, at, what)
        except OSError as error:
            # Only a hole is left; or the file system does not know its holes.
            return self.size if error.errno == errno.ENXIO or what == os.SEEK_HOLE else at

    def data(self, since: int = 0) -> bytearray:
        """Read it from the place `since` up to the next hole: what is written from its begin to its end has none."""
        end = next((end for begin, end in self.stretches() if begin <= since < end), since)
        # Read to where it stays: parts that are joined take the memory twice.
        data, at = bytearray(end - since), 0
        with memoryview(data) as view:
            while at < len(data) and (more := os.preadv(self._fd, [view[at : at + _PIECE]], since + at)):
                at += more
        del data[at:]
        return data


def read_data(path: Path, most: int | None = None) -> bytearray:
    """Read a file of a recording whole, as `Source` does; `Damaged` if it has more than `most` bytes."""
    with Source(path) as source:
        if most is not None and source.size > most:
            raise Damaged(path, f"it has {source.size:,} bytes")
        return source.data()


def read_json(path: Path, most: int) -> Any:
    """Read a file of JSON, as `read_data` does; `Damaged` if it is none."""
    try:
        return json.loads(read_data(path, most).decode(), parse_constant=refuse_constant)
    except ValueError as error:
        raise Damaged(path, f"it is no JSON: {error}") from None
    except RecursionError:
        raise Damaged(path, "it is nested too deeply") from None


@contextlib.contextmanager
def leaving_out(path: Path, refused: list[Damaged]) -> Iterator[None]:
    """Within it, that the file at `path` cannot be read is added to `refused`; one that is gone is none at all."""
    try:
        yield
    except Damaged as error:
        refused.append(error)
    except FileNotFoundError:
        return
    except OSError as error:
        remedy = "see that it is all there, and that you may read it"
        refused.append(Damaged(path, error.strerror or "it cannot be read", remedy, "cannot be read:"))


def matching(folder: Path, accepted: Callable[[str], Any]) -> list[Path]:
    """Return the files of the recording `folder` whose names are `accepted`, in the order of their names."""
    return [folder / name for name in sorted(os.listdir(folder)) if accepted(name)]


def is_int(value: object, low: int = 0, high: int = MAX_TIME) -> bool:
    """Whether what JSON gave is an integer from `low` to `high`."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def refuse_constant(name: str) -> Any:
    """Take no NaN and no Infinity for JSON: for `json.loads`, as its `parse_constant`."""
    raise ValueError(f"{name} is no number")
