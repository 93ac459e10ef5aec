"""The prompt of `giltrace query`, typed by a person: a pseudo-terminal, statements over lines, words of its own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from giltrace.exporters.perfetto import trace as perfetto
from giltrace.reports.rows import print_rows
from giltrace.views.gil_tables import GilTraceProcessor
from giltrace.views.prompt import Book, statements
from giltrace.views.trace_processor import cache_folder, unavailable
from tests.synthetic import make_process, make_timeline

WHY_NOT = unavailable()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


class Typing:
    """A prompt and the person before it, who reads up to each prompt before typing on."""

    def __init__(self, trace: Path, home: Path) -> None:
        self._master, slave = pty.openpty()
        plain = {"TERM": "dumb", "COLUMNS": "60", "INPUTRC": "/dev/null"}
        environment = os.environ | plain | {"XDG_CACHE_HOME": str(home)}
        command = [sys.executable, "-m", "giltrace", "query", str(trace)]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        self.start = self.until("giltrace> ")

    def until(self, end: str) -> str:
        """All that is printed up to `end`."""
        text = ""
        while not text.endswith(end):
            text += os.read(self._master, 1).decode(errors="replace")
        return text.replace("\r\n", "\n")

    def type(self, line: str, end: str = "giltrace> ") -> str:
        os.write(self._master, line.encode())
        return self.until(end)

    def end(self, line: str) -> int:
        """Type the last line; the exit status."""
        os.write(self._master, line.encode())
        return self.process.wait(60)

    def __enter__(self) -> Typing:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "x.pftrace"
    perfetto.write(make_timeline(make_process(holds=50)), path)
    GilTraceProcessor(path)
    # A history of its own, but not a trace processor: that takes seconds to compile.
    cache = tmp_path / "giltrace"
    cache.mkdir()
    for compiled in cache_folder().glob("*.bin"):
        (cache / compiled.name).symlink_to(compiled)
    return path


def test_statements_words_errors_and_the_end(trace: Path, tmp_path: Path) -> None:
    with Typing(trace, tmp_path) as prompt:
        assert ".help" in prompt.start
        prompt.type("select count() as n\n", end="...> ")
        answer = prompt.type("from gil_holds where ';' = ';';\n")
        assert "\n n\n" in answer
        assert "\n50\n" in answer
        assert "no such column: foo" in prompt.type("select foo from slice;\n")
        assert "gil_handoffs" in prompt.type(".tables\n")
        assert "create perfetto table gil_blame" in prompt.type(".schema gil_blame\n")
        assert "gil_blame" in prompt.type(".schema nonsense\n")
        assert "semicolon" in prompt.type(".what\n")
        assert "\n7\n" in prompt.type("select 7 as x;\n")
        assert prompt.end("\\q\n") == 0


def test_an_interrupt_drops_the_statement_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    typed: Iterator[str | BaseException] = iter(["select dropped", KeyboardInterrupt(), "select", "7;", EOFError()])

    def answer(prompt: str) -> str:
        line = next(typed)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", answer)
    said: list[str] = []
    assert list(statements(said.append, Book({}, ""))) == ["select\n7;"]
    assert said == ["", ""]


def test_what_was_typed_is_remembered(trace: Path, tmp_path: Path) -> None:
    for number in (41, 42):
        with Typing(trace, tmp_path) as prompt:
            prompt.type(f"select {number} as x;\n")
            assert prompt.end("\x04") == 0
    history = (tmp_path / "giltrace" / "query_history").read_text().splitlines()
    assert {"select 41 as x;", "select 42 as x;"} <= {*history}


def test_a_row_too_wide_for_the_terminal_takes_a_line_per_column(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    rows: list[list[str | int | None]] = [["x" * 30, "y" * 30, None], ["[b]", "z", 7]]
    print_rows(["first", "second", "third"], rows, Console(width=50, force_terminal=True, color_system=None))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["first   " + "x" * 30, "second  " + "y" * 30, "third", "", "first   [b]", "second  z", "third   7"]
    print_rows(["first", "second", "third"], rows, Console(width=100, force_terminal=True, color_system=None))
    assert len(capsys.readouterr().out.splitlines()) == 4
