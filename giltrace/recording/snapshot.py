"""Copy a recording while it is being written."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from giltrace.errors import RecordingError
from giltrace.process.folder import Folder, extents, plain_copy
from giltrace.recording import clock_file, cores_log, layout, maps_file
from giltrace.recording.gil import open_files, tick_clock

_TRIES = 20
_MOST_META = 1 << 26

_GIL, _STACKS, _SCHED = (re.compile(rf"{kind}-[0-9-]{{1,22}}\.bin") for kind in ("gil", "stacks", "sched"))
_WHOLE = re.compile("|".join(map(re.escape, (clock_file.FILE, cores_log.FILE, maps_file.MAPS))))


def copy(folder: Folder, out: Path, files: Folder) -> None:
    """Copy what the recording `folder` holds by now into the empty folder `out`; the tracers write to `files`.

    The tracers go on meanwhile: a chunk that is used again while it is copied is left out, as its events are before
    `complete_from` by then. Raises `OSError` if `out` cannot be written, `RecordingError` if `folder` cannot be read.
    """
    with _opened(folder, "meta.json") as descriptor:
        (out / "meta.json").write_bytes(os.pread(descriptor, _MOST_META, 0))
    for name in files.names(_GIL):
        with _opened(files, name) as descriptor:
            if os.fstat(descriptor).st_size >= layout.HEADER_SIZE:  # else it is just being made
                _copy_chunks(descriptor, out / name)
    # After the events that name them: a stack is written before its first event.
    for home, wanted in ((files, _STACKS), (folder, _WHOLE)):
        for name in home.names(wanted):
            with _opened(home, name) as descriptor:
                plain_copy(descriptor, out / name)
    clock_file.append_pair(out)
    for name in folder.names(_SCHED):
        _copy_switches(folder, name, out)


@contextlib.contextmanager
def _opened(folder: Folder, name: str) -> Iterator[int]:
    """Have a file open. Raises `RecordingError` for one that may not be read, and for what is no plain file."""
    try:
        descriptor = folder.open(name)
    except OSError as error:
        raise RecordingError.unreadable(name, error) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _copy_chunks(live: int, out: Path) -> None:
    header = os.pread(live, layout.HEADER_SIZE, 0)
    ring = int(np.frombuffer(header, layout.HEADER, 1)[0]["ring_size"])
    if ring == 0:
        plain_copy(live, out)
        return
    step = layout.RING_CHUNK if ring >= layout.SMALL_RING else layout.SMALL_RING_CHUNK
    size = os.fstat(live).st_size
    with out.open("xb") as file:
        for begin, end in extents(live, size):
            first = max(begin - (begin - layout.HEADER_SIZE) % step, layout.HEADER_SIZE)
            for at in range(first, end, step):
                before = _owner(live, at)
                chunk = bytearray(os.pread(live, step, at))
                if _owner(live, at) != before:
                    chunk[: layout.CHUNK.itemsize] = bytes(layout.CHUNK.itemsize)
                file.seek(at)
                file.write(chunk)
        file.truncate(max(size, file.tell()))
        # Last, so that `complete_from` covers all that was overwritten meanwhile.
        file.seek(0)
        file.write(os.pread(live, layout.HEADER_SIZE, 0))


def copy_since(folder: Path, out: Path, since_ns: int) -> None:
    """Make of the dump `folder` a recording `out`, an empty folder, that begins then: quick to read, of a large ring.

    Chunks that end before are left out. What there is besides is linked. Raises `OSError`.
    """
    files = {file.path.name: file for file in open_files(folder)}
    for path in folder.iterdir():
        file = files.get(path.name)
        if file is None or not int(file.header["ring_size"]):
            os.link(path, out / path.name)
            continue
        ticking = file.clock is not layout.Clock.MONOTONIC_NS
        since = tick_clock(folder, [file]).to_ticks(since_ns) if ticking else since_ns
        _copy_chunks_since(path, out / path.name, since)


def _copy_chunks_since(path: Path, out: Path, since: int) -> None:
    with path.open("rb") as file, out.open("xb") as copy:
        head = bytearray(file.read(layout.HEADER_SIZE))
        header = np.frombuffer(head, layout.HEADER, 1)[0]
        step = layout.RING_CHUNK if int(header["ring_size"]) >= layout.SMALL_RING else layout.SMALL_RING_CHUNK
        size = os.fstat(file.fileno()).st_size
        count = (size - layout.HEADER_SIZE) // step
        heads = np.zeros(count, layout.CHUNK)
        for at in range(count):
            data = os.pread(file.fileno(), layout.CHUNK.itemsize, layout.HEADER_SIZE + at * step)
            heads[at] = np.frombuffer(data, layout.CHUNK)[0]
        order = np.lexsort((heads["sequence"], heads["thread"]))
        followed = np.zeros(count, np.bool_)
        thread, base = heads["thread"][order], heads["base"][order]
        followed[order[:-1]] = (thread[1:] == thread[:-1]) & (base[1:] <= since)
        for at in np.flatnonzero((heads["magic"] != 0) & ~followed).tolist():
            place = layout.HEADER_SIZE + at * step
            os.pwrite(copy.fileno(), os.pread(file.fileno(), step, place), place)
        header = np.frombuffer(head, layout.HEADER, 1).copy()
        header["complete_from"] = np.maximum(header["complete_from"], max(since, int(header["start_ticks"][0])))
        head[: layout.HEADER.itemsize] = header.tobytes()
        os.pwrite(copy.fileno(), bytes(head), 0)
        os.truncate(copy.fileno(), size)


def _owner(live: int, at: int) -> bytes:
    """What tells one use of a place from the next: the head of the chunk there, up to its sequence number."""
    assert layout.CHUNK.fields is not None
    return os.pread(live, int(layout.CHUNK.fields["sequence"][1]) + 4, at)


def _copy_switches(folder: Folder, name: str, out: Path) -> None:
    """Both halves of a bounded file into the folder `out`, however often the recorder turns them over meanwhile."""
    older = name.removesuffix(".bin") + ".old.bin"
    for _ in range(_TRIES):
        with _opened(folder, name) as new:
            for each in folder.names(re.compile(re.escape(older))):
                (out / each).unlink(missing_ok=True)
                with _opened(folder, each) as old:
                    plain_copy(old, out / each)
            with _opened(folder, name) as again:
                unchanged = os.fstat(new).st_ino == os.fstat(again).st_ino
            if unchanged:
                plain_copy(new, out / name)
                return
