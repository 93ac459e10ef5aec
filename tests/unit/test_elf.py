"""The symbols of a loaded object: what is found, and that nothing malformed does more harm than not to be one."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from giltrace.process import elf
from giltrace.process.elf import LoadedObject, NotElf

START = 0x7F00_0000_0000
#: Where things lie in the image, which is relocated as glibc does it.
HEAD, DYNAMIC, HASH, SYMBOLS, STRINGS, CODE = 0, 0x100, 0x200, 0x300, 0x400, 0x480
BUCKETS, CHAIN = HASH + 16 + 8, HASH + 16 + 8 + 4
NAMES = ("", "malloc", "first", "resolver", "second", "elsewhere")


def hashed(name: str) -> int:
    value = 5381
    for byte in name.encode():
        value = (value * 33 + byte) % (1 << 32)
    return value


def image() -> bytearray:
    """An object that imports malloc and elsewhere, the latter hashed, and defines first, resolver and second."""
    data = bytearray(0x500)
    data[:5] = b"\x7fELF\x02"
    struct.pack_into("<Q", data, 32, 64)
    struct.pack_into("<HH", data, 54, 56, 2)
    struct.pack_into("<IIQQQQQQ", data, 64, 1, 5, 0, 0, 0, len(data), len(data), 0)
    struct.pack_into("<IIQQQQQQ", data, 120, 2, 6, DYNAMIC, DYNAMIC, 0, 64, 64, 0)
    tables = ((5, START + STRINGS), (6, SYMBOLS), (0x6FFFFEF5, START + HASH), (0, 0))
    for at, entry in enumerate(tables):
        struct.pack_into("<QQ", data, DYNAMIC + 16 * at, *entry)
    struct.pack_into("<4I", data, HASH, 1, 2, 1, 0)
    struct.pack_into("<I", data, BUCKETS, 2)
    text = b"\0".join(name.encode() for name in NAMES) + b"\0"
    data[STRINGS : STRINGS + len(text)] = text
    for at, name in enumerate(NAMES):
        section, kind = (0 if name in ("", "malloc", "elsewhere") else 7), (10 if name == "resolver" else 2)
        place = text.index(name.encode() + b"\0") if name else 0
        struct.pack_into("<IBBHQQ", data, SYMBOLS + 24 * at, place, kind, 0, section, 0x10 * at if section else 0, 0)
        if at >= 2:
            last = at == len(NAMES) - 1
            struct.pack_into("<I", data, CHAIN + 4 * (at - 2), hashed(name) & ~1 | last)
    data[CODE : CODE + 4] = b"code"
    return data


class Memory:
    """`data` at START, in the middle of nothing; `reads` counts, `asked` is the most that was asked for at once."""

    def __init__(self, data: bytearray) -> None:
        self.data, self.reads, self.asked = data, 0, 0

    def __call__(self, address: int, size: int) -> bytes:
        self.reads, self.asked = self.reads + 1, max(self.asked, size)
        if not START <= address < START + len(self.data):
            raise OSError("no memory")
        return bytes(self.data[address - START : address - START + size])


def test_what_is_defined_is_found_and_what_is_imported() -> None:
    loaded = LoadedObject(Memory(image()), START)
    assert (loaded.address("first"), loaded.address("second")) == (START + 0x20, START + 0x40)
    # The code that chooses a function is not that function.
    assert [loaded.address(name) for name in ("resolver", "malloc", "elsewhere", "nothing", "")] == [None] * 5
    assert [loaded.imports(name) for name in ("malloc", "elsewhere", "first", "nothing")] == [True, True, False, False]
    assert loaded.text == [(START, START + 0x500)]
    assert (loaded.code(b"code"), loaded.code(b"none")) == (START + CODE, None)
    assert not loaded.dynamically_linked


@pytest.mark.parametrize(
    ("place", "form", "value"),
    [
        (0, "<I", 0),  # no ELF
        (4, "<B", 1),  # ELF32
        (32, "<Q", 1 << 63),  # segments nowhere
        (54, "<H", 0),  # segments of no size
        (56, "<H", 0),  # no segments
        (64, "<I", 9),  # nothing is loaded
        (120, "<I", 9),  # no dynamic section
        (120 + 16, "<Q", 1 << 62),  # a dynamic section nowhere
        (120 + 40, "<Q", 1 << 60),  # an endless one
        (120 + 40, "<Q", 0),  # an empty one
        (DYNAMIC, "<Q", 4),  # no names
        (DYNAMIC + 32, "<Q", 4),  # no hash table
    ],
)
def test_what_is_no_object_is_refused(place: int, form: str, value: int) -> None:
    data = image()
    struct.pack_into(form, data, place, value)
    with pytest.raises(NotElf):
        LoadedObject(Memory(data), START)


@pytest.mark.parametrize(
    ("place", "form", "value"),
    [
        (HASH, "<I", 0),  # no buckets
        (HASH, "<I", 0xFFFFFFFF),  # more than there can be
        (HASH + 8, "<I", 0xFFFFFFFF),  # a filter that has no end
        (BUCKETS, "<I", 0xFFFFFFFF),  # a chain that begins nowhere
        (DYNAMIC + 16 + 8, "<Q", START - 0x10000),  # symbols nowhere
        (DYNAMIC + 32 + 8, "<Q", 1 << 63),  # a hash table nowhere
    ],
)
def test_tables_that_make_no_sense_are_refused(place: int, form: str, value: int) -> None:
    data = image()
    struct.pack_into(form, data, place, value)
    with pytest.raises(NotElf):
        LoadedObject(Memory(data), START).address("second")


def test_more_imports_than_can_be_are_not_read() -> None:
    data = image()
    struct.pack_into("<I", data, HASH + 4, 0x7FFFFFFF)
    struct.pack_into("<I", data, BUCKETS, 0)
    memory = Memory(data)
    with pytest.raises(NotElf):
        LoadedObject(memory, START).imports("malloc")
    assert memory.asked < 1 << 16


def test_a_chain_without_an_end_is_left() -> None:
    data = image()
    struct.pack_into("<Q", data, DYNAMIC + 32 + 8, START + len(data))
    data += data[HASH:CHAIN] + bytes(8 * elf._CHAIN_MAX)
    memory = Memory(data)
    with pytest.raises(NotElf):
        LoadedObject(memory, START).address("nothing")
    assert elf._CHAIN_MAX < memory.reads < elf._CHAIN_MAX + 20


def test_a_name_that_never_ends_is_no_name() -> None:
    data = image()
    whole = data[: STRINGS + sum(len(name) + 1 for name in NAMES) - 1]
    assert LoadedObject(Memory(whole), START).imports("elsewhere") is False


@pytest.mark.parametrize("seed", range(5))
def test_random_damage_does_no_harm(seed: int) -> None:
    random = np.random.default_rng(seed)
    right = LoadedObject(Memory(image()), START).address("second")
    outcomes: set[bool | None] = set()
    for _ in range(300):
        data = image()
        for place in random.integers(0, STRINGS, 3).tolist():
            data[place] = int(random.integers(0, 256))
        memory = Memory(data)
        try:
            loaded = LoadedObject(memory, START)
            outcomes.add(loaded.address("second") == right)
            loaded.imports("malloc")
        except NotElf:
            outcomes.add(None)
        assert memory.asked <= elf._BYTES_MAX
        assert memory.reads < 100
    assert outcomes == {True, False, None}
