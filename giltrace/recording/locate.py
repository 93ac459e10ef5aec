"""From what a person calls a recording to its folder."""

from __future__ import annotations

from pathlib import Path

from giltrace.errors import RecordingError
from giltrace.recording.folder import SUFFIX

_TRACE = ".pftrace"


def locate(name: Path) -> Path:
    """Return the recording's folder: `name` itself, `name` with the suffix added, or the one beside its `.pftrace`.

    Raises `RecordingError` if there is none.
    """
    stem = name.name.removesuffix(_TRACE)
    for folder in (name, name.with_name(stem + SUFFIX)) if stem else (name,):
        if folder.is_dir():
            return folder
    raise RecordingError(f"there is no recording {name}", "name a NAME.giltrace folder made by `giltrace record`")
