"""Where a thread of a running CPython stands, read from outside at one moment: its Python frames, and what it is at.

The places are those that the tracer uses (`native/tracer/frames.c`): a table up to 3.12, what `_PyRuntime` publishes
from 3.13 on. The program goes on meanwhile: what is read must make sense, frame by frame, or it is not told.
"""

from __future__ import annotations

import contextlib
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from giltrace.errors import TargetError
from giltrace.process.elf import NotElf
from giltrace.process.elf_file import ElfFile
from giltrace.process.interpreter import Interpreter, find_interpreter, steadily
from giltrace.process.kernel_text import lines_of
from giltrace.text import visible

#: So many of the innermost frames are read.
_DEPTH = 128
_LONGEST_TEXT, _LONGEST_TABLE = 1 << 12, 1 << 22
_NO_OBJECT = 4096
_SHIM = "<shim>"
_NEWEST_BEFORE, _GENERATIONS_BEFORE = 104, 176


class _Layout(NamedTuple):
    """Bytes from the start of a thread state, frame, code object and interpreter state.

    `cframe` is the frame's place in what the thread state points to, -1 where it points to the frame. Instructions are
    an index in units of so many bytes (`scale`), or a pointer (0). `generations`: up to 3.12 these stand before
    `collecting`, which up to 3.8 is the runtime's.
    """

    frame: int
    cframe: int
    previous: int
    code: int
    instruction: int
    scale: int
    file: int
    name: int
    table: int
    first_line: int
    start: int
    text: tuple[int, int]
    collecting: int
    of_runtime: bool = False
    generations: bool = True


_TABLE = {
    8: _Layout(24, -1, 24, 32, 104, 1, 104, 112, 120, 40, 0, (48, 72), 544, True),
    9: _Layout(24, -1, 24, 32, 104, 1, 104, 112, 120, 40, 0, (48, 72), 816),
    10: _Layout(24, -1, 24, 32, 96, 2, 104, 112, 120, 40, 0, (48, 72), 816),
    11: _Layout(56, 8, 48, 32, 56, 0, 112, 128, 136, 72, 184, (48, 72), 848),
    12: _Layout(56, 0, 8, 0, 56, 0, 112, 128, 136, 68, 192, (40, 56), 312),
}
#: Where, in words of `_Py_DebugOffsets`, the groups on thread states, frames and code begin, where an interpreter state
#: has its collector's, and the group on that.
_PUBLISHED = {13: (19, 28, 34, 10, 71), 14: (22, 31, 39, 11, 81), 15: (22, 39, 47, 11, 94)}
#: Of the offsets that `_asyncio` publishes from 3.14 on: a task's name, and the task that a thread runs.
_TASK_NAME, _RUNNING_TASK = 1, 11
_TASKS_SECTION, _TASKS_WORDS = ".AsyncioDebug", 13


@dataclass(frozen=True)
class Code:
    """What a code object says of itself; `table` tells lines as its version does."""

    function: str
    file: str
    first_line: int
    table: bytes


class Standing(NamedTuple):
    """A thread at one moment: each frame's code and the offset of its instruction, innermost first.

    `collecting`: its interpreter was collecting garbage; `holds`: the thread had the GIL. `task` is the name of the
    asyncio task that it ran, empty where that is not known: before 3.14.
    """

    frames: tuple[tuple[Code, int], ...]
    collecting: bool
    holds: bool
    task: str


