"""What to call processes and threads."""

from __future__ import annotations

from giltrace.analysis.measure.commands import words_of
from giltrace.timeline.model import Process


def labels(process: Process) -> list[str]:
    """Return what to call each thread: its name, or its tid where it has none."""
    return [thread.name or f"thread {thread.tid}" for thread in process.threads]


def command_words(process: Process) -> list[str]:
    """Return the command line led by what tells Python processes apart: the script or module, without its folder.

    Trace processor names a process by the first word.
    """
    return words_of(process.cmdline)
