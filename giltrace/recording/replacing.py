"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_BUFFER = 1 << 20


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path` in one step when the block ends well.

    If it does not, `path` is as it was and nothing is left beside it, not even by SIGKILL: where the file system knows
    such files it has no name before it is whole. What is no regular file (a device, a named pipe) is written to, since
    it cannot be replaced. Raises `OSError` if the file cannot be written.
    """
    if path.exists() and not path.is_file():
        with path.open("wb", buffering=_BUFFER) as special:
            yield special
        return
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        scratch.unlink()  # of a process that had this id before
    nameless = _without_name(path.parent)
    try:
        with scratch.open("wb", buffering=_BUFFER) if nameless is None else nameless as file:
            yield file
            if nameless is not None:
                file.flush()
                _give_name(file.fileno(), path, scratch)
        if scratch.exists():
            scratch.replace(path)
    finally:
        # Gone if all went well, never there if its folder was not.
        with contextlib.suppress(OSError):
            scratch.unlink()


def _without_name(folder: Path) -> BinaryIO | None:
    """A file in a folder without a name; None where there is no such thing, or no way to give it one."""
    if not os.path.isdir("/proc/self/fd"):
        return None
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    except OSError:
        return None
    return open(descriptor, "wb", buffering=_BUFFER)


def _give_name(descriptor: int, path: Path, scratch: Path) -> None:
    """Name it `path`, or where that is taken `scratch`: a name is given, but not taken from another, in one step."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in (path, scratch):
            with contextlib.suppress(FileExistsError):
                # With a folder to start from it follows the link, which leads to the file itself.
                os.link(f"/proc/self/fd/{descriptor}", name.name, src_dir_fd=folder, dst_dir_fd=folder)
                return
        raise FileExistsError(f"{scratch} exists")
    finally:
        os.close(folder)
