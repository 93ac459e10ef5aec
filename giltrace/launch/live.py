"""Recordings that are being written, to be looked at meanwhile: of a command started for it, of a recorded process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import giltrace
from giltrace.collectors.base import Session
from giltrace.collectors.gil import GilCollector
from giltrace.errors import TargetError
from giltrace.launch.attach import refusals
from giltrace.launch.attach.heads import marked_as_recorded
from giltrace.launch.attach.place import find_place
from giltrace.launch.attach.process import Process
from giltrace.launch.attach.session import Recording
from giltrace.launch.attach.sleepers import Sleepers
from giltrace.launch.beside import beside
from giltrace.launch.observe import Observation
from giltrace.launch.recorder import POLL_SECONDS
from giltrace.launch.target import Target
from giltrace.recording.live import is_alive
from giltrace.recording.locate import Written
from giltrace.recording.meta import Meta
from giltrace.recording.sleepers import Look
from giltrace.views.top.source import Source

#: What a live view's temporary recording may take on disk, per process: it is read at once, so the oldest may go.
RING_BYTES = 64 << 20
_DEPTH = 128
_ENDING_SECONDS = 5.0
_TAIL_BYTES = 1 << 16


class Output:
    """Where a command's output goes while the screen is not its own: to `path`, or the last of it is kept."""

    def __init__(self, path: Path | None) -> None:
        self._kept = bytearray()
        self._reader: threading.Thread | None = None
        if path is not None:
            try:
                self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise TargetError(f"cannot write {path}: {error.strerror}", "choose another --output") from None
        else:
            read, self.descriptor = os.pipe()
            self._reader = threading.Thread(target=self._drain, args=(read,), daemon=True, name="output")
            self._reader.start()

    def _drain(self, descriptor: int) -> None:
        with open(descriptor, "rb", buffering=0) as pipe:
            while block := pipe.read(_TAIL_BYTES):
                self._kept += block
                del self._kept[:-_TAIL_BYTES]

    def started(self) -> None:
        """The command has it now."""
        os.close(self.descriptor)

    def last_lines(self, count: int) -> list[str]:
        """The last lines that were kept; the command has ended."""
        if self._reader is not None:
            self._reader.join(timeout=1)
        return self._kept.decode(errors="replace").splitlines()[-count:]


@contextlib.contextmanager
def launched(target: Target, output: Output) -> Iterator[Source]:
    """Run `target` under the tracer, `in_background`, recording into a temporary folder, until the block ends.

    Raises `TargetError` if it cannot be started or traced.
    """
    collector = GilCollector(ring=RING_BYTES)
    collector.refuse()
    with tempfile.TemporaryDirectory(prefix="giltrace-top-") as temporary:
        folder = Path(temporary)
        env = {**os.environ, "GILTRACE_CORE": "1"}
        collector.prepare(folder, env)
        Meta.begin(giltrace.__version__, target.argv).write(folder)
        with in_background(target, env, output) as process:
            collector.start(Session(folder, process.pid, target.python))
            try:
                title, name = titled(target.argv), f"{target.name}-top"
                yield Source(folder, title, name, target.argv, lambda: ended_how(process.poll()), sleepers=_Outside())
            finally:
                _end(process)
                collector.stop()


@contextlib.contextmanager
def in_background(target: Target, env: dict[str, str], output: Output) -> Iterator[subprocess.Popen[bytes]]:
    """Run `target` with that environment until the block ends.

    It gets no input and its own process group, so that neither keys nor Ctrl-C in the terminal reach it. It is ended
    with the block: by SIGTERM, and by SIGKILL if it takes no notice of that. Raises `TargetError` if it cannot be
    started.
    """
    try:
        process = subprocess.Popen(
            target.argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output.descriptor,
            stderr=output.descriptor,
            start_new_session=True,
        )
    except OSError as error:
        raise TargetError(
            f"cannot execute {target.argv[0]}: {error.strerror}", "check its path, its mode and its #! line"
        ) from None
    finally:
        output.started()
    try:
        yield process
    finally:
        _end(process)


