"""Folders that somebody else may write to, root's processes and containers among them, and the files in them.

By descriptor from beginning to end: no name is looked up twice, no link is followed, and only a plain file is opened,
so that nobody is read from or written to that its owner does not want to be, and nothing waits for a pipe's other end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from giltrace.process.deputy import Deputy

#: A file that claims to be longer than this is nothing that anybody has recorded.
LONGEST = 1 << 40
_BLOCK = 1 << 20
_MOUNTS = "/proc/self/ns/mnt"
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """The folder that `descriptor` is open on; it goes with this.

    `deputy` does the work; `owners` are the users whose files are opened, all if None: then they are our own.
    """

    def __init__(self, descriptor: int, deputy: Deputy | None = None, owners: frozenset[int] | None = None) -> None:
        self._descriptor, self._deputy, self._owners = descriptor, deputy, owners

    @classmethod
    def own(cls, path: Path) -> Folder:
        """A folder of ours, or of whom this user trusts. Raises OSError."""
        return cls(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    @classmethod
    def root_of(cls, pid: int, deputy: Deputy | None, owners: frozenset[int] | None) -> Folder:
        """What process `pid` sees as "/". What is there stays, also when the process has ended. Raises OSError."""
        return cls(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), deputy, owners)

    def below(self, path: str) -> Folder:
        """The folder at `path` below this one, which is closed; without links on the way. Raises OSError."""
        at = self
        for part in path.split("/"):
            if part:
                with at:
                    at = at.folder(part)
        return at

    def folder(self, name: str) -> Folder:
        """A folder in it. Raises OSError."""
        opened = self._do(lambda: os.open(name, _PATH | os.O_DIRECTORY, dir_fd=self._descriptor))
        return Folder(opened, self._deputy, self._owners)

    def _do(self, work: Callable[[], int]) -> int:
        return work() if self._deputy is None else self._deputy.do(work)

    @property
    def path(self) -> Path:
        """By which this process finds it, as long as this is open."""
        return Path(f"/proc/self/fd/{self._descriptor}")

    @property
    def user(self) -> int:
        """Who makes what is made in it."""
        return os.geteuid() if self._deputy is None else self._deputy.user.uid

    @property
    def state(self) -> os.stat_result:
        """Whose it is, and who may write to it."""
        return os.fstat(self._descriptor)

    @property
    def forbids_execution(self) -> bool:
        """Tell whether nothing can be loaded from it."""
        return bool(os.fstatvfs(self._descriptor).f_flag & os.ST_NOEXEC)

    def names(self, wanted: re.Pattern[str]) -> list[str]:
        """The names in it that match `wanted` as a whole, sorted. Raises OSError."""
        listed = self._do(lambda: os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._descriptor))
        try:
            return sorted(name for name in os.listdir(listed) if wanted.fullmatch(name))
        finally:
            os.close(listed)

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """Open the plain file `name`, and return its descriptor. Raises OSError for anything else."""
        handle = self._do(lambda: os.open(name, _PATH, dir_fd=self._descriptor))
        try:
            self._check(handle, name)
            again = f"/proc/self/fd/{handle}"
            return self._do(lambda: os.open(again, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY))
        finally:
            os.close(handle)

    def _check(self, handle: int, name: str) -> None:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a plain file", name)
        if self._owners is None:
            return
        if found.st_uid not in self._owners or found.st_nlink != 1:
            raise PermissionError(errno.EPERM, "another user's file", name)
        if _mount(handle) != _mount(self._descriptor):
            raise OSError(errno.EXDEV, "something mounted", name)

    @contextlib.contextmanager
    def opened(self, name: str, flags: int = os.O_RDONLY) -> Iterator[int]:
        """Have the plain file `name` open for the time of the block. Raises OSError, as `open` does."""
        descriptor = self.open(name, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def read(self, name: str, limit: int) -> bytes:
        """Return the first `limit` bytes of the plain file `name`. Raises OSError."""
        with self.opened(name) as descriptor:
            return os.pread(descriptor, limit, 0)

    def create(self, name: str, mode: int) -> int:
        """Create the file `name`, and return its descriptor, for writing. Raises OSError if there is one."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return self._do(lambda: os.open(name, flags, mode, dir_fd=self._descriptor))

    def create_folder(self, name: str) -> Folder:
        """Create a folder in it that nobody but its owner may look into. Raises OSError."""

        def make() -> int:
            os.mkdir(name, 0o700, dir_fd=self._descriptor)
            return 0

        self._do(make)
        return self.folder(name)

    def remove(self, name: str, *, is_folder: bool = False) -> None:
        """Remove a file, or an empty folder. Raises OSError."""

        def remove() -> int:
            (os.rmdir if is_folder else os.unlink)(name, dir_fd=self._descriptor)
            return 0

        self._do(remove)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sees_the_same(pid: int) -> bool:
    """Tell whether process `pid` has our file system."""
    try:
        pairs = [(os.stat(f"/proc/{pid}/{what}"), os.stat(ours)) for what, ours in (("root", "/"), ("ns/mnt", _MOUNTS))]
    except OSError:
        return False
    return all((its.st_dev, its.st_ino) == (ours.st_dev, ours.st_ino) for its, ours in pairs)


def _mount(descriptor: int) -> str:
    """Which mounted file system a descriptor is open in."""
    with open(f"/proc/self/fdinfo/{descriptor}") as file:
        return next(line for line in file if line.startswith("mnt_id:"))


def plain_copy(descriptor: int, out: Path) -> None:
    """Copy what an open file holds to the new file `out`: holes stay holes, what is written meanwhile is left out.

    Raises OSError.
    """
    size = os.fstat(descriptor).st_size
    if size > LONGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(out))
    with out.open("xb") as file:
        for at, end in extents(descriptor, size):
            file.seek(at)
            while at < end and (block := os.pread(descriptor, min(_BLOCK, end - at), at)):
                file.write(block)
                at += len(block)
        file.truncate(size)


def extents(descriptor: int, size: int) -> list[tuple[int, int]]:
    """Where the first `size` bytes of an open file are more than holes."""
    found, at = [], 0
    try:
        while at < size:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
            at = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
            if begin >= size:
                break
            found.append((begin, at))
    except OSError as error:
        if error.errno != errno.ENXIO:  # nothing but a hole is left
            raise
    return found
