"""The folder that processes count in: read by several, each of which may keep sums there, removed by who made it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_LOCK = "totals.lock"
#: Who keeps sums has the lock for milliseconds. One that was stopped meanwhile holds nobody up for longer than this.
_PATIENCE_SECONDS = 5.0
_AGAIN_SECONDS = 0.005


@contextlib.contextmanager
def had_alone(folder: Path) -> Iterator[None]:
    """Have a folder alone, among those that keep sums there. Raises `FileNotFoundError` if it is there no more."""
    lock = _opened(folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Who had the lock before may have removed the folder.
        os.stat(folder)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def made_for_counts() -> Iterator[Path]:
    """Make a folder, and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="giltrace-metrics-") as temporary:
        folder = Path(temporary, "counts")
        folder.mkdir()
        try:
            yield folder
        finally:
            remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder at once, so that nobody finds half of it or writes into it meanwhile. Raises `OSError`."""
    lock = _opened(folder)
    try:
        _wait_for(lock)
        away = folder.rename(folder.with_name(f"{folder.name}.removed"))
    finally:
        os.close(lock)
    shutil.rmtree(away, ignore_errors=True)


def _opened(folder: Path) -> int:
    return os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _wait_for(lock: int) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_AGAIN_SECONDS)
        else:
            return
