"""Context switches and thread lifetimes from the kernel: perf_event_open and its rings, without libperf.

The kernel writes records into one ring per event; `Ring.drain` appends them to a file as they are, so that
reading them back (`giltrace.recording.sched`) is the only place that knows what they mean.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import resource
import struct
import threading
import time
from pathlib import Path
from typing import NamedTuple

from giltrace.process.capabilities import granted, in_kubernetes

_SYSCALL = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331}

_TYPE_SOFTWARE = 1
_COUNT_SW_TASK_CLOCK, _COUNT_SW_DUMMY = 1, 9
_SAMPLE_TID, _SAMPLE_TIME, _SAMPLE_CPU = 1 << 1, 1 << 2, 1 << 7
_SAMPLE_IP, _SAMPLE_CALLCHAIN = 1 << 0, 1 << 5
_INHERIT, _EXCLUDE_KERNEL, _EXCLUDE_HV, _COMM, _TASK = 1 << 1, 1 << 5, 1 << 6, 1 << 9, 1 << 13
_WATERMARK = 1 << 14
_MMAP, _MMAP2 = 1 << 8, 1 << 23
_SAMPLE_ID_ALL, _COMM_EXEC, _USE_CLOCKID, _CONTEXT_SWITCH = 1 << 18, 1 << 24, 1 << 25, 1 << 26
_FLAG_FD_CLOEXEC = 8
_IOC_SET_OUTPUT = 0x2405
_ATTR_SIZE = 112
_MAX_STACK_AT = 108

#: Of the ring's first page: where the kernel writes next, and where the reader reads next.
_HEAD, _TAIL = 1024, 1032

#: What this process may have open besides events.
_OTHER_DESCRIPTORS = 256

_PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")


class Sampling(NamedTuple):
    """A look at the code that a thread runs once in `period_ns` of its time on a core: up to `depth` addresses."""

    period_ns: int
    depth: int


def open_switches(pid: int, cpu: int, inherit: bool, wakeup: int = 0, sampling: Sampling | None = None) -> int:
    """Open an event for the context switches, forks, ends, names and execs of `pid` and return its descriptor.

    The descriptor becomes readable after each `wakeup` bytes of records; 0 leaves that to the kernel. `cpu` is -1
    for all cores, which excludes `inherit` (threads and processes started later). With `sampling` there are records of
    samples, and of the files that code is mapped from. Raises OSError with the kernel's errno.
    """
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"perf_event_open is not known on {platform.machine()}")
    flags = _EXCLUDE_KERNEL | _EXCLUDE_HV | _COMM | _COMM_EXEC | _TASK | _SAMPLE_ID_ALL | _USE_CLOCKID | _CONTEXT_SWITCH
    config, period, fields = _COUNT_SW_DUMMY, 0, _SAMPLE_TID | _SAMPLE_TIME | _SAMPLE_CPU
    attr = bytearray(_ATTR_SIZE)
    if inherit:
        flags |= _INHERIT
    if wakeup:
        flags |= _WATERMARK
    if sampling is not None:
        config, period = _COUNT_SW_TASK_CLOCK, sampling.period_ns
        fields |= _SAMPLE_IP | _SAMPLE_CALLCHAIN
        flags |= _MMAP | _MMAP2
        struct.pack_into("=H", attr, _MAX_STACK_AT, sampling.depth)
    struct.pack_into("=II", attr, 0, _TYPE_SOFTWARE, _ATTR_SIZE)
    struct.pack_into("=QQQ", attr, 8, config, period, fields)
    struct.pack_into("=QQI", attr, 32, 0, flags, wakeup)
    struct.pack_into("=i", attr, 92, time.CLOCK_MONOTONIC)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    long = ctypes.c_long
    buffer = (ctypes.c_char * _ATTR_SIZE).from_buffer(attr)
    fd = int(syscall(long(number), buffer, long(pid), long(cpu), long(-1), long(_FLAG_FD_CLOEXEC)))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd


class Ring:
    """The ring of one event and the file that its records go to; owns the event's descriptor from the start.

    With a `limit` (bytes), a file that has grown to it becomes ``.old.bin`` in place of the one before, and a new one
    is begun: the last `limit` bytes are always there, and never more than twice as many.

    Raises OSError when no ring of at least one data page can be had (kernel.perf_event_mlock_kb and
    RLIMIT_MEMLOCK limit them) or `path` cannot be written.
    """

    def __init__(self, fd: int, path: Path, pages: int, limit: int = 0) -> None:
        self.fd = fd
        self._path, self._limit, self._in_file = path, limit, 0
        self._file = -1
        self._order = threading.Lock()
        self._order.acquire()
        try:
            self._map, self.pages = _map_largest(fd, pages)
            self._file = self._open()
        except OSError:
            os.close(fd)
            raise
        self._others: list[int] = []
        self._view = memoryview(self._map)
        self._size = self.pages * mmap.PAGESIZE
        self.bytes = 0
        self.bytes_unwritten = 0
        #: How often the oldest half has gone.
        self.turns = 0

    def share(self, fd: int) -> None:
        """Let the event `fd`, on the same core, write into this ring too, which owns it from now on. Raises OSError."""
        self._others.append(fd)
        fcntl.ioctl(fd, _IOC_SET_OUTPUT, self.fd)

    def drain(self) -> int:
        """Append what the kernel has written since the last time to the file and return how many bytes that was.

        The work is proportional to those bytes, which the size of the ring bounds.
        """
        (head,) = struct.unpack_from("=Q", self._map, _HEAD)
        (tail,) = struct.unpack_from("=Q", self._map, _TAIL)
        if head == tail:
            return 0
        self._barrier()  # the records may be read only after the head that promises them
        first = tail % self._size + mmap.PAGESIZE
        length = head - tail
        contiguous = min(length, self._size + mmap.PAGESIZE - first)
        self._write([self._view[first : first + contiguous]])
        if contiguous < length:
            self._write([self._view[mmap.PAGESIZE : mmap.PAGESIZE + length - contiguous]])
        self._barrier()  # and be given back only after they have been copied
        struct.pack_into("=Q", self._map, _TAIL, head)
        self.bytes += length
        self._in_file += length
        if self._limit and self._in_file >= self._limit:
            self._turn_over()
        return int(length)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def _turn_over(self) -> None:
        os.close(self._file)
        self._path.replace(self._path.with_suffix(".old.bin"))
        self._file = self._open()
        self._in_file = 0
        self.turns += 1

    def close(self) -> None:
        """Drain what is left and give everything back."""
        if self.fd < 0:
            return
        self.drain()
        self._view.release()
        self._map.close()
        for fd in (self.fd, *self._others):
            os.close(fd)
        os.close(self._file)
        self.fd = -1

    def _barrier(self) -> None:
        # A lock's release followed by its acquire orders all memory accesses before against all after,
        # also on machines that reorder loads.
        self._order.release()
        self._order.acquire()

    def _write(self, parts: list[memoryview]) -> None:
        data = parts[0]
        while len(data):
            if self.bytes_unwritten:
                # Records after a gap would not line up with those before it.
                self.bytes_unwritten += len(data)
                return
            try:
                written = os.write(self._file, data)
            except OSError:
                self.bytes_unwritten += len(data)
                return
            data = data[written:]


def _map_largest(fd: int, pages: int) -> tuple[mmap.mmap, int]:
    while True:
        try:
            length = (pages + 1) * mmap.PAGESIZE
            return mmap.mmap(fd, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE), pages
        except OSError as error:
            if pages == 1 or error.errno not in (errno.EPERM, errno.ENOMEM):
                raise
            pages //= 2


def ring_pages() -> int:
    """Return the number of data pages for one core's ring: what an unprivileged user may have, more for root."""
    privileged = os.geteuid() == 0
    try:
        allowed = int(Path("/proc/sys/kernel/perf_event_mlock_kb").read_text()) * 1024 // mmap.PAGESIZE - 1
    except (OSError, ValueError):
        allowed = 128
    wanted = (2 << 20) // mmap.PAGESIZE if privileged else max(1, allowed)
    return 1 << (wanted.bit_length() - 1)


