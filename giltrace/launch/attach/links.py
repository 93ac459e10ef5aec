"""What a tracer writes into another user's folder, found in the recording while both grow."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from giltrace.launch.attach.place import RECORDED
from giltrace.process.folder import Folder


class Links:
    """Links in the recording `path` to what is in `files`, as long as that is followed.

    Each file is opened once, as `Folder` does it, and its link leads to what this process has open: no name of another
    user's is looked up again. A file that its user shortens is read to where it ends then.
    """

    def __init__(self, files: Folder, path: Path) -> None:
        self._files, self._path = files, path
        #: What is open, by name; of processes that have ended for one look; and what is followed no more.
        self._open: dict[str, int] = {}
        self._over: set[str] = set()
        self._done: set[str] = set()

    def look(self) -> None:
        """Add what there is new, and take away what nobody writes any more, once its followers have seen its end.

        What cannot be opened is none of a tracer's.
        """
        for name in self._over:
            self._close(name)
        self._done |= self._over
        self._over = {name for name in self._open if not os.path.exists(f"/proc/{name.split('-')[1]}")}
        with contextlib.suppress(OSError):
            for name in self._files.names(RECORDED):
                if name not in self._open and name not in self._done:
                    self._open[name] = self._files.open(name)
                    os.symlink(f"/proc/{os.getpid()}/fd/{self._open[name]}", self._path / name)

    def close(self) -> None:
        """Take them away: the files themselves are to come in their places."""
        for name in list(self._open):
            self._close(name)

    def _close(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)
        os.close(self._open.pop(name))
