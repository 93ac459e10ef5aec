"""The names of threads as py-spy tells them: its place is taken by programs that say, or do not say, something."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from giltrace.process.thread_names import NamedThread, NameDump, ThreadNames


def program(folder: Path, *lines: str) -> str:
    """A shell program that is called as py-spy is."""
    path = folder / "py-spy"
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


def saying(folder: Path, text: str) -> str:
    """A program that says `text`, and its arguments in a file."""
    (folder / "said").write_text(text)
    return program(folder, f"echo $* > {folder}/asked", f"cat {folder}/said")


def thread(name: str | None, own: int | None, pthread: int, frames: int = 0) -> dict[str, object]:
    return {"thread_name": name, "os_thread_id": own, "thread_id": pthread, "frames": [{"name": "f" * 100}] * frames}


def test_threads_with_a_name_are_told(tmp_path: Path) -> None:
    said = [thread("MainThread", 7, 70), thread(None, 8, 80), thread("old", None, 90)]
    dump = NameDump(saying(tmp_path, json.dumps(said)), 7)
    assert dump.threads(60) == [NamedThread("MainThread", 7, 70), NamedThread("old", None, 90)]
    assert (tmp_path / "asked").read_text().split() == ["dump", "--nonblocking", "--json", "--pid", "7"]


@pytest.mark.parametrize("text", ["", "Error: no", '{"a": 1}', "[1]", "[{}]", '[{"thread_name": "x"}]'])
def test_an_answer_that_is_none_names_nobody(tmp_path: Path, text: str) -> None:
    assert NameDump(saying(tmp_path, text), 7).threads(60) == []


def test_no_answer_in_time_names_nobody(tmp_path: Path) -> None:
    dump = NameDump(program(tmp_path, "exec tail -f /dev/null"), 7)
    assert dump.threads(0) == []
    assert dump.ready


def test_long_answers_are_taken_in_while_the_process_goes_on(tmp_path: Path) -> None:
    # More than a pipe holds: nobody reads until the program has ended.
    said = json.dumps([thread("worker", own, own, frames=500) for own in range(1, 21)])
    assert len(said) > 1 << 20
    names = ThreadNames(os.getpid(), saying(tmp_path, said), lambda own, pthread: own)
    names.look({1, 2})
    while names.known.get(1) is None:
        names.look({1, 2})
        time.sleep(0.005)
    assert names.known == {os.getpid(): "MainThread", **dict.fromkeys(range(1, 21), "worker")}


def test_without_py_spy_there_are_the_kernels_names(tmp_path: Path) -> None:
    started, end = threading.Event(), threading.Event()

    def named() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("by-the-kernel")
        started.set()
        end.wait()

    other = threading.Thread(target=named)
    other.start()
    started.wait()
    try:
        names = ThreadNames(os.getpid(), str(tmp_path / "nowhere"), lambda own, pthread: own)
        assert other.native_id is not None
        names.look({other.native_id})
        names.finish({other.native_id})
        assert names.known == {os.getpid(): "MainThread", other.native_id: "by-the-kernel"}
    finally:
        end.set()
        other.join()
