"""What the tracer's records say of locks: addresses that stand before a BLOCK or a WAKE, and the type of an object."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from giltrace.recording import layout
from giltrace.recording.chunks import Written
from giltrace.recording.events import ProcessEvents
from giltrace.recording.gil import Decoder
from giltrace.recording.layout import AddressFlag, Kind, More, Outcome, TypeFlag, WakeFlag, Way
from giltrace.recording.stacks import read_stacks
from giltrace.timeline.blocks import match_blocks
from giltrace.timeline.model import Thread
from tests.stack_files import code, record, stack, text

FAR = 0x1FF_FFFF_FFFF_FFFF  # as high as an address may be


def address(flag: AddressFlag, value: int) -> int:
    low, high = value & (1 << layout.TIME_BITS) - 1, value >> layout.TIME_BITS
    return low | Kind.STACK << layout.KIND_SHIFT | flag << layout.FLAG_SHIFT | high << layout.GIL_SHIFT


def number(kind: Kind, value: int, flag: int = 0) -> int:
    return value | kind << layout.KIND_SHIFT | flag << layout.FLAG_SHIFT


def more(what: More, time: int, *, arg: int = 0, flags: int = 0) -> int:
    head = Kind.THREAD_END << layout.KIND_SHIFT | flags << layout.FLAG_SHIFT
    return time | head | what << layout.GIL_SHIFT | arg << layout.CORE_SHIFT


def decoded(*chunks: tuple[int, list[int]]) -> tuple[Decoder, np.ndarray[tuple[int], np.dtype[np.void]]]:
    """The events of chunks, each of a thread with its records."""
    decoder = Decoder(None)
    records = [np.array(words, np.uint64) for _, words in chunks]
    written = Written(
        threads=np.array([thread for thread, _ in chunks]),
        bases=np.zeros(len(chunks), np.uint64),
        records=np.concatenate(records),
        bounds=np.cumsum([0, *map(len, records)]),
    )
    return decoder, decoder.decode(written, [0] * len(chunks))


def test_a_block_has_its_places_its_stack_and_what_is_held() -> None:
    decoder, events = decoded(
        (
            0,
            [
                number(Kind.STACK, 7),
                address(AddressFlag.HELD, 0xABC0),
                address(AddressFlag.HELD, FAR),
                number(Kind.HOLDER_STACK, 3, TypeFlag.TYPE),
                address(AddressFlag.LOCK, FAR),
                address(AddressFlag.SEMAPHORE, 0x7F00_1234_5678),
                more(More.BLOCK, 100, arg=Way.PARKED | Way.TIMED | Way.WITH_ARGUMENT),
                more(More.BLOCK_END, 250, arg=Outcome.TIMED_OUT),
            ],
        ),
        (1, [number(Kind.STACK, 9), address(AddressFlag.SEMAPHORE, 0x40), more(More.WAKE, 200, flags=WakeFlag.OWNED)]),
    )
    assert events[["time", "thread", "kind", "stack"]].tolist() == [
        (100, 0, Kind.SLEPT, 7),
        (250, 0, Kind.AWOKE, 7),
        (200, 1, Kind.POSTED, 9),
    ]
    assert events["flags"].tolist()[0] == Way.PARKED | Way.TIMED | Way.WITH_ARGUMENT
    assert events["arg"].tolist()[1] == Outcome.TIMED_OUT
    assert events["flags"].tolist()[2] == WakeFlag.OWNED
    assert decoder.places.table.tolist() == [(0x7F00_1234_5678, FAR), (0x40, 0)] or decoder.places.table.tolist() == [
        (0x40, 0),
        (0x7F00_1234_5678, FAR),
    ]
    assert sorted(decoder.places.types.tolist()) == [0, 3]
    assert decoder.held[["time", "thread", "semaphore"]].tolist() == [(100, 0, 0xABC0), (100, 0, FAR)]


def test_what_belongs_to_another_chunk_is_not_taken_for_ones_own() -> None:
    decoder, _ = decoded(
        (0, [number(Kind.HOLDER_STACK, 3, TypeFlag.TYPE), address(AddressFlag.LOCK, 8)]),
        (1, [address(AddressFlag.SEMAPHORE, 0x40), more(More.BLOCK, 5)]),
    )
    assert decoder.places.table.tolist() == [(0x40, 0)]
    assert decoder.places.types.tolist() == [0]


def test_a_type_before_a_look_at_the_holder_is_no_stack_of_that() -> None:
    sample = 50 | Kind.TIMEOUT << layout.KIND_SHIFT | 1 << layout.FLAG_SHIFT
    _, events = decoded(
        (0, [number(Kind.HOLDER_STACK, 3, TypeFlag.TYPE), sample, number(Kind.HOLDER_STACK, 4), sample])
    )
    assert events["stack"].tolist() == [0, 4]


def test_names_of_types_are_read_by_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "stacks-1-0.bin"
    two = record(6, (2).to_bytes(4, "little") + text(b"collections.deque"))
    path.write_bytes(code(1, "work") + two + stack(1, 1) + record(6, (1).to_bytes(4, "little") + text(b"dict")))
    found = read_stacks(path, (3, 13))
    assert found is not None
    assert found[0].types == ("dict", "collections.deque")
    assert len(found[0]) == 1


def test_a_lock_has_the_type_of_its_object(tmp_path: Path) -> None:
    path = tmp_path / "stacks-1-0.bin"
    path.write_bytes(code(1, "work") + stack(1, 1) + record(6, (1).to_bytes(4, "little") + text(b"dict")))
    found = read_stacks(path, (3, 13))
    assert found is not None
    way = Way.PARKED | Way.WITH_ARGUMENT
    decoder, events = decoded(
        (
            0,
            [
                number(Kind.HOLDER_STACK, 1, TypeFlag.TYPE),
                address(AddressFlag.LOCK, 0x100A),
                address(AddressFlag.SEMAPHORE, 0x5000),
                more(More.BLOCK, 10, arg=way),
                more(More.BLOCK_END, 20),
                address(AddressFlag.LOCK, 0x2000),
                address(AddressFlag.SEMAPHORE, 0x5000),
                more(More.BLOCK, 30, arg=way),
            ],
        )
    )
    recorded = ProcessEvents(
        1, 0, "", "", "", 0, (), (), events,
        stacks=found[0], places=decoder.places.table, place_types=decoder.places.types, held=decoder.held,
    )  # fmt: skip
    blocks = match_blocks(events, recorded, [Thread(1, "MainThread", 0, 100)])
    assert [(hex(address), kind) for address, kind in zip(blocks.locks["address"], blocks.types, strict=True)] == [
        ("0x100a", "dict"),
        ("0x2000", ""),
    ]
