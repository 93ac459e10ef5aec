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

    If it does not, `path` is as it was and nothing is left beside it. What is no regular file (a device, a named pipe)
    is written to, since it cannot be replaced. Raises `OSError` if the file cannot be written.
    """
    if path.exists() and not path.is_file():
        with path.open("wb", buffering=_BUFFER) as special:
            yield special
        return
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb", buffering=_BUFFER) as file:
            yield file
        scratch.replace(path)
    finally:
        # Gone if all went well, never there if its folder was not.
        with contextlib.suppress(OSError):
            scratch.unlink()
