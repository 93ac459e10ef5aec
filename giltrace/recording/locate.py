"""From what a person knows of a recording, its name or the recorded process, to its folder."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from giltrace.errors import RecordingError
from giltrace.recording import layout
from giltrace.recording.folder import SUFFIX

_TRACE = ".pftrace"
_MAPPED = re.compile(r"^\S+ r\S+ .* (/.*/gil-\d+-\d+\.bin)$", re.M)


def locate(name: Path) -> Path:
    """Return the recording's folder: `name` itself, `name` with the suffix added, or the one beside its `.pftrace`.

    Raises `RecordingError` if there is none, or it may not be looked at.
    """
    stem = name.name.removesuffix(_TRACE)
    for folder in (name, name.with_name(stem + SUFFIX)) if stem else (name,):
        try:
            if folder.is_dir():
                return folder
        except OSError as error:
            raise RecordingError.unreadable(folder, error) from None
    raise RecordingError(f"there is no recording {name}", "name a NAME.giltrace folder made by `giltrace record`")


def being_written(pid: int) -> Path | None:
    """The recording that giltrace makes of process `pid`, by what the tracer in it has mapped; None if there is none.

    Raises `RecordingError` if there is no such process or it may not be looked at.
    """
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape")
    except FileNotFoundError:
        raise RecordingError(f"there is no process {pid}", "see `ps` for what runs") from None
    except (PermissionError, ProcessLookupError):
        raise RecordingError(f"process {pid} may not be looked at", "be its user, or root") from None
    # The newest last. As the process sees it: in a container that is another place.
    for name in reversed(_MAPPED.findall(maps)):
        for file in (Path(name), Path(f"/proc/{pid}/root{name}")):
            if (file.parent / "meta.json").exists() and _is_at_work(file):
                return file.parent
    return None


def _is_at_work(file: Path) -> bool:
    """Tell whether the tracer that wrote this file has not left; a thread may keep a piece of an old one mapped."""
    head = np.fromfile(file, layout.HEADER, 1)
    status = layout.Status(int(head["status"][0])) if head.size else layout.Status(0)
    return layout.Status.HOOKED in status and layout.Status.STOPPED not in status
