"""Something to observe: `convoy` counts and sleeps, `fork` does so in a child, `interpreters` in one with its own GIL.

Prints its process's id once everything runs, and goes on until it is killed.
"""

import os
import sys
import threading
import time

#: Two threads that take turns, in an interpreter of its own; says so after some steps.
INSIDE = """
import os, threading, time
def count():
    number = 0
    while True:
        number += 1
threading.Thread(target=count).start()
for step in range(1 << 40):
    time.sleep(0.001)
    if step == 3:
        os.write(%d, b"x")
"""


def count():
    number = 0
    while True:
        number += 1


def steps(started):
    for step in range(1 << 40):
        time.sleep(0.001)
        if step == 3:
            started.set()


def convoy():
    started = threading.Event()
    for index in range(2):
        threading.Thread(target=count, name="cpu-%d" % index, daemon=True).start()
    threading.Thread(target=steps, args=(started,), name="io-0", daemon=True).start()
    started.wait()
    print(os.getpid(), flush=True)
    threading.Event().wait()


def interpreters():
    if sys.version_info >= (3, 13):
        import _interpreters

        create, run = _interpreters.create, _interpreters.run_string
    else:
        import _xxsubinterpreters as old

        create, run = (lambda: old.create(isolated=True)), old.run_string
    read, write = os.pipe()
    threading.Thread(target=run, args=(create(), INSIDE % write), daemon=True).start()
    os.read(read, 1)
    convoy()


def fork():
    child = os.fork()
    if child == 0:
        convoy()
    os.waitpid(child, 0)


def replaced():
    convoy_thread = threading.Thread(target=convoy, daemon=True)
    convoy_thread.start()
    sys.stdin.readline()
    os.execv("/bin/sleep", ["sleep", "60"])


{"convoy": convoy, "interpreters": interpreters, "fork": fork, "replaced": replaced}[sys.argv[1]]()
