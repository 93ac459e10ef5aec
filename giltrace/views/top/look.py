"""Look at a source: on the screen until somebody quits, or once."""

from __future__ import annotations

import time

from rich.text import Text

from giltrace.reports.console import console
from giltrace.text import visible
from giltrace.views.ending import Ending
from giltrace.views.top.kernel import ask_kernel
from giltrace.views.top.page import View
from giltrace.views.top.plain import print_snapshot, to_json
from giltrace.views.top.screen import Feed, Screen
from giltrace.views.top.source import Source
from giltrace.views.top.terminal import Terminal

# Often enough that no chunk of a ring is used again before it was read.
_POLL_SECONDS = 0.5


def look(source: Source, pid: int | None, ending: Ending, interval: float) -> None:
    """Show the live view of `source`, of process `pid` only if given, until a key or a signal ends it.

    Raises `UsageError` where there is no terminal.
    """
    terminal = Terminal(console(), ending)
    feed = Feed(source)
    screen = Screen(feed, terminal, interval)
    screen.view.pid = pid
    try:
        with terminal:
            screen.run()
    finally:
        feed.close()
    for path in screen.kept:
        terminal.console.print(Text(f"recording {visible(str(path))}"), soft_wrap=True)


def look_once(source: Source, pid: int | None, ending: Ending, seconds: float, *, as_json: bool) -> None:
    """Print one snapshot of what happens in so many seconds, or until the source ends or a signal comes."""
    feed = Feed(source)
    end = time.monotonic() + seconds
    try:
        ended = None
        while ended is None and ending.signal is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _POLL_SECONDS))
            ended = source.ended()
            feed.update()
            if pid is not None and source.sleepers is not None:
                source.sleepers(pid)  # who slept at one look and sleeps at the next did so all the time
        feed.update(0)
        view = View(source.title, span_ns=round(seconds * 1e9), notice=ended or "")
        snapshot = feed.window.snapshot(view.span_ns, view.sort, pid=pid, ask=ask_kernel, sleepers=source.sleepers)
        if as_json:
            print(to_json(snapshot))
        else:
            print_snapshot(snapshot, view, console())
    finally:
        feed.close()
