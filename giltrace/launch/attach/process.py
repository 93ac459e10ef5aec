"""What /proc says of a process and its threads. Nothing here stops or changes it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from giltrace.process.kernel_text import lines_of

_MAP = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ([0-9a-f]+) (\S+) (\d+) *(.*)")


@dataclass(frozen=True)
class Mapping:
    """One line of /proc/PID/maps; `path` is as the process sees it, "" for anonymous memory."""

    start: int
    end: int
    mode: str
    offset: int
    device: str
    inode: int
    path: str


@dataclass(frozen=True)
class Blocked:
    """The system call that a thread sleeps in: its number, its six arguments and the thread's stack pointer."""

    number: int
    arguments: tuple[int, ...]
    rsp: int


@dataclass(frozen=True)
class Process:
    """A process on this machine, by its id here."""

    pid: int

    @property
    def folder(self) -> Path:
        """Its place in /proc."""
        return Path(f"/proc/{self.pid}")

    @property
    def exists(self) -> bool:
        """Tell whether it is there and has not ended."""
        try:
            return self.status()["State"][0] not in "ZX"
        except OSError:
            return False

    @property
    def owner(self) -> int:
        """The user whose rights it has. Raises OSError."""
        return int(self.status()["Uid"].split()[1])

    def status(self, tid: int | None = None) -> dict[str, str]:
        """Return the fields of its status file, or of one of its threads'. Raises OSError."""
        path = self.folder / "status" if tid is None else self.folder / "task" / str(tid) / "status"
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines_of(path))}

    def tids(self) -> list[int]:
        """Return the ids of its threads; empty once it is gone."""
        try:
            return [int(name) for name in os.listdir(self.folder / "task")]
        except OSError:
            return []

    def children(self) -> list[int]:
        """Return the ids of its children, ended ones too; empty once it is gone."""
        found: list[int] = []
        for tid in self.tids():
            with contextlib.suppress(OSError):
                found += map(int, (self.folder / "task" / str(tid) / "children").read_text().split())
        return found

    def comm(self, tid: int) -> str:
        """Return the kernel's name of a thread: 15 bytes at most. Raises OSError."""
        return (self.folder / "task" / str(tid) / "comm").read_text(errors="replace").rstrip("\n")

    def blocked(self, tid: int) -> Blocked | str:
        """Return the system call that a thread sleeps in, else "running" or "other". Raises OSError."""
        words = (self.folder / "task" / str(tid) / "syscall").read_text().split()
        if len(words) == 9:
            return Blocked(int(words[0]), tuple(int(word, 16) for word in words[1:7]), int(words[7], 16))
        return "running" if words and words[0] == "running" else "other"

    def turns(self, tid: int) -> str:
        """Return how often a thread has had a core, as text; empty where the kernel does not count. Raises OSError."""
        try:
            return (self.folder / "task" / str(tid) / "schedstat").read_text().split()[-1]
        except FileNotFoundError:
            return ""

    def maps(self) -> list[Mapping]:
        """Return its mappings in order of address. Raises OSError."""
        return list(_parse_maps(lines_of(self.folder / "maps"), os.readlink(self.folder / "root")))

    def stack_limit(self) -> float:
        """Return how far the main thread's stack may grow, in bytes. Raises OSError."""
        match = re.search(r"^Max stack size +(\d+)", (self.folder / "limits").read_text(), re.M)
        return int(match[1]) if match else float("inf")

    def command(self) -> list[str]:
        """Return its command line as words. Raises OSError."""
        return (self.folder / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")

    def ids(self, tid: int) -> tuple[int, int]:
        """Return the id of a thread here, and the one that the thread sees itself. Raises OSError."""
        chain = self.status(tid)["NSpid"].split()
        return int(chain[0]), int(chain[-1])

    @property
    def pid_inside(self) -> int:
        """Its id as it sees it itself. Raises OSError."""
        return self.ids(self.pid)[1]

    def shares(self, namespace: str) -> bool:
        """Tell whether it is in the same `namespace` ("mnt", "pid") as this process. Raises OSError."""
        mine, its = (os.stat(f"/proc/{who}/ns/{namespace}") for who in ("self", self.pid))
        return (mine.st_dev, mine.st_ino) == (its.st_dev, its.st_ino)

    def ids_here(self) -> dict[str, int]:
        """Return the id here of each of its threads by the one (as text) that it sees itself; empty if they are equal.

        They are where it is in the same pid namespace, or gone.
        """
        with contextlib.suppress(OSError):
            if not self.shares("pid"):
                return {str(inside): here for here, inside in self._all_ids()}
        return {}

    def _all_ids(self) -> Iterator[tuple[int, int]]:
        for tid in self.tids():
            with contextlib.suppress(OSError):  # it may have just ended
                yield self.ids(tid)

    def path_here(self, path: str) -> Path:
        """Return where this process finds what the other one sees at the absolute `path`."""
        return self.folder / "root" / path.lstrip("/")


def _parse_maps(lines: Sequence[str], root: str) -> Iterator[Mapping]:
    """Paths below `root`, which is where the process's file system begins here, are made those that it sees itself."""
    prefix = root.rstrip("/") + "/"
    for line in lines:
        match = _MAP.fullmatch(line)
        if match:
            start, end, mode, offset, device, inode, path = match.groups()
            path = path[len(prefix) - 1 :] if path.startswith(prefix) else path
            yield Mapping(int(start, 16), int(end, 16), mode, int(offset, 16), device, int(inode), path)
