"""Standard output that nobody reads any more, or that has no room."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator

from giltrace.errors import OutputError


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """Write what was printed before the block is left; when Python ends it is too late to say what went wrong.

    A reader of stdout that went away has read enough: that is status 1, without a word. Characters that its encoding
    does not have are escaped. Raises `OutputError` if there is no space for it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            with _explained("cannot write"):
                yield
        finally:
            with _explained("cannot write stdout"):
                if sys.stdout is not None:
                    sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _drop_output()
        raise OutputError(f"{what}: {error.strerror}", "make room where the output goes") from None


def print_if_read(text: str) -> None:
    """Print `text`, for a command whose status says something else than whether anybody read it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _drop_output()


def _drop_output() -> None:
    """Let Python, which tries once more when it ends, get rid of what it could not write."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
