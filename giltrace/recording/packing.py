"""Pack the chunks that threads have left, while the program goes on: the recorder's part of `packed`."""

from __future__ import annotations

import ctypes
import os
import time
from collections import deque
from pathlib import Path

import numpy as np

from giltrace.recording import layout
from giltrace.recording.chunks import ALIGNMENT, FIRST, filled, is_chunk, small_chunks
from giltrace.recording.folder import GIL_NAME
from giltrace.recording.packed import DENSEST, FRAME_SIZE, pack, packed_name

#: Smaller ones are left: they are few, or of threads that did little.
_SMALLEST = 64 << 10
_PUNCH_HOLE, _KEEP_SIZE = 2, 1


class Packer:
    """Packs what lies in the recording `folder`, a chunk at a time, `wait` seconds after it was seen to be left.

    What cannot be written is left as it is, and so is all that comes after it in that file. The last chunk of each
    thread is left too: a program may go on when its recorder has ended.
    """

    def __init__(self, folder: Path, wait: float = 0) -> None:
        self._folder = folder
        self.wait = wait
        self._files: dict[str, _File] = {}

    def step(self) -> bool:
        """Pack one chunk; false if there is none."""
        for name in filter(GIL_NAME.fullmatch, os.listdir(self._folder)):
            if name not in self._files:
                self._files[name] = _File(self._folder / name)
        return any(file.step(self.wait) for file in self._files.values())


class _File:
    """One of the tracer's files: where to look on, and of each thread the last chunk that was seen."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = layout.HEADER_SIZE
        self._open: dict[int, tuple[int, int]] = {}
        # When it was seen, where each is, and how long.
        self._left: deque[tuple[float, int, int]] = deque()
        self._works = True

    def step(self, wait: float) -> bool:
        """Pack the next chunk that was seen to be left so many seconds ago; false if there is none."""
        if not self._works:
            return False
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                while self._look(file):
                    pass
                if not self._left or time.monotonic() - self._left[0][0] < wait:
                    return False
                self._pack(file, *self._left.popleft()[1:])
            finally:
                os.close(file)
        except OSError:
            self._works = False
        return self._works

    def _look(self, file: int) -> bool:
        """Look at what begins at the next place; false if nothing does yet."""
        head = os.pread(file, FIRST.size, self._at)
        if len(head) < FIRST.size:
            return False
        if stretch := small_chunks(head)[0]:
            self._at += stretch
            return True
        if not is_chunk(head):
            return False
        _, size, thread, *_ = FIRST.unpack(head)
        before = self._open.pop(thread, None)
        if before is not None and before[1] >= _SMALLEST:
            self._left.append((time.monotonic(), *before))
        self._open[thread] = self._at, size
        self._at += size
        return True

    def _pack(self, file: int, at: int, size: int) -> None:
        chunk = os.pread(file, size, at)
        words = np.frombuffer(chunk, np.uint64)
        if len(chunk) < size or size % ALIGNMENT or size < _SMALLEST:
            return
        head = layout.CHUNK.itemsize // 8
        written = 8 * (head + filled(words[head:]))
        frame = pack(at, chunk, written)
        if written > DENSEST * (len(frame) - FRAME_SIZE):
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        packed = os.open(packed_name(self._path), flags, 0o644)
        try:
            begin = os.lseek(packed, 0, os.SEEK_END)
            if os.write(packed, frame) < len(frame):
                os.ftruncate(packed, begin)
                self._works = False
                return
        finally:
            os.close(packed)
        _punch(file, at, size)


def _punch(file: int, at: int, size: int) -> None:
    """Put a hole there. Raises OSError where the file system has none: what was packed is read then all the same."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(file, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_int64(at), ctypes.c_int64(size)):
        raise OSError(ctypes.get_errno(), "no holes")
