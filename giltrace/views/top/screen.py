"""The live view: what is new comes in, a page goes out, keys change what is shown."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

from rich.console import Console

from giltrace.errors import GiltraceError
from giltrace.recording.folder import SUFFIX
from giltrace.recording.keep import Keeper
from giltrace.recording.live import HOLD_BACK_NS, LiveReader
from giltrace.views.top.graph import Ink
from giltrace.views.top.kernel import ask_kernel
from giltrace.views.top.model import MINUTE_NS, Snapshot
from giltrace.views.top.page import SPANS_NS, View, detail_page, help_page, help_pages, main_page
from giltrace.views.top.rows import role_of
from giltrace.views.top.source import Source
from giltrace.views.top.terminal import Terminal
from giltrace.views.top.window import Window

# What is new is taken in by steps of this length at most, so that lines fall into their buckets; by shorter ones where
# so much happens that a step has more events than this: each costs some hundred bytes meanwhile.
_LONGEST_STEP_NS, _SHORTEST_STEP_NS = 1_000_000_000, 10_000_000
_EVENTS_PER_STEP = 200_000


class Feed:
    """Reads a source, the last minute of what was recorded already included, into a `window`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        now = time.monotonic_ns()
        self.reader = LiveReader(source.folder, since_ns=now - MINUTE_NS)
        self.window = Window(now - MINUTE_NS, source.names)
        self.keeper: Keeper | None = None
        # Where nothing was recorded a minute ago, the window begins with the recording.
        begun = self.reader.begin_ns()
        self.window.since = self.window.until = max(self.window.since, min(begun, now))
        self._step_ns = _LONGEST_STEP_NS // 10
        self.update()

    def update(self, hold_back_ns: int = HOLD_BACK_NS) -> None:
        """Take in what is new."""
        end = time.monotonic_ns() - hold_back_ns
        while True:
            until = min(self.window.until + self._step_ns, end)
            updates = self.reader.poll(until)
            if self.keeper is not None:
                self.keeper.take(updates, until)
            self.window.feed(updates, until)
            events = sum(len(update.events) for update in updates)
            if events > _EVENTS_PER_STEP:
                self._step_ns = max(self._step_ns // 2, _SHORTEST_STEP_NS)
            elif events < _EVENTS_PER_STEP // 4:
                self._step_ns = min(self._step_ns * 2, _LONGEST_STEP_NS)
            if until >= end:
                return

    def start_keeping(self) -> Path:
        """Keep what comes from now on as a recording in the current directory; raises `OutputError`."""
        names = (
            f"{self.source.name}{number}{SUFFIX}"
            for number in itertools.chain([""], map("-{}".format, itertools.count(2)))
        )
        path = next(Path(name) for name in names if not os.path.lexists(name))
        self.keeper = Keeper(path, self.source.command, self.reader, self.window.until, self.window.holding())
        return path

    def stop_keeping(self) -> Path | None:
        """End the recording, if one is kept, and return it."""
        if self.keeper is None:
            return None
        path, self.keeper = self.keeper.finish(), None
        return path

    def close(self) -> None:
        """Let go of the recording's files, and end what is kept of it."""
        self.stop_keeping()
        self.reader.close()


class Screen:
    """The view on a terminal, refreshed every `interval` seconds; `kept` are the recordings that were made."""

    def __init__(self, feed: Feed, terminal: Terminal, interval: float) -> None:
        self.feed, self.terminal, self.interval = feed, terminal, interval
        self.view = View(feed.source.title)
        self.kept: list[Path] = []
        self._page = "main"
        self._shown: Snapshot | None = None
        console: Console = terminal.console
        self._ink = Ink(console.color_system is not None, console.encoding.startswith("utf"))
        self._end: str | None = None
        self._help, self._help_at = range(1), 0

    def run(self) -> None:
        """Show it until the person or a signal ends it."""
        due = time.monotonic()
        try:
            while self.terminal.ending.signal is None:
                if time.monotonic() >= due:
                    self._refresh()
                    due = time.monotonic() + self.interval
                self._draw()
                key = self.terminal.key(due)
                if key in ("q", "Q") and not self.view.typing:
                    return
                if key is not None:
                    self._press(key)
        finally:
            self._keep_no_more()

    def _refresh(self) -> None:
        going = self._end is None
        if going:
            self._end = self.feed.source.ended()
            self.feed.update(HOLD_BACK_NS if self._end is None else 0)
            if self._end is not None:
                self.view.notice = f"{self._end}; q quits"
                self._keep_no_more()
        # Once more after the end: nobody holds or waits any longer.
        if not self.view.frozen and (going or self._shown is None):
            self._look()

    def _look(self) -> None:
        view = self.view
        if self._shown is not None and not self._shown.processes:
            view.pid = None
        # A page of threads, and some to scroll to: the others are counted.
        self._shown = self.feed.window.snapshot(
            view.span_ns,
            view.sort,
            limit=500,
            pid=view.pid,
            ask=ask_kernel,
            sleepers=self.feed.source.sleepers if self._end is None else None,
        )

    def _draw(self) -> None:
        size = os.get_terminal_size()
        width, height = max(size.columns, 20), max(size.lines, 6)
        self.terminal.console.width = width
        shown = self._shown
        if shown is None:
            return
        if self._page == "help":
            self._help = help_pages(width, height)
            lines = help_page(width, height, self._help[min(self._help_at, len(self._help) - 1)])
        else:
            detail = None
            if self._page == "detail" and self.view.selected is not None:
                detail = self.feed.window.detail(self.view.selected, self.view.span_ns, ask_kernel)
            if detail is not None:
                lines = detail_page(detail, self.view, self._ink, width, height)
            else:
                lines = main_page(shown, self.view, self._ink, width, height)
        self.terminal.show(lines)

    def _press(self, key: str) -> None:
        view = self.view
        if view.typing:
            self._type(key)
        elif self._page == "help":
            self._help_at += 1
            self._page = "help" if self._help_at < len(self._help) else "main"
        elif key in ("h", "?"):
            self._page, self._help_at = "help", 0
        elif key == "/":
            self._page, view.typing, view.sought = "main", True, ""
        elif key == "t":
            view.single = not view.single
        elif key in ("f", "space"):
            view.frozen = not view.frozen
        elif key == "s":
            view.sort = view.sort.next()
        elif key == "w":
            view.span_ns = SPANS_NS[(SPANS_NS.index(view.span_ns) + 1) % len(SPANS_NS)]
        elif key == "p":
            self._next_process()
        elif key == "r":
            self._toggle_recording()
        elif key == "enter":
            self._enter()
        elif key == "escape":
            self._leave()
        else:
            self._move(key)
        if key in ("f", "space", "s", "w", "p") and not view.frozen:
            self._look()

    def _type(self, key: str) -> None:
        """Take a key of what is sought."""
        view = self.view
        if key in ("enter", "escape"):
            view.typing = False
            view.sought = view.sought if key == "enter" else ""
        elif key == "backspace":
            view.sought = view.sought[:-1]
        elif key == "space" or (len(key) == 1 and key.isprintable()):
            view.sought += " " if key == "space" else key

    def _enter(self) -> None:
        """Look closer at what is chosen: a thread, or the threads of a role."""
        view = self.view
        threads = self._shown.threads if self._shown is not None else ()
        role = role_of(threads, view.selected) if view.selected is not None else None
        if role is not None:
            view.role, view.selected = role, None
        elif view.selected is not None and view.selected >= 0:
            self._page = "detail"

    def _leave(self) -> None:
        """Go back by one step."""
        view = self.view
        if self._page == "detail":
            self._page = "main"
        elif view.role is not None:
            view.role = None
        else:
            view.sought = ""

    def _move(self, key: str) -> None:
        """Choose another row."""
        step = {"down": 1, "j": 1, "up": -1, "k": -1, "page-down": 10, "page-up": -10}.get(key)
        rows = self.view.rows(self._shown) if self._shown is not None else ()
        if step is None or not rows:
            return
        at = next((at for at, row in enumerate(rows) if row.ident == self.view.selected), -1)
        at = min(max(at + step, 0), len(rows) - 1) if at >= 0 or step > 0 else 0
        self.view.selected = rows[at].ident

    def _next_process(self) -> None:
        """One process after the other, then all."""
        pids = sorted({process.pid for process in self.feed.window.snapshot(limit=0).processes})
        later = [pid for pid in pids if self.view.pid is None or pid > self.view.pid]
        self.view.pid = later[0] if later and len(pids) > 1 else None

    def _toggle_recording(self) -> None:
        view = self.view
        if view.recording:
            self._keep_no_more()
            view.notice = f"kept as {self.kept[-1]}"
        elif self._end is None:
            try:
                view.recording = str(self.feed.start_keeping())
                view.notice = ""
            except GiltraceError as error:
                view.notice = f"cannot record: {error.message}"

    def _keep_no_more(self) -> None:
        path = self.feed.stop_keeping()
        self.view.recording = ""
        if path is not None:
            self.kept.append(path)
