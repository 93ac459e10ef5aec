"""Functions and frames of ELF files, against binutils; what is malformed has no names and does no more harm."""

from __future__ import annotations

import bisect
import contextlib
import lzma
import random
import re
import struct
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from giltrace.process.call_frames import CallFrames
from giltrace.process.elf_file import ElfFile, Functions, NotElf, plain_name
from tests.native_hogs import BUILDS, build

SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)


def elf_file(data: bytes) -> ElfFile:
    return ElfFile(lambda at, count: data[at : at + count])


def functions(*symbols: tuple[int, int, str]) -> Functions:
    """Functions that begin at an address, are so long, and have a name."""
    names, rows = b"\0", []
    for start, size, name in symbols:
        rows.append((len(names), 2, 0, 1, start, size))
        names += name.encode() + b"\0"
    return Functions([(np.array(rows, SYMBOL), names)])


def told(known: Functions, address: int) -> str:
    (found,) = known.find(np.array([address])).tolist()
    return known.name(found) if found >= 0 else ""


def test_only_an_extent_that_covers_the_address_has_its_name() -> None:
    known = functions((100, 10, "first"), (200, 20, "second"))
    at = {99: "", 100: "first", 109: "first", 110: "", 199: "", 200: "second", 219: "second", 220: "", 1 << 60: ""}
    assert {address: told(known, address) for address in at} == at
    assert told(functions(), 100) == ""


def test_the_innermost_of_several_that_cover_it_is_told() -> None:
    known = functions((0, 1000, "outer"), (100, 100, "middle"), (120, 10, "inner"), (120, 50, "longer"))
    expected = {50: "outer", 110: "middle", 125: "inner", 140: "longer", 180: "middle", 300: "outer", 1000: ""}
    assert {address: told(known, address) for address in expected} == expected


def test_of_several_names_for_the_same_code_the_plainest_is_told() -> None:
    assert told(functions((0, 9, "__GI___nanosleep"), (0, 9, "__nanosleep"), (0, 9, "nanosleep")), 5) == "nanosleep"


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("list_sort_impl", "list_sort_impl"),
        ("memcpy@@GLIBC_2.14", "memcpy"),
        ("_Z4spinm", "spin"),
        ("_ZN5torch8autograd6Engine7executeEv", "torch::autograd::Engine::execute"),
        ("_ZNK3foo3barEi", "foo::bar"),
        ("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write"),
        *(
            (one, one)
            for one in ("_ZSt4sortIPiEvT_S1_", "_Z3fooIiEvv", "_ZN3FooC1Ev", "_ZN3foo3barIiEEvv", "_Z", "_ZN9fooE")
        ),
    ],
)
def test_names_are_written_as_in_the_source_where_they_are_plain(symbol: str, name: str) -> None:
    assert plain_name(symbol) == name


