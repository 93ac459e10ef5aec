"""What a thread sleeps in that was asleep before anybody looked: read from outside, out of its process's memory.

There are two kinds of locks (native/tracer/locks.c). One is a semaphore of libc, and the address that the kernel has
for what the thread sleeps in is the lock; that it is one, and whose, an object of Python's tells that begins with its
address, and that the sleeper's own calls have on their stack. In the other threads are parked, each with a semaphore on
its own stack; the word before that is the lock's address. What does not look like what it should be is not believed.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import NamedTuple

from giltrace.process.memory import Memory

#: So much of a thread's stack is looked at: the calls from Python's own down to the one that sleeps take less.
_STACK = 4096
#: struct _PySemaphore is libc's sem_t: the list's node stands behind it in the entry of a parked thread.
_SEMAPHORE = 32
#: The head of an object: without a GIL it is longer.
_HEADS = (16, 32)
#: struct pthread has the thread's id at a place of libc's own, before this.
_PTHREAD = 1024
_NAME = 64
_QUEUE = ".SimpleQueue"
_HIGHEST = 1 << 47


class Lock(NamedTuple):
    """What a thread sleeps in: the address of a `semaphore`, and that of the `lock` that the thread is parked for.

    `lock` is 0 where the semaphore is the lock itself. Of a parked thread `has_argument` tells that it waits for what
    one has and gives to the next, and not for the end of a thread, or a queue.
    `type` is that of the object which it belongs to, "" if that is not known. `owner` is the pthread id of the thread
    that has taken it, 0 where the lock does not tell.
    """

    semaphore: int
    lock: int
    has_argument: bool
    type: str
    owner: int


def lock_of(memory: Memory, semaphore: int, stack: int) -> Lock | None:
    """What a thread sleeps in whose futex lies in `semaphore`, and whose stack pointer is `stack`.

    None if it is none of the interpreter's locks, as far as can be told.
    """
    try:
        if 0 < semaphore - stack < _STACK:
            return _parked(memory, semaphore)
        return _in_semaphore(memory, semaphore, stack)
    except OSError:
        return None  # it goes on, or ends


def _parked(memory: Memory, semaphore: int) -> Lock | None:
    """The semaphore is part of struct wait_entry { park_arg; addr; sema; node { next, previous }; ... }."""
    words = struct.unpack("<8Q", memory.read(semaphore - 16, 64))
    argument, lock, following = words[0], words[1], words[6]
    node = semaphore + _SEMAPHORE
    if not _is_address(lock, 1) or not _is_address(following) or memory.word(following + 8) != node:
        return None
    name, owner = "", 0
    for head in _HEADS:
        if lock % 8 == 0 and (name := _type_name(memory, lock - head, head)):
            # An RLock: the mutex, the owner's pthread id, how often it has taken it beyond the first time.
            owner = memory.word(lock + 8) if name == "_thread.RLock" else 0
            break
    return Lock(semaphore, lock, argument != 0 and not name.endswith(_QUEUE), name, owner)


def _in_semaphore(memory: Memory, semaphore: int, stack: int) -> Lock | None:
    words = [word for (word,) in struct.iter_unpack("<Q", memory.read(stack, _STACK))]
    for word in dict.fromkeys(filter(_is_address, words)):
        for head in _HEADS:
            try:
                if memory.word(word + head) != semaphore or not (name := _type_name(memory, word, head)):
                    continue
                # An RLock up to 3.13: the lock, the owner's pthread id, how often it has taken it.
                owner, count = struct.unpack("<2Q", memory.read(word + head + 8, 16))
                if name.endswith(_QUEUE):
                    return Lock(semaphore, semaphore, False, name, 0)
                return Lock(semaphore, 0, True, name, owner if name == "_thread.RLock" and count else 0)
            except OSError:
                continue  # a word that is no address
    return None


def _is_address(word: int, alignment: int = 8) -> bool:
    return _NAME < word < _HIGHEST and word % alignment == 0


def _type_name(memory: Memory, at: int, head: int) -> str:
    """The name of the type of the object `at` an address, whose head has that length; empty if it is no object."""
    try:
        kind = memory.word(at + head - 8)
        if not _is_address(kind):
            return ""
        # The type of all types is its own.
        meta = memory.word(kind + head - 8)
        if not _is_address(meta) or memory.word(meta + head - 8) != meta:
            return ""
        text, ended, _ = memory.read(memory.word(kind + head + 8), _NAME).partition(b"\0")
    except OSError:
        return ""
    name = text.decode("ascii", "replace")
    return name if ended and name.isprintable() and text.isascii() else ""


def thread_of(memory: Memory, pthread: int, ids: Collection[int]) -> int:
    """Which of the `ids`, those that its process has for its threads, is that of this pthread id; 0 if none or several.

    Raises OSError if there is no such thread.
    """
    words = struct.unpack(f"<{_PTHREAD // 4}I", memory.read(pthread, _PTHREAD))
    found = {word for word in words if word in ids}
    return found.pop() if len(found) == 1 else 0
