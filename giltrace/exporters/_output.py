"""Where an export goes: a file or a folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from giltrace.errors import OutputError
from giltrace.recording.replacing import replacing

#: The name that stands for standard output.
STDOUT = Path("-")


@contextlib.contextmanager
def output_file(path: Path, option: str = "-o") -> Iterator[BinaryIO]:
    """Open the file that becomes `path` if the block ends well; ``-`` is stdout.

    Raises `OutputError` if it cannot be written, which says to name another by `option`.
    """
    if path == STDOUT:
        with _explained("stdout", "make room where it leads to"):
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    with _explained(path, f"choose a folder that can be written and has space, with {option}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            yield file


@contextlib.contextmanager
def output_folder(path: Path, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Make a folder that becomes `path` if the block ends well.

    A folder that is there is replaced only if all files in it, by their paths in it, are such as an export has
    (`is_ours`): it may be somebody's own. Raises `OutputError` if they are not, or if the folder cannot be written.
    """
    with _explained(path, "choose a folder that can be written and has space, with -o"):
        # The place itself, for a link to it stays.
        place = path.resolve()
        if place == Path.cwd():
            raise OutputError(f"{path} is the folder that you are in", "name another one with -o")
        if place.exists() and not (place.is_dir() and all(map(is_ours, _files(place)))):
            raise OutputError(f"{path} is not an earlier export", "it will not be replaced; choose another with -o")
        scratch, old = (place.with_name(f".{place.name}.{os.getpid()}{ending}") for ending in ("", ".old"))
        try:
            scratch.mkdir(parents=True)
            yield scratch
            if place.exists():
                place.rename(old)
            scratch.rename(place)
        finally:
            for rest in (scratch, old):
                shutil.rmtree(rest, ignore_errors=True)


def _files(folder: Path) -> Iterator[Path]:
    """The paths in a folder of all that is in it, folders only if they are empty; no link is followed."""
    for place, folders, files in os.walk(folder):
        at = Path(place).relative_to(folder)
        yield from (at / name for name in files)
        yield from (at / name for name in folders if os.path.islink(os.path.join(place, name)))
        if not folders and not files and place != str(folder):
            yield at


@contextlib.contextmanager
def _explained(path: Path | str, remedy: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # Whoever read it has read enough: no error of the output.
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", remedy) from error
