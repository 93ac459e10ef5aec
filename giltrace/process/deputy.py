"""Work on files that is done for another user, with that user's rights and no more."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from giltrace.process.kernel_text import lines_of

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

#: libc's own function would change the groups of all threads.
_SETGROUPS = {"x86_64": 116, "aarch64": 159}

T = TypeVar("T")


class User(NamedTuple):
    """The ids by which the kernel decides what a process may do with files."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def of(cls, pid: int) -> User:
        """Those of process `pid`, as they are here. Raises OSError."""
        lines = lines_of(f"/proc/{pid}/status")
        fields = dict(line.partition(":")[::2] for line in lines)
        groups = tuple(sorted(int(group) for group in fields["Groups"].split()))
        return cls(int(fields["Uid"].split()[3]), int(fields["Gid"].split()[3]), groups)


class Deputy:
    """Does file work as `user` could do it itself: in a thread that has nobody else's rights.

    Who is not root has no others to give away: there it is done at once, as it is where root is the user.
    """

    def __init__(self, user: User) -> None:
        self.user = user
        self._worker: ThreadPoolExecutor | None = None
        self._refused = False
        if os.geteuid() == 0 != user.uid:
            from concurrent.futures import ThreadPoolExecutor

            self._worker = ThreadPoolExecutor(1, "deputy", self._try_to_become)

    def do(self, work: Callable[..., T], *arguments: object) -> T:
        """Return what `work` returns, or raise what it raises; OSError too if we may not act for that user."""
        if self._worker is None:
            return work(*arguments)
        return self._worker.submit(self._done, work, *arguments).result()

    def _try_to_become(self) -> None:
        # Raised here, it would be told on stderr.
        try:
            _become(self.user)
        except OSError:
            self._refused = True

    def _done(self, work: Callable[..., T], *arguments: object) -> T:
        if self._refused:
            raise PermissionError(errno.EPERM, f"not allowed to act for uid {self.user.uid}")
        return work(*arguments)

    def close(self) -> None:
        """Let the thread go."""
        if self._worker is not None:
            self._worker.shutdown()


def _become(user: User) -> None:
    """Give this thread, and no other, the rights of `user`: root's capabilities over files go with its fs uid."""
    libc = ctypes.CDLL(None, use_errno=True)
    groups = (ctypes.c_uint32 * len(user.groups))(*user.groups)
    if libc.syscall(_SETGROUPS[platform.machine()], len(groups), groups):
        raise OSError(ctypes.get_errno(), "setgroups")
    libc.setfsgid(user.gid)
    libc.setfsuid(user.uid)
    # They say nothing of failure: the one that is in force now is what the next call returns.
    if libc.setfsgid(-1) != user.gid or libc.setfsuid(-1) != user.uid:
        raise PermissionError(errno.EPERM, "setfsuid")
