"""What there is to attach to. The first word says what it does; for each line that it reads it works and answers.

idle      nothing but wait for a line; then 300 releases of the GIL in each of three threads
workers   three threads that sleep and work, and a spinning main thread
spin      one thread, no system call
malloc    threads that allocate, and let the GIL go in between
native    threads in a C function that allocates and frees with the GIL released; the library's path comes second
native-1  the same in the main thread alone
many      200 threads
seized    a main thread that sleeps with the GIL, and one that wants it
deadlock  a main thread that waits for a lock that it has itself
own-gils  three threads in an interpreter with a GIL each: the first and the last never let go of it, the other works
one-gil   a thread in an interpreter with a GIL of its own that computes without letting go of it until the line "rest",
          and until "work" sleeps in a read
enters    computes without letting go of the GIL until the file that comes second says 1; then its main thread sleeps
          in a read, in an interpreter with a GIL of its own
ids       threads that work, and one that has libc change the ids of all threads, again and again
"""

import ctypes
import mmap
import os
import sys
import threading
import time

kind = sys.argv[1]
ended = False


def steps(count):
    for _ in range(count):
        time.sleep(0)


def work():
    while not ended:
        time.sleep(0.001)
        sum(range(500))


def churn():
    while not ended:
        blocks = [bytearray(600 + 64 * i) for i in range(100)]
        del blocks


def change_ids():
    while not ended:
        os.setegid(os.getegid())


SPIN, WORK = "while True: pass", "import time\nwhile True: time.sleep(0.001)"
#: Until a byte in a file says that it is to rest.
BY_TURNS = """
import mmap
says = mmap.mmap(%d, 1)
while True:
    while not says[0]: pass
    os.read(%d, 1)
    os.write(%d, b".")
"""


def make_interpreter():
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    words = ("isolated",) if sys.version_info >= (3, 13) else ()
    made = interpreters.create(*words)
    return lambda code: interpreters.run_string(made, code)


def run_inside(*codes):
    for code in codes:
        read, write = os.pipe()
        start(run, 1, "runner", "import os\nos.write(%d, b'.')\n%s" % (write, code))
        os.read(read, 1)


def run(code):
    make_interpreter()(code)


def work_by_turns():
    says = os.memfd_create("says")
    os.ftruncate(says, 1)
    read, write = os.pipe()
    awake, wakes = os.pipe()
    run_inside(BY_TURNS % (says, read, wakes))
    say_ready()
    for line in sys.stdin:
        os.pwrite(says, b"\1" if line == "rest\n" else b"\0", 0)
        if line == "work\n":
            os.write(write, b".")
            os.read(awake, 1)
        print("done", flush=True)


def enter():
    run_code = make_interpreter()
    with open(sys.argv[2], "rb") as file:
        says = mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ)
    say_ready()
    while not says[0]:
        pass
    run_code("import os\nos.read(0, 1)")


def start(function, count, name, *arguments):
    threads = [
        threading.Thread(target=function, args=arguments, name="%s-%d" % (name, i), daemon=True) for i in range(count)
    ]
    for thread in threads:
        thread.start()
    return threads


def answer():
    for line in sys.stdin:
        for thread in start(steps, 3, "stepper", 300) if kind == "idle" else []:
            thread.join()
        print(line.strip(), flush=True)


def say_ready():
    print("ready", flush=True)


if kind == "workers":
    start(work, 3, "worker")
if kind == "malloc":
    start(churn, 3, "churner")
if kind == "native":
    start(ctypes.CDLL(sys.argv[2]).churn, 2, "native")
if kind == "ids":
    start(change_ids, 1, "changer")
    start(work, 2, "worker")
if kind == "many":
    start(work, 200, "one-of-many")
if kind == "own-gils":
    run_inside(SPIN, WORK, SPIN)
if kind == "one-gil":
    work_by_turns()
if kind == "enters":
    enter()
if kind == "native-1":
    say_ready()
    ctypes.CDLL(sys.argv[2]).churn()
if kind == "spin":
    say_ready()
    while True:
        pass
if kind == "seized":
    start(work, 1, "worker")
    say_ready()
    ctypes.PyDLL(None).sleep(600)
if kind == "deadlock":
    lock = threading.Lock()
    lock.acquire()
    say_ready()
    lock.acquire()
if kind in ("workers", "malloc"):
    threading.Thread(target=answer, name="answerer", daemon=True).start()
    say_ready()
    churn() if kind == "malloc" else None
    while True:
        pass
say_ready()
answer()
