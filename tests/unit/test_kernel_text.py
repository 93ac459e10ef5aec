"""Names of threads and files may have any character: what the kernel writes of them has lines all the same."""

from __future__ import annotations

import mmap
import os
import re
import threading
from pathlib import Path

import pytest

from giltrace.launch.attach.process import Process
from giltrace.process.deputy import User
from giltrace.process.kernel_text import lines_of, text_of

#: What ends a line for `str.splitlines`, or for a file that is opened as text, and not for the kernel.
OTHERS = ["\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.fixture(params=OTHERS, ids=ascii)
def odd(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_line_ends_with_a_line_feed_only(odd: str, tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.write_bytes(f"Name:\ta{odd}Uid:\t9\n".encode() + b"\xffb:\t1\n")
    assert lines_of(path) == [f"Name:\ta{odd}Uid:\t9", "\udcffb:\t1"]
    assert text_of(path).count(odd) == 1
    path.write_bytes(b"")
    assert lines_of(path) == []


def test_a_threads_name_is_none_of_its_fields(odd: str) -> None:
    named, over = threading.Event(), threading.Event()

    def work() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_bytes(f"a{odd}NSpid:".encode()[:15])
        named.set()
        over.wait()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert named.wait(20)
        assert thread.native_id is not None
        status = Process(os.getpid()).status(thread.native_id)
        assert status["Name"] == f"a{odd}NSpid:"
        assert status["NSpid"].split()[-1] == str(thread.native_id)
        assert User.of(os.getpid()).uid == os.geteuid()
    finally:
        over.set()
        thread.join()


def test_a_mapped_file_of_that_name_is_found(odd: str, tmp_path: Path) -> None:
    path = tmp_path / f"lib{odd}x.so"
    path.write_bytes(b"\0" * mmap.PAGESIZE)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), mmap.PAGESIZE) as mapped:
        assert mapped[:1] == b"\0"
        (found,) = [one for one in Process(os.getpid()).maps() if re.search(r"/lib.x\.so$", one.path)]
        assert found.path == str(path)
