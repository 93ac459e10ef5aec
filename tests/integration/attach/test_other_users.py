"""Root attaches to, dumps and looks at processes of users who want to make use of that: they get nothing from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from giltrace.errors import TargetError
from giltrace.launch.attach.heads import LEASE_NS
from giltrace.launch.attach.session import attach
from giltrace.launch.live import attached
from giltrace.recording import layout
from giltrace.recording.live import LiveReader
from giltrace.timeline.load import load
from tests.attaching import ROOT
from tests.tracing import TARGETS, waiting

NOBODY = 65534
#: One that other users may run.
PYTHON = next((path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if Path(path).exists()), None)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users"),
    pytest.mark.skipif(PYTHON is None, reason="needs a Python that other users may run"),
]

SECRET, PRECIOUS = b"nobody's business\n", b"nobody's property\n"


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """A folder of root's with a file that others may not read, and one that they may not write to."""
    folder = tmp_path / "roots"
    folder.mkdir(mode=0o755)
    (folder / "secret").write_bytes(SECRET)
    (folder / "secret").chmod(0o600)
    (folder / "precious").write_bytes(PRECIOUS)
    return folder


def somebodys(*words: str | Path, env: dict[str, str] | None = None) -> AbstractContextManager[subprocess.Popen[str]]:
    """A program of another user, which says "ready", until the end of the block."""
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    return waiting(str(PYTHON), *words, env={**os.environ, **(env or {})}, cwd="/", **user)


def giltrace(*words: str | int | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "giltrace", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, env=env)


def assert_kept_to_root(roots: Path, *folders: Path) -> None:
    """Nothing of root's was given away or changed."""
    assert (roots / "precious").read_bytes() == PRECIOUS
    assert [(path.stat().st_uid, path.stat().st_gid) for path in (roots, *roots.iterdir())] == [(0, 0)] * 3
    for folder in folders:
        for path in folder.iterdir():
            assert not path.is_symlink()
            assert SECRET not in path.read_bytes()[:1000]
            assert PRECIOUS not in path.read_bytes()[:1000]


@pytest.mark.parametrize("env", [{}, {"swap": "1"}], ids=["lays", "swaps"])
def test_attaching_is_no_way_to_roots_files(roots: Path, tmp_path: Path, env: dict[str, str]) -> None:
    # As text, for others may not look into this folder.
    code = (TARGETS / "hostile_user.py").read_text()
    with somebodys("-c", code, roots / "secret", roots / "precious", env=env) as process:
        for number in range(3):
            ran = giltrace("attach", process.pid, "--light", "-d", "200ms", "-o", tmp_path / str(number))
            folder = tmp_path / f"{number}.giltrace"
            assert "Traceback" not in ran.stderr
            assert process.poll() is None
            if folder.exists():
                assert_kept_to_root(roots, folder)
            if not env:
                assert ran.returncode == 0, ran.stderr
                assert "was not taken over: not a plain file" in ran.stderr
                assert len(load(folder).processes) == 1
    for left in Path("/tmp").glob("giltrace-*"):
        if left.lstat().st_uid == NOBODY:
            shutil.rmtree(left, ignore_errors=True)
            left.unlink(missing_ok=True)


def test_what_is_made_for_a_user_is_that_users_alone(tmp_path: Path) -> None:
    code = "import time; print('ready', flush=True)\nwhile True: time.sleep(0.001)"
    with somebodys("-c", code) as process:
        seen: list[tuple[int, int]] = []

        def look(seconds: float, events: int) -> None:
            (staged,) = (path for path in Path("/tmp").glob("giltrace-*") if path.stat().st_uid == NOBODY)
            paths = (staged, *staged.iterdir(), *(staged / "recording").iterdir())
            seen.extend((path.stat().st_uid, path.stat().st_mode & 0o077 if path.is_dir() else 0) for path in paths)
            with pytest.raises(TargetError, match="is traced already"):
                attach(process.pid, tmp_path / "second.giltrace", [], depth=0, seconds=0.01)

        attach(process.pid, tmp_path / "first.giltrace", [], depth=8, seconds=0.5, progress=look)
        assert len(seen) >= 5
        assert set(seen) == {(NOBODY, 0)}
    assert len(load(tmp_path / "first.giltrace").processes[0].holds) > 10
    assert [path for path in Path("/tmp").glob("giltrace-*") if path.lstat().st_uid == NOBODY] == []


