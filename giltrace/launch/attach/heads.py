"""The heads of the tracer's files, through which a recorder and the tracer in a process speak with each other."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from giltrace.recording import layout
from giltrace.recording.layout import Control, Status

#: How long a tracer goes on without hearing of its recorder, and how often it hears.
LEASE_NS = 10_000_000_000
RENEW_NS = 1_000_000_000

_NAME = re.compile(r"gil-(\d+)-\d+\.bin")
_LOCKED = "clock.bin"


@dataclass(frozen=True)
class Head:
    """The head of one file, as the tracer sees it at the same time; `process` is the id that is in the file's name."""

    process: int
    fields: np.void

    @property
    def status(self) -> Status:
        """What the tracer says."""
        return Status(int(self.fields["status"]))

    @property
    def at_work(self) -> bool:
        """Tell whether the tracer has been put in place and has not left."""
        return Status.HOOKED in self.status and Status.STOPPED not in self.status

    def renew(self) -> None:
        """Say that somebody still listens."""
        self.fields["lease_ns"] = time.monotonic_ns() + LEASE_NS

    def ask_to_stop(self) -> None:
        """Ask the tracer to leave at the next use of a GIL."""
        self.fields["control"] = Control.CONTROL_STOP


class Heads:
    """The heads of all files in a folder; `look` for new ones again and again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Head] = {}

    def look(self) -> list[Head]:
        """Map the files that are new and return all heads."""
        for name in os.listdir(self._folder):
            match = _NAME.fullmatch(name)
            if match and name not in self._known:
                with contextlib.suppress(OSError, ValueError):  # not yet a page long
                    self._known[name] = Head(int(match[1]), _map(self._folder / name))
        return list(self._known.values())


def _map(path: Path) -> np.void:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        page = mmap.mmap(fd, layout.HEADER_SIZE)
    finally:
        os.close(fd)
    head: np.void = np.frombuffer(page, layout.HEADER, 1)[0]
    return head


@contextlib.contextmanager
def marked_as_recorded(folder: Path) -> Iterator[None]:
    """Hold a lock on a recording while its recorder lives; the kernel lets go of it however that ends."""
    with (folder / _LOCKED).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def is_recorded(folder: Path) -> bool:
    """Tell whether a recorder holds the lock on `folder`."""
    try:
        with (folder / _LOCKED).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
