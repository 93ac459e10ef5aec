"""Find the GILs of a running CPython from outside: their addresses, and how to tell whose a thread state is.

Up to 3.12, where things lie is a table, made with `offsetof` from the headers of each version; 3.13 and later publish
it at the head of `_PyRuntime`. In either case what is found must make sense as a whole, or nothing is read at all.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from giltrace.errors import TargetError
from giltrace.process.capabilities import granted
from giltrace.process.elf import LoadedObject, NotElf
from giltrace.process.kernel_text import text_of
from giltrace.process.memory import Memory, loaded_objects
from giltrace.process.stat import stat_fields

#: A process that runs changes while it is read: something wrong this often in a row is none of that.
_TRIES = 20
_LIST_MAX = 20_000
_INTERVAL_MAX_US = 10**9
_PTHREAD_SIZE = 2048
#: Of struct _gil_runtime_state: interval, last holder, locked, switch number. A condition of 48 bytes, then the mutex.
_GIL = struct.Struct("<QQi4xQ")
_GIL_MUTEX = 80


@dataclass(frozen=True)
class Offsets:
    """Bytes from the start of `_PyRuntime`, PyInterpreterState and PyThreadState. -1: this version has none.

    Up to 3.11 there is one GIL, within the runtime (`gil`); from then on each interpreter points to its own
    (`interpreter_gil`), which several may share.
    """

    interpreters: int
    gil: int
    interpreter_gil: int
    next_interpreter: int
    threads: int
    next_thread: int
    interpreter: int
    thread_id: int
    native_id: int


_TABLE = {
    8: Offsets(32, 1152, -1, 0, 8, 8, 16, 176, -1),
    9: Offsets(32, 352, -1, 0, 8, 8, 16, 176, -1),
    10: Offsets(32, 352, -1, 0, 8, 8, 16, 176, -1),
    11: Offsets(40, 360, -1, 0, 16, 8, 16, 152, 160),
    12: Offsets(40, -1, 384, 0, 72, 8, 16, 136, 144),
}

#: Of `_Py_DebugOffsets`, as 8-byte words: where the group on thread states begins, what of it is the thread's id, and
#: where the interpreter state's `ceval_gil` stands.
_PUBLISHED = {13: (19, 5, 14), 14: (22, 5, 15), 15: (22, 8, 15)}
_NEWEST = 15


@dataclass(frozen=True)
class Interpreter:
    """A CPython that runs in process `pid`: `version` as text, `runtime` the address of `_PyRuntime`."""

    pid: int
    memory: Memory
    version: str
    executable: str
    runtime: int
    offsets: Offsets

    def gils(self) -> list[int]:
        """The addresses of its GILs, the main interpreter's first. Raises OSError if it is changing too fast."""
        if self.offsets.gil >= 0:
            return [self.runtime + self.offsets.gil]
        found = [self.memory.word(one + self.offsets.interpreter_gil) for one in self._interpreters()]
        # The list is newest first. A subinterpreter's pointer is 0 until it has one.
        return [gil for gil in dict.fromkeys(reversed(found)) if gil]

    def holders(self) -> list[tuple[int, int]]:
        """Who has each GIL now: (id of the thread here, 0 if the GIL is free; address of the GIL's mutex).

        Raises OSError if it changes too fast.
        """
        pthread_tid = self.pthread_tid_offset() if self.offsets.native_id < 0 else 0
        here = self.tids()
        found = []
        for state, mutex in self.holding():
            own = self.own_id(state, pthread_tid) if state else 0
            if state and own not in here:
                raise OSError("a GIL that is held by no thread")
            found.append((here[own] if state else 0, mutex))
        return found

    def holding(self) -> list[tuple[int, int]]:
        """What has each GIL now: (address of the thread state, 0 if the GIL is free; address of the GIL's mutex).

        Raises OSError if it changes too fast.
        """
        found = []
        for gil in self.gils():
            _, state, locked, _ = _GIL.unpack(self.memory.read(gil, _GIL.size))
            found.append((state if locked else 0, gil + _GIL_MUTEX))
        return found

    def own_id(self, state: int, pthread_tid: int) -> int:
        """The id of a thread state's thread in its own pid namespace, 0 if that has none yet. Raises OSError.

        `pthread_tid` is `pthread_tid_offset`, 0 where the interpreter itself has the ids of its threads.
        """
        if not pthread_tid:
            return self.memory.word(state + self.offsets.native_id)
        pthread = self.memory.word(state + self.offsets.thread_id)
        return self.memory.word(pthread + pthread_tid, 4) if pthread else 0

    def thread_states(self) -> Iterator[int]:
        """The addresses of all thread states."""
        for interpreter in self._interpreters():
            first = self.memory.word(interpreter + self.offsets.threads)
            yield from self._linked(first, self.offsets.next_thread, interpreter)

    def tids(self) -> dict[int, int]:
        """The ids of its threads here, by those in its own pid namespace, which are what it knows itself."""
        found = {}
        for path in Path(f"/proc/{self.pid}/task").glob("*/status"):
            try:
                match = re.search(r"^NSpid:.*?(\d+)$", text_of(path), re.M)
            except OSError:
                continue  # it has just ended
            tid = int(path.parent.name)
            found[int(match[1]) if match else tid] = tid
        return found

    def _interpreters(self) -> list[int]:
        first = self.memory.word(self.runtime + self.offsets.interpreters)
        return list(self._linked(first, self.offsets.next_interpreter, None))

    def _linked(self, address: int, following: int, interpreter: int | None) -> Iterator[int]:
        for _ in range(_LIST_MAX):
            if address == 0:
                return
            if interpreter is not None and self.memory.word(address + self.offsets.interpreter) != interpreter:
                raise OSError("a thread state that is none")
            yield address
            address = self.memory.word(address + following)
        raise OSError("a list without an end")

    def pthread_tid_offset(self) -> int:
        """Where the C library's struct pthread keeps the thread's id; 0 if that cannot be told, and need not be.

        It is the first place that holds, in the struct of every thread that lives, an id that no other's holds.
        """
        own = self.tids()
        common: set[int] | None = None
        seen: dict[int, set[int]] = {}
        living = 0
        for state in self.thread_states():
            try:
                pthread = self.memory.word(state + self.offsets.thread_id)
                words = struct.unpack(f"<{_PTHREAD_SIZE // 4}I", self.memory.read(pthread, _PTHREAD_SIZE))
            except OSError:
                continue  # not yet started
            places = {4 * at for at, word in enumerate(words) if word in own}
            if places:  # else it has just ended
                for place in places:
                    seen.setdefault(place, set()).add(words[place // 4])
                common = places if common is None else common & places
                living += 1
        found = min((place for place in common or () if len(seen[place]) == living), default=0)
        if found == 0 and self.offsets.native_id < 0:
            raise OSError("whose its thread states are cannot be told")
        return found


T = TypeVar("T")


def steadily(look: Callable[[], T]) -> T:
    """Return what `look` returns; it is repeated if it raises OSError, for a process that runs changes meanwhile."""
    for _ in range(_TRIES - 1):
        try:
            return look()
        except OSError:
            continue
    return look()


def find_interpreter(pid: int) -> Interpreter:
    """Find the CPython in process `pid`.

    Raises `TargetError` if the process is gone, may not be read, or has no GIL that is known how to be read.
    """
    _check_exists(pid)
    try:
        memory = Memory(pid)
        return _find(pid, memory)
    except PermissionError:
        raise _not_allowed(pid) from None
    except (FileNotFoundError, ProcessLookupError):
        raise TargetError(f"process {pid} has ended", "") from None
    except OSError as error:
        raise TargetError(
            f"the memory of process {pid} does not make sense as a running CPython ({error})",
            "if it is only just starting or ending, try again",
        ) from None


def _find(pid: int, memory: Memory) -> Interpreter:
    path, loaded, runtime = _loaded_python(pid, memory)
    version, minor = _version(pid, memory, path, loaded)
    offsets = _offsets(pid, memory, runtime, version, minor)
    interpreter = Interpreter(pid, memory, version, os.readlink(f"/proc/{pid}/exe"), runtime, offsets)
    _check(interpreter)
    return interpreter


def _loaded_python(pid: int, memory: Memory) -> tuple[str, LoadedObject, int]:
    """The object that is the interpreter: its path, itself, and the address of its `_PyRuntime`."""
    for path, loaded in loaded_objects(pid, memory):
        runtime = _address(loaded, "_PyRuntime")
        if runtime is not None:
            return path, loaded, runtime
    name = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    raise TargetError(
        f"process {pid} ({name}) is not a CPython: nothing in it defines _PyRuntime",
        "name a process that runs Python; `pgrep -a python` lists them",
    )


def _address(loaded: LoadedObject, name: str) -> int | None:
    try:
        return loaded.address(name)
    except NotElf:
        return None  # it only looks like an object; or the process ends, which will show


def _version(pid: int, memory: Memory, path: str, loaded: LoadedObject) -> tuple[str, int]:
    """The version as text, and its second number: from 3.11 on the interpreter's word, before that its file's name."""
    address = _address(loaded, "Py_Version")
    if address is not None:
        number = memory.word(address)
        major, minor, micro = number >> 24, number >> 16 & 255, number >> 8 & 255
        if major == 3:
            return f"{major}.{minor}.{micro}", minor
    for name in (path, os.readlink(f"/proc/{pid}/exe")):
        match = re.search(r"python3\.(\d+)", name)
        if match is not None:
            return f"3.{match[1]}", int(match[1])
    raise TargetError(f"the Python of process {pid} does not tell its version", "record it: `giltrace record`")


def _offsets(pid: int, memory: Memory, runtime: int, version: str, minor: int) -> Offsets:
    if minor in _TABLE:
        return _TABLE[minor]
    if minor not in _PUBLISHED:
        age = "older" if minor < min(_TABLE) else "newer"
        raise TargetError(f"process {pid} runs Python {version}, which is {age} than what is known here", "")
    words = struct.unpack("<48Q", memory.read(runtime, 48 * 8))
    if words[0] != int.from_bytes(b"xdebugpy", "little") or words[1] >> 16 & 255 != minor:
        raise OSError("its published offsets are not there")
    if words[2]:
        raise TargetError(
            f"process {pid} runs a free-threaded Python {version}: it has no GIL to be observed",
            "`giltrace record` shows its threads on their cores",
        )
    states, thread_id, gil = _PUBLISHED[minor]
    thread = words[states:]
    # Both sizes, and that of a GIL's first fields, tell whether the places are the right ones.
    if not (words[6] > words[gil + 1] > 0 and thread[0] > thread[thread_id] and words[gil + 4] - words[gil + 1] == 8):
        raise OSError("its published offsets are none")
    return Offsets(
        interpreters=words[5],
        gil=-1,
        interpreter_gil=words[gil],
        next_interpreter=words[8],
        threads=words[9],
        next_thread=thread[2],
        interpreter=thread[3],
        thread_id=thread[thread_id],
        native_id=thread[thread_id + 1],
    )


def _check(interpreter: Interpreter) -> None:
    """See whether all GILs look like GILs; one good look is enough."""

    def look() -> None:
        states = set(interpreter.thread_states())
        gils = interpreter.gils()
        if not gils or not states:
            raise OSError("no GIL")
        for gil in gils:
            problem = _looks_wrong(interpreter.memory, gil, states)
            if problem:
                raise OSError(problem)

    steadily(look)


def _looks_wrong(memory: Memory, gil: int, states: set[int]) -> str:
    interval, holder, locked, switches = _GIL.unpack(memory.read(gil, _GIL.size))
    if not 0 < interval < _INTERVAL_MAX_US:
        return f"a switch interval of {interval} us"
    if locked not in (0, 1):
        return f"a GIL that is {locked} times locked"
    if holder and locked and holder not in states:
        return "a GIL that is held by no thread"
    if switches == 0:
        return "a GIL that was never taken"
    return ""


def _check_exists(pid: int) -> None:
    try:
        state = stat_fields(pid)[0]
    except (OSError, IndexError):
        raise TargetError(f"there is no process {pid}", "`pgrep -a python` lists those that run Python") from None
    if state in b"ZX":
        raise TargetError(f"process {pid} has ended; its parent has not yet taken note (a zombie)", "")


def _not_allowed(pid: int) -> TargetError:
    """Why reading was refused, as far as can be told, and what to do."""
    what = f"reading process {pid} is not allowed"
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
        scope = Path("/proc/sys/kernel/yama/ptrace_scope")
        level = int(scope.read_text()) if scope.exists() else 0
    except (OSError, ValueError):
        return TargetError(f"process {pid} has ended", "")
    if os.geteuid() and owner != os.geteuid():
        return TargetError(f"{what}: it is another user's (uid {owner})", "run giltrace as that user, or with sudo")
    if level == 3:
        return TargetError(f"{what}: kernel.yama.ptrace_scope is 3", "that lasts until a reboot; use `giltrace record`")
    if level == 2:
        return TargetError(
            f"{what}: kernel.yama.ptrace_scope is 2", "run giltrace with sudo, or give it CAP_SYS_PTRACE"
        )
    if level == 1 and os.geteuid():
        return TargetError(
            f"{what}: kernel.yama.ptrace_scope is 1, so only a process's ancestors may read it",
            "run giltrace with sudo, or: sudo sysctl kernel.yama.ptrace_scope=0",
        )
    return TargetError(
        f"{what}: it has capabilities or is not dumpable, or this container lacks CAP_SYS_PTRACE",
        f"run giltrace with sudo, or {granted('SYS_PTRACE')}",
    )
