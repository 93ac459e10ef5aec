"""Executes the program that it is told, in one of several ways, while two other threads compute.

    python executes.py WAY PROGRAM [ARGUMENTS...]

It prints the id of the process that does it and when, in ns of CLOCK_MONOTONIC. A program that does not exist is
tried before. Ways that go on ("fork", "spawn", "subprocess") wait for the program's end.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time


def compute(begun, ended):
    begun.set()
    while not ended.is_set():
        sum(range(1000))


def announce():
    os.write(1, ("%d %d\n" % (os.getpid(), time.monotonic_ns())).encode())


def execute(argv):
    with contextlib.suppress(FileNotFoundError):
        os.execv("/does/not/exist", argv)
    announce()
    os.execv(argv[0], argv)


def forks(argv):
    pid = os.fork()
    if pid == 0:
        execute(argv)
    os.waitpid(pid, 0)


def elsewhere(argv):
    """In a thread that is not the first."""
    thread = threading.Thread(target=execute, args=(argv,))
    thread.start()
    thread.join()


def spawns(argv):
    announce()
    os.waitpid(os.posix_spawn(argv[0], argv, os.environ), 0)


def runs(argv):
    announce()
    subprocess.call(argv)


def runs_by_fork(argv):
    subprocess.call(argv, preexec_fn=announce)


WAYS = {
    "here": execute,
    "elsewhere": elsewhere,
    "fork": forks,
    "spawn": spawns,
    "subprocess": runs,
    "preexec": runs_by_fork,
}


def main(way, argv):
    ended = threading.Event()
    for _ in range(2):
        begun = threading.Event()
        threading.Thread(target=compute, args=(begun, ended), daemon=True).start()
        begun.wait()
    WAYS[way](argv)
    ended.set()


main(sys.argv[1], sys.argv[2:])
