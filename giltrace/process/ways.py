"""The ways by which a running process may come to put a seccomp filter on itself, found in its memory.

Libc's `prctl` and `syscall` lead to one, and libffi's `ffi_call`, by which ctypes and cffi call what they may have
asked for long ago. The tracer leads each to itself (native/tracer/confine.c): in the words by which loaded objects call
these functions, and in those that say to whoever asks from now on where they are.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from giltrace.process.elf import LoadedObject, NotElf
from giltrace.process.memory import Memory, loaded_objects

_OF_LIBC = ("prctl", "syscall")
#: Several libraries may bring one each.
_FFI, _FFI_MOST = "ffi_call", 4
#: No library but libc defines all of these.
_LIBC = (*_OF_LIBC, "swab")

#: struct confine_found up to its words: interpreter, functions, count. Then struct confine_word: place, found, base,
#: and the function's number.
_HEAD, _WORD = struct.Struct(f"<{2 + len(_OF_LIBC) + _FFI_MOST}Q"), struct.Struct("<4Q")
_WORDS_MAX = 1024

_OWN = "libgiltrace"


class _Function(NamedTuple):
    """Its `address`, 0 if it is not there, and the words that define it: place, value and base of each."""

    address: int
    words: list[tuple[int, int, int]]


_NOWHERE = _Function(0, [])


def find_ways(pid: int, interpreter: int) -> bytes:
    """Return a `struct confine_found` of process `pid`, whose `interpreter` has its ELF header at that address.

    It has no words where the process's memory cannot be read.
    """
    functions, words = [_NOWHERE] * (len(_OF_LIBC) + _FFI_MOST), []
    with contextlib.suppress(OSError):
        memory = Memory(pid)
        try:
            objects = [each for path, each in loaded_objects(pid, memory) if _OWN not in path]
            functions = _functions(objects)
            words = [
                *((*word, number) for number, function in enumerate(functions) for word in function.words),
                *_slots(objects, {function.address: number for number, function in enumerate(functions)}),
            ][:_WORDS_MAX]
        finally:
            memory.close()
    head = _HEAD.pack(interpreter, *(function.address for function in functions), len(words))
    return head + b"".join(_WORD.pack(*word) for word in words)


def _functions(objects: Iterable[LoadedObject]) -> list[_Function]:
    libc, ffi = [_NOWHERE] * len(_OF_LIBC), []
    for each in objects:
        with contextlib.suppress(NotElf):
            if all(each.address(name) for name in _LIBC):
                libc = [_defined(each, name) for name in _OF_LIBC]
            ffi.append(_defined(each, _FFI))
    found = [function for function in ffi if function.address] + [_NOWHERE] * _FFI_MOST
    return [*libc, *found[:_FFI_MOST]]


def _defined(loaded: LoadedObject, name: str) -> _Function:
    found = list(loaded.definitions(name))
    # A word that a tracer has changed leads elsewhere.
    value = next((value for value, _ in found if loaded.is_code(loaded.base + value)), None)
    if value is None:
        return _NOWHERE
    return _Function(loaded.base + value, [(place, each, loaded.base) for each, place in found if each == value])


def _slots(objects: Iterable[LoadedObject], functions: dict[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """The words by which objects call these functions, whose numbers are given by address."""
    for each in objects:
        for start, end in each.slots:
            with contextlib.suppress(NotElf):
                words = np.frombuffer(each.read(start, (end - start) // 8 * 8), "<u8")
                for address, number in functions.items():
                    at = np.flatnonzero(words == address).tolist() if address else ()
                    yield from ((start + 8 * index, address, 0, number) for index in at)
