"""The process to attach to, and what has to be known of it: its interpreter and its C library."""

from __future__ import annotations

import contextlib
import functools
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from giltrace.errors import TargetError
from giltrace.launch.attach.filters import Filters
from giltrace.launch.attach.process import Mapping, Process
from giltrace.launch.attach.ptrace import read_memory
from giltrace.process.elf import LoadedObject, NotElf

_LIBC = re.compile(r"(libc\.so(\.6)?|libc-2\.\d+\.so|ld-musl-x86_64\.so\.1|libc\.musl-x86_64\.so\.1)( \(deleted\))?")
_LIBDL = re.compile(r"(libdl\.so\.2|libdl-2\.\d+\.so)( \(deleted\))?")
_LIBPTHREAD = re.compile(r"(libpthread\.so\.0|libpthread-2\.\d+\.so)( \(deleted\))?")
_LOADER = re.compile(r"(ld-linux-x86-64\.so\.2|ld-2\.\d+\.so)( \(deleted\))?")

#: mov $15, %rax; syscall: what signal handlers return to. 15 is rt_sigreturn.
RESTORER = bytes.fromhex("48c7c00f0000000f05")

#: mov OFFSET(%rip), %rax; add %fs:0, %rax: how glibc finds a thread's errno; endbr64 may stand before.
_ERRNO_CODE = re.compile(rb"(?:\xf3\x0f\x1e\xfa)?\x48\x8b\x05(....)\x64\x48\x03\x04\x25\0\0\0\0", re.S)

RTLD_NOW = 2
_RTLD_DLOPEN = 0x80000000  # that __libc_dlopen_mode wants to be told


@dataclass(frozen=True)
class Interpreter:
    """The loaded object that is the interpreter.

    `version` is (major, minor), None if that cannot be told from outside. `calls_malloc` tells that malloc is another
    object's code.
    """

    loaded: LoadedObject
    version: tuple[int, int] | None
    free_threaded: bool
    calls_malloc: bool


@dataclass(frozen=True)
class Library:
    """The C library, "glibc" or "musl": addresses of what is called. `dlopen_mode` goes with `dlopen`.

    `errno_offset` is that of a thread's errno from its thread pointer, None if it could not be found; `loader` is where
    glibc's loader keeps its locks, None if unknown.
    """

    libc: str
    restorer: int
    pthread_create: int
    sched_yield: int
    dlopen: int
    dlopen_mode: int
    swab: int
    errno_offset: int | None
    loader: tuple[int, int] | None


def object_at(pid: int, start: int) -> LoadedObject:
    """The object whose first page is mapped at `start` in process `pid`. Raises NotElf, Gone or Denied, as it does."""
    return LoadedObject(functools.partial(read_memory, pid), start)


class Target:
    """One process as it is now. The properties raise `TargetError` if it is none that can be attached to."""

    def __init__(self, process: Process, filters: Filters | None = None) -> None:
        self.process = process
        self.filters = filters or Filters(process)
        self.maps = process.maps()

    @functools.cached_property
    def interpreter(self) -> Interpreter:
        """Find the interpreter among the loaded objects."""
        paths = [mapping.path for mapping in self.maps]
        older = False
        for loaded in self._objects(lambda name: "python" in name) or self._objects(lambda name: True):
            with contextlib.suppress(NotElf):
                if loaded.address("_PyRuntime") and loaded.address("PyConfig_InitPythonConfig"):
                    version, free_threaded = _describe(loaded, paths)
                    return Interpreter(loaded, version, free_threaded, loaded.imports("malloc"))
                older |= loaded.address("Py_Initialize") is not None
        pid = self.process.pid
        if older:
            raise TargetError(f"process {pid} runs a Python older than 3.8", "giltrace follows CPython 3.8 and newer")
        if any("pypy" in path.rpartition("/")[2] for path in paths):
            raise TargetError(f"process {pid} is PyPy, which has no CPython GIL", "use a CPython")
        raise TargetError(f"process {pid} is not Python", "find the right one with `ps -ef | grep python`")

    @functools.cached_property
    def library(self) -> Library:
        """Find the C library and what is needed of it."""
        for libc in self._objects(lambda name: _LIBC.fullmatch(name) is not None):
            with contextlib.suppress(NotElf):
                restorer, swab, pause = libc.code(RESTORER), libc.address("swab"), libc.address("sched_yield")
                create = self._address(libc, _LIBPTHREAD, "pthread_create")
                dlopen, mode = self._address(libc, _LIBDL, "dlopen"), RTLD_NOW
                if dlopen is None:
                    dlopen, mode = libc.address("__libc_dlopen_mode"), RTLD_NOW | _RTLD_DLOPEN
                if restorer and swab and pause and create and dlopen:
                    kind = "glibc" if libc.address("gnu_get_libc_version") else "musl"
                    errno, loader = _errno_offset(libc), self._loader_data()
                    return Library(kind, restorer, create, pause, dlopen, mode, swab, errno, loader)
        raise TargetError(
            f"process {self.process.pid} has no C library that can load another: it is statically linked, or not by "
            "glibc or musl",
            f"look at it from outside: giltrace attach --observe {self.process.pid}",
        )

    def _address(self, libc: LoadedObject, other: re.Pattern[str], name: str) -> int | None:
        """The address of a function of libc, which up to glibc 2.33 is in a library of its own."""
        objects = [libc, *self._objects(lambda path: other.fullmatch(path) is not None)]
        return next(filter(None, (each.address(name) for each in objects)), None)

    def _loader_data(self) -> tuple[int, int] | None:
        for loader in self._objects(lambda name: _LOADER.fullmatch(name) is not None):
            mapping = self.mapping_at(loader.address("_rtld_global") or 0)
            if mapping is not None:
                return mapping.start, mapping.end
        return None

    def _objects(self, wanted: Callable[[str], bool]) -> list[LoadedObject]:
        found = []
        for mapping in self.maps:
            if mapping.inode and mapping.offset == 0 and wanted(mapping.path.rpartition("/")[2]):
                with contextlib.suppress(NotElf):
                    found.append(object_at(self.process.pid, mapping.start))
        return found

    def mapping_at(self, address: int) -> Mapping | None:
        """Return the mapping that holds `address`."""
        return next((mapping for mapping in self.maps if mapping.start <= address < mapping.end), None)


def _describe(loaded: LoadedObject, paths: list[str]) -> tuple[tuple[int, int] | None, bool]:
    """The version of an interpreter, and whether it is a free-threaded build: from 3.13 on its memory says so."""
    runtime = loaded.address("_PyRuntime") or 0
    cookie, number, free_threaded = struct.unpack("<8sQQ", loaded.read(runtime, 24))
    if cookie == b"xdebugpy":
        return (number >> 24 & 0xFF, number >> 16 & 0xFF), bool(free_threaded)
    packed = loaded.address("Py_Version")  # from 3.11 on
    if packed is not None:
        (number,) = struct.unpack("<Q", loaded.read(packed, 8))
        return (number >> 24 & 0xFF, number >> 16 & 0xFF), False
    names = (re.search(r"python3\.(\d+)", path.rpartition("/")[2]) for path in paths)
    minor = next((int(match[1]) for match in names if match), None)
    return (None if minor is None else (3, minor)), False


def _errno_offset(libc: LoadedObject) -> int | None:
    function = libc.address("__errno_location")
    if function is None:
        return None
    match = _ERRNO_CODE.match(libc.read(function, 32))
    if match is None:
        return None
    (relative,) = struct.unpack("<i", match[1])
    (offset,) = struct.unpack("<q", libc.read(function + match.end(1) + relative, 8))
    return int(offset)
