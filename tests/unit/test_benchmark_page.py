"""The page of benchmarks: what it makes of times, and that the one that is there is as the program writes it."""

from __future__ import annotations

import datetime
import re
import sys
from pathlib import Path

import pytest

from benchmarks import peers, run
from benchmarks.peers import Peer

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
TOLD = "CPython 3.13.1"


def times(tool: str, *seconds: float | None) -> run.Took:
    clocks = [None if one is None else (one, one / 2) for one in seconds]
    return {(TOLD, tool, program): list(clocks) for program in run.PROGRAMS}


def test_a_time_is_set_against_the_bare_one_of_its_round() -> None:
    took = times(peers.BARE, 1.0, 2.0, 4.0) | times("slow", 2.0, 3.0, 8.0) | times("shaky", None, 3.0, None)
    bare, slow, shaky = run.rows_of(took, 0)
    assert bare[:3] == [peers.BARE, TOLD, "2.00 (1.00 to 4.00) s"]
    assert slow[:3] == ["slow", TOLD, "x 2.00 (1.50 to 2.00)"]
    # 1, 1 and 4 s more for half a million turns.
    assert slow[-1] == "2000 (2000 to 8000) ns"
    assert shaky[2] == "x 1.50"
    assert {len(row) for row in (bare, slow, shaky)} == {len(run.HEAD)}
    assert run.rows_of(took, 1)[0][2] == "1.00 (0.50 to 2.00) s"


def test_a_tool_that_fails_is_told_and_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def breaks(python: str, program: Path, folder: Path) -> list[str]:
        tried.append(program)
        return [python, "-c", f"raise SystemExit('broke in {folder}')"]

    def works(python: str, program: Path, folder: Path) -> list[str]:
        return [python, str(program)]

    monkeypatch.setattr(peers, "PEERS", (Peer(peers.BARE, works, "x = 7", "assert x == 7"), Peer("broken", breaks)))
    programs = {"one": "took = 1.5, 1.0", "two": "took = x / 2, 3.0"}
    monkeypatch.setattr(run, "PROGRAMS", programs)
    took, failed = run.measure({TOLD: sys.executable}, 2)
    assert took[TOLD, peers.BARE, "one"] == [(1.5, 1.0)] * 2
    assert took[TOLD, peers.BARE, "two"] == [(3.5, 3.0)] * 2
    assert took[TOLD, "broken", "one"] == took[TOLD, "broken", "two"] == [None] * 2
    assert failed[TOLD, "broken"] == [f"{name}, exit status 1: broke in ..." for name in ("one", "two", "one")]
    assert len(tried) == 3
    (said,) = run.remarks({}, failed)
    assert said.startswith(f"broken failed in 3 runs on {TOLD}, left out above: one, exit status 1")


def test_what_cannot_be_imported_is_absent_with_the_reason() -> None:
    peer = Peer("none", peers.PEERS[0].command, module="no_such_module_anywhere")
    assert peers.why_absent(peer, sys.executable) == "no module no_such_module_anywhere can be imported there"
    assert peers.why_absent(peers.PEERS[0], sys.executable) == ""


def test_the_page_there_is_one_that_the_program_wrote() -> None:
    text = PAGE.read_text()
    assert re.findall(r"^\| (tool .*) \|$", text, re.M) == [" | ".join(run.HEAD)] * 2
    assert peers.CONDITIONS in text
    made = run.page(times(peers.BARE, 1.0), 5, datetime.date(2026, 1, 1), "load average 0.1 before and after", [])
    assert re.findall("^#.*", made, re.M) == re.findall("^#.*", text, re.M)
    # Nothing of the machine that it was measured on but what kind that is.
    assert not re.search(r"(?<![\w.])/(?:home|tmp|opt|usr|root|work)/", text)
