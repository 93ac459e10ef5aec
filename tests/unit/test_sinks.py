"""Whatever a program calls its threads, functions and files: nothing that is written takes it for more than text."""

from __future__ import annotations

import csv
import io
import json
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from giltrace.cli import app
from giltrace.recording import layout
from giltrace.recording.spans import read_spans, write_spans
from giltrace.reports import rows
from giltrace.text import visible
from giltrace.views.trace_processor import unavailable
from tests.damage import chunks
from tests.fuzzing import COMMANDS, follow, working_in
from traces.regenerate import unpack

EVIL = (
    "\x1b]0;owned\x07\x1b[31m",
    "</script><script>alert(1)</script><!--",
    "=cmd|' /C calc'!A0",
    "-2+3",
    "@x\t\r\n",
    "\u202egnp.exe\u2066",
    "\x9b31m\x90",
    "[bold red]markup[/]",
    'a;b,"c"',
    "\ud800",
)
#: Of each of them, in that order, what is still seen of it where it was made safe.
MARKS = (rb"\x1b", b"alert(1)", b"calc", b"-2+3", b"@x", rb"\u202e", rb"\x9b", b"markup", b"a;b", rb"\ud800")
_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def evil(number: int) -> str:
    return EVIL[number % len(EVIL)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two recordings, it and whole; in the former all names are evil."""
    place = tmp_path_factory.mktemp("sinks")
    unpack("single", place).rename(place / "whole.giltrace")
    made = unpack("convoy", place).rename(place / "it.giltrace")
    for path in made.iterdir():
        if path.name.startswith("gil-"):
            _name_threads(path)
        elif path.name.startswith("stacks-"):
            path.write_bytes(_renamed(path.read_bytes()))
        elif path.name.startswith("sched-"):
            path.write_bytes(path.read_bytes().replace(b"python", b"\x1b[31m\x9b"))
    (spans,) = read_spans(made)
    names = tuple(evil(at) + str(at) for at in range(len(spans.names)))
    write_spans(made, type(spans)(spans.collector, spans.pid, spans.sampled, names, spans.spans))
    told = json.loads((made / "meta.json").read_text())
    told["command"] = list(EVIL)
    told["collectors"][0] |= {"name": evil(0), "status": evil(1), "cost": evil(6)}
    told["machine"]["release"] = evil(0)
    told["trigger"] = {"kind": evil(0), "rule": evil(0), "time_ns": told["start_ns"]}
    (made / "meta.json").write_text(json.dumps(told))
    return place


def _name_threads(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for number, at in enumerate(chunks(data)):
        (thread,) = struct.unpack_from("<I", data, at + 8)
        name = evil(thread + number // 50).encode(errors="surrogatepass")
        data[at + 40 : at + layout.CHUNK.itemsize] = name.ljust(88, b"\0")
    data[1208:3256] = b"\0".join(text.encode(errors="surrogatepass") for text in EVIL).ljust(2048, b"\0")
    data[3256:3512] = evil(0).encode().ljust(256, b"\0")
    path.write_bytes(data)


def _renamed(data: bytes) -> bytes:
    """The stacks with other names of files and functions."""
    out, at, number = b"", 0, 0
    while at < len(data):
        (kind,) = struct.unpack_from("<I", data, at)
        if kind == 2:
            end = at + 16 + 8 * struct.unpack_from("<4I", data, at)[2]
            out, at = out + data[at:end], end
            continue
        out, at = out + data[at : at + 12], at + 12
        for text in range(3):
            width, length = struct.unpack_from("<2I", data, at)
            end = at + 8 + width * length
            if text < 2:
                new = (evil(number + text) + f"/{number}.py").encode("utf-16-le", "surrogatepass")
                out += struct.pack("<2I", 2, len(new) // 2) + new
            else:
                out += data[at:end]
            at = end
        number += 1
    return out


def is_safe(text: str) -> bool:
    return text.isprintable() and text.encode() is not None


def check_printable(data: bytes) -> None:
    assert {one for one in data.decode() if not one.isprintable()} <= {"\n"}


def check_text(data: bytes) -> None:
    check_printable(data)
    assert any(mark in data for mark in MARKS)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from strings(one)


def check_json(data: bytes) -> None:
    check_text(data)
    assert [one for one in strings(json.loads(data)) if not is_safe(one)] == []


def check_page(data: bytes) -> None:
    text = data.decode()
    assert {one for one in text if not one.isprintable()} <= {"\n", "\t"}
    assert "<script>alert" not in text
    assert "<!--" not in text.partition("<body>")[2]
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found is not None
    check_json(found[1].encode())


def check_csv(data: bytes) -> None:
    check_text(data)
    cells = [cell for row in csv.reader(io.StringIO(data.decode(), newline="")) for cell in row]
    assert [cell for cell in cells if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)] == []


def check_folded(data: bytes) -> None:
    check_text(data)
    assert [line for line in data.decode().splitlines() if not re.fullmatch(r"[^;]+(;[^;]+)* \d+", line)] == []


def _texts_of(message: Any) -> Iterator[str]:
    for field, value in message.ListFields():
        for one in [value] if not field.is_repeated else value:
            if hasattr(one, "ListFields"):
                yield from _texts_of(one)
            elif isinstance(one, str):
                yield one
            elif isinstance(one, bytes) and field.name == "str":
                yield one.decode()


def check_trace(data: bytes) -> None:
    from giltrace.exporters.perfetto.protos import pb

    texts = set(_texts_of(pb.Trace.FromString(data)))
    assert [one for one in texts if not is_safe(one)] == []
    assert any(r"\x1b" in one for one in texts)


CSV = ("processes", "threads", "holds", "waits")
SINKS: dict[str, tuple[tuple[str, ...], Callable[[bytes], None]]] = {
    **{name: (COMMANDS[name], check_text) for name in ("report", "compare")},
    "check": (COMMANDS["check"], check_printable),
    **{name: (COMMANDS[name], check_json) for name in ("json", "check-json", "compare-json")},
    **{name: (COMMANDS[name], check_json) for name in ("chrome", "firefox", "speedscope")},
    **{name: (COMMANDS[name], check_folded) for name in ("waiting", "culprits", "holding")},
    **{f"csv {name}": (("export", "it", "--to", "csv", "--table", name, "-o", "-"), check_csv) for name in CSV},
    "html": (COMMANDS["html"], check_page),
    "perfetto": (COMMANDS["perfetto"], check_trace),
}


@pytest.mark.parametrize("sink", SINKS)
def test_names_are_text_and_nothing_else(sink: str, folder: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    words, check = SINKS[sink]
    with working_in(folder), pytest.raises(SystemExit) as ended:
        app.main(words)
    out, err = capsysbinary.readouterr()
    assert (ended.value.code in (0, 1), err) == (True, b"")
    check(out)


def test_names_in_parquet_are_text(folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with working_in(folder), pytest.raises(SystemExit):
        app.main(COMMANDS["parquet"])
    for path in (folder / "parquet").iterdir():
        assert [one for one in strings(parquet.read_table(path).to_pylist()) if not is_safe(one)] == []


def test_names_on_the_live_screen_are_text(folder: Path) -> None:
    pages: list[str] = []
    follow(folder / "it.giltrace", pages.append)
    text = "\n".join(pages)
    check_text(text.encode())


@pytest.mark.parametrize("form", ["table", "csv", "json"])
@pytest.mark.parametrize("source", ["rows", "trace"])
def test_names_in_the_answer_to_a_query_are_text(
    form: str, source: str, folder: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    if source == "rows":
        columns = ["=a\x1b", "number", "half", "none", "bytes"]
        found = [[text, -5, float("-inf"), None, b"\x1b"] for text in EVIL]
        if form == "table":
            rows.print_rows(columns, found, Console())
        else:
            print((rows.as_csv if form == "csv" else rows.as_json)(columns, found), end="")
        out = capsysbinary.readouterr().out
        assert form != "csv" or b",-5," in out
    else:
        if unavailable() is not None:
            pytest.skip("no trace processor")
        sql = "select distinct thread, culprit, site, culprit_site, gil - 5 as less from gil_waits"
        with working_in(folder), pytest.raises(SystemExit):
            app.main(["query", "it", sql, *([f"--{form}"] if form != "table" else [])])
        out = capsysbinary.readouterr().out
    # What was not made by giltrace, JSON gives as it was: escaped.
    as_json = check_printable if source == "rows" else check_json
    checks: dict[str, Callable[[bytes], None]] = {"table": check_text, "csv": check_csv, "json": as_json}
    checks[form](out)


def test_names_in_errors_are_text(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = tmp_path / "a\x1b[31m\u202e.giltrace"
    odd.mkdir()
    told = {"format": "giltrace-recording", "version": "\x1b[1m", "giltrace": "\x9b"}
    (odd / "meta.json").write_text(json.dumps(told))
    for words in (["report", odd], ["report", tmp_path / "\x1b]0;x\x07"], ["query", f"{odd}.pftrace", "select 1"]):
        with pytest.raises(SystemExit) as ended:
            app.main([str(word) for word in words])
        assert ended.value.code == 2
        err = capsys.readouterr().err
        assert r"\x1b" in err
        assert err.replace("\n", "").isprintable()


def test_what_an_encoding_does_not_have_is_escaped(folder: Path) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with pytest.MonkeyPatch.context() as patch, working_in(folder):
        patch.setattr("sys.stdout", out)
        with pytest.raises(SystemExit) as ended:
            app.main(["check", "it", "--max-wait", "1ns"])
    assert ended.value.code == 1
    out.seek(0)
    assert "FAIL max-wait" in out.read()


def test_the_evil_names_are_there(folder: Path) -> None:
    import giltrace

    names = {str(name) for name in giltrace.load(folder / "it").threads["name"]}
    assert visible(EVIL[0]) in names
    assert np.all([name.isprintable() for name in names])
