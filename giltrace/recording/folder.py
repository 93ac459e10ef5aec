"""The NAME.giltrace folder on disk: claimed without losing what was there."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from itertools import count
from pathlib import Path
from typing import NamedTuple

from giltrace.errors import OutputError

SUFFIX = ".giltrace"
TRACE_SUFFIX = ".pftrace"
#: What the tracer's files are called: by process, and by which of its program images.
GIL_NAME = re.compile(r"gil-(\d{1,9})-(\d{1,10})\.bin", re.ASCII)
# What is there before the description is, if the recorder was killed that early.
_BEGUN = re.compile(r"clock\.bin|\.meta\.json\.\d+")


class Remedies(NamedTuple):
    """What to do, in the caller's words, if the name is `taken` by a recording or the place is `unwritable`."""

    taken: str
    unwritable: str


COMMAND_LINE = Remedies(
    taken="choose another name with -o, or replace it with --force",
    unwritable="choose a place that you may write to, with -o",
)


class RecordingFolder:
    """A new folder at `path`; with `force`, one in the place of an older recording, kept until `keep`."""

    def __init__(self, path: Path, *, force: bool, remedies: Remedies = COMMAND_LINE) -> None:
        self.path = path
        self._old: Path | None = None
        self._made: list[Path] = []
        self._kept = False
        if path.exists():
            if not force:
                raise OutputError(f"{path} exists", remedies.taken)
            if not _is_recording(path):
                raise OutputError(f"{path} is not a giltrace recording", "it will not be replaced; choose another name")
        try:
            self._made = [parent for parent in path.parents if not parent.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                self._old = path.with_name(f"{path.name}.{os.getpid()}.old")
                path.rename(self._old)
            path.mkdir()
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}", remedies.unwritable) from None

    def keep(self) -> None:
        """The recording has begun for good: what it replaces may go."""
        self._kept = True
        if self._old is not None:
            shutil.rmtree(self._old)
            self._old = None

    def abandon(self) -> None:
        """Leave things as they were, unless the recording has begun."""
        if self._kept:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        if self._old is not None:
            self._old.rename(self.path)
        for parent in self._made:
            with contextlib.suppress(OSError):  # somebody else may have put something there
                parent.rmdir()


def numbered(path: Path) -> Path:
    """The first of NAME.giltrace, NAME.2.giltrace, NAME.3.giltrace and so on that is free, as a recording and a trace.

    `path` is the first of these.
    """
    stem = path.name.removesuffix(SUFFIX)
    for number in count(1):
        name = f"{stem}.{number}" if number > 1 else stem
        if not any(os.path.lexists(path.with_name(name + suffix)) for suffix in (SUFFIX, TRACE_SUFFIX)):
            return path.with_name(name + SUFFIX)
    raise AssertionError("there is always another number")


def claim_numbered(path: Path, remedies: Remedies = COMMAND_LINE) -> RecordingFolder:
    """Claim the folder that `numbered` finds, or the next one if somebody else was faster."""
    while True:
        free = numbered(path)
        try:
            return RecordingFolder(free, force=False, remedies=remedies)
        except OutputError:
            if not free.exists():
                raise


def _is_recording(path: Path) -> bool:
    """Tell whether nothing but a recording, whole or just begun, is lost with the folder `path`."""
    if not path.is_dir():
        return False
    return (path / "meta.json").is_file() or all(_BEGUN.fullmatch(inner.name) for inner in path.iterdir())
