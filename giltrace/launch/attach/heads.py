"""The heads of the tracer's files, through which a recorder and the tracer in a process speak with each other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from giltrace.process.folder import Folder
from giltrace.recording import layout
from giltrace.recording.folder import GIL_NAME
from giltrace.recording.layout import Control, Status

#: How long a tracer goes on without hearing of its recorder, and how often it hears.
LEASE_NS = 10_000_000_000
RENEW_NS = 1_000_000_000

_LOCKED = "clock.bin"

_WORDS = {"status": "<I", "lease_ns": "<Q", "control": "<I", "confined": "<I"}


class Head:
    """The head of one file, as the tracer sees it at the same time; `process` is the id that is in the file's name.

    It is read and written, not mapped: whoever has the file may shorten it at any time.
    """

    def __init__(self, folder: Folder, name: str, process: int) -> None:
        self.process = process
        self._folder, self._name = folder, name
        self._said = Control(0)

    @property
    def status(self) -> Status:
        """What the tracer says; nothing, where there is no such file any more."""
        return Status(self._read("status"))

    @property
    def confined(self) -> bool:
        """Tell whether the tracer has given system calls up, as the process has put a seccomp filter on."""
        return self._read("confined") != 0

    @property
    def at_work(self) -> bool:
        """Tell whether the tracer has been put in place and has not left."""
        status = self.status
        return Status.HOOKED in status and Status.STOPPED not in status

    def renew(self) -> None:
        """Say that somebody still listens."""
        self._write("lease_ns", time.monotonic_ns() + LEASE_NS)

    def say(self, control: Control) -> None:
        """Say something that is heard at the next use of a GIL, besides what was said before."""
        self._said |= control
        self._write("control", self._said)

    def _read(self, field: str) -> int:
        kind, at = _place(field)
        with contextlib.suppress(OSError, struct.error), self._folder.opened(self._name) as file:
            return int(struct.unpack(kind, os.pread(file, struct.calcsize(kind), at))[0])
        return 0

    def _write(self, field: str, value: int) -> None:
        kind, at = _place(field)
        with contextlib.suppress(OSError), self._folder.opened(self._name, os.O_RDWR) as file:
            os.pwrite(file, struct.pack(kind, value), at)


def _place(field: str) -> tuple[str, int]:
    """How a field of the head is written, and where."""
    assert layout.HEADER.fields is not None
    return _WORDS[field], int(layout.HEADER.fields[field][1])


class Heads:
    """The heads of all files in a folder; `look` for new ones again and again."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._known: dict[str, Head] = {}

    def look(self) -> list[Head]:
        """Take in the files that are new and return all heads."""
        with contextlib.suppress(OSError):
            for name in self._folder.names(GIL_NAME):
                match = GIL_NAME.fullmatch(name)
                if match and name not in self._known:
                    self._known[name] = Head(self._folder, name, int(match[1]))
        return list(self._known.values())


@contextlib.contextmanager
def marked_as_recorded(folder: Path) -> Iterator[None]:
    """Hold a lock on a recording while its recorder lives; the kernel lets go of it however that ends."""
    with (folder / _LOCKED).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def hold_lock(folder: Folder) -> int:
    """Do the same for a folder that a tracer writes to and that is not the recording: until the descriptor is closed.

    Raises OSError.
    """
    descriptor = folder.create(_LOCKED, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def is_recorded(folder: Folder) -> bool:
    """Tell whether a recorder holds the lock on `folder`."""
    try:
        with folder.opened(_LOCKED) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
