"""Ways to damage a recording, each by chance: bits, heads, numbers, text, and what a file is at all."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import socket
import struct
import sys
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from giltrace.recording import layout
from giltrace.recording.clock import PAIR
from giltrace.recording.events import NATIVE_SAMPLE, SPAN, Array

Chance = random.Random

NUMBERS = (0, 1, 2, 3, 63, 64, 65, 127, 255, 4095, 4096, 65535, 1 << 22, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
LARGE = (*NUMBERS, 1 << 32, 1 << 40, 1 << 53, (1 << 62) + 7, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
TEXTS = (
    "",
    "\0",
    "a\nb\rc\t",
    "\x1b]0;x\x07\x1b[31m",
    "\x9b31m",
    "\u202egnp",
    "\ud800",
    "=1+1",
    "[bold red]",
    "9" * 5000,
)
VALUES: tuple[Any, ...] = (
    *LARGE,
    *TEXTS,
    *(-1, -(1 << 63), 1 << 70, 10**4000, 1.5, -0.0, float("nan"), float("inf"), 1e308, None, True, False),
    *([], {}, [[]], {"": {}}, [1], ["x"], {"1": 2}, {"x": "y"}, {"-5": "n"}, {str(10**12): 5}, [{}], [{"name": 1}]),
)


_GIANT = 1 << 28


def damage(folder: Path, chance: Chance) -> str:
    """Damage the recording in one to three ways, and say in which."""
    told = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        way = chance.choice(WAYS)
        files = [path for path in sorted(folder.iterdir()) if way.fits(path)]
        if files:
            path = chance.choice(files)
            way.apply(path, chance)
            told.append(f"{way.name} {path.name}")
    return ", ".join(told) or "nothing"


class Way:
    """One way: its `name`, the files that it `fits` by the beginning of their names, and what it does to one."""

    def __init__(self, apply: Callable[[Path, Chance], None], *starts: str) -> None:
        self.apply, self.name, self.starts = apply, apply.__name__.strip("_"), starts

    def fits(self, path: Path) -> bool:
        kind = "spans" if path.name.endswith(".spans.npz") else path.name
        # What has been made a giant before would be read whole.
        is_usual = path.is_file() and not path.is_symlink() and path.stat().st_size < _GIANT
        return is_usual and kind.startswith(self.starts or ("",))


def _bits(path: Path, chance: Chance) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 5, 50, 1000)) if data else 0):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def _noise(path: Path, chance: Chance) -> None:
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data) + 1)
    length = chance.choice((1, 8, 64, 4096, 1 << 16))
    data[at : at + length] = chance.randbytes(min(length, len(data) - at))
    path.write_bytes(data)


def _only_noise(path: Path, chance: Chance) -> None:
    path.write_bytes(chance.randbytes(chance.choice((1, 24, 4096, 100_000))))


def _cut(path: Path, chance: Chance) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size + 1))


def _grown(path: Path, chance: Chance) -> None:
    with path.open("ab") as file:
        file.write(chance.choice((b"\0" * 100_000, b"\xff" * 100_000, path.read_bytes())))


def _doubled(path: Path, chance: Chance) -> None:
    """A piece stands twice, or is missing."""
    data = path.read_bytes()
    at, length = chance.randrange(len(data) + 1), chance.choice((1, 8, 24, 4096, 16384))
    path.write_bytes(data[: at + length] + data[at if chance.random() < 0.5 else at + 2 * length :])


def _copied(path: Path, chance: Chance) -> None:
    """The file is there once more, under another number."""
    number = chance.choice(("0", "1", "00", "7", "99999999999", "-1", "", "4194305", "x", "1.old"))
    stem, _, rest = path.name.partition("-")
    tail = rest.partition(".")[2]
    name = f"gil-{rest.partition('-')[0]}-{number}.bin" if stem == "gil" else f"{stem}-{number}.{tail}"
    if not (path.parent / name).exists():
        shutil.copyfile(path, path.parent / name)


def _sparse(path: Path, chance: Chance) -> None:
    size = chance.choice((1 << 32, 1 << 34, 1 << 40))
    with path.open("r+b") as file:
        file.truncate(size)
        if chance.random() < 0.5:
            file.seek(size - 4096 * chance.randrange(1, 100))
            file.write(chance.randbytes(64))


def _sparse_in_front(path: Path, chance: Chance) -> None:
    data = path.read_bytes()
    with path.open("wb") as file:
        file.seek(chance.choice((4096, 1 << 32)))
        file.write(data)


def _pipe(path: Path, chance: Chance) -> None:
    path.unlink()
    os.mkfifo(path)


def _socket(path: Path, chance: Chance) -> None:
    path.unlink()
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path may not be long
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


def _link(path: Path, chance: Chance) -> None:
    path.unlink()
    path.symlink_to(chance.choice(("/dev/zero", "/dev/stdin", path.name, "..", "nowhere", "/etc/passwd", "/dev/full")))


def _folder(path: Path, chance: Chance) -> None:
    path.unlink()
    path.mkdir()


def _closed(path: Path, chance: Chance) -> None:
    path.chmod(0)


def _gone(path: Path, chance: Chance) -> None:
    path.unlink()


def _other_file(path: Path, chance: Chance) -> None:
    shutil.copyfile(
        chance.choice([one for one in sorted(path.parent.iterdir()) if one.is_file() and one.stat().st_size < _GIANT]),
        path.parent / "x",
    )
    (path.parent / "x").replace(path)


def _put(data: bytearray, at: int, dtype: np.dtype[Any], name: str, value: int) -> None:
    assert dtype.fields is not None
    kind, offset = dtype.fields[name][:2]
    base = kind.base
    if base.kind == "S":
        text = TEXTS[value % len(TEXTS)].encode(errors="surrogatepass")[: kind.itemsize]
        data[at + offset : at + offset + len(text)] = text
    else:
        data[at + offset : at + offset + base.itemsize] = (value % (1 << 8 * base.itemsize)).to_bytes(
            base.itemsize, "little"
        )


def _number(chance: Chance) -> int:
    return chance.choice(LARGE) if chance.random() < 0.7 else chance.getrandbits(chance.choice((8, 16, 32, 64)))


def _head(path: Path, chance: Chance) -> None:
    data = bytearray(path.read_bytes())
    names = [name for name in layout.HEADER.names or () if name != "magic"]
    for _ in range(chance.choice((1, 1, 3))):
        _put(data, 0, layout.HEADER, chance.choice(names), _number(chance))
    path.write_bytes(data)


def chunks(data: bytes | bytearray) -> list[int]:
    """Where the chunks of one of the tracer's files begin."""
    magic, step = layout.CHUNK_MAGIC.to_bytes(4, "little"), layout.SMALL_CHUNK
    return [at for at in range(4096, len(data) - step + 1, step) if data[at : at + 4] == magic]


