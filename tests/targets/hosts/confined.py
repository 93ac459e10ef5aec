"""Puts a seccomp filter on that kills for what a running Python has no need of, and goes on to use the GIL (x86-64).

Arguments: how: "self", or "inherited" (then the rest is a command to execute under it, as a container's runtime does).
"""

import ctypes
import os
import struct
import sys
import threading

KILL, ALLOW = 0x80000000, 0x7FFF0000
LOAD, IF_EQUAL, IF_BITS, RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER, THIRD_ARGUMENT = 0, 32  # in struct seccomp_data
NO_NEW_PRIVS, SECCOMP, FILTER = 38, 22, 2
# fallocate process_vm_readv process_vm_writev rt_sigtimedwait rt_sigpending
UNUSUAL = [285, 310, 311, 128, 127]
# readlink getppid prlimit64 unlinkat mremap: of no use to a program that runs already
SETTLED = [89, 110, 302, 263, 25]
OPENAT, O_RDWR = 257, 2
libc = ctypes.CDLL(None, use_errno=True)
zero = os.open("/dev/zero", os.O_RDONLY)


def confine(numbers, writing):
    """Kill for these system calls, and for opening a file to read and write it unless `writing`."""
    kill = struct.pack("HBBI", RETURN, 0, 0, KILL)
    program = [struct.pack("HBBI", LOAD, 0, 0, NUMBER)]
    for number in numbers:
        program += [struct.pack("HBBI", IF_EQUAL, 0, 1, number), kill]
    if not writing:
        program += [struct.pack("HBBI", IF_EQUAL, 0, 3, OPENAT), struct.pack("HBBI", LOAD, 0, 0, THIRD_ARGUMENT)]
        program += [struct.pack("HBBI", IF_BITS, 0, 1, O_RDWR), kill]
    program.append(struct.pack("HBBI", RETURN, 0, 0, ALLOW))
    code = ctypes.create_string_buffer(b"".join(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    assert libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    tracer = getattr(libc, "giltrace_confining", None)
    if tracer is not None:
        tracer()
    assert libc.prctl(SECCOMP, FILTER, head, 0, 0) == 0, ctypes.get_errno()


def use(times):
    for _ in range(times):
        os.read(zero, 1)


def early(gate):
    use(100)
    gate.wait()
    use(20000)


def run(functions):
    threads = [threading.Thread(target=function, args=arguments) for function, arguments in functions]
    for thread in threads:
        thread.start()
    return threads


def inner(depth):
    return use(50) if depth == 0 else inner(depth - 1)


def confined():
    gate = threading.Event()
    threads = run([(early, (gate,))] * 3)
    confine(UNUSUAL + SETTLED, False)
    gate.set()
    threads += run([(use, (5000,))] * 3)
    for depth in range(20):
        inner(depth)
    for thread in threads:
        thread.join()
    for _ in range(30):
        run([(use, (10,))])[0].join()
    child = os.fork()
    if child == 0:
        use(5000)
        run([(use, (100,))])[0].join()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    use(50000)
    os.write(1, b"alive\n")
    os._exit(0)


if sys.argv[1] == "self":
    confined()
elif sys.argv[1] == "inherited":
    confine(UNUSUAL, True)
    os.execvp(sys.argv[2], sys.argv[2:])
else:
    for thread in run([(use, (5000,))] * 3):
        thread.join()
    child = os.fork()
    if child == 0:
        use(5000)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print("alive")
