"""Keeps the GIL in functions of a library, while a victim wants it: LIBRARY [FUNCTION:WHERE...]

Each word is done in a thread that has the function's name: in this process ("here"), in a forked "child", or in the
program that this one executes in its place ("exec"), which goes on with the words after it. Without words they are read
from stdin, one a line, and each is answered. A number instead of a word has two threads wake each other so often.
"""

import ctypes
import os
import sys
import threading
import time

STEPS = 300_000_000

#: PyDLL keeps the GIL during a call.
library = ctypes.PyDLL(sys.argv[1])


def hog(name):
    function = getattr(library, name)
    function.argtypes, function.restype = [ctypes.c_ulong], ctypes.c_ulong
    done = threading.Event()

    def victim():
        while not done.is_set():
            time.sleep(0.001)

    def call():
        function(STEPS)

    threads = [threading.Thread(target=victim, name="victim"), threading.Thread(target=call, name=name)]
    for thread in threads:
        thread.start()
    threads[1].join()
    done.set()
    threads[0].join()


def ping_pong(times):
    (a, b), (c, d) = os.pipe(), os.pipe()

    def answer():
        for _ in range(times):
            os.write(d, os.read(a, 1))

    thread = threading.Thread(target=answer)
    thread.start()
    for _ in range(times):
        os.write(b, b"x")
        os.read(c, 1)
    thread.join()


def do(word, rest):
    name, _, where = word.partition(":")
    if where == "exec":
        os.execv(sys.executable, [sys.executable, sys.argv[0], sys.argv[1], name + ":here", *rest])
    if where == "child":
        pid = os.fork()
        if pid == 0:
            hog(name)
            os._exit(0)
        os.waitpid(pid, 0)
    elif where == "here":
        hog(name)
    else:
        ping_pong(int(word))


for number, given in enumerate(sys.argv[2:]):
    do(given, sys.argv[3 + number :])
if not sys.argv[2:]:
    print("ready", flush=True)
    for line in sys.stdin:
        do(line.strip(), [])
        print("done", flush=True)
