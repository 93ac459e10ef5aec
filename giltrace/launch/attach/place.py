"""Where the target finds the library and may write its files: its file system need not be ours, nor its user."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from giltrace import native
from giltrace.errors import TargetError
from giltrace.launch.attach.heads import hold_lock
from giltrace.launch.attach.inject import is_replaced
from giltrace.launch.attach.process import Process
from giltrace.launch.attach.staging import TEMPORARY, Staged, is_trusted, trusted
from giltrace.launch.attach.target import Target
from giltrace.process.deputy import Deputy, User
from giltrace.process.folder import Folder, plain_copy, sees_the_same

#: What a tracer writes. Nothing else that lies there is taken.
RECORDED = re.compile(r"(gil|stacks)-\d+-\d+\.bin")


@dataclass
class Place:
    """`library` and `folder` are as the target sees them; `files` is where we find what it writes to `folder`.

    `staged` is what was put into its file system, None if nothing was. `lock` tells others that somebody listens.
    """

    library: str
    folder: str
    files: Folder
    staged: Staged | None
    deputy: Deputy
    lock: int = -1

    @property
    def is_direct(self) -> bool:
        """Tell whether the target writes into the recording itself."""
        return self.lock < 0

    def collect(self, into: Path) -> list[str]:
        """Move what the target wrote to `into`, and leave nothing behind. Returns what is to be said, if anything."""
        said = []
        try:
            for name in [] if self.is_direct else self.files.names(RECORDED):
                try:
                    with self.files.opened(name) as descriptor:
                        plain_copy(descriptor, into / name)
                except OSError as error:
                    said.append(f"{name} in {self.folder} was not taken over: {error.strerror}")
        except OSError as error:
            said.append(f"{self.folder} could not be read: {error.strerror}")
        finally:
            self.abandon()
        return said

    def abandon(self) -> None:
        """Remove what was put into the target's file system."""
        if self.staged is not None:
            self.staged.remove()
            self.staged = None
        self.files.close()
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1
        self.deputy.close()


def find_place(target: Target, folder: Path) -> Place:
    """Find out where the target can load the library from and write to; `folder` itself where possible.

    Raises `TargetError` if there is no such place.
    """
    library = native.tracer_library(target.library.libc, "x86_64").resolve()
    deputy = Deputy(User.of(target.process.pid))
    try:
        return _find(target.process, folder, library, deputy)
    except BaseException:
        deputy.close()
        raise


def _find(process: Process, folder: Path, library: Path, deputy: Deputy) -> Place:
    if deputy.user.uid != os.geteuid() or not sees_the_same(process.pid):
        staged = _stage(process, library, deputy)
        lock = hold_lock(staged.recording)
        return Place(staged.library, staged.recording_path, staged.recording, staged, deputy, lock)
    path, files = str(folder.absolute()), Folder.own(folder)
    if _may_execute(library) and is_trusted(library, deputy.user.uid) and not is_replaced(process, str(library)):
        return Place(str(library), path, files, None, deputy)
    # The loader knows a library by its path: one from an earlier version would be taken for this one.
    try:
        staged = _stage(process, library, deputy)
    except BaseException:
        files.close()
        raise
    return Place(staged.library, path, files, staged, deputy)


def _may_execute(path: Path) -> bool:
    return not os.statvfs(path).f_flag & os.ST_NOEXEC


def _stage(process: Process, library: Path, deputy: Deputy) -> Staged:
    user = frozenset({deputy.user.uid})
    for path in TEMPORARY:
        try:
            parent = trusted(path, Folder.root_of(process.pid, deputy, user), user)
        except OSError:
            continue
        try:
            if not parent.forbids_execution:
                return Staged(parent, path, library)
        except OSError:
            pass
        parent.close()
    raise TargetError(
        f"process {process.pid} can load no library from any of {', '.join(TEMPORARY)} in its file system",
        f"look at it from outside: giltrace attach --observe {process.pid}",
    )
