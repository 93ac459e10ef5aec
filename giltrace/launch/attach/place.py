"""Where the target finds the library and may write its files: its file system need not be ours, nor its user."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from giltrace import native
from giltrace.errors import TargetError
from giltrace.launch.attach.inject import is_replaced
from giltrace.launch.attach.process import Process

#: Folders that anybody may write to, and from which libraries can usually be loaded.
_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/run")


@dataclass
class Place:
    """`library` and `folder` are as the target sees them; `files` is where we find what it writes to `folder`.

    `staged` is to be emptied at the end, None if everything is where it belongs.
    """

    library: str
    folder: str
    files: Path
    staged: Path | None = None

    def collect(self, into: Path) -> None:
        """Move what the target wrote to `into`, and leave nothing behind."""
        if self.staged is None:
            return
        for path in list(self.files.iterdir()) if self.files.is_dir() else []:
            shutil.copyfile(path, into / path.name)
        self.abandon()

    def abandon(self) -> None:
        """Remove what was put into the target's file system."""
        if self.staged is not None:
            shutil.rmtree(self.staged, ignore_errors=True)
            self.staged = None


def find_place(process: Process, folder: Path) -> Place:
    """Find out where the target can load the library from and write to; `folder` itself where possible.

    Raises `TargetError` if there is no such place.
    """
    library = str(native.LIBRARY.resolve())
    if _sees_the_same(process) and _may_execute(native.LIBRARY):
        if not is_replaced(process, library):
            return Place(library, str(folder.absolute()), folder)
        # The loader knows a library by its path: one from an earlier version would be taken for this one.
        staged = Path(tempfile.mkdtemp(prefix="giltrace-"))
        shutil.copyfile(native.LIBRARY, staged / native.LIBRARY.name)
        return _Copied(str(staged / native.LIBRARY.name), str(folder.absolute()), folder, staged)
    return _stage(process)


class _Copied(Place):
    """Only the library is elsewhere."""

    def collect(self, into: Path) -> None:
        self.abandon()


def _sees_the_same(process: Process) -> bool:
    """Tell whether the target has our file system, and as our user."""
    with contextlib.suppress(OSError):
        root, mine = process.path_here("/").stat(), os.stat("/")
        same_root = (root.st_dev, root.st_ino) == (mine.st_dev, mine.st_ino)
        return same_root and process.shares("mnt") and _owner(process) == (os.geteuid(), os.getegid())
    return False


def _owner(process: Process) -> tuple[int, int]:
    status = process.status()
    return int(status["Uid"].split()[1]), int(status["Gid"].split()[1])


def _may_execute(path: Path) -> bool:
    return not os.statvfs(path).f_flag & os.ST_NOEXEC


def _stage(process: Process) -> Place:
    uid, gid = _owner(process)
    for parent in _TEMPORARY:
        here = process.path_here(parent)
        try:
            if not _may_execute(here):
                continue
            staged = Path(tempfile.mkdtemp(prefix="giltrace-", dir=here))
            try:
                shutil.copyfile(native.LIBRARY, staged / native.LIBRARY.name)
                (staged / "recording").mkdir(0o700)
                for path in (staged / native.LIBRARY.name, staged / "recording", staged):
                    os.chown(path, uid, gid)
            except OSError:
                shutil.rmtree(staged, ignore_errors=True)
                continue
        except OSError:
            continue
        inside = f"{parent}/{staged.name}"
        return Place(f"{inside}/{native.LIBRARY.name}", f"{inside}/recording", staged / "recording", staged)
    raise TargetError(
        f"process {process.pid} can load no library from any of {', '.join(_TEMPORARY)} in its file system",
        f"look at it from outside: giltrace attach --observe {process.pid}",
    )
