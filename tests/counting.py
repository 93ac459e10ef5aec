"""Programs that are counted instead of recorded."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from giltrace.launch.counting import counting_environment
from giltrace.metrics.page import Pages
from giltrace.metrics.reading import Counts, ProcessReading

#: In a program for `Stepping`: says a word, and goes on when it is told to.
STEPS = """
import os, sys, threading
def step(word):
    print(word, flush=True)
    sys.stdin.readline()
"""


def counting(folder: Path) -> dict[str, str]:
    """The environment of a program that counts in `folder`."""
    folder.mkdir(exist_ok=True)
    return counting_environment(folder)


class Stepping:
    """A program that counts in `folder`, and says at each step where it is: a context."""

    def __init__(self, folder: Path, python: Path, code: str) -> None:
        pipe = subprocess.PIPE
        words = [str(python), "-c", STEPS + code]
        self.process = subprocess.Popen(words, env=counting(folder), stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> Stepping:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()

    def comes_to(self, word: str) -> None:
        """Wait until it says that it is there."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == word + "\n"

    def go_on(self) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """Let it come to its end, and return what else it says."""
        output, _ = self.process.communicate("\n", timeout=60)
        assert self.process.returncode == 0
        return output


def counted(
    folder: Path, python: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> tuple[ProcessReading, ...]:
    """Run a program to its end and return what it and its children have counted."""
    words = [str(python), *arguments]
    subprocess.run(words, env={**counting(folder), **(env or {})}, check=True, timeout=120, stdout=subprocess.DEVNULL)
    return Pages(folder).read()


def of_role(page: ProcessReading, name: str) -> Counts:
    """What the threads of that role have counted."""
    (counts,) = (role.counts for role in page.roles if role.role == name)
    return counts
