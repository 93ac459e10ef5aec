"""What can be completed: recordings, workloads, processes, files and names, of which parameters say which they take.

Each function takes the word as far as it is typed and returns what it may become, with a description or "". They are
called between two key strokes: nothing large is imported or read.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from giltrace.process.kernel_text import text_of
from giltrace.recording.folder import GIL_NAME, SUFFIX, TRACE_SUFFIX
from giltrace.text import cut, visible

Candidates = list[tuple[str, str]]

_PYTHON = re.compile(r"python[\d.]*t?d?")
#: What the tracer in a process that is being recorded has mapped.
_TRACED = re.compile(rf"{re.escape(SUFFIX)}/{GIL_NAME.pattern}$", re.M | re.ASCII)
_LONGEST_COMMAND = 60


def one_of(*names: str) -> Callable[[str], list[str]]:
    """Return what completes one of these names."""

    def named(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return named


def recordings(incomplete: str) -> Candidates:
    """Recordings, by the short names that commands take, and the folders on the way to them."""
    found = []
    for typed, entry in _entries(incomplete):
        if entry.name.endswith(SUFFIX) and entry.name != SUFFIX and _is_folder(entry):
            short = typed.removesuffix(SUFFIX)
            found.append((short if short.startswith(incomplete) else typed, "recording"))
        elif _is_folder(entry):
            found.append((f"{typed}/", ""))
    return found


def traces(incomplete: str) -> Candidates:
    """Recordings, and traces that have none beside them."""
    found = recordings(incomplete)
    known = {name.removesuffix(SUFFIX) for name, _ in found}
    alone = [
        typed
        for typed, entry in _entries(incomplete)
        if entry.name.endswith(TRACE_SUFFIX) and entry.name != TRACE_SUFFIX
    ]
    return found + [(typed, "trace") for typed in alone if typed.removesuffix(TRACE_SUFFIX) not in known]


def files(incomplete: str) -> Candidates:
    """Files and folders."""
    return [(f"{typed}/" if _is_folder(entry) else typed, "") for typed, entry in _entries(incomplete)]


def targets(ctx: Any, incomplete: str) -> Candidates:
    """What `record` and `top` run: workloads, scripts and folders on the way to them; then the program's own files."""
    if ctx.params["words"]:
        return files(incomplete)
    from giltrace.launch.bundled import bundled, header

    workloads = [(name, path) for name, path in bundled().items() if name.startswith(incomplete)]
    found = [(name, header(path).description) for name, path in workloads]
    scripts = [one for one in files(incomplete) if one[0].endswith(("/", ".py"))]
    return found + [one for one in scripts if not one[0].endswith(f"{SUFFIX}/")]


def live_targets(ctx: Any, incomplete: str) -> Candidates:
    """What `top` looks at: a process, or what `targets` are."""
    return ([] if ctx.params["words"] else processes(incomplete)) + targets(ctx, incomplete)


def processes(incomplete: str) -> Candidates:
    """Python processes that may be looked at, by pid."""
    return _processes(incomplete, _runs_python)


def recorded(incomplete: str) -> Candidates:
    """Processes that are being recorded, by pid."""
    return _processes(incomplete, lambda pid: _TRACED.search(_maps(pid)) is not None)


def _entries(incomplete: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What is in the folder that was typed and begins so: as it would be typed on, and its entry; hidden if typed."""
    folder, slash, begun = incomplete.rpartition("/")
    with contextlib.suppress(OSError), os.scandir(os.path.expanduser(folder + slash) or ".") as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            # A shell reads a line per name; one that does not show would not be recognised either.
            shown = entry.name.isprintable() and (begun or not entry.name.startswith("."))
            if shown and entry.name.startswith(begun):
                yield folder + slash + entry.name, entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _processes(incomplete: str, wanted: Callable[[int], bool]) -> Candidates:
    pids = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal() and name.startswith(incomplete))
    return [(str(pid), _command(pid)) for pid in pids if pid != os.getpid() and wanted(pid)]


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()[:512].decode(errors="replace").rstrip("\0").split("\0")
        return cut(visible(" ".join([os.path.basename(words[0]), *words[1:]])), _LONGEST_COMMAND)
    return ""


def _runs_python(pid: int) -> bool:
    try:
        program = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False  # another user's, or the kernel's
    return _PYTHON.match(os.path.basename(program)) is not None or "/libpython" in _maps(pid)


def _maps(pid: int) -> str:
    try:
        return text_of(f"/proc/{pid}/maps")
    except OSError:
        return ""
