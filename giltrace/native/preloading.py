"""What LD_PRELOAD is to name, so that every program below the target can load it, whoever runs it."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from giltrace.native import FOLDER, MACHINE

_AT_PLATFORM = 15
_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")
#: Where loaders split a list of libraries, which knows no quotes; and what begins a variable of theirs.
_SPECIAL = " \t\n\v\f\r:$"


def preload_path() -> str:
    """Return the path to preload, in which loaders put the name of their own platform: each finds what it can load.

    That is the installed library, or, where others may not read that, a copy in a folder of ours that stays: what the
    target leaves behind goes on needing it. Raises `OSError` where there is no place for one.
    """
    folder = FOLDER.resolve()
    files = [path.relative_to(folder) for path in _needed(folder)]
    if any(mark in str(folder) for mark in _SPECIAL) or not _open_to_all(folder, files):
        folder = _staged(folder, files)
    (name,) = {path.name for path in files if path.parts[0] == "preload"}
    platform = "$PLATFORM" if _loader_knows_platform() else MACHINE
    return str(folder / "preload" / MACHINE / platform / name)


def _needed(folder: Path) -> Sequence[Path]:
    """The stubs for the kinds of program that can run on this machine, and all tracers."""
    return sorted([*folder.glob("libgiltrace-*.so"), *folder.glob(f"preload/{MACHINE}/*/*.so")])


def _loader_knows_platform() -> bool:
    """The kernel tells each program the platform's name; some sandboxes that play the kernel do not."""
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.argtypes, getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
    return bool(getauxval(_AT_PLATFORM))


def _open_to_all(folder: Path, files: Sequence[Path]) -> bool:
    paths = {folder / path for path in files}
    folders = {parent for path in paths for parent in path.parents}
    return all(path.stat().st_mode & stat.S_IROTH for path in paths) and all(
        path.stat().st_mode & stat.S_IXOTH for path in folders
    )


def _staged(folder: Path, files: Sequence[Path]) -> Path:
    import hashlib  # takes as long as all else here, for what is seldom needed

    digest = hashlib.sha256()
    for path in files:
        digest.update(os.fsencode(path) + b"\0" + (folder / path).read_bytes())
    name = f"giltrace-{os.geteuid()}-{digest.hexdigest()[:16]}"
    for parent in map(Path, _TEMPORARY):
        if _usable(parent):
            try:
                return _copy(folder, files, parent, parent / name)
            except OSError:
                continue
    raise OSError(f"no place for a copy of the tracer that every user can read ({', '.join(_TEMPORARY)})")


def _usable(parent: Path) -> bool:
    """Libraries can be loaded from there, by all, and nobody else can take away what we put there."""
    try:
        mode, mount = parent.stat(), os.statvfs(parent)
    except OSError:
        return False
    shared = bool(mode.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    kept = mode.st_uid in (0, os.geteuid()) and (not shared or bool(mode.st_mode & stat.S_ISVTX))
    return kept and bool(mode.st_mode & stat.S_IXOTH) and not mount.f_flag & os.ST_NOEXEC


def _copy(folder: Path, files: Sequence[Path], parent: Path, final: Path) -> Path:
    """Make `final` at one blow, or use it if it is there already and ours; else another name will do."""
    if _is_ours(final, folder, files):
        return final
    import tempfile

    scratch = Path(tempfile.mkdtemp(prefix="giltrace-", dir=parent))
    try:
        for path in files:
            (scratch / path.parent).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / path, scratch / path)
        for path in (scratch, *scratch.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    except OSError:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    try:
        scratch.rename(final)
    except OSError:
        if _is_ours(final, folder, files):
            shutil.rmtree(scratch, ignore_errors=True)
            return final
        return scratch
    return final


def _is_ours(final: Path, folder: Path, files: Sequence[Path]) -> bool:
    """Only we have ever been able to write there, and nobody has tidied it up in part."""
    try:
        found = final.lstat()
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == 0o755
        return ours and all((final / path).lstat().st_size == (folder / path).stat().st_size for path in files)
    except OSError:
        return False
