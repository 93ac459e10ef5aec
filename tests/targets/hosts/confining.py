"""Puts a seccomp filter on when told to, that kills for all but what it needs, and goes on to use the GIL (x86-64).

Arguments: how the filter comes on, and how often the GIL is used after it. Says "ready" and "confined", waits for a
line after each, says "alive" and ends.

By "prctl", by "syscall" (seccomp(2), of this thread alone), "tsync" (of all threads), or "kept" (`prctl`, which ctypes
was asked for earlier); by LIBRARY's `confine`, called by way of ctypes, loaded "before" or "after" the word is given;
or by "own", an instruction of its own. With "child-" before that, it is a child of the program that does all this once
the word was given.
"""

import ctypes
import mmap
import os
import struct
import sys
import threading

KILL, ALLOW = 0x80000000, 0x7FFF0000
LOAD, IF_EQUAL, IF_BITS, RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER, THIRD_ARGUMENT = 0, 32  # in struct seccomp_data
OPENAT, PRCTL, SECCOMP = 257, 157, 317
NO_NEW_PRIVS, SET_SECCOMP, FILTER, TSYNC = 38, 22, 2, 1
# read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn ioctl sched_yield
# madvise
NEEDED = [0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 24, 28]
# getpid clone exit wait4 sigaltstack gettid futex sched_getaffinity exit_group newfstatat set_robust_list getrandom
# rseq clone3
NEEDED += [39, 56, 60, 61, 131, 186, 202, 204, 231, 262, 273, 318, 334, 435]
if sys.version_info >= (3, 14):
    NEEDED.append(PRCTL)  # a thread's name

kill, allow = (struct.pack("HBBI", RETURN, 0, 0, what) for what in (KILL, ALLOW))
program = struct.pack("HBBI", LOAD, 0, 0, NUMBER)
program += b"".join(struct.pack("HBBI", IF_EQUAL, 0, 1, number) + allow for number in NEEDED)
# To open files for reading, as os.fork does from 3.12 on.
program += struct.pack("HBBI", IF_EQUAL, 1, 0, OPENAT) + kill + struct.pack("HBBI", LOAD, 0, 0, THIRD_ARGUMENT)
program += struct.pack("HBBI", IF_BITS, 0, 1, os.O_WRONLY | os.O_RDWR | os.O_CREAT) + kill + allow
code = ctypes.create_string_buffer(program)
head = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code)))

libc = ctypes.CDLL(None, use_errno=True)
zero = os.open("/dev/zero", os.O_RDONLY)
_, in_child, how = sys.argv[1].rpartition("child-")
times = int(sys.argv[2])


def own_instruction():
    """What libc's `syscall` does, in memory of ours."""
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(bytes.fromhex("4889f84889f74889d64889ca4d89c24d89c80f05c3"))
    at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * 6)(at), memory


kept, memory = own_instruction() if how == "own" else (libc.prctl, None) if how == "kept" else (None, None)
library = ctypes.CDLL(sys.argv[3]) if how == "before" else None


def confine():
    if how == "own":
        results = kept(PRCTL, NO_NEW_PRIVS, 1, 0, 0, 0), kept(PRCTL, SET_SECCOMP, FILTER, ctypes.addressof(head), 0, 0)
    elif how in ("before", "after"):
        results = ((library or ctypes.CDLL(sys.argv[3])).confine(head),)
    else:
        results = (libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0),)
        if how in ("prctl", "kept"):
            results += (libc.prctl(SET_SECCOMP, FILTER, head, 0, 0),)
        else:
            results += (libc.syscall(SECCOMP, 1, TSYNC if how == "tsync" else 0, head),)
    assert not any(results), (results, ctypes.get_errno())


def use(number):
    for _ in range(number):
        os.read(zero, 1)


lock = threading.Lock()


def contend(number):
    """So that others have to ask for the GIL, look at who has it, and sleep in a lock."""
    for _ in range(number):
        sum(range(20000))
        with lock:
            os.read(zero, 1)


def early(gate):
    use(10)
    gate.wait()
    contend(100)


def run(function, *arguments):
    threads = [threading.Thread(target=function, args=arguments) for _ in range(3)]
    for thread in threads:
        thread.start()
    return threads


def say(word):
    print(word, flush=True)
    sys.stdin.readline()


gate = threading.Event()
threads = run(early, gate)
say("ready")
if in_child:
    child = os.fork()
    if child != 0:
        os._exit(int(os.waitpid(child, 0)[1] != 0))
confine()
say("confined")
gate.set()
threads += run(contend, 100)
for thread in threads:
    thread.join()
use(times)
child = os.fork()
if child == 0:
    use(100)
    run(use, 100)[0].join()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("alive")
