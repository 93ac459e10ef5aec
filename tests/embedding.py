"""What is written in C for an interpreter: programs that have it inside, and extensions."""

from __future__ import annotations

import functools
import json
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interpreters import Interpreter

_ASK = """
import json, sys, sysconfig
get = sysconfig.get_config_var
print(json.dumps({
    "include": sysconfig.get_path("include"),
    "home": sys.base_prefix,
    "folder": get("LIBDIR"),
    "config": get("LIBPL"),
    "name": "python" + (get("LDVERSION") or get("VERSION")),
    "libraries": " ".join(get(name) or "" for name in ("LIBS", "SYSLIBS", "MODLIBS")),
    "export": get("LINKFORSHARED") or "",
}))
"""


@dataclass(frozen=True)
class _Told:
    """What an interpreter says about how to link with it."""

    include: str
    home: str
    folder: str
    config: str
    name: str
    libraries: str
    export: str


def embedding(interpreter: Interpreter, source: Path, out: Path, static: bool, *words: str | Path) -> Path:
    """Build `source` into the program `out`, `words` being further ones for the compiler.

    Skips the test, and says why, where the interpreter lacks what it takes. Run it with `environment`.
    """
    compiled = out.with_suffix(".o")
    _compile(interpreter, source, compiled, "-c", *words)
    linked = ["cc", str(compiled), "-o", str(out), *_libraries(interpreter, _told(interpreter), static)]
    ran = subprocess.run(linked, capture_output=True, text=True, timeout=100, check=False)
    if ran.returncode != 0:
        pytest.skip(f"{interpreter.path} lacks libraries to link with: {ran.stderr.splitlines()[0]}")
    return out


def extension(interpreter: Interpreter, source: Path, out: Path) -> Path:
    """Build `source` into the module `out`; skips the test where the interpreter has no headers."""
    _compile(interpreter, source, out, "-shared", "-fPIC")
    return out


def environment(interpreter: Interpreter) -> dict[str, str]:
    """The variables by which such a program finds its standard library."""
    return {"PYTHONHOME": _told(interpreter).home}


def _compile(interpreter: Interpreter, source: Path, out: Path, *words: str | Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("needs cc")
    include = _told(interpreter).include
    if not Path(include, "Python.h").exists():
        pytest.skip(f"{interpreter.path} has no headers")
    subprocess.run(["cc", "-g", f"-I{include}", *words, source, "-o", out], check=True, timeout=100)


def _libraries(interpreter: Interpreter, told: _Told, static: bool) -> list[str]:
    libraries = [*shlex.split(told.libraries), "-lpthread", "-lm"]
    if static:
        archive = Path(told.config, f"lib{told.name}.a")
        if not archive.exists():
            pytest.skip(f"{interpreter.path} has no static libpython")
        # The archive may be made for programs at fixed addresses only.
        return ["-no-pie", str(archive), *shlex.split(told.export), *libraries]
    if not interpreter.shared:
        pytest.skip(f"{interpreter.path} has no shared libpython")
    return [f"-L{told.folder}", f"-Wl,-rpath,{told.folder}", f"-l{told.name}", *libraries]


@functools.cache
def _told(interpreter: Interpreter) -> _Told:
    command = [str(interpreter.path), "-I", "-c", _ASK]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    return _Told(**json.loads(answer.stdout))
