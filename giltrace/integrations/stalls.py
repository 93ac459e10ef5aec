"""`giltrace.watch`: a program is told of its own stalls, by a call or a line of its log.

The tracer keeps the newest events in a ring, and a process of our own follows that and finds the cause, as `giltrace
record --ring --dump-on` does. In the program itself only one thread waits for its word.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import giltrace
from giltrace import native
from giltrace.collectors.gil import GilCollector, start_here
from giltrace.errors import TargetError, UsageError
from giltrace.recording.clock_file import append_pair
from giltrace.recording.meta import Meta

#: Of each process so much is kept.
RING_BYTES = 16 << 20
_STACKS = 128
_ENDING_SECONDS = 5.0
#: Lets a process that is none of our ancestors read this one's memory, where Yama guards that.
_PR_SET_PTRACER = 0x59616D61

_TRACED = "let its recorder watch: giltrace record --ring 64MiB --dump-on 'stall>100ms'"

log = logging.getLogger("giltrace")


@dataclass(frozen=True)
class Stall:
    """What a program is told of: the `sentence` says all of it.

    `kind` is "stall", "lock" or "deadlock"; `thread` the name of the thread that was kept, `task` that of its asyncio
    task (empty if it is not known); `duration` in seconds; `cause` a word of `analysis.findings.stall.CAUSES`; `lines`
    those that did it and where the thread stood, like "handler (app.py:12)"; `ended` when, by `time.monotonic`; `dump`
    is the recording of it, where these are kept.
    """

    sentence: str
    kind: str
    thread: str
    task: str
    duration: float
    cause: str
    lines: tuple[str, ...]
    pid: int
    ended: float
    dump: Path | None = None

    def __str__(self) -> str:
        return self.sentence


def log_stall(stall: Stall) -> None:
    """Write a warning with the sentence to the logger "giltrace"; what else is known is in the record's `stall`."""
    log.warning("%s", stall.sentence, extra={"stall": stall})


def watch(
    *,
    stall: float | None = 0.1,
    lock: float | None = None,
    deadlock: bool = False,
    callback: Callable[[Stall], object] = log_stall,
    apart: float = 1.0,
    keep: str | os.PathLike[str] | None = None,
) -> Watching:
    """Have this process watched for stalls, and be told of each::

        with giltrace.watch(stall=0.1):                        # a line in the log for each
            serve()
        watching = giltrace.watch(callback=report).start()     # until watching.stop(), or the end of the program

    `stall`: an event loop that does not get back to its selector for so many seconds (None: not watched); `lock`: a
    thread that waits for so long for a lock that another one has; `deadlock`: threads that wait for each other. The
    `callback` gets a `Stall`, in a thread of its own, some 0.3 s after it is over, and what it raises is logged.
    Of each kind none is told within `apart` seconds of the last one. The folder `keep` gets a recording of each.

    Processes that are forked meanwhile are watched too, and told of here. Raises `UsageError` for times that make no
    sense; `start` and the block raise `TargetError` if this process cannot be traced, or is traced already.
    """
    rules = [f"{name}>{limit * 1e3:f}ms" for name, limit in (("stall", stall), ("lock", lock)) if limit is not None]
    rules += ["deadlock"] if deadlock else []
    if not rules:
        raise UsageError("there is nothing to watch for", "give stall=0.1, lock=0.05 or deadlock=True")
    if any(limit is not None and not 1e-3 <= limit < 1e6 for limit in (stall, lock)) or not 0 <= apart < 1e6:
        raise UsageError("times to watch for are seconds, 0.001 at least", "give stall=0.1 for 100 ms")
    return Watching(rules, callback, apart, None if keep is None else Path(keep))


