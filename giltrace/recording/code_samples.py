"""What code threads ran, by the samples in `sched-<cpu>.bin`: addresses, and the places of files that they stand for.

Which file lies at an address is told by the records of mappings in the same files, and by `maps.bin`: records of the
same kind, written by the recorder, of mappings that are older than what the other files hold. Addresses are of the
program's own code only; of a sample the first is where it was, the others are what the frame pointers led to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.recording.door import Damaged, leaving_out
from giltrace.recording.maps_file import DEPTH, MAPS, MMAP
from giltrace.recording.perf_records import LOW, MISC_EXEC, Index, Rare, Words, kinds, load, rare_records, record_starts
from giltrace.recording.perf_types import Type
from giltrace.recording.sched import sched_files

Ints = npt.NDArray[np.int64]

_SAMPLE_HEAD = 6
#: Addresses above are the kernel's marks between the parts of a chain.
_HIGHEST = np.uint64(1 << 63)

#: A sample: when, whose, and its `DEPTH` addresses as places: which file, -1 for none, and where in it.
SAMPLE = np.dtype(
    [("time", "<i8"), ("pid", "<i4"), ("tid", "<i4"), ("file", "<i4", (DEPTH,)), ("place", "<i8", (DEPTH,))]
)


class MappedFile(NamedTuple):
    """A file of code: what the program knew it as, its inode's number, and when (ns) it was mapped first.

    `device` is what it lies on, as the kernel's major and minor numbers.
    """

    path: str
    inode: int
    since: int
    device: tuple[int, int] = (0, 0)


class CodeSamples(NamedTuple):
    """All samples (dtype `SAMPLE`) in no order, and the `files` that their places are in."""

    samples: npt.NDArray[np.void]
    files: tuple[MappedFile, ...]


#: What tells one file from another.
_Key = tuple[str, int, int, int]
_Known = dict[_Key, MappedFile]


class _Mapping(NamedTuple):
    time: int
    start: int
    end: int
    place: int
    file: int


@dataclass
class _Image:
    """What one program image has mapped, oldest first. `since` is when it began."""

    since: int
    mappings: list[_Mapping] = field(default_factory=list)


def read_code_samples(folder: Path) -> CodeSamples:
    """Read the samples of a recording; what is damaged is left out."""
    maps = folder / MAPS
    rows, rare = [np.empty(0, _RAW)], list[Rare]()
    for path in [*sched_files(folder), *([maps] if maps.exists() else [])]:
        with leaving_out(path, list[Damaged]()):
            words = load(path)
            starts = record_starts(words)
            types = kinds(words, starts)
            rows.append(_samples(words, starts[types == Type.SAMPLE]))
            chosen = np.isin(types, (Type.COMM, Type.FORK, Type.MMAP2))
            rare += [one for one in rare_records(words, starts[chosen]) if one.makes_sense()]
    raw = np.concatenate(rows)
    if not len(raw):
        return CodeSamples(np.empty(0, SAMPLE), ())
    known: _Known = {}
    images = _images(sorted(rare, key=lambda record: record.time), known)
    return CodeSamples(_placed(raw, images), tuple(known.values()))


_RAW = np.dtype([("time", "<i8"), ("pid", "<i4"), ("tid", "<i4"), ("address", "<u8", (DEPTH,))])


def _samples(words: Words, starts: Index) -> npt.NDArray[np.void]:
    size = (words[starts] >> np.uint64(51)).astype(np.int64)
    count = words[starts + _SAMPLE_HEAD - 1]
    whole = count == (size - _SAMPLE_HEAD).astype(np.uint64)
    starts, size = starts[whole], size[whole]
    rows = np.zeros(len(starts), _RAW)
    rows["time"] = words[starts + 3]
    rows["pid"], rows["tid"] = words[starts + 2] & LOW, words[starts + 2] >> np.uint64(32)
    rows["address"][:, 0] = words[starts + 1]
    # The chain: marks, the address again, and what it was called from.
    filled = np.ones(len(starts), np.int64)
    previous = np.zeros(len(starts), np.bool_)
    for at in range(int((size - _SAMPLE_HEAD).max(initial=0))):
        there = np.flatnonzero(at < size - _SAMPLE_HEAD)
        address = words[starts[there] + _SAMPLE_HEAD + at]
        own = address < _HIGHEST
        there, address = there[own], address[own]
        caller = previous[there] & (filled[there] < DEPTH)
        previous[there] = True
        there, address = there[caller], address[caller]
        rows["address"][there, filled[there]] = address
        filled[there] += 1
    return rows


def _images(records: list[Rare], known: _Known) -> dict[int, list[_Image]]:
    """The images of each process, in order of time; their files are added to what is `known`."""
    numbers: dict[_Key, int] = {}
    images: dict[int, list[_Image]] = {}
    for record in records:
        pid, parent, tid, _ = record.ids
        if record.kind == Type.MMAP2:
            mapping = _mapping(record, numbers, known)
            if mapping is not None:
                images.setdefault(pid, [_Image(0)])[-1].mappings.append(mapping)
        elif record.kind == Type.COMM:
            if record.misc & MISC_EXEC:
                images.setdefault(pid, []).append(_Image(record.time))
        elif pid == tid and pid != parent:
            # A new process, which has what its parent has mapped.
            inherited = images[parent][-1].mappings if parent in images else []
            images.setdefault(pid, []).append(_Image(record.time, list(inherited)))
    return images


def _mapping(record: Rare, numbers: dict[_Key, int], known: _Known) -> _Mapping | None:
    _, _, start, length, place, major, minor, inode, *_ = MMAP.unpack_from(record.body)
    if max(start, length, place) >= 1 << 62 or inode >= 1 << 63:
        return None
    path = record.body[MMAP.size :].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
    key = path, inode, major, minor
    number = numbers.setdefault(key, len(numbers))
    if number == len(known):
        known[key] = MappedFile(path, inode, record.time, (major, minor))
    return _Mapping(record.time, start, start + length, place, number)


def _placed(raw: npt.NDArray[np.void], images: dict[int, list[_Image]]) -> npt.NDArray[np.void]:
    """Find the place of each address."""
    rows = np.zeros(len(raw), SAMPLE)
    for name in ("time", "pid", "tid"):
        rows[name] = raw[name]
    rows["file"] = -1
    order = np.lexsort((raw["time"], raw["pid"]))
    pids, first = np.unique(raw["pid"][order], return_index=True)
    for pid, mine in zip(pids.tolist(), np.split(order, first[1:]), strict=True):
        own = images.get(pid, [])
        begin = np.searchsorted(raw["time"][mine], [image.since for image in own])
        for image, part in zip(own, np.split(mine, begin)[1:], strict=True):
            _place(image, raw, part, rows)
    return rows


def _place(image: _Image, raw: npt.NDArray[np.void], part: Ints, rows: npt.NDArray[np.void]) -> None:
    """Find the places of the addresses in those samples of an image whose numbers are in `part`."""
    table = np.array([tuple(one) for one in image.mappings], np.int64).reshape(-1, 5)
    address, time = raw["address"][part], raw["time"][part]
    edges = np.unique(table[:, 1:3])
    # Between two edges everything is mapped by the same mappings, mostly by one.
    within = np.searchsorted(edges, address.astype(np.int64), "right") - 1
    covering: list[list[int]] = [[] for _ in range(len(edges) + 1)]
    for number, (_, start, end, _, _) in enumerate(image.mappings):
        for at in range(int(np.searchsorted(edges, start)), int(np.searchsorted(edges, end))):
            covering[at].append(number)
    for at in np.unique(within[address > 0]).tolist():
        # The latest before the sample; a callee's mapping is never younger than the sample.
        numbers = covering[at]
        if at < 0 or not numbers:
            continue
        row, column = np.nonzero((within == at) & (address > 0))
        latest = np.searchsorted(table[numbers, 0], time[row], "right") - 1
        known = latest >= 0
        row, column, latest = row[known], column[known], latest[known]
        chosen = table[np.array(numbers)[latest]]
        rows["file"][part[row], column] = chosen[:, 4]
        rows["place"][part[row], column] = address[row, column].astype(np.int64) - chosen[:, 1] + chosen[:, 3]
