"""From what a person knows of a recording, its name or the recorded process, to its folder."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

import numpy as np

from giltrace.errors import RecordingError
from giltrace.process.deputy import Deputy, User
from giltrace.process.folder import Folder, sees_the_same
from giltrace.process.kernel_text import text_of
from giltrace.recording import layout
from giltrace.recording.folder import GIL_NAME, SUFFIX

_NOBODY: Mapping[str, int] = {}
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


def fitting(name: Path) -> list[Path]:
    """The folders of all recordings that `name` stands for: what `locate` finds, or what fits it as a pattern, sorted.

    What fits and is no recording is left out. Raises `RecordingError` if there is none.
    """
    if not has_magic(str(name)) or os.path.lexists(name):
        return [locate(name)]
    found = dict[Path, None]()
    for one in sorted(glob(str(name), recursive=True)):
        with contextlib.suppress(RecordingError):
            folder = locate(Path(one))
            if (folder / "meta.json").is_file():
                found[folder] = None
    if not found:
        raise RecordingError(f"no recording fits {name}", "see what there is: ls -d *.giltrace")
    return list(found)


@dataclass(frozen=True)
class Written:
    """A recording that is being written: `path` for people, `folder` to read it from.

    `is_foreign`: another user or a container may put there what they like, and nothing should be written beside it.
    """

    path: Path
    folder: Folder
    is_foreign: bool


def being_written(pid: int) -> Written | None:
    """The recording that giltrace makes of process `pid`, by what the tracer in it has mapped; None if there is none.

    Raises `RecordingError` if there is no such process or it may not be looked at.
    """
    try:
        maps = text_of(f"/proc/{pid}/maps")
        deputy, root = Deputy(User.of(pid)), os.readlink(f"/proc/{pid}/root").rstrip("/")
    except FileNotFoundError:
        raise RecordingError(f"there is no process {pid}", "see `ps` for what runs") from None
    except (PermissionError, ProcessLookupError):
        raise RecordingError(f"process {pid} may not be looked at", "be its user, or root") from None
    ours = sees_the_same(pid)
    # The newest last. As the process sees it: in a container that is another place.
    for parent, _, name in (path.rpartition("/") for path in reversed(_MAPPED.findall(maps))):
        for user in {os.geteuid(), deputy.user.uid} if ours else {deputy.user.uid}:
            with contextlib.suppress(OSError):
                is_foreign = not ours or user != os.geteuid()
                owners = frozenset({user}) if is_foreign or deputy.user.uid != user else None
                folder = _open(pid, parent.removeprefix(root), deputy if is_foreign else None, owners)
                folder.read("meta.json", 1)  # else it is none of ours, or may not be read
                if _is_at_work(folder, name):
                    return Written(Path(parent if ours else f"/proc/{pid}/root{parent}"), folder, is_foreign)
                folder.close()
    return None


def writers(folder: Folder, ids: Mapping[str, int] = _NOBODY) -> list[int]:
    """The processes that write to the recording `folder` now, as `Writers.look`."""
    return Writers(folder).look(ids)


class Writers:
    """Who writes to the recording `folder`, again and again: what has ended is not looked at any more."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._ended: set[str] = set()

    def look(self, ids: Mapping[str, int] = _NOBODY) -> list[int]:
        """The processes that write to it now, by their ids here; `ids` as in `Meta`. Raises OSError.

        What executes another program writes no more: it has nothing mapped. Who may not be looked at is left out.
        """
        files: dict[int, list[str]] = {}
        for name in self._folder.names(GIL_NAME):
            match = GIL_NAME.fullmatch(name)
            if match is not None and name not in self._ended:
                files.setdefault(ids.get(match[1], int(match[1])), []).append(name)
        return sorted(pid for pid, names in files.items() if self._writes(pid, names))

    def _writes(self, pid: int, names: list[str]) -> bool:
        try:
            maps = Path(f"/proc/{pid}/maps").read_bytes()
        except FileNotFoundError:
            self._ended.update(names)
            return False
        except OSError:
            return False
        with contextlib.suppress(OSError):
            return any(f"/{name}".encode() in maps and _is_at_work(self._folder, name) for name in names)
        return False


def last_wrote(folder: Folder, pid: int, program: str) -> bool:
    """Whether the newest file of process `pid` in the recording `folder` is of this `program`, by its path."""
    own = [name for name in folder.names(GIL_NAME) if (match := GIL_NAME.fullmatch(name)) and int(match[1]) == pid]
    if not own or not program:
        return False
    head = folder.read(max(own, key=lambda name: int(name[:-4].rpartition("-")[2])), layout.HEADER.itemsize)
    return len(head) > 0 and bytes(np.frombuffer(head, layout.HEADER)["executable"][0]) == os.fsencode(program)


def _open(pid: int, path: str, deputy: Deputy | None, owners: frozenset[int] | None) -> Folder:
    """The folder at `path` as the process sees it, if it is one of `owners`'."""
    folder = Folder.root_of(pid, deputy, owners).below(path)
    if owners is None or folder.state.st_uid in owners:
        return folder
    folder.close()
    raise PermissionError


def _is_at_work(folder: Folder, name: str) -> bool:
    """Tell whether the tracer that wrote this file has not left; a thread may keep a piece of an old one mapped."""
    head = folder.read(name, layout.HEADER.itemsize)
    status = layout.Status(int(np.frombuffer(head, layout.HEADER)["status"][0]) if len(head) else 0)
    return layout.Status.HOOKED in status and layout.Status.STOPPED not in status