class Watching:
    """What `watch` returns: a context, or to be started and stopped; once at a time in a process."""

    def __init__(self, rules: list[str], callback: Callable[[Stall], object], apart: float, keep: Path | None) -> None:
        self._rules, self._callback, self._apart, self._keep = rules, callback, apart, keep
        self._folder: Path | None = None
        self._watcher: _Watcher | None = None
        self._over = _thread.allocate_lock()

    def start(self) -> Watching:
        """Begin; returns itself."""
        if self._watcher is not None:
            raise UsageError("this watch has begun already", "stop it first")
        reason = GilCollector().available(None)
        if reason is not None:
            raise TargetError(f"this process cannot be watched: {reason}")
        if self._keep is not None:
            self._keep.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            self._folder = Path(tempfile.mkdtemp(prefix="giltrace-watch-"))
            undo.callback(self._forget)
            try:
                path = self._folder / "watched.giltrace"
                path.mkdir()
                Meta.begin(giltrace.__version__, sys.orig_argv).write(path)
                append_pair(path)
                start_here(path, _STACKS, RING_BYTES, remedy=_TRACED)
                undo.callback(native.stop)
                self._launch(path)
            except OSError as error:
                raise TargetError(f"this process cannot be watched: {error}") from None
            undo.pop_all()
        return self

    def stop(self) -> None:
        """End; what happened up to now is still told."""
        watcher, self._watcher = self._watcher, None
        _at_work.discard(self)
        if watcher is None:
            return
        # Else the process has put a seccomp filter on itself, and is left as it is.
        native.stop()
        os.close(watcher.answers)
        if _thread.get_ident() != self._thread:
            self._over.acquire(timeout=_ENDING_SECONDS)
        watcher.end()
        self._forget()

    def __enter__(self) -> Watching:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def _forked(self) -> None:
        """In a child the pipes are the parent's, and so is the folder."""
        watcher, self._watcher, self._folder = self._watcher, None, None
        if watcher is not None:
            os.close(watcher.answers)
            os.close(watcher.told)

    def _forget(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _launch(self, path: Path) -> None:
        """Start the process that watches, and the thread that listens to it."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("GILTRACE_")}
        env.pop("LD_PRELOAD", None)
        home = str(Path(giltrace.__file__).parent.parent)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (home, env.get("PYTHONPATH"))))
        words = [str(path), str(os.getpid()), str(self._apart), str(self._keep or ""), *self._rules]
        self._watcher = watcher = _Watcher.launched(words, env)
        _at_work.add(self)
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PTRACER, watcher.pid, 0, 0, 0)
        self._over.acquire(blocking=False)
        self._thread: int = _unpatched("_thread", "start_new_thread")(self._listen, (watcher,))

    def _listen(self, watcher: _Watcher) -> None:
        """Hear what the watcher says, in a thread that is none of `threading`'s: a line is a stall or a question."""
        read = _unpatched("os", "read")
        rest = b""
        while data := read(watcher.told, 1 << 16):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._hear(json.loads(line), watcher)
        os.close(watcher.told)
        self._over.release()
        if self._watcher is watcher:
            log.error("the process that watches for stalls has ended: there is no watch any more")
            native.stop()

    def _hear(self, told: dict[str, Any], watcher: _Watcher) -> None:
        if "ask" in told:
            answer = {"tid": told["ask"], "task": _task_of(told["ask"]), "time": time.monotonic_ns()}
            with contextlib.suppress(OSError):
                if self._watcher is watcher:
                    _unpatched("os", "write")(watcher.answers, json.dumps(answer).encode() + b"\n")
            return
        dump = told.pop("dump")
        stall = Stall(**told | {"lines": tuple(told["lines"]), "dump": Path(dump) if dump else None})
        try:
            self._callback(stall)
        except Exception:
            log.exception("the callback of giltrace.watch failed on: %s", stall.sentence)


@dataclass(frozen=True)
class _Watcher:
    """The process that watches: what it has `told` is read from a pipe, `answers` go into one.

    `subprocess` is not used: gevent has one of its own, whose pipes belong to the loop that is watched.
    """

    pid: int
    told: int
    answers: int

    @classmethod
    def launched(cls, words: list[str], env: dict[str, str]) -> _Watcher:
        """Start it. Raises `OSError`."""
        (stdin, answers), (told, stdout) = os.pipe(), os.pipe()
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-m", "giltrace.integrations.watcher", *words],
                env,
                file_actions=[(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)],
            )
        except BaseException:
            os.close(answers)
            os.close(told)
            raise
        finally:
            os.close(stdin)
            os.close(stdout)
        return cls(pid, told, answers)

    def end(self) -> None:
        """Wait for its end, and if that does not come make it."""
        wait, end = _unpatched("os", "waitpid"), time.monotonic() + _ENDING_SECONDS
        # What else reaps the program's children may have done so.
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            while wait(self.pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > end:
                    os.kill(self.pid, signal.SIGKILL)
                time.sleep(0.005)


#: Those that have begun in this process.
_at_work: set[Watching] = set()


def _forked() -> None:
    for watching in _at_work:
        watching._forked()
    _at_work.clear()


os.register_at_fork(after_in_child=_forked)


def _unpatched(module: str, name: str) -> Any:
    """What gevent may have replaced: in its place is what would run in the loop that is watched."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    return getattr(sys.modules[module], name)


def _task_of(tid: int) -> str:
    """The name of the asyncio task that the thread with this id runs; up to 3.13 only the program itself knows that."""
    tasks = sys.modules.get("asyncio.tasks")
    current = dict(getattr(tasks, "_current_tasks", {}))
    ident = next((one.ident for one in threading.enumerate() if one.native_id == tid), None)
    found = [task for loop, task in current.items() if getattr(loop, "_thread_id", ident) == ident]
    return str(found[0].get_name()) if len(found) == 1 and found[0] is not None else ""