#: Looks like a process that giltrace has attached to.
PRETENDS = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    page = mmap.mmap(file.fileno(), 4096)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def pretended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's folder that looks like a recording, but for what a test puts there in place of other files."""
    folder = Path("/tmp", f"pretended-{os.getpid()}.giltrace")
    folder.mkdir(mode=0o755)
    header = np.zeros(1, layout.HEADER)
    header["magic"], header["version"], header["status"] = layout.MAGIC, layout.VERSION, layout.Status.HOOKED
    header["lease_ns"] = LEASE_NS << 20
    (folder / "gil-1-0.bin").write_bytes(header.tobytes().ljust(layout.HEADER_SIZE, b"\0"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def give_away(folder: Path) -> None:
    for path in (folder, *folder.iterdir()):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_dump_takes_plain_files_of_that_user_only(roots: Path, pretended: Path, tmp_path: Path, kind: str) -> None:
    (pretended / "meta.json").write_text('{"format": "giltrace-recording"}')
    give_away(pretended)
    stacks = pretended / "stacks-1-0.bin"
    if kind == "link":
        stacks.symlink_to(roots / "secret")
    elif kind == "hard link":
        # By root, for this file system may be another, and the kernel forbids it to others nowadays.
        (pretended / "theirs").write_bytes(SECRET)
        os.link(pretended / "theirs", stacks)
    elif kind == "pipe":
        os.mkfifo(stacks)
    else:
        stacks.mkdir()
    with somebodys("-c", PRETENDS, pretended / "gil-1-0.bin") as process:
        ran = giltrace("dump", process.pid, "-o", tmp_path / "out")
        assert ran.returncode == 2, ran
        assert "stacks-1-0.bin" in ran.stderr
        assert not (tmp_path / "out.giltrace").exists()
        before = sorted(os.listdir(pretended))
        assert giltrace("dump", process.pid, cwd=tmp_path).returncode == 2
        assert sorted(os.listdir(pretended)) == before
    assert_kept_to_root(roots)


@pytest.mark.parametrize("name", ["meta.json", "clock.bin", "gil-1-0.bin"])
@pytest.mark.parametrize("command", [("dump",), ("doctor", "--pid"), ("top", "--once", "-d", "100ms")], ids=" ".join)
def test_nothing_waits_for_the_other_end_of_a_pipe(
    pretended: Path, name: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    for each in ("meta.json", "clock.bin"):
        (pretended / each).write_text("{}")
    give_away(pretended)
    with somebodys("-c", PRETENDS, pretended / "gil-1-0.bin") as process:
        (pretended / name).unlink()
        os.mkfifo(pretended / name)
        ran = giltrace(*command, process.pid, cwd=tmp_path)
        assert ran.returncode in (0, 1, 2)
        assert "Traceback" not in ran.stderr


def test_root_follows_another_users_program(tmp_path: Path) -> None:
    """As `giltrace top PID` does: what that user's tracer writes is read while it grows, and nothing is left."""
    code = (TARGETS / "on_request.py").read_text()
    with somebodys("-c", code) as process:
        with attached(process.pid) as source:
            reader = LiveReader(source.folder)
            assert process.stdin is not None
            process.stdin.write("busy\n")
            process.stdin.flush()
            seen = 0
            while seen < 1000:
                seen += sum(len(update.events) for update in reader.poll(time.monotonic_ns() - 25_000_000))
                time.sleep(0.01)
            reader.close()
        process.stdin.write("end\n")
        process.stdin.flush()
        process.wait(timeout=60)
    assert not list(Path("/tmp").glob(f"giltrace-*/recording/gil-{process.pid}-*"))


def test_another_users_loop_that_lets_go_of_nothing(tmp_path: Path) -> None:
    """It writes nothing: that it lives is seen by what it has mapped, which lies elsewhere."""
    with somebodys("-c", "print('ready', flush=True)\nwhile True: pass") as process:
        attach(process.pid, tmp_path / "x.giltrace", [], depth=128, seconds=0.5)
    (found,) = load(tmp_path / "x.giltrace").processes
    assert int((found.holds["end"] - found.holds["start"]).sum()) >= 500_000_000
    assert not found.violations