class Onlooker:
    """Looks at the threads of process `pid`.

    Raises `TargetError` if that may not be read, or is no CPython whose frames are known.
    """

    def __init__(self, pid: int) -> None:
        self._interpreter = find_interpreter(pid)
        self._memory = self._interpreter.memory
        minor = int(self._interpreter.version.split(".")[1])
        self.version = (3, minor)
        try:
            self._layout = _layout(self._interpreter, minor)
            own_id = self._interpreter.offsets.native_id
            self._pthread_tid = self._interpreter.pthread_tid_offset() if own_id < 0 else 0
            self._tasks = _task_places(self._interpreter) if minor >= 14 else None
        except OSError as error:
            self.close()
            raise TargetError(f"process {pid} cannot be looked at: {error}") from None
        self._codes: dict[int, Code] = {}

    def close(self) -> None:
        """Let go of the process."""
        self._memory.close()

    def holders(self) -> list[int]:
        """The ids of the threads that have a GIL; empty if that cannot be told."""
        try:
            return [tid for tid, _ in steadily(self._interpreter.holders) if tid]
        except OSError:
            return []

    def look(self, tid: int) -> Standing | None:
        """See where the thread with this id (in the process's own words) stands; None if it cannot be told."""
        try:
            state = steadily(lambda: self._state_of(tid))
            if state is None:
                return None
            frames = tuple(self._frames(state))
            return Standing(frames, self._collects(state), self._holds(tid), self._task(state))
        except OSError:
            return None

    def _state_of(self, tid: int) -> int | None:
        states = self._interpreter.thread_states()
        return next((state for state in states if self._interpreter.own_id(state, self._pthread_tid) == tid), None)

    def _holds(self, tid: int) -> bool:
        interpreter, pthread_tid = self._interpreter, self._pthread_tid
        return steadily(
            lambda: any(interpreter.own_id(state, pthread_tid) == tid for state, _ in interpreter.holding() if state)
        )

    def _frames(self, state: int) -> list[tuple[Code, int]]:
        layout, word = self._layout, self._memory.word
        frame = word(state + layout.frame)
        if frame and layout.cframe >= 0:
            frame = word(frame + layout.cframe)
        found = []
        for _ in range(_DEPTH):
            if not frame:
                break
            code = word(frame + layout.code) & ~7
            at, frame = frame + layout.instruction, word(frame + layout.previous)
            if code < _NO_OBJECT or (known := self._code(code)) is None or known.file == _SHIM:
                continue  # an entry frame, which no program wrote
            offset = word(at, 4) * layout.scale if layout.scale else word(at) - code - layout.start
            found.append((known, max(offset, 0) if offset < 1 << 31 else 0))
        return found

    def _code(self, address: int) -> Code | None:
        """What the object there says, if it is code: its name, its file and its table are what they have to be."""
        known = self._codes.get(address)
        layout, word = self._layout, self._memory.word
        try:
            first_line = word(address + layout.first_line, 4)
            if known is not None and known.first_line == first_line:
                return known
            name, file = self._text(word(address + layout.name)), self._text(word(address + layout.file))
            table = word(address + layout.table)
            length = word(table + 16)
            if length > _LONGEST_TABLE:
                return None
            code = Code(visible(name), visible(file), first_line, self._memory.read(table + 32, length))
        except (OSError, ValueError):
            return None
        self._codes[address] = code
        return code

    def _text(self, address: int) -> str:
        """The characters of a str. Raises ValueError for what is none."""
        state, length = self._memory.word(address + 32, 4), self._memory.word(address + 16)
        width = state >> 2 & 7
        if not state & 0x20 or width not in (1, 2, 4) or length > _LONGEST_TEXT:
            raise ValueError("no text")
        data = self._memory.read(address + self._layout.text[not state & 0x40], width * length)
        return data.decode({1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}[width], "replace")

    def _collects(self, state: int) -> bool:
        layout, interpreter = self._layout, self._interpreter
        if not layout.collecting:
            return False
        owner = interpreter.runtime if layout.of_runtime else self._memory.word(state + interpreter.offsets.interpreter)
        place = owner + layout.collecting
        if layout.generations and self._memory.word(place - _NEWEST_BEFORE) != place - _GENERATIONS_BEFORE:
            return False
        return self._memory.word(place, 4) == 1

    def _task(self, state: int) -> str:
        if self._tasks is None:
            return ""
        name_at, running_at = self._tasks
        with contextlib.suppress(OSError, ValueError):
            task = self._memory.word(state + running_at)
            if not task:
                return ""
            name = self._memory.word(task + name_at)
            with contextlib.suppress(ValueError):
                return visible(self._text(name))
            # A number that no name was made of yet: an int of one digit.
            tag, digit = self._memory.word(name + 16), self._memory.word(name + 24, 4)
            return f"Task-{digit}" if tag >> 3 == 1 else ""
        return ""


def _layout(interpreter: Interpreter, minor: int) -> _Layout:
    if minor in _TABLE:
        return _TABLE[minor]
    state, frame, code, gc_place, gc = _PUBLISHED[minor]
    words = struct.unpack("<128Q", interpreter.memory.read(interpreter.runtime, 128 * 8))
    return _Layout(
        frame=words[state + 4],
        cframe=-1,
        previous=words[frame + 1],
        code=words[frame + 2],
        instruction=words[frame + 3],
        scale=0,
        file=words[code + 1],
        name=words[code + 3],
        table=words[code + 4],
        first_line=words[code + 5],
        start=words[code + 9],
        text=(40, 56),
        collecting=words[gc_place] + words[gc + 1] if words[gc] > words[gc + 1] else 0,
        generations=False,
    )


def _task_places(interpreter: Interpreter) -> tuple[int, int] | None:
    """Where a task has its name, and a thread state its running task; None where `_asyncio` is not loaded, or silent.

    It is a library of its own, or part of the interpreter.
    """
    seen = set()
    for line in lines_of(f"/proc/{interpreter.pid}/maps"):
        found = re.match(r"([0-9a-f]+)-\S+ \S+ 0+ \S+ [1-9]\d* +(.*(?:_asyncio|python)[^/]*)$", line)
        if found is None or found[2] in seen:
            continue
        seen.add(found[2])
        place = _section_address(Path(f"/proc/{interpreter.pid}/root{found[2]}"), int(found[1], 16))
        if place is None:
            continue
        words = struct.unpack(f"<{_TASKS_WORDS}Q", interpreter.memory.read(place, 8 * _TASKS_WORDS))
        if 0 < words[_TASK_NAME] < words[0] < 1 << 16 and 0 < words[_RUNNING_TASK] < words[9] < 1 << 24:
            return words[_TASK_NAME], words[_RUNNING_TASK]
    return None


def _section_address(path: Path, loaded_at: int) -> int | None:
    try:
        with path.open("rb") as file:

            def read(at: int, count: int) -> bytes:
                file.seek(at)
                return file.read(count)

            place = ElfFile(read).section_place(_TASKS_SECTION)
    except (OSError, NotElf):
        return None
    return None if place is None else loaded_at + place