def allow_descriptors(count: int) -> None:
    """Raise this process's own limit of open files so that it may open `count` more, as far as it can be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(count + _OTHER_DESCRIPTORS, hard) if hard != resource.RLIM_INFINITY else count + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def online_cpus() -> list[int]:
    """Return the numbers of the cores that are in use."""
    try:
        text = Path("/sys/devices/system/cpu/online").read_text().strip()
    except OSError:
        return list(range(os.cpu_count() or 1))
    cpus: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def why_not() -> str | None:
    """Try to open an event on this process: None when that works, else the reason and the remedy in one line."""
    try:
        os.close(open_switches(os.getpid(), -1, inherit=False))
    except OSError as error:
        return explain(error)
    return None


def explain(error: OSError) -> str:
    """Say in one line why perf_event_open failed with `error`, and what to do about it."""
    if not _PARANOID.exists():
        return "the kernel has no perf events (CONFIG_PERF_EVENTS is off): run on a kernel that has them"
    if error.errno in (errno.EACCES, errno.EPERM):
        return _explain_refusal()
    if error.errno == errno.ENOSYS:
        return (
            "perf_event_open is not available here (blocked by a sandbox, or an unknown machine type): "
            + _without_filter()
        )
    if error.errno == errno.EMFILE:
        return "too many open files: raise the limit with ulimit -n"
    return f"perf_event_open failed: {error.strerror}"


def _without_filter() -> str:
    return granted("PERFMON") + ("" if in_kubernetes() else " or --security-opt seccomp=unconfined")


def _explain_refusal() -> str:
    try:
        paranoid = int(_PARANOID.read_text())
    except (OSError, ValueError):
        paranoid = 2
    if paranoid > 2:
        return f"kernel.perf_event_paranoid is {paranoid}: sudo sysctl kernel.perf_event_paranoid=2"
    return f"perf_event_open is forbidden although kernel.perf_event_paranoid is {paranoid}: {_without_filter()}"
