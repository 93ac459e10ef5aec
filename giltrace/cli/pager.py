"""Text that is longer than the screen goes through the user's pager, as git's does."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

#: What `less` does unless the user says otherwise: ends where one screen is enough, shows colours, leaves the text.
_LESS = "FRX"

NoPager = Annotated[bool, typer.Option("--no-pager", help="Print all at once, even if it is longer than the screen.")]


@contextlib.contextmanager
def paged(*, no_pager: bool) -> Iterator[Console]:
    """Yield a console; what it prints appears when the block ends, in a pager if that is longer than the terminal."""
    from giltrace.reports.console import console

    made = console()
    command = [] if no_pager or not made.is_terminal or made.is_dumb_terminal else _command()
    if not command:
        yield made
        return
    with made.capture() as captured:
        yield made
    text = captured.get()
    # The shell's prompt needs a line too.
    if text.count("\n") < made.size.height or not _show(command, text):
        print(text, end="")


def _command() -> list[str]:
    """The pager's words; none if there is to be none, or it is not there."""
    asked = next((os.environ[name] for name in ("GILTRACE_PAGER", "PAGER") if name in os.environ), "less")
    try:
        words = shlex.split(asked)
    except ValueError:
        return []
    return words if words and words[0] != "cat" and shutil.which(words[0]) else []


def _show(command: list[str], text: str) -> bool:
    """Let the pager show `text`, until the user leaves it; whether it could be started."""
    encoding = sys.stdout.encoding
    env = {"LESS": _LESS, **({"LESSCHARSET": "utf-8"} if encoding.lower() == "utf-8" else {}), **os.environ}
    sys.stdout.flush()
    try:
        pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=env)
    except OSError:
        return False
    # Ctrl-C is for the pager, which has its own use for it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # One who has read enough leaves before all is written.
        with contextlib.suppress(BrokenPipeError):
            pager.communicate(text.encode(encoding, errors="backslashreplace"))
        pager.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return True
