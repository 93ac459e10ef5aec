"""From the words on the command line to what is to be executed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from giltrace.errors import TargetError, UsageError
from giltrace.launch.bundled import bundled

OLDEST = (3, 8)

#: Run by the interpreter in question; without its site packages, since those may do anything.
PROBE = """
import json, sys, sysconfig
free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
print(json.dumps([sys.implementation.name, list(sys.version_info[:3]), free_threaded]))
"""


class Target(NamedTuple):
    """What to execute: its `argv`, the `python` it names (None for another command), a `name` for the output.

    `bundled`: it is one of giltrace's own workloads.
    """

    argv: list[str]
    python: str | None
    name: str
    bundled: bool = False


def resolve(words: Sequence[str], *, module: str | None, code: str | None, python: str | None) -> Target:
    """Find out what `words` mean: a script, a bundled workload or a command; or the arguments of -m or -c.

    Raises `UsageError` or `TargetError` for what does not exist or cannot be traced.
    """
    if module is not None and code is not None:
        raise UsageError("-m and -c both say what to run", "drop one of the two")
    if module is not None and (not module or module.startswith("-")):
        raise UsageError(f"-m {module!r} is no module", "name one as for Python: -m http.server")
    if module is not None or code is not None:
        interpreter = find_python(python)
        option = ["-m", module] if module is not None else ["-c", code or ""]
        name = re.sub(r"[^\w.-]+", "_", module or "").strip("-._")
        return Target([interpreter, *option, *words], interpreter, name or "command")
    if not words:
        raise UsageError("nothing to record", "name a script, a workload or a command: `giltrace record SCRIPT.py`")
    return _resolve_word(words[0], list(words[1:]), python)


def _resolve_word(word: str, arguments: list[str], python: str | None) -> Target:
    path = Path(word)
    if path.is_file() and (path.suffix in (".py", ".pyz", ".pyw") or not os.access(path, os.X_OK)):
        interpreter = find_python(python)
        return Target([interpreter, word, *arguments], interpreter, path.stem)
    if path.is_dir() and (path / "__main__.py").is_file():
        interpreter = find_python(python)
        return Target([interpreter, word, *arguments], interpreter, path.resolve().name)
    if word in bundled():
        interpreter = find_python(python)
        return Target([interpreter, str(bundled()[word]), *arguments], interpreter, word, bundled=True)
    command = shutil.which(word)
    if command is None:
        remedy = "check the path, or list the workloads with `giltrace workloads`"
        if word.isdigit():
            remedy = f"a process that runs already is recorded by `giltrace attach {word}`"
        raise TargetError(f"there is no file, bundled workload or command named {word!r}", remedy)
    interpreter_or_none = word if Path(command).name.startswith("python") else None
    if interpreter_or_none is not None:
        check_python(command)
    return Target([word, *arguments], interpreter_or_none and command, Path(command).name)


def find_python(asked: str | None) -> str:
    """The interpreter for scripts and modules: the one asked for, else the active environment's, else our own."""
    environment = os.environ.get("VIRTUAL_ENV")
    if asked is not None:
        found = shutil.which(asked)
        if found is None:
            raise TargetError(f"there is no interpreter {asked!r}", "give --python a path or a name on PATH")
    elif environment and os.access(os.path.join(environment, "bin", "python"), os.X_OK):
        found = os.path.join(environment, "bin", "python")
    else:
        found = sys.executable
    check_python(found)
    return found


def check_python(python: str) -> None:
    """Raise `TargetError` unless `python` is a CPython that can be traced."""
    if os.path.realpath(python) == os.path.realpath(sys.executable):
        return
    implementation, version, _ = _ask(python)
    shown = ".".join(map(str, version))
    if implementation != "cpython":
        raise TargetError(f"{python} is {implementation} {shown}, which has no CPython GIL", "use a CPython")
    if version[:2] < OLDEST:
        raise TargetError(f"{python} is Python {shown}; giltrace traces CPython 3.8 and newer", "use a newer Python")


def describe_python(python: str) -> str:
    """What kind of interpreter `python` is, in a few words: "cpython 3.13.0, free-threaded"."""
    implementation, version, free_threaded = _ask(python)
    return f"{implementation} {'.'.join(map(str, version))}" + (", free-threaded" if free_threaded else "")


def _ask(python: str) -> tuple[str, tuple[int, ...], bool]:
    try:
        answer = subprocess.run([python, "-I", "-S", "-c", PROBE], capture_output=True, timeout=20, check=True).stdout
        implementation, version, free_threaded = json.loads(answer)
    except (OSError, ValueError, subprocess.SubprocessError):
        raise TargetError(f"{python} does not run as a Python interpreter", f"try it by hand: {python} -V") from None
    return implementation, tuple(version), free_threaded
