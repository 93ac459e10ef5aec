"""`giltrace.trace` as a block and as a decorator, with and without a name, and what it yields."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import giltrace
from giltrace.launch.inprocess import own_name
from giltrace.recording.folder import claim_numbered, numbered


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_block_yields_its_recording_once_it_has_ended(here: Path) -> None:
    with giltrace.trace("mine") as recording:
        assert repr(recording) == "<Recording 'mine.giltrace': mine.giltrace is still being written>"
        assert recording._repr_html_() is None
        with pytest.raises(giltrace.GiltraceError, match=r"still being written\n  read it after the block"):
            recording.report()
    assert recording.path == Path("mine.giltrace")
    assert len(recording.holds) > 0
    assert giltrace.load(recording).threads.name.tolist() == recording.threads.name.tolist()
    assert "Verdict: " in str(recording.report())


def test_the_programs_error_is_its_own_and_the_recording_is_whole(here: Path) -> None:
    with pytest.raises(ZeroDivisionError), giltrace.trace("mine") as recording:
        1 / 0  # noqa: B018
    assert not recording.timeline.unfinished
    with pytest.raises(giltrace.GiltraceError, match=r"exists\n  choose another name"), giltrace.trace("mine"):
        pass
    with giltrace.trace("mine", force=True):
        pass


def test_without_a_name_it_is_the_programs_and_numbered(here: Path) -> None:
    first = own_name()
    for _ in range(3):
        with giltrace.trace() as recording:
            pass
    assert recording.path.name == f"{first}.3.giltrace"
    assert names(here) == sorted([f"{first}.giltrace", f"{first}.2.giltrace", f"{first}.3.giltrace"])


@pytest.mark.parametrize(
    ("words", "name"),
    [(("app.py",), "app"), (("-m", "pkg"), "pkg"), (("-m", "pkg.mod"), "pkg.mod"), (("pkg",), "pkg"),
     (("-c", "import giltrace\nwith giltrace.trace(): pass"), "command")],
)  # fmt: skip
def test_the_programs_name_is_that_of_the_command_line(words: tuple[str, ...], name: str, here: Path) -> None:
    (here / "pkg").mkdir()
    for file in ("app.py", "pkg/__main__.py", "pkg/mod.py", "pkg/__init__.py"):
        (here / file).write_text("import giltrace\nwith giltrace.trace(): pass\n" if "__init__" not in file else "")
    subprocess.run([sys.executable, *words], check=True, timeout=60)
    assert (here / f"{name}.giltrace").is_dir()


def test_a_decorator_records_each_call_and_what_is_called_within(here: Path) -> None:
    @giltrace.trace
    def bare(depth: int) -> int:
        """What it is for."""
        return depth if depth == 0 else bare(depth - 1)

    @giltrace.trace("named", force=True)
    def named() -> str:
        return "done"

    @giltrace.trace("later")
    async def later() -> str:
        await asyncio.sleep(0)
        return "slept"

    assert (bare(3), bare(0), named(), named(), asyncio.run(later())) == (0, 0, "done", "done", "slept")
    assert bare.__doc__ == "What it is for."
    first = own_name()
    assert names(here) == sorted([f"{first}.giltrace", f"{first}.2.giltrace", "named.giltrace", "later.giltrace"])


def test_a_generator_is_refused() -> None:
    def steps() -> object:
        yield 1

    with pytest.raises(giltrace.GiltraceError, match=r"steps is a generator.*\n  trace where it is iterated"):
        giltrace.trace()(steps)


def test_numbers_leave_out_traces_too(tmp_path: Path) -> None:
    path = tmp_path / "a.giltrace"
    assert numbered(path) == path
    path.mkdir()
    (tmp_path / "a.2.pftrace").touch()
    (tmp_path / "a.3.giltrace").symlink_to("gone")
    assert numbered(path) == tmp_path / "a.4.giltrace"
    assert claim_numbered(path).path == tmp_path / "a.4.giltrace"
    assert claim_numbered(path).path == tmp_path / "a.5.giltrace"
    with pytest.raises(giltrace.GiltraceError, match="cannot write"):
        claim_numbered(tmp_path / "a.2.pftrace" / "a.giltrace")
