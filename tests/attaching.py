"""Stops a thread of another process and makes it call something, in a process of its own that may die on the way.

Run as a program: ``PID TIMES``. It does so TIMES times, and then again and again in children that die at their first,
second, ... change to the process, until one comes through. It prints how many died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from giltrace.launch.attach import call, ptrace
from giltrace.launch.attach.elf import LoadedObject
from giltrace.launch.attach.inject import Pauses, visiting
from giltrace.launch.attach.process import Process
from giltrace.launch.attach.target import Interpreter, Target

#: What the library is asked to load: there is no such file, so that errno changes, too.
NOWHERE = b"/nowhere/at/all.so\0"


class PlainTarget(Target):
    """Any dynamically linked program: its own code stands in for the interpreter's."""

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        self.__dict__["interpreter"] = Interpreter(LoadedObject(process.pid, self.maps[0].start), None, False, True)


def make_it_call(pid: int) -> None:
    """Make a thread of `pid` fail to load a library, twice."""
    target = PlainTarget(Process(pid))
    with visiting(target, [NOWHERE], Pauses()) as visit:
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

    originals = ptrace._ptrace, call.write_memory
    ptrace._ptrace, call.write_memory = map(counted, originals)
    try:
        yield
    finally:
        ptrace._ptrace, call.write_memory = originals


def in_own_process(pid: int, times: int) -> subprocess.CompletedProcess[str]:
    """Run this module on `pid` as a program."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.attaching", str(pid), str(times)]
    root = Path(__file__).parent.parent
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=root)


def _die_again_and_again(pid: int) -> int:
    for step in range(1, 1000):
        child = os.fork()
        if child == 0:
            with dying_at(step):
                make_it_call(pid)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return step - 1
        assert status == -signal.SIGKILL
        os.kill(pid, 0)
    raise AssertionError("it goes on for ever")


if __name__ == "__main__":
    for _ in range(int(sys.argv[2])):
        make_it_call(int(sys.argv[1]))
    print(_die_again_and_again(int(sys.argv[1])))
