"""What the first screen says of programs whose threads wait for each other in locks, on every interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interpreters import Interpreter, interpreters

GILTRACE = (sys.executable, "-m", "giltrace")

ASLEEP_UNDER_A_LOCK = """
import threading, time
lock = threading.Lock()
def fetch():
    for _ in range(10):
        with lock:
            time.sleep(0.02)
threads = [threading.Thread(target=fetch) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""

QUEUE = """
import queue, threading, time
items = queue.Queue()
def consume():
    while items.get() is not None:
        pass
thread = threading.Thread(target=consume)
thread.start()
for item in range(20):
    time.sleep(0.02)
    items.put(item)
items.put(None)
thread.join()
"""

# It ends once both have been asleep for ten looks on end.
DEADLOCK = """
import os, threading, time
one, other, both = threading.Lock(), threading.Lock(), threading.Barrier(2)
def take(first, second):
    with first:
        both.wait()
        second.acquire()
threads = [threading.Thread(target=take, args=pair, daemon=True) for pair in ((one, other), (other, one))]
for thread in threads: thread.start()
def asleep(thread):
    with open(f"/proc/self/task/{thread.native_id}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"
looks = 0
while looks < 10:
    looks = looks + 1 if both.n_waiting == 0 and all(map(asleep, threads)) else 0
    time.sleep(0.03)
"""

STOPPED = """
import gc, threading
class Node: pass
kept = []
for _ in range(300_000):
    node = Node()
    node.me = node
    kept.append(node)
stop = threading.Event()
def count():
    number = 0
    while not stop.is_set():
        number += 1
threads = [threading.Thread(target=count) for _ in range(2)]
for thread in threads: thread.start()
for _ in range(10): gc.collect()
stop.set()
for thread in threads: thread.join()
"""


def recorded(interpreter: Interpreter, source: str, folder: Path) -> str:
    """What `record` prints at its end, as words."""
    program = folder / "app.py"
    program.write_text(source)
    command = [*GILTRACE, "record", "--light", "-o", str(folder / "x"), "--", str(interpreter.path), str(program)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    return " ".join(ran.stderr.split())


def told(folder: Path) -> dict[str, object]:
    command = [*GILTRACE, "report", "--json", str(folder / "x")]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout)
    (process,) = report["processes"]
    return dict(process)


def test_sleeping_under_a_lock(interpreter: Interpreter, tmp_path: Path) -> None:
    words = recorded(interpreter, ASLEEP_UNDER_A_LOCK, tmp_path)
    assert "Lock-bound: for " in words
    assert "most at fetch (app.py:6): " in words
    assert "Whoever had it was asleep or in I/O at fetch (app.py:7)" in words
    assert "is done with the lock taken: do it outside" in words
    assert "in a lock" in words


def test_a_thread_that_waits_for_a_queue_is_not_lock_bound(interpreter: Interpreter, tmp_path: Path) -> None:
    words = recorded(interpreter, QUEUE, tmp_path)
    assert "Lock-bound" not in words
    assert "for a queue" in words
    assert "consume (app.py:5)" in words


def test_a_deadlock(interpreter: Interpreter, tmp_path: Path) -> None:
    words = recorded(interpreter, DEADLOCK, tmp_path)
    assert "Deadlock: from " in words or "Blocked to the end, from " in words
    assert words.count("take (app.py:7)") >= 2
    assert "in the same order everywhere" in words


@pytest.mark.needs("free-threaded")
def test_a_stopped_world(tmp_path: Path) -> None:
    python = next(one for one in interpreters() if one.free_threaded)
    recorded(python, STOPPED, tmp_path)
    process = told(tmp_path)
    blame = process["lock_blame"]
    assert isinstance(blame, list)
    stopped = [row for row in blame if row["cause"] == "stop-the-world"]
    assert "count" in {row["victim"]["own_function"] for row in stopped}
    assert "<module>" in {row["waker"]["own_function"] for row in stopped if row["waker"] is not None}