@pytest.fixture(params=["library", *BUILDS])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An ELF file: the C library, and libraries built for tests."""
    if request.param == "library":
        return Path(next(iter(_mapped("/libc.so.6"))))
    return build(tmp_path, request.param)


def _mapped(ending: str) -> Iterator[str]:
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(ending):
            yield line.split()[-1]


def test_every_function_is_found_where_binutils_finds_it(file: Path) -> None:
    known = elf_file(file.read_bytes()).functions()
    names: dict[tuple[int, int], set[str]] = {}
    for table in ((), ("--dynamic",)):
        command = ["nm", "--print-size", "--defined-only", *table, str(file)]
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        for start, size, name in re.findall(r"^([0-9a-f]+) ([0-9a-f]+) [tTwW] (\S+)$", listed, re.M):
            names.setdefault((int(start, 16), int(size, 16)), set()).add(name.partition("@")[0])
    shortest: dict[int, int] = {}
    for start, size in names:
        shortest[start] = min(size, shortest.get(start, size))
    for start, size in shortest.items():
        assert told(known, start) in names[start, size]
    assert len(names) > 2


def frames_of_binutils(file: Path) -> Callable[[int], bool]:
    """Whether binutils says that at an address the frame pointer leads to the return address."""
    command = ["readelf", "--debug-dump=frames-interp", "--wide", str(file)]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    starts, leads = [0], [False]
    for part in re.split(r"\n\n", text):
        head = re.search(r" FDE .*pc=([0-9a-f]+)\.\.([0-9a-f]+)", part)
        if head is None:
            continue
        begin, end = int(head[1], 16), int(head[2], 16)
        columns = re.search(r"LOC +CFA +(.*)", part)
        names = columns[1].split() if columns else []
        rows = re.findall(r"^([0-9a-f]{16}) (\S+) +(.*)$", part, re.M)
        if starts[-1] != begin:
            starts.append(begin)
            leads.append(False)
        for at, cfa, rest in rows:
            kept = dict(zip(names, rest.split(), strict=False)).get("rbp")
            if int(at, 16) == starts[-1]:
                leads[-1] = cfa == "rbp+16" and kept == "c-16"
            else:
                starts.append(int(at, 16))
                leads.append(cfa == "rbp+16" and kept == "c-16")
        starts.append(end)
        leads.append(False)
    order = sorted(range(len(starts)), key=lambda i: (starts[i], i))
    starts, leads = [starts[i] for i in order], [leads[i] for i in order]
    return lambda address: leads[bisect.bisect_right(starts, address) - 1]


@pytest.mark.skipif(sysconfig.get_platform() != "linux-x86_64", reason="known for x86-64 only")
def test_frame_pointers_are_known_where_binutils_knows_them(file: Path) -> None:
    elf = elf_file(file.read_bytes())
    frames, truth = CallFrames(elf), frames_of_binutils(file)
    chance = random.Random(7)
    (code,) = elf.loads
    everything = range(code.address, code.address + code.size)
    tried = everything if len(everything) < 10_000 else chance.sample(everything, 10_000)
    answers = [frames.has_frame_pointer(address) for address in tried]
    assert answers == [truth(address) for address in tried]
    assert any(answers) == (file.name not in ("libplain.so", "libstripped.so"))


def test_symbols_that_are_packed_into_a_stripped_file_are_read(tmp_path: Path) -> None:
    whole = build(tmp_path, "plain")
    packed, stripped = tmp_path / "packed", tmp_path / "stripped.so"
    packed.write_bytes(lzma.compress(whole.read_bytes()))
    for command in (
        ["strip", "--strip-all", "-o", str(stripped), str(whole)],
        ["objcopy", "--add-section", f".gnu_debugdata={packed}", str(stripped)],
    ):
        subprocess.run(command, check=True)
    (address,) = re.findall(r"^([0-9a-f]+) [0-9a-f]+ t hidden$", nm(whole), re.M)
    assert told(elf_file(stripped.read_bytes()).functions(), int(address, 16)) == "hidden"
    bare = tmp_path / "bare.so"
    subprocess.run(["strip", "--strip-all", "-o", str(bare), str(whole)], check=True)
    assert told(elf_file(bare.read_bytes()).functions(), int(address, 16)) == ""


def nm(file: Path) -> str:
    return subprocess.run(["nm", "--print-size", str(file)], capture_output=True, text=True, check=True).stdout


def test_places_in_the_file_are_addresses_of_code(tmp_path: Path) -> None:
    elf = elf_file(build(tmp_path, "plain").read_bytes())
    (code,) = elf.loads
    offsets = np.array([code.offset - 1, code.offset, code.offset + code.size - 1, code.offset + code.size])
    assert elf.addresses(offsets).tolist() == [-1, code.address, code.address + code.size - 1, -1]


def test_what_is_no_elf_file_is_refused() -> None:
    for data in (
        b"",
        b"\x7fELF",
        b"#!/bin/sh\n" * 100,
        b"\x7fELF\x01\x01" + bytes(100),
        b"\x7fELF\x02\x02" + bytes(100),
    ):
        with pytest.raises(NotElf):
            elf_file(data)


def test_damage_does_no_harm(tmp_path: Path) -> None:
    whole = build(tmp_path, "framed").read_bytes()
    chance = random.Random(3)
    addresses = np.arange(0, 0x2000, 7)
    for _ in range(400):
        data = bytearray(whole[: chance.choice((len(whole), chance.randrange(len(whole))))])
        for _ in range(chance.choice((1, 10, 300))):
            at = chance.choice((chance.randrange(len(data)), chance.randrange(min(len(data), 0x300))))
            data[at] = chance.randrange(256)
        for _ in range(chance.choice((0, 2))):
            at = 8 * chance.randrange(len(data) // 8) if len(data) >= 8 else 0
            data[at : at + 8] = struct.pack("<Q", chance.choice((0, 1, 1 << 31, 1 << 40, (1 << 64) - 1)))
        try:
            elf = elf_file(bytes(data))
            known = elf.functions()
        except NotElf:
            continue
        for number in np.unique(known.find(addresses)).tolist():
            assert number < 0 or isinstance(known.name(number), str)
        with contextlib.suppress(NotElf):
            assert isinstance(elf.build_id, bytes)
        frames = CallFrames(elf)
        assert {frames.has_frame_pointer(int(address)) for address in addresses} <= {True, False}
