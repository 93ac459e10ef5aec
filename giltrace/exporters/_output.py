"""Where an export goes: a file or a folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from giltrace.errors import OutputError
from giltrace.recording.replacing import replacing


@contextlib.contextmanager
def output_file(path: Path) -> Iterator[BinaryIO]:
    """Open the file that becomes `path` if the block ends well; raises `OutputError` if it cannot be written."""
    with _explained(path), replacing(path) as file:
        yield file


@contextlib.contextmanager
def output_folder(path: Path, names: Collection[str]) -> Iterator[Path]:
    """Make a folder that becomes `path` if the block ends well, for files of the given `names`.

    A folder that is there is replaced only if it holds nothing else: it may be somebody's own. Raises `OutputError` if
    it does, or if the folder cannot be written.
    """
    scratch, old = (path.with_name(f".{path.name}.{os.getpid()}{ending}") for ending in ("", ".old"))
    with _explained(path):
        if path.exists() and (not path.is_dir() or any(entry.name not in names for entry in path.iterdir())):
            raise OutputError(f"{path} is not an earlier export", "it will not be replaced; choose another with -o")
        try:
            scratch.mkdir()
            yield scratch
            if path.exists():
                path.rename(old)
            scratch.rename(path)
        finally:
            for rest in (scratch, old):
                shutil.rmtree(rest, ignore_errors=True)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # Whoever read it has read enough: no error of the output.
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}", "choose a folder that can be written and has space, with -o"
        ) from error
