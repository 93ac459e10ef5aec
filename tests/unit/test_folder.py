"""Folders that somebody else may write to: only what was asked for is opened."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

from giltrace.launch.attach import call
from giltrace.launch.attach.staging import is_trusted, trusted
from giltrace.launch.attach.target import Library
from giltrace.process.deputy import Deputy, User
from giltrace.process.folder import Folder, plain_copy

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")


def content(folder: Folder, name: str) -> bytes:
    return folder.read(name, 100)


def test_plain_files_only(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"it")
    (tmp_path / "link").symlink_to("plain")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with Folder.own(tmp_path) as folder:
        assert folder.names(re.compile("p.*")) == ["pipe", "plain"]
        assert content(folder, "plain") == b"it"
        for name in ("link", "folder", "pipe"):
            with pytest.raises(OSError, match="not a plain file"):
                folder.open(name, os.O_RDWR)
        with pytest.raises(FileNotFoundError):
            folder.open("none")


@needs_root
def test_files_of_the_owners_with_one_link_only(tmp_path: Path) -> None:
    for name, owner in (("theirs", NOBODY), ("ours", 0), ("shared", NOBODY)):
        (tmp_path / name).write_bytes(b"it")
        os.chown(tmp_path / name, owner, owner)
    os.link(tmp_path / "shared", tmp_path / "other")
    deputy = Deputy(User(NOBODY, NOBODY, ()))
    tmp_path.chmod(0o755)
    with Folder(os.open(tmp_path, os.O_PATH), deputy, frozenset({NOBODY})) as folder:
        assert content(folder, "theirs") == b"it"
        for name in ("ours", "shared"):
            with pytest.raises(PermissionError):
                folder.open(name)


@pytest.mark.needs("namespaces")
def test_nothing_that_is_mounted_over_a_file(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).write_bytes(name.encode())
    mount = f"mount --bind {tmp_path}/other {tmp_path}/one && echo ready && read line"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", mount], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        root = Folder.root_of(process.pid, None, frozenset({os.geteuid()}))
        with root.below(str(tmp_path)) as folder:
            assert content(folder, "other") == b"other"
            with pytest.raises(OSError, match="something mounted"):
                folder.open("one")
        process.communicate(b"\n", timeout=60)


def test_no_link_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    Folder.own(tmp_path).below("real/below").close()
    with pytest.raises(NotADirectoryError):
        Folder.own(tmp_path).below("link/below")


@needs_root
def test_a_deputy_has_that_users_rights_and_root_keeps_its_own(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"it")
    (tmp_path / "secret").chmod(0o600)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o011)
    deputy = Deputy(User(NOBODY, NOBODY, (NOBODY,)))
    with pytest.raises(PermissionError):
        deputy.do((tmp_path / "secret").read_bytes)
    assert (tmp_path / "secret").read_bytes() == b"it"
    assert threading.get_ident() != deputy.do(threading.get_ident)
    assert os.getgroups() == list(User.of(os.getpid()).groups)
    (tmp_path / "common").mkdir()
    (tmp_path / "common").chmod(0o777)
    deputy.do((tmp_path / "common" / "made").mkdir)
    assert (tmp_path / "common" / "made").stat().st_uid == NOBODY
    deputy.close()


def test_holes_stay_holes(tmp_path: Path) -> None:
    size = 1 << 36
    with (tmp_path / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(1 << 35)
        file.write(b"middle")
        file.truncate(size)
    with (tmp_path / "sparse").open("rb") as file:
        plain_copy(file.fileno(), tmp_path / "copy")
    copied = (tmp_path / "copy").stat()
    assert copied.st_size == size
    assert copied.st_blocks * 512 < 1 << 20
    with (tmp_path / "copy").open("rb") as file:
        assert file.read(6) == b"begin\0"
        file.seek(1 << 35)
        assert file.read(7) == b"middle\0"
    with (tmp_path / "sparse").open("r+b") as file:
        file.truncate(1 << 42)
        with pytest.raises(OSError, match="too large"):
            plain_copy(file.fileno(), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_what_others_may_replace_is_not_loaded(tmp_path: Path) -> None:
    place = tmp_path / "own" / "place"
    place.mkdir(parents=True, mode=0o755)
    library = place / "it.so"
    library.write_bytes(b"")
    own = os.geteuid()
    assert is_trusted(library, own)
    for path, mode in ((library, 0o666), (place, 0o777), (place.parent, 0o775)):
        before = path.stat().st_mode & 0o7777
        path.chmod(mode)
        assert not is_trusted(library, own)
        path.chmod(before)
    assert is_trusted(library, own)
    # As /tmp: others may write there, but not take away what is somebody else's.
    place.chmod(0o1777)
    with trusted(str(place), Folder.own(Path("/")), frozenset({own})) as folder:
        assert not folder.forbids_execution


def test_a_threads_attributes_are_those_that_libc_makes() -> None:
    libc, made = ctypes.CDLL(None), ctypes.create_string_buffer(56)
    libc.pthread_attr_init(made)
    libc.pthread_attr_setdetachstate(made, 1)
    assert call._attributes(Library("glibc", 0, 0, 0, 0, 0, 0, None, None)) == made.raw
