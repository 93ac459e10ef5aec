"""How many heaps glibc's malloc has, once threads have used it at the same time."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Threads that have memory at the same time, and then what malloc says of itself.
PROGRAM = """
import ctypes, threading
from giltrace.cli import heap
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fdopen.restype = ctypes.c_void_p
{before}
together = threading.Barrier(4)

def use():
    libc.malloc(100_000)
    together.wait()

threads = [threading.Thread(target=use) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


def heaps(before: str) -> int:
    ran = subprocess.run([sys.executable, "-c", PROGRAM.format(before=before)], capture_output=True, text=True)
    if "malloc_info" in ran.stderr:
        pytest.skip("another malloc than glibc's")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.count("<heap nr=")


def test_threads_share_one() -> None:
    assert heaps("heap.share_one()") == 1


def test_else_they_have_more() -> None:
    assert heaps("") > 1