def _chunk_head(path: Path, chance: Chance) -> None:
    data = bytearray(path.read_bytes())
    found = chunks(data)
    for _ in range(chance.choice((1, 1, 5)) if found else 0):
        _put(data, chance.choice(found), layout.CHUNK, chance.choice(layout.CHUNK.names or ()), _number(chance))
    path.write_bytes(data)


def _records(path: Path, chance: Chance) -> None:
    """Records of other kinds, times, GILs, cores and stacks."""
    data = bytearray(path.read_bytes())
    found = chunks(data)
    for _ in range(chance.choice((1, 20, 500)) if found else 0):
        chunk = chance.choice(found)
        at = chunk + layout.CHUNK.itemsize + 8 * chance.randrange(400)
        (word,) = struct.unpack_from("<Q", data, at) if at + 8 <= len(data) else (0,)
        if not word:
            continue
        kind = chance.choice((1, 2, 3, 4, 5, 6, 7))
        word = chance.choice(
            (
                word & ~(7 << layout.KIND_SHIFT) | kind << layout.KIND_SHIFT,
                word ^ chance.getrandbits(layout.TIME_BITS),
                word ^ chance.getrandbits(6) << layout.GIL_SHIFT,
                word ^ chance.getrandbits(13) << layout.CORE_SHIFT,
                chance.choice((6, 7)) << layout.KIND_SHIFT | chance.choice((*NUMBERS, chance.getrandbits(32))),
                chance.getrandbits(64),
            )
        )
        struct.pack_into("<Q", data, at, word)
    path.write_bytes(data)