def titled(argv: list[str]) -> str:
    """A command as one reads it: without the path of its interpreter."""
    return " ".join([os.path.basename(argv[0]), *argv[1:]])


def ended_how(status: int | None) -> str | None:
    """A command's end in words; None as long as it goes on."""
    if status is None:
        return None
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return f"the command has ended {how}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command, and what it left running in its process group."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_ENDING_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def followed(pid: int, written: Written) -> Iterator[Source]:
    """Look at a recording that somebody else makes of process `pid`; nothing is done to either.

    Raises `TargetError` for one that is another user's, or in a container: who may put there what they like.
    """
    folder = written.path
    if written.is_foreign:
        raise TargetError(
            f"process {pid} is being recorded by another user or in a container, into {folder}",
            f"look at it as that user, there (`giltrace top {pid}`), or from outside: giltrace top --observe {pid}",
        )
    command = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")

    def ended() -> str | None:
        if not is_alive(pid):
            return "the process has ended"
        return "the recording has ended" if Meta.read(folder).finished else None

    name = folder.name.removesuffix(".giltrace") + "-top"
    yield Source(folder, titled(command), name, command, ended, sleepers=_Outside())


@contextlib.contextmanager
def attached(pid: int) -> Iterator[Source]:
    """Look at process `pid` exactly: the tracer is in it while the block runs, and keeps its newest events only.

    Raises `TargetError` where that is not possible, before anything was done to the process.
    """
    target = refusals.check_exact(refusals.find(pid))
    refusals.check_followable(target.process, f"look from outside: giltrace top --observe {pid}")
    with tempfile.TemporaryDirectory(prefix="giltrace-top-") as temporary:
        folder = Path(temporary, "live.giltrace")
        folder.mkdir()
        place = find_place(target, folder)
        try:
            with marked_as_recorded(folder):
                recording = Recording(target, place, folder, [], _DEPTH, lambda: False, RING_BYTES)
                try:
                    with kept_up(recording.poll):
                        yield _source(pid, folder, _Outside(recording.sleepers), names=_names(recording.meta))
                finally:
                    recording.finish()
        finally:
            place.abandon()


@contextlib.contextmanager
def observed(pid: int) -> Iterator[Source]:
    """Look at process `pid` from outside: sampled, and nothing in it is touched. Raises `TargetError`."""
    with tempfile.TemporaryDirectory(prefix="giltrace-top-") as temporary:
        folder = Path(temporary, "live.giltrace")
        observation = Observation(pid, folder, [])
        try:
            with kept_up(observation.poll):
                yield _source(
                    pid,
                    folder,
                    _Outside(observation.sleepers, lines=True),
                    names=_names(observation.meta),
                    remark=" (sampled from outside)",
                )
        finally:
            observation.finish()


class _Outside:
    """Tells of each process that is asked about who sleeps in locks; of that of `first` it knows already.

    With `lines`, no record tells where those stand who fall asleep later: that is looked up.
    """

    def __init__(self, first: Sleepers | None = None, *, lines: bool = False) -> None:
        self._of = {first.pid: first} if first is not None else {}
        self._lines = lines

    def __call__(self, pid: int) -> Look:
        known = self._of.setdefault(pid, Sleepers(Process(pid)))
        asleep = known.look(lines=self._lines)
        return Look(known.first_ns, asleep)


def _names(meta: Meta) -> dict[int, str]:
    """Those of the threads that were there before, by their ids."""
    return {int(tid): name for tid, name in meta.thread_names.items()}


def _source(pid: int, folder: Path, sleepers: _Outside, names: dict[int, str], remark: str = "") -> Source:
    command = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")

    def ended() -> str | None:
        return None if is_alive(pid) else "the process has ended"

    return Source(folder, titled(command) + remark, f"pid-{pid}-top", command, ended, names, sleepers)


def kept_up(poll: Callable[[], None]) -> AbstractContextManager[None]:
    """Call `poll` again and again while the block runs."""

    def run(done: threading.Event) -> None:
        while not done.wait(POLL_SECONDS):
            poll()

    return beside(run, "recorder")
