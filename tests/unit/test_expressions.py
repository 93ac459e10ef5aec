"""What was called at a line: columns out of CPython's own tables, and expressions out of the source."""

from __future__ import annotations

import asyncio.base_events
import inspect
import json.decoder
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from giltrace.analysis.findings.hogs import find_hogs
from giltrace.analysis.measure.expressions import LONGEST, Expressions
from giltrace.recording.lines import NO_COLUMNS, LineTable
from giltrace.timeline.model import Process
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import process
from tests.unit.test_summary_verdict import hog

SOURCE = "import json\n\ndef load(texts):\n    return [json.loads(text) for text in texts]\n"
# Later than any file that these tests write.
NOW = time.time_ns() + 10**13


def codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="code has columns from 3.11 on")
@pytest.mark.parametrize("module", [asyncio.base_events, json.decoder, tempfile, inspect, re])
def test_columns_are_those_that_cpython_reads(module: ModuleType) -> None:
    assert module.__file__ is not None
    whole = compile(Path(module.__file__).read_bytes(), module.__file__, "exec")
    seen = 0
    for code in codes(whole):
        table = LineTable(sys.version_info[:2], code.co_firstlineno, code.co_linetable)
        for number, (line, last, begin, end) in enumerate(code.co_positions()):  # type: ignore[attr-defined]
            known = line is not None and line == last and begin is not None and end is not None and begin < end
            assert table.columns(2 * number) == ((begin, end) if known else NO_COLUMNS)
            seen += known
    assert seen > 500


def at(file: Path, line: int, begin: int = 0, end: int = 0) -> Process:
    """A process with hogs at a place of a file."""
    made = with_stacks(process(*hog()), [[("load", str(file), line)]], hold={1: 0})
    assert made.stacks is not None
    table = made.stacks.table
    frames = table.frames.copy()
    frames["begin"], frames["end"] = begin, end
    return replace(made, stacks=replace(made.stacks, table=replace(table, frames=frames)))


def source(folder: Path, text: str = SOURCE, name: str = "app.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_hog_tells_what_was_called(tmp_path: Path) -> None:
    (found,) = find_hogs(at(source(tmp_path), 4, 12, 28), NOW)
    assert found.expression == "json.loads(text)"
    (found,) = find_hogs(at(source(tmp_path), 4), NOW)
    assert found.expression == "return [json.loads(text) for text in texts]"


def test_what_begins_a_function_calls_nothing(tmp_path: Path) -> None:
    assert Expressions(at(source(tmp_path), 3), NOW).at(0) == ""
    assert Expressions(at(source(tmp_path, "    async  def sleep(n=pause(1)):\n", "two.py"), 1), NOW).at(0) == ""
    # Where the columns say so it is called in that line.
    assert Expressions(at(tmp_path / "two.py", 1, 23, 31), NOW).at(0) == "pause(1)"
    assert Expressions(at(source(tmp_path, "default(1)\n", "three.py"), 1), NOW).at(0) == "default(1)"


def test_nothing_is_told_of_source_that_is_not_that_of_the_recording(tmp_path: Path) -> None:
    path = source(tmp_path)
    os.utime(path, ns=(NOW + 1, NOW + 1))
    assert Expressions(at(path, 4), NOW).at(0) == ""
    assert Expressions(at(tmp_path / "gone.py", 4), NOW).at(0) == ""
    assert Expressions(at(source(tmp_path, name="short.py"), 40), NOW).at(0) == ""
    assert Expressions(at(Path("app.py"), 4), NOW).at(0) == ""


def test_a_recording_cannot_have_any_file_told(tmp_path: Path) -> None:
    secret = source(tmp_path, "secret\n", "secret.txt")
    assert Expressions(at(secret, 1), NOW).at(0) == ""
    link = tmp_path / "link.py"
    link.symlink_to(secret)
    assert Expressions(at(link, 1), NOW).at(0) == ""
    os.mkfifo(tmp_path / "pipe.py")
    assert Expressions(at(tmp_path / "pipe.py", 1), NOW).at(0) == ""


def test_long_expressions_are_cut_and_columns_beyond_the_line_are_not_believed(tmp_path: Path) -> None:
    path = source(tmp_path, f"x = call({', '.join(map(str, range(99)))})\n", "long.py")
    told = Expressions(at(path, 1, 4, 300), NOW).at(0)
    assert (len(told), told[:9], told[-3:]) == (LONGEST, "call(0, 1", "...")
    assert Expressions(at(path, 1, 4, 60_000), NOW).at(0).startswith("x = call(")


def test_the_users_own_expression_comes_before_a_librarys(tmp_path: Path) -> None:
    stack = [("loads", "/usr/lib/python3.12/json/__init__.py", 346), ("load", str(source(tmp_path)), 4)]
    made = with_stacks(process(*hog()), [stack], hold={1: 0})
    assert Expressions(made, NOW).at(0) == "return [json.loads(text) for text in texts]"


def test_without_stacks_nothing_is_told() -> None:
    assert Expressions(process(*hog()), NOW).at(0) == ""
    assert Expressions(with_stacks(process(*hog()), [[]], hold={1: 0}), NOW).at(0) == ""
    assert len(find_hogs(process(*hog()), NOW)) == 1