def _stacks(path: Path, chance: Chance) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 5, 50)) if len(data) >= 4 else 0):
        struct.pack_into("<I", data, 4 * chance.randrange(len(data) // 4), _number(chance) & 0xFFFFFFFF)
    path.write_bytes(data)


def _more_stacks(path: Path, chance: Chance) -> None:
    """Stacks and code that make sense but for a number."""
    with path.open("ab") as file:
        for _ in range(20):
            text = b"".join(
                struct.pack("<2I", 1, len(one)) + one for one in (b"f\x1b[1m", b"=g\n", chance.randbytes(9))
            )
            file.write(struct.pack("<3I", 1, _number(chance) & 0xFFFFFFFF, chance.getrandbits(32)) + text)
            number = chance.choice((chance.getrandbits(32), 1 << 30, 5))
            file.write(struct.pack("<4I", 2, number, 1, chance.randrange(2)) + struct.pack("<2I", 1, 4))


def _clock(path: Path, chance: Chance) -> None:
    data = path.read_bytes()
    pairs = np.frombuffer(data[: len(data) // PAIR.itemsize * PAIR.itemsize], PAIR).copy()
    for _ in range(chance.choice((1, 3)) if len(pairs) else 0):
        at = chance.randrange(len(pairs))
        pairs[chance.choice(PAIR.names or ())][at] = chance.choice((_number(chance) % (1 << 64), int(pairs["ns"][0])))
    if chance.random() < 0.3:
        pairs = pairs[::-1]
    path.write_bytes(pairs.tobytes())


def _sched(path: Path, chance: Chance) -> None:
    """Words of perf records: sizes, types, process ids, times, cores."""
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 5, 100)) if len(data) >= 8 else 0):
        at = 8 * chance.randrange(len(data) // 8)
        if chance.random() < 0.5:
            struct.pack_into("<Q", data, at, _number(chance) % (1 << 64))
        else:
            struct.pack_into("<H", data, at + 2 * chance.randrange(4), _number(chance) & 0xFFFF)
    path.write_bytes(data)


def _meta_field(path: Path, chance: Chance) -> None:
    try:
        told = json.loads(path.read_text())
    except ValueError:
        return
    for _ in range(chance.choice((1, 1, 2))):
        at: Any = told
        while isinstance(at, dict | list) and at:
            key: Any = chance.choice(sorted(at, key=str)) if isinstance(at, dict) else chance.randrange(len(at))
            inner = at[key]
            if not isinstance(inner, dict | list) or not inner or chance.random() < 0.4:
                if isinstance(at, dict) and chance.random() < 0.2:
                    del at[key]
                    at[chance.choice(("extra", *TEXTS))] = inner
                else:
                    # A copy: what is damaged next may be this value.
                    at[key] = deepcopy(chance.choice(VALUES))
                break
            at = inner
    _dump(path, told)


def _meta_more(path: Path, chance: Chance) -> None:
    """The fields that few recordings have."""
    try:
        told = json.loads(path.read_text())
    except ValueError:
        return
    field = chance.choice(("thread_names", "ids", "trigger", "collectors", "machine", "state", "version", "format"))
    odd = [{chance.choice(("1", "x", "21316", *TEXTS)): chance.choice(VALUES)}, chance.choice(VALUES)]
    odd += [{"kind": "wait", "rule": "\x1b[1m", "time_ns": chance.choice(VALUES)}]
    if not isinstance(told, dict):
        return
    told[field] = chance.choice(odd)
    _dump(path, told)


def _dump(path: Path, told: Any) -> None:
    most = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        path.write_text(json.dumps(told))
    finally:
        sys.set_int_max_str_digits(most)


def _meta_whole(path: Path, chance: Chance) -> None:
    whole = path.read_bytes()
    path.write_bytes(
        chance.choice(
            (
                *(b"", b"null", b"[]", b"{}", b"NaN", b"1e999", b'"x"', b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe"),
                *(whole.decode(errors="replace").encode("utf-16"), b"\xef\xbb\xbf" + whole, whole + b"}", whole[:-3]),
                *(b"9" * 100_000, b'{"format": "giltrace-recording", "version": 1}'),
                b'{"format": "giltrace-recording", "version": 2, "giltrace": "\\u001b[31m' + b"9" * 999 + b'"}',
                whole.replace(b'"start_ns"', b'"start_ns": {"a": ' + b"[" * 900 + b"]" * 900 + b'}, "start_ns"'),
                whole.replace(b'"start_ns": ', b'"start_ns": -'),
                whole.replace(b'"start_ns": ', b'"start_ns": 9'),
                whole.replace(b'"end_ns": ', b'"end_ns": 9'),
            )
        )
    )


def _rows(kind: np.dtype[np.void], chance: Chance) -> Array:
    rows = np.zeros(chance.choice((1, 100)), kind)
    for name in kind.names or ():
        high = int(np.iinfo(kind[name]).max)
        rows[name] = [chance.choice((0, 1, high, chance.randrange(high))) for _ in range(len(rows))]
    return rows


def _spans(path: Path, chance: Chance) -> None:
    """Rows and descriptions of the right form, with other contents."""
    rows = _rows(SPAN, chance)
    about: dict[str, Any] = {"version": 1, "collector": "py-spy", "pid": 21316, "sampled": True, "names": ["\x1b[1m"]}
    about |= {"clock_error_ns": 5, "lost": 0}
    if chance.random() < 0.7:
        about[chance.choice(sorted(about))] = chance.choice(VALUES)
    arrays: dict[str, Any] = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8), "spans": rows}
    odd = (rows["start"], rows.reshape(1, -1), rows.astype([(name, ">f8") for name in SPAN.names or ()]), np.array(5))
    if chance.random() < 0.4:
        arrays["spans"] = chance.choice((*odd, np.array([{}, print], object)))
    save = chance.choice((np.savez, np.savez_compressed))
    with path.open("wb") as file:
        save(file, **arrays)


def _native(path: Path, chance: Chance) -> None:
    """Samples and functions of the right form, with other contents."""
    rows = _rows(NATIVE_SAMPLE, chance)
    functions: Any = [[chance.choice(TEXTS) for _ in range(4)] for _ in range(chance.choice((0, 1, 5)))]
    about: dict[str, Any] = {"version": 1, "functions": functions}
    if chance.random() < 0.5:
        about[chance.choice(sorted(about))] = chance.choice(VALUES)
    with path.open("wb") as file:
        np.savez(file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), samples=rows)


