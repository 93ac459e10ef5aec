"""Watch what one thread does with the GIL during a stretch of its code, from within, by the tracer's records.

The edges of the stretch are in those records too: the clock is read by a call that gives the GIL up, so the first
acquire after the first reading and the last release before the second one are where the stretch begins and ends.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from giltrace import native
from giltrace.collectors.gil import GilCollector, TracedAlready, start_here
from giltrace.errors import TargetError
from giltrace.integrations.cores import Absence
from giltrace.integrations.seen import Edges, Seen
from giltrace.process.kernel_text import lines_of
from giltrace.recording.door import Times
from giltrace.recording.folder import GIL_NAME
from giltrace.recording.gil import read_process
from giltrace.recording.gil_file import open_file

_STACKS = 128
#: The first reading of the clocks in this process: the longer ago, the better is the clock's rate known.
_origin: list[tuple[int, int]] = []
#: So long (seconds) the thread that asks for the GIL is away from it between two times.
_PACE = 0.001


def why_not() -> str | None:
    """Say in one line why this process cannot be watched; None if it can."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "this Python has no GIL"
    return GilCollector().available(None)


class Watch:
    """A context: what the calling thread does with the GIL in the block is in `seen` afterwards.

    With `asked`, a thread of our own asks for the GIL each millisecond meanwhile, as any other thread of a program
    would: code that runs Python gives it up then, and where the holder stands while it does not is on record. `lines`
    says whether lines of code will be asked for, once the figures are known: to read them takes some milliseconds.
    Raises `TargetError` if this process cannot be watched. Watches may be nested, and be in several threads at once;
    where the process is recorded already, as by ``giltrace record``, that recording is read.
    """

    seen: Seen

    def __init__(self, *, asked: bool, lines: Callable[[Seen], bool]) -> None:
        self._asked, self._lines = asked, lines
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Watch:
        reason = why_not()
        if reason is not None:
            raise TargetError(f"the GIL cannot be watched here: {reason}")
        if not _origin:
            _origin.append(native.clock_pair()[:2])
        with self._stack as undo:
            undo.enter_context(_tape)
            if self._asked:
                undo.enter_context(_asking(_tape.askers))
            self._file = _own_file()
            self._absence = undo.enter_context(Absence(threading.get_native_id()))
            self._stack = undo.pop_all()
        self._begin = native.clock_pair()[:2]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        end = native.clock_pair()[:2]
        with self._stack:
            if kind is not None:
                return
            away = self._absence.end()
            file = open_file(self._file, Times())
            if file is None:
                raise TargetError("the tracer's file is gone")
            tid = threading.get_native_id()
            edges = Edges(_origin[0], self._begin, end)
            self.seen = Seen.of(read_process(file, None, stacks=False), edges, tid, _tape.askers, away)
            if self._lines(self.seen):
                self.seen = Seen.of(read_process(file, None), edges, tid, _tape.askers, away)


class _Tape:
    """The tracer at work in this process, for as long as somebody is in the block; its files are temporary.

    `askers` are the ids of the threads that only asked for the GIL since the first of those who are in it came.
    """

    def __init__(self) -> None:
        self.askers: set[int] = set()
        self._change = threading.Lock()
        self._users = 0
        self._folder: str | None = None
        os.register_at_fork(after_in_child=self._forked)

    def __enter__(self) -> None:
        with self._change:
            if not self._users:
                self.askers = set()
                self._begin()
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._change:
            self._users -= 1
            if not self._users and self._folder is not None:
                native.stop()
                shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self) -> None:
        folder = tempfile.mkdtemp(prefix="giltrace-")
        self._folder = None
        with contextlib.ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            # The files of who traces it already will do.
            with contextlib.suppress(TracedAlready):
                start_here(Path(folder), _STACKS)
                self._folder = folder
                undo.pop_all()

    def _forked(self) -> None:
        """The child may have met it in the middle of a change; the files are its parent's to remove."""
        self._change = threading.Lock()
        self._folder = None


_tape = _Tape()


def _own_file() -> Path:
    """The file that the tracer writes of this process: it is mapped."""
    native.clock_pair()  # a GIL is recognised, and a file is begun, when it is taken
    paths = {line[line.index("/") :] for line in lines_of("/proc/self/maps") if "/gil-" in line}
    names = ((GIL_NAME.fullmatch(os.path.basename(path)), path) for path in paths)
    found = [(int(name[2]), path) for name, path in names if name and int(name[1]) == os.getpid()]
    if not found:
        raise TargetError("the GIL cannot be watched here: this process is recorded by another giltrace, out of reach")
    return Path(max(found)[1])


@contextlib.contextmanager
def _asking(askers: set[int]) -> Iterator[None]:
    """Have a thread ask for the GIL. It is none of `threading`'s: nobody who counts those finds it."""
    begun, told, ended = (_thread.allocate_lock() for _ in range(3))

    def ask() -> None:
        askers.add(threading.get_native_id())
        begun.release()
        while not told.acquire(timeout=_PACE):
            pass
        ended.release()

    for lock in (begun, told, ended):
        lock.acquire()
    _thread.start_new_thread(ask, ())
    begun.acquire()
    try:
        yield
    finally:
        told.release()
        ended.acquire()
