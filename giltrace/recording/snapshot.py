"""Copy a recording while it is being written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from giltrace.recording import clock, layout

#: Bytes of a ring's chunks; all have the same size.
RING_CHUNK = 16384
_TRIES = 20


def copy(folder: Path, out: Path) -> None:
    """Copy what the recording `folder` holds by now into the empty folder `out`; meta.json is left to the caller.

    The tracers go on meanwhile: a chunk that is used again while it is copied is left out, as its events are before
    `complete_from` by then. Raises `OSError` if `out` cannot be written.
    """
    for path in sorted(folder.glob("gil-*.bin")):
        if path.stat().st_size < layout.HEADER_SIZE:
            continue  # just being made
        _copy_chunks(path, out / path.name)
    # After the events that name them: a stack is written before its first event.
    for path in (*folder.glob("stacks-*.bin"), folder / clock.FILE):
        if path.exists():
            shutil.copyfile(path, out / path.name)
    clock.append_pair(out)
    for path in folder.glob("sched-*.bin"):
        if not path.name.endswith(".old.bin"):
            _copy_switches(path, out)


def _copy_chunks(path: Path, out: Path) -> None:
    live = np.memmap(path, np.uint8, "r")
    header = live[: layout.HEADER.itemsize].view(layout.HEADER)[0]
    is_ring = int(header["ring_size"]) != 0
    step = RING_CHUNK if is_ring else max(1, live.size - layout.HEADER_SIZE)
    with out.open("wb") as file:
        file.seek(layout.HEADER_SIZE)
        for at in range(layout.HEADER_SIZE, live.size, step):
            before = _owner(live, at)
            chunk = bytearray(live[at : at + step].tobytes())
            if is_ring and _owner(live, at) != before:
                chunk[: layout.CHUNK.itemsize] = bytes(layout.CHUNK.itemsize)
            file.write(chunk)
        # Last, so that `complete_from` covers all that was overwritten meanwhile.
        file.seek(0)
        file.write(live[: layout.HEADER_SIZE].tobytes())


def _owner(live: np.memmap[tuple[int], np.dtype[np.uint8]], at: int) -> tuple[int, int, int]:
    head = live[at : at + layout.CHUNK.itemsize].view(layout.CHUNK)[0]
    return int(head["magic"]), int(head["thread"]), int(head["sequence"])


def _copy_switches(path: Path, out: Path) -> None:
    """Both halves of a bounded file into the folder `out`, however often the recorder turns them over meanwhile."""
    older = path.with_suffix(".old.bin")
    for _ in range(_TRIES):
        with path.open("rb") as new:
            if older.exists():
                shutil.copyfile(older, out / older.name)
            if os.fstat(new.fileno()).st_ino == path.stat().st_ino:
                with (out / path.name).open("wb") as file:
                    shutil.copyfileobj(new, file)
                return
