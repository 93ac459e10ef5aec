"""Every CPython on the machine, for tests that trace interpreters other than their own."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

#: Folders to search besides the usual ones, separated as in PATH.
VARIABLE = "GILTRACE_TEST_PYTHONS"

#: The oldest version whose GIL the tracer knows to follow.
OLDEST = (3, 8)

_NAME = re.compile(r"python3(\.\d+t?)?")
_ASK = """
import json, sys, sysconfig
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": list(sys.version_info[:3]),
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "shared": "libpython" in open("/proc/self/maps").read(),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """One CPython: `path` is what to run, `shared` says that `_PyRuntime` lives in a libpython beside it."""

    path: Path
    version: tuple[int, int, int]
    free_threaded: bool
    shared: bool

    @property
    def id(self) -> str:
        """A readable name for test reports: ``3.13.0t-pyenv``."""
        text = str(self.path)
        origin = "pyenv" if ".pyenv" in text else "system" if text.startswith("/usr/bin/") else self.path.parts[1]
        return ".".join(map(str, self.version)) + ("t" if self.free_threaded else "") + f"-{origin}"


@functools.cache
def interpreters() -> tuple[Interpreter, ...]:
    """Return each CPython of version 3.8 or later that runs here, once per real executable, oldest first."""
    found_by_file = {_file(p): p for p in sorted({p.resolve() for p in _candidates() if os.access(p, os.X_OK)})}
    with ThreadPoolExecutor(4) as pool:
        asked = pool.map(_ask, found_by_file.values())
    found = {i.path: i for i in asked if i is not None and i.version >= OLDEST}
    return tuple(sorted(found.values(), key=lambda i: (i.version, i.free_threaded, str(i.path))))


def one_per_minor() -> tuple[Interpreter, ...]:
    """Return one interpreter per minor version and kind, for tests too slow to run on each."""
    kinds = {(i.version[:2], i.free_threaded): i for i in interpreters()}
    return tuple(kinds.values())


@functools.cache
def some() -> frozenset[Interpreter]:
    """Of those the oldest, the newest, every other one in between, and all that have no GIL."""
    one_each = one_per_minor()
    with_gil = [one for one in one_each if not one.free_threaded]
    return frozenset((*with_gil[::2], *with_gil[-1:], *(one for one in one_each if one.free_threaded)))


@functools.cache
def has(python: Path, need: str) -> bool:
    """Whether an interpreter has what a workload needs: ``Python 3.12`` (or later), ``Python 3.13t`` (or later, and no
    GIL), or the module of that name.
    """
    name, _, version = need.partition(" ")
    oldest = tuple(map(int, version.rstrip("t").split("."))) if version else ()
    code = f"import sys; sys.exit(sys.version_info < {oldest})" if oldest else f"import {name}"
    if version.endswith("t"):
        code = f"import sys; sys.exit(sys.version_info < {oldest} or sys._is_gil_enabled())"
    return subprocess.run([python, "-c", code], capture_output=True).returncode == 0


def _candidates() -> Iterator[Path]:
    home = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders = [p / "bin" for p in (home / "versions").glob("*")]
    folders += [p / "bin" for p in Path("/opt").glob("python*")]
    folders += Path("/opt/giltrace-pythons").glob("*/usr/bin")
    folders += [Path(p) for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p]
    # A virtual environment on PATH resolves to the interpreter it was made from.
    folders += [Path(p) for p in os.environ.get("PATH", "").split(os.pathsep) if p and not p.endswith("/shims")]
    folders += [Path("/usr/bin"), Path("/usr/local/bin")]
    for folder in dict.fromkeys(folders):
        if folder.is_dir():
            yield from (p for p in folder.glob("python3*") if _NAME.fullmatch(p.name))


def _file(path: Path) -> tuple[int, int]:
    """What stays the same when a program has several names by hard links, as a free-threaded one has."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _ask(path: Path) -> Interpreter | None:
    """Return what the program at `path` says about itself, or None if it is no CPython that runs."""
    try:
        # On a busy machine one takes its time, and must not be missed for it.
        answer = subprocess.run([path, "-I", "-c", _ASK], capture_output=True, text=True, timeout=100, check=True)
        said = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if said["implementation"] != "cpython":
        return None
    major, minor, micro = said["version"]
    return Interpreter(path, (major, minor, micro), said["free_threaded"], said["shared"])
