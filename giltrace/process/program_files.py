"""The files that a process runs, opened as it sees them and with its user's rights, also when it has ended."""

from __future__ import annotations

from giltrace.process.deputy import Deputy, User
from giltrace.process.folder import Folder


class ProgramFiles:
    """What process `pid`, and those that it starts, know as "/"; a context. Raises OSError if that may not be seen."""

    def __init__(self, pid: int) -> None:
        self._deputy = Deputy(User.of(pid))
        self._root = Folder.root_of(pid, self._deputy, None)

    def open(self, path: str) -> int:
        """Open a plain file at a path without links, for reading. Raises OSError."""
        parent, _, name = path.rpartition("/")
        with self._root.folder(".").below(parent) as folder:
            return folder.open(name)

    def close(self) -> None:
        """Let go of it."""
        self._root.close()
        self._deputy.close()

    def __enter__(self) -> ProgramFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
