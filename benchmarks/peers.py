"""The tools that giltrace is measured beside, and how each is run on a program."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

BARE = "bare"
#: From interpreter, program and a folder for what it writes to the words of a command.
Command = Callable[[str, Path, Path], list[str]]

CONDITIONS = """\
* `giltrace` is `giltrace record` as it is by default: the GIL's events with whole Python stacks, the kernel's context
  switches, and py-spy within its budget; `giltrace --light` is that without py-spy.
* `py-spy` is `py-spy record -r 100`, which stops the program for each sample.
* `viztracer` is `python -m viztracer` with a buffer of 100,000 entries.
* `profiling.sampling` is CPython 3.15's own, at 1 kHz, all threads.
* `uprobes` is `perf record` on the entry of `take_gil` and `drop_gil` and the return of `take_gil`, as root.
* `gilknocker` asks for the GIL each ms, by a thread in the program; `gil_load` looks at it now and then (5 ms by
  default), with its library preloaded."""


@dataclass(frozen=True)
class Peer:
    """A tool: its command, what the program has to say before and after its loop, and the module that it needs."""

    name: str
    command: Command
    begin: str = ""
    end: str = ""
    module: str = ""
    why_not: Callable[[str], str] = lambda python: ""


def _bare(python: str, program: Path, folder: Path) -> list[str]:
    return [python, str(program)]


def _record(*options: str) -> Command:
    def command(python: str, program: Path, folder: Path) -> list[str]:
        words = [sys.executable, "-m", "giltrace", "record", *options, "--python", python, "-o", str(folder / "r")]
        return [*words, "-f", str(program)]

    return command


def _pyspy(python: str, program: Path, folder: Path) -> list[str]:
    tool = str(Path(sys.executable).with_name("py-spy"))
    return [tool, "record", "-r", "100", "-f", "raw", "-o", str(folder / "s"), "--", python, str(program)]


def _viztracer(python: str, program: Path, folder: Path) -> list[str]:
    words = [python, "-m", "viztracer", "--quiet", "--tracer_entries", "100000", "-o", str(folder / "v.json")]
    return [*words, str(program)]


def _tachyon(python: str, program: Path, folder: Path) -> list[str]:
    words = [python, "-m", "profiling.sampling", "run", "-r", "1khz", "-a", "--pstats", "-o", str(folder / "t.pstats")]
    return [*words, str(program)]


def _gil_load(python: str, program: Path, folder: Path) -> list[str]:
    return [python, "-m", "gil_load", str(program)]


_EVENTS = ("take", "drop", "took__return")


def _uprobes(python: str, program: Path, folder: Path) -> list[str]:
    events = [word for name in _EVENTS for word in ("-e", f"giltrace_{_number(python)}:{name}")]
    return ["perf", "record", "-q", "-o", str(folder / "p"), *events, "--", python, str(program)]


def _number(python: str) -> int:
    """Each interpreter has probes of its own."""
    return _numbers.setdefault(os.path.realpath(python), len(_numbers))


_numbers: dict[str, int] = {}


@functools.cache
def _no_uprobes(python: str) -> str:
    """Place the probes that the earlier tools used; why that cannot be done, if it cannot."""
    if os.geteuid() != 0 or shutil.which("perf") is None:
        return "that needs root and perf"
    code = "import re; print(*{m for m in re.findall(r'/\\S*libpython3\\S*', open('/proc/self/maps').read())})"
    shared = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    binary = shared[0] if shared else os.path.realpath(python)
    for probe in ("take=take_gil", "drop=drop_gil", "took=take_gil%return"):
        add = ["perf", "probe", "-q", "-x", binary, f"giltrace_{_number(python)}:{probe}"]
        if subprocess.run(add, capture_output=True, check=False).returncode != 0:
            return "its functions have no symbols that probes can be placed by"
    return ""


def clean_up() -> None:
    """Take the probes away."""
    for number in _numbers.values():
        subprocess.run(["perf", "probe", "-q", "-d", f"giltrace_{number}:*"], capture_output=True, check=False)


PEERS = (
    Peer(BARE, _bare),
    Peer("giltrace --light", _record("--light")),
    Peer("giltrace", _record()),
    Peer("py-spy", _pyspy),
    Peer("viztracer", _viztracer, module="viztracer"),
    Peer("profiling.sampling", _tachyon, module="profiling.sampling"),
    Peer("uprobes", _uprobes, why_not=_no_uprobes),
    Peer(
        "gilknocker",
        _bare,
        "from gilknocker import KnockKnock; knocker = KnockKnock(1000); knocker.start()",
        "knocker.stop()",
        module="gilknocker",
    ),
    Peer("gil_load", _gil_load, "import gil_load; gil_load.init(); gil_load.start()", "gil_load.stop()", "gil_load"),
)


@functools.cache
def why_absent(peer: Peer, python: str) -> str:
    """Why a tool cannot be run on an interpreter; empty if it can."""
    return no_module(peer.module, python) or peer.why_not(python)


def no_module(module: str, python: str) -> str:
    """That an interpreter cannot import a module, in words; empty if it can, or none is named."""
    if not module:
        return ""
    tried = subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False)
    return f"no module {module} can be imported there" if tried.returncode != 0 else ""


def of(python: str) -> list[Peer]:
    """The tools that run on an interpreter."""
    return [peer for peer in PEERS if not why_absent(peer, python)]


def absent(python: str) -> Iterator[tuple[str, str]]:
    """The others, and why."""
    for peer in PEERS:
        if why := why_absent(peer, python):
            yield peer.name, why
