"""Attaching to processes that must survive it, in processes of its own that may die on the way.

Run as a program: ``PID ACTION STRIDE [FOLDER]``. It does the action again and again in children that die at their
first, second, ... change to the process (or every STRIDE-th), until one comes through. It prints how many died.
Actions: "call" makes a thread call something, "attach" records the process for a moment into FOLDER.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from giltrace import native
from giltrace.launch.attach import ptrace, session
from giltrace.launch.attach.footprint import Footprint
from giltrace.launch.attach.heads import Heads
from giltrace.launch.attach.inject import visiting
from giltrace.launch.attach.process import Blocked, Process
from giltrace.launch.attach.target import Interpreter, Target, object_at
from giltrace.process.folder import Folder

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "tests" / "targets" / "attached.py"

_READ = 0  # the number of the system call
_Program = TypeVar("_Program", bound="Running")

#: What the library is asked to load: there is no such file, so that errno changes, too.
NOWHERE = b"/nowhere/at/all.so\0"


class Running:
    """A program to attach to, by `kind` as `tests/targets/attached.py` has them, or as another `target` has."""

    def __init__(
        self,
        python: Path | str,
        kind: str,
        *words: Path | str | int,
        target: Path = TARGET,
        flags: tuple[str, ...] = (),
        stderr: int | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        pipe = subprocess.PIPE
        command = [str(python), *flags, str(target), kind, *map(str, words)]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, text=True, preexec_fn=before)
        self.pid = self.process.pid
        assert self.line() == "ready"

    def line(self) -> str:
        """What it says next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """Let it work."""
        assert self.process.stdin is not None
        self.process.stdin.write("go on\n")
        self.process.stdin.flush()

    def say(self, word: str) -> None:
        """Have it do what a word says, and wait until it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        assert self.line() == "done"

    def answers(self) -> bool:
        """Let it work and see whether it says so."""
        self.go_on()
        return self.line() == "go on"

    def waits(self) -> bool:
        """Wait until its main thread waits for the next line."""
        return self._comes_to(lambda: self._reads(self.pid) == 0)

    def all_read(self) -> bool:
        """Wait until each of its threads sleeps in a read."""
        return self._comes_to(lambda: None not in map(self._reads, Process(self.pid).tids()))

    def _comes_to(self, state: Callable[[], bool]) -> bool:
        while self.process.poll() is None:
            if state():
                return True
            time.sleep(0.002)
        return False

    def _reads(self, tid: int) -> int | None:
        """The descriptor that a thread sleeps in a read of, None if it does not."""
        blocked = Process(self.pid).blocked(tid)
        return blocked.arguments[0] if isinstance(blocked, Blocked) and blocked.number == _READ else None

    def hooks(self) -> int:
        """How many slots of the interpreter lead into the tracer library."""
        target = Target(Process(self.pid))
        ranges = [(m.start, m.end) for m in target.maps if Path(m.path).name == native.LIBRARY.name]
        python = target.mapping_at(target.interpreter.loaded.text[0][0])
        found = 0
        for mapping in target.maps:
            if python is not None and mapping.path == python.path and "x" not in mapping.mode:
                data = ptrace.read_memory(self.pid, mapping.start, mapping.end - mapping.start)
                words = memoryview(data[: len(data) // 8 * 8]).cast("Q")
                found += sum(any(low <= word < high for low, high in ranges) for word in words if word >> 40)
        return found

    def __enter__(self: _Program) -> _Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)


def is_at_work(folder: Path) -> bool:
    """Whether a tracer writes into `folder`."""
    if not folder.is_dir():
        return False
    with Folder.own(folder) as files:
        return any(head.at_work for head in Heads(files).look())


class PlainTarget(Target):
    """Any dynamically linked program: its own code stands in for the interpreter's."""

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        self.__dict__["interpreter"] = Interpreter(object_at(process.pid, self.maps[0].start), None, False, True)


def make_it_call(pid: int) -> None:
    """Make a thread of `pid` fail to load a library, twice."""
    target = PlainTarget(Process(pid))
    with visiting(target, [NOWHERE], Footprint()) as visit:
        for _ in range(2):
            deadline = time.monotonic() + 10
            visit.call(target.library.dlopen, visit.at[0], target.library.dlopen_mode, deadline=deadline)


@contextlib.contextmanager
def dying_at(change: int) -> Iterator[None]:
    """Die at that change, before it is made."""
    made = 0

    def counted(function: Any) -> Any:
        def run(*arguments: Any) -> Any:
            nonlocal made
            made += 1
            if made == change:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        return run

    originals = ptrace._ptrace, ptrace.write_memory
    ptrace._ptrace, ptrace.write_memory = map(counted, originals)
    try:
        yield
    finally:
        ptrace._ptrace, ptrace.write_memory = originals


def die_on_the_way(
    pid: int, action: str, stride: int = 1, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run this module as a program."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.attaching", str(pid), action, str(stride), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=ROOT)


def _act(pid: int, action: str, folder: Path) -> None:
    if action == "attach":
        session.attach(pid, folder, [], depth=128, seconds=0.01, force=True)
    else:
        make_it_call(pid)


def _die_again_and_again(pid: int, action: str, stride: int, folder: Path) -> int:
    for died, step in enumerate(range(1, 1000, stride)):
        child = os.fork()
        if child == 0:
            with dying_at(step):
                _act(pid, action, folder)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return died
        assert status == -signal.SIGKILL, status
        os.kill(pid, 0)
    raise AssertionError("it goes on for ever")


if __name__ == "__main__":
    _act(int(sys.argv[1]), sys.argv[2], Path(sys.argv[4]))
    print(_die_again_and_again(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))
