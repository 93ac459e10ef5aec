"""A folder in the target's own file system, made with the target's rights: for the library, and for what it records."""

from __future__ import annotations

import contextlib
import re
import secrets
import stat
from pathlib import Path

from giltrace.process.folder import Folder

#: Folders that anybody may write to, and from which libraries can usually be loaded.
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/run")

_RECORDING = "recording"
#: What the tracer, and we, may have put there. All else is not ours to remove.
_OURS = re.compile(r"(gil|stacks|count)-\d+-\d+\.bin|clock\.bin")
_ALL = re.compile(r".*", re.S)


class Staged:
    """A new folder in `parent`, which the target sees at `path`, with a copy of `library` in it.

    Raises OSError if it cannot be made, or others could put something in its place.
    """

    def __init__(self, parent: Folder, path: str, library: Path) -> None:
        self._parent = parent
        self._name = f"giltrace-{secrets.token_hex(8)}"
        self._library = library.name
        self.path = f"{path}/{self._name}"
        self._folder = parent.create_folder(self._name)
        try:
            if self._folder.state.st_uid != parent.user or stat.S_IMODE(self._folder.state.st_mode) & 0o077:
                raise OSError("somebody has put another folder in its place")
            with open(self._folder.create(library.name, 0o500), "wb") as file:
                file.write(library.read_bytes())
            self.recording = self._folder.create_folder(_RECORDING)
        except BaseException:
            self.remove()
            raise

    @property
    def library(self) -> str:
        """Where the target finds the library."""
        return f"{self.path}/{self._library}"

    @property
    def recording_path(self) -> str:
        """Where the target finds the folder to record into."""
        return f"{self.path}/{_RECORDING}"

    def remove(self) -> None:
        """Remove what was made; what somebody else has added stays, and so do the folders that it is in."""
        with contextlib.suppress(OSError, AttributeError):
            for name in self.recording.names(_OURS):
                self.recording.remove(name)
            self.recording.close()
        for folder, name, is_folder in (
            (self._folder, self._library, False),
            (self._folder, _RECORDING, True),
            (self._parent, self._name, True),
        ):
            with contextlib.suppress(OSError):
                folder.remove(name, is_folder=is_folder)
        self._folder.close()


def trusted(path: str, root: Folder, others: frozenset[int]) -> Folder:
    """Return the folder at the absolute `path` below `root`, which is closed; PermissionError if others than root, the
    users `others` and the owner of `root` itself could put another in its place.
    """
    owners = others | {0, root.state.st_uid}
    at = root
    for part in ["", *path.strip("/").split("/")]:
        if part:
            with at:
                at = at.folder(part)
        state = at.state
        writable = state.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not state.st_mode & stat.S_ISVTX
        if state.st_uid not in owners or writable:
            at.close()
            raise PermissionError(f"others may write to {path}")
    return at


def is_trusted(file: Path, user: int) -> bool:
    """Tell whether only root and `user` can put another file in the place of this one."""
    try:
        state = file.stat()
        with trusted(str(file.parent), Folder.own(Path("/")), frozenset({user})):
            return state.st_uid in (0, user) and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    except OSError:
        return False
