"""Count all processes whose command line fits a pattern, those that come later, too."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePath

from giltrace.analysis.measure.commands import words_of
from giltrace.errors import GiltraceError
from giltrace.installation import NAME
from giltrace.launch.attach.checkup import refuse_other_than_python
from giltrace.launch.attach.process import Process
from giltrace.launch.counting import counted_process, counts_already
from giltrace.metrics.following import PagesOf
from giltrace.metrics.ledger import Readable
from giltrace.metrics.reading import ProcessReading
from giltrace.views.ending import Ending

#: Processes at once; there is a thread for each.
MOST_PROCESSES = 64
_LOOK_SECONDS = 1.0
#: A process that could not be attached to is tried again after this; it may have been busy.
_AGAIN_SECONDS = 30.0
_POLL_SECONDS = 0.05
#: How long the last words of a process are there to be read.
_LAST_SECONDS = 5.0


class _Member:
    """One process that is counted, by a thread of its own, until it ends or all is over."""

    def __init__(self, pid: int, ending: Ending, *, allow_seccomp: bool) -> None:
        self.pid = pid
        self.pages: Readable | None = None
        self.failed: GiltraceError | OSError | None = None
        self.over = False  #: nothing is added any more
        self.read = threading.Event()  #: what it had to say has been read
        self._ending, self._allow_seccomp = ending, allow_seccomp
        self.thread = threading.Thread(target=self._count, name=f"giltrace-{pid}", daemon=True)
        self.thread.start()

    def _count(self) -> None:
        try:
            with counted_process(self.pid, self._ending, allow_seccomp=self._allow_seccomp) as counted:
                self.pages = PagesOf(counted)
                while counted.over() is None and self._ending.signal is None and not self.read.is_set():
                    counted.wait(time.monotonic() + _LOOK_SECONDS)
                self.over = True
                self.read.wait(_LAST_SECONDS)
                self.pages = None
        except (GiltraceError, OSError) as error:
            self.failed = error
        self.over = True


class Matching:
    """The processes whose command line, script or program fits one of the `patterns`: what has the readings of all.

    `say` is told which are counted, and why one cannot be, once.
    """

    def __init__(
        self, patterns: Sequence[str], ending: Ending, say: Callable[[str], None], *, allow_seccomp: bool
    ) -> None:
        self._patterns, self._ending, self._say, self._allow_seccomp = patterns, ending, say, allow_seccomp
        self._members: dict[int, _Member] = {}
        self._again: dict[int, float] = {}
        self._told: set[tuple[int, str]] = set()
        self._look_at = 0.0
        self._seen: set[int] = set()

    def wait(self, until: float) -> None:
        """Look for processes, again and again until then (as `time.monotonic`), or until a signal comes."""
        while self._ending.signal is None and (left := until - time.monotonic()) > 0:
            self.look()
            time.sleep(min(left, _POLL_SECONDS))

    def look(self) -> None:
        """Let processes that are new count; not more often than once a second."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        for pid, member in list(self._members.items()):
            if not member.thread.is_alive():
                del self._members[pid]
                process = Process(pid)
                if member.failed is not None and process.exists and not counts_already(process):
                    self._again[pid] = now + _AGAIN_SECONDS
                    self._tell_once(pid, member.failed)
        there = {int(name) for name in os.listdir("/proc") if name.isdecimal()}
        # Of those that a process which counts has forked, one knows that they do as soon as they have used the GIL.
        for pid in sorted(there & self._seen - self._members.keys()):
            if len(self._members) < MOST_PROCESSES and self._again.get(pid, 0.0) <= now:
                self._consider(pid)
        self._seen = there
        self._again = {pid: at for pid, at in self._again.items() if pid in there}

    def _consider(self, pid: int) -> None:
        process = Process(pid)
        if pid == os.getpid() or not self._fits(process) or counts_already(process):
            return
        try:
            refuse_other_than_python(pid)
        except GiltraceError:
            return  # a shell that starts one has it in its command line, too
        self._members[pid] = _Member(pid, self._ending, allow_seccomp=self._allow_seccomp)

    def _fits(self, process: Process) -> bool:
        try:
            words = process.command()
        except OSError:
            return False
        line = " ".join(words)
        names = (line, words_of(line)[0], PurePath(words[0]).name) if line else ()
        if NAME in names:
            return False  # another giltrace, which has the pattern in its command line, too
        return any(fnmatchcase(name, pattern) for name in names for pattern in self._patterns)

    def _tell_once(self, pid: int, error: GiltraceError | OSError) -> None:
        text = error.message if isinstance(error, GiltraceError) else str(error)
        if (pid, text) not in self._told:
            self._told.add((pid, text))
            remedy = f" ({error.remedy})" if isinstance(error, GiltraceError) and error.remedy else ""
            self._say(f"not counted: {text}{remedy}")

    def read(self, *, reset_longest: bool = False) -> tuple[ProcessReading, ...]:
        """What all of them have counted; see `Pages.read`."""
        found: list[ProcessReading] = []
        for member in list(self._members.values()):
            pages, over = member.pages, member.over
            if pages is not None:
                found += pages.read(reset_longest=reset_longest)
                if over:
                    member.read.set()
        return tuple(found)

    @property
    def refused(self) -> tuple[str, ...]:
        """See `Pages.refused`."""
        every = [member.pages for member in list(self._members.values())]
        return tuple(why for pages in every if pages is not None for why in pages.refused)

    def forget(self, pid: int) -> None:
        """See `Pages.forget`."""
        for member in list(self._members.values()):
            if (pages := member.pages) is not None:
                pages.forget(pid)

    def close(self) -> None:
        """Take the tracers out of all of them."""
        for member in self._members.values():
            member.read.set()
        for member in self._members.values():
            member.thread.join(_LAST_SECONDS)
