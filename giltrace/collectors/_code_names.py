"""Gives the native code that was sampled its names, out of the files that it is in, while these are there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from giltrace.process.call_frames import CallFrames
from giltrace.process.elf_file import ElfFile, Functions, NotElf
from giltrace.recording.code_samples import CodeSamples, MappedFile, read_code_samples
from giltrace.recording.events import NATIVE_SAMPLE, NativeCode, NativeFunction
from giltrace.recording.maps_file import DEPTH
from giltrace.recording.native_code import write_native_code
from giltrace.recording.perf_types import ANONYMOUS

Ints = npt.NDArray[np.int64]

#: Opens a file of the program's for reading. Raises OSError.
Open = Callable[[str], int]

_DEBUG_FILES = "/usr/lib/debug/.build-id"
#: For so many different chains of functions without a name callers are looked for.
MOST_CHAINS = 20_000


def name_code(folder: Path, open_file: Open) -> int:
    """Name what was sampled in the recording `folder`, write it there, and return how many samples that were.

    Raises OSError if it cannot be written.
    """
    code = read_code_samples(folder)
    if len(code.samples):
        write_native_code(folder, named(code, open_file))
    return len(code.samples)


def named(code: CodeSamples, open_file: Open) -> NativeCode:
    """The samples with their functions."""
    # A file's time is that of a clock that goes less often than the one that tells when it was mapped.
    since_1970 = time.time_ns() - time.monotonic_ns()
    files = [_File(one, since_1970, open_file) for one in code.files]
    try:
        functions, found = _functions_of(code.samples, files)
    finally:
        for file in files:
            file.close()
    samples = np.empty(len(code.samples), NATIVE_SAMPLE)
    samples["time"], samples["tid"], samples["function"] = code.samples["time"], code.samples["tid"], found
    order = np.lexsort((samples["time"], samples["tid"]))
    return NativeCode(tuple(functions), samples[order])


def _functions_of(rows: npt.NDArray[np.void], files: list[_File]) -> tuple[list[NativeFunction], Ints]:
    """The functions that were seen, and the number of each sample's."""
    numbers: dict[NativeFunction, int] = {}
    found = np.empty(len(rows), np.int64)
    leaf, place = rows["file"][:, 0], rows["place"][:, 0]
    nameless = [np.empty(0, np.int64)]
    for number in np.unique(leaf).tolist():
        mine = np.flatnonzero(leaf == number)
        if number < 0:
            found[mine] = numbers.setdefault(NativeFunction("", ""), len(numbers))
            continue
        file = files[number]
        symbols, of_row = np.unique(file.symbols(place[mine]), return_inverse=True)
        seen = [NativeFunction(file.name(one) if one >= 0 else "", file.path) for one in symbols.tolist()]
        found[mine] = np.array([numbers.setdefault(one, len(numbers)) for one in seen])[of_row]
        nameless.append(mine[symbols[of_row] < 0])
    _find_callers(rows, np.concatenate(nameless), files, numbers, found)
    return list(numbers), found


def _find_callers(
    rows: npt.NDArray[np.void],
    nameless: Ints,
    files: list[_File],
    numbers: dict[NativeFunction, int],
    found: Ints,
) -> None:
    """Where a function has no name, take the first one above it that has, as far as the way there is proven."""
    chains = np.concatenate((rows["file"][nameless], rows["place"][nameless]), axis=1)
    distinct, of_row, count = np.unique(chains, axis=0, return_inverse=True, return_counts=True)
    of_row = of_row.ravel()
    number = np.full(len(distinct), -1, np.int64)
    for at in np.argsort(-count)[:MOST_CHAINS].tolist():
        chain = distinct[at].tolist()
        function = _called(list(zip(chain[:DEPTH], chain[DEPTH:], strict=True)), files)
        if function is not None:
            number[at] = numbers.setdefault(function, len(numbers))
    has_caller = number[of_row] >= 0
    found[nameless[has_caller]] = number[of_row[has_caller]]


def _called(chain: list[tuple[int, int]], files: list[_File]) -> NativeFunction | None:
    """The innermost function of a chain of places in files, without a name, with the first above it that has one."""
    for depth, (callee, caller) in enumerate(pairwise(chain)):
        # What stands on the stack is where the call goes on: it is made by the instruction before.
        if caller[0] < 0 or not files[callee[0]].leads_on(callee[1] - (depth > 0)):
            return None
        file = files[caller[0]]
        (symbol,) = file.symbols(np.array([caller[1] - 1])).tolist()
        if symbol >= 0:
            return NativeFunction("", files[chain[0][0]].path, file.name(symbol), file.path)
    return None


class _File:
    """A file of code, opened when it is first asked for; nothing is known of one that is not what was mapped."""

    def __init__(self, mapped: MappedFile, since_1970: int, open_file: Open) -> None:
        self.path = mapped.path
        self._mapped, self._since_1970, self._open = mapped, since_1970, open_file
        self._descriptors: list[int] = []

    def close(self) -> None:
        """Let go of the file."""
        for descriptor in self._descriptors:
            os.close(descriptor)

    @cached_property
    def _elf(self) -> ElfFile | None:
        if not self.path.startswith("/") or self.path == ANONYMOUS:
            return None
        try:
            descriptor = self._opened(self.path)
            return _elf_file(descriptor) if self._is_mapped(os.fstat(descriptor)) else None
        except (OSError, ValueError, NotElf):
            return None

    def _is_mapped(self, about: os.stat_result) -> bool:
        """Whether this is the file that was mapped, and as it was then."""
        # What puts file systems together (overlays) has devices of its own, with the major number 0.
        devices = self._mapped.device, (os.major(about.st_dev), os.minor(about.st_dev))
        same = about.st_ino == self._mapped.inode and (devices[0] == devices[1] or 0 in (devices[0][0], devices[1][0]))
        return same and about.st_mtime_ns <= self._mapped.since + self._since_1970

    def _opened(self, path: str) -> int:
        descriptor = self._open(path)
        self._descriptors.append(descriptor)
        return descriptor

    @cached_property
    def _functions(self) -> Functions:
        elf = self._elf
        try:
            return elf.functions(self._debug_file(elf.build_id)) if elf is not None else Functions([])
        except NotElf:
            return Functions([])

    def _debug_file(self, build_id: bytes) -> ElfFile | None:
        """The file that has the symbols of a stripped one, if the system has it."""
        name = build_id.hex()
        try:
            debug = _elf_file(self._opened(f"{_DEBUG_FILES}/{name[:2]}/{name[2:]}.debug")) if name else None
            return debug if debug is not None and debug.build_id == build_id else None
        except (OSError, NotElf):
            return None

    @cached_property
    def _frames(self) -> CallFrames | None:
        return CallFrames(self._elf) if self._elf is not None else None

    def symbols(self, places: Ints) -> Ints:
        """The number of the function that covers each place of the file; -1 for none."""
        if self._elf is None:
            return np.full(len(places), -1, np.int64)
        return self._functions.find(self._elf.addresses(places))

    def name(self, symbol: int) -> str:
        """What that function is called."""
        return self._functions.name(symbol)

    def leads_on(self, place: int) -> bool:
        """Whether the frame pointer leads to the caller of the code at that place."""
        if self._elf is None or self._frames is None:
            return False
        (address,) = self._elf.addresses(np.array([place])).tolist()
        return self._frames.has_frame_pointer(address)


def _elf_file(descriptor: int) -> ElfFile:
    size = os.fstat(descriptor).st_size
    return ElfFile(lambda at, count: os.pread(descriptor, max(min(count, size - at), 0), at))