def _bomb(path: Path, chance: Chance) -> None:
    """An archive that says it has, or unpacks to, far more than it is."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": SPAN.descr, "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(path, "w", chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        archive.writestr("about.npy", head.getvalue())
        archive.writestr("spans.npy", head.getvalue() + bytes(chance.choice((0, 50_000_000))))


_ANY: tuple[Callable[[Path, Chance], None], ...]
_ANY = (_bits, _bits, _noise, _only_noise, _cut, _cut, _grown, _doubled, _copied, _sparse, _sparse_in_front)
_ANY += (_pipe, _socket, _link, _folder, _closed, _gone, _other_file)
_GIL = (_head, _head, _head, _chunk_head, _chunk_head, _records, _records, _records)
WAYS = (
    *(Way(apply) for apply in _ANY),
    *(Way(apply, "gil-") for apply in _GIL),
    *(Way(apply, "stacks-") for apply in (_stacks, _stacks, _more_stacks)),
    *(Way(apply, "sched-") for apply in (_sched, _sched)),
    *(
        Way(apply, "meta.json")
        for apply in (_meta_field, _meta_field, _meta_more, _meta_more, _meta_whole, _meta_whole)
    ),
    *(Way(apply, "spans") for apply in (_spans, _bomb)),
    *(Way(apply, "native-code") for apply in (_native, _bomb)),
    Way(_clock, "clock.bin"),
)
