"""The command line's entry: what it lists, what it imports, and how an error ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from giltrace import __version__, errors
from giltrace.cli import app, workloads
from giltrace.cli.parsing import named_pid, set_off
from giltrace.errors import UsageError
from giltrace.launch.bundled import bundled


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "giltrace", *arguments], capture_output=True, text=True)


def exit_status(arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        app.main(arguments)
    return ended.value.code


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in app.COMMANDS:
        assert shown.count(f"  {command.name}  ") == 1
        assert command.summary.split()[0] in shown


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom giltrace.cli.app import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n"
        "    print(*sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "typer" in loaded
    assert not loaded & {"rich", "numpy", "perfetto", "google", "viztracer", "pygments"}


@pytest.mark.parametrize("command", app.COMMANDS, ids=lambda c: c.name)
def test_every_command_can_be_loaded_and_explains_itself(
    command: app.Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert exit_status([command.name, "--help"]) == 0
    told = capsys.readouterr().out
    assert f"giltrace {command.name}" in told
    # Examples are not wrapped.
    assert [line for line in told.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("command", app.COMMANDS, ids=lambda c: c.name)
def test_every_parameter_is_explained_in_words(command: app.Command, capsys: pytest.CaptureFixture[str]) -> None:
    group = typer.main.get_command(app.application([command.name]))
    parameters = group.commands[command.name].params  # type: ignore[attr-defined]
    assert [parameter.name for parameter in parameters if not parameter.help] == []
    assert exit_status([command.name, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    # Markup of the source, and types and defaults that only a programmer knows.
    found = re.findall(r"``|\[default: (?:on|off|None|True|False|\s*)\]|- ?-?[\w-]+ <(?:int|str|path)", shown)
    assert found == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(["--version"]) == 0
    assert capsys.readouterr().out == f"giltrace {__version__}\n"


@pytest.mark.parametrize("words", [("--version",), ("workloads",), ("report", "--help")], ids=" ".join)
@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_that_goes_away_is_no_error(words: tuple[str, ...], buffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "giltrace", *words],
            stdout=write,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": buffered},
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("buffered", "said"),
    [("", "cannot write stdout"), ("1", "cannot write")],
    ids=["buffered", "unbuffered"],
)
def test_a_full_disk_behind_stdout_is_an_expected_error(buffered: str, said: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "giltrace", "workloads"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": buffered},
        )
    assert done.returncode == 2
    assert done.stderr == f"giltrace: error: {said}: No space left on device\n  make room where the output goes\n"


def test_unknown_command_is_one_error_and_status_2() -> None:
    done = run("recrod")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "recrod" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", [errors.UsageError, errors.OutputError, errors.TargetError, errors.RecordingError])
def test_expected_errors_become_cause_and_remedy(
    kind: type[errors.GiltraceError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise kind("the cause", "the remedy")

    monkeypatch.setattr(workloads, "workloads", fail)
    assert exit_status(["workloads"]) == kind.exit_code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "giltrace: error: the cause\n  the remedy\n"


def test_error_without_remedy_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise errors.UsageError("the cause")

    monkeypatch.setattr(workloads, "workloads", fail)
    assert exit_status(["workloads"]) == 2
    assert capsys.readouterr().err == "giltrace: error: the cause\n"


def test_workloads_are_listed_with_what_each_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(["workloads"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in bundled():
        assert any(line.startswith(f"  {name} ") and len(line.split()) > 5 for line in lines)
    assert "convoy:" in lines
    assert any(line.startswith("  numpy_mix ") and line.endswith("(needs numpy)") for line in lines)


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("-m http.server --bind ::1", "-m http.server -- --bind ::1"),
        ("-o out -m http.server -d x", "-o out -m http.server -- -d x"),
        ("-mhttp.server -d x", "-mhttp.server -- -d x"),
        ("--light -c pass -v", "--light -c pass -- -v"),
        ("-m http.server -- -d x", "-m http.server -- -d x"),
        ("script.py -m x", "script.py -m x"),
        ("--light script.py -m x", "--light script.py -m x"),
        ("-- gunicorn -c x", "-- gunicorn -c x"),
        ("-o -m script.py", "-o -m script.py"),
        ("--light", "--light"),
        ("", ""),
    ],
)
def test_sets_the_target_off(given: str, parsed: str) -> None:
    assert set_off(given.split(), frozenset({"-o", "-m", "-c"})) == parsed.split()


@pytest.mark.parametrize(
    ("words", "pid", "rest", "observed"),
    [
        ("4242 --once -d 2", 4242, [], "2"),
        ("-d 2 4242", 4242, [], "2"),
        ("-d 2 4242 --once -- ", 4242, [], "2"),
        ("4242 4243 -d 2", None, ["4242", "4243"], "2"),
        ("app.py -d 2", None, ["app.py", "-d", "2"], "5s"),
        ("-m http.server 4242 -d 2", None, ["4242", "-d", "2"], "5s"),
        ("-- kill 4242 -d 2", None, ["kill", "4242", "-d", "2"], "5s"),
    ],
)
def test_options_may_follow_a_pid_but_not_a_program(
    words: str, pid: int | None, rest: list[str], observed: str
) -> None:
    group: Any = typer.main.get_command(app.application(["top"]))
    context = group.commands["top"].make_context("top", words.split())
    assert context.params["duration"] == observed
    given = list(context.params["words"])
    assert given == (rest or [str(pid)])


def test_a_file_with_a_number_for_its_name_is_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named_pid(["4242"], module=None, code=None) == 4242
    assert named_pid(["4242"], module="http.server", code=None) is None
    Path("4242").touch()
    assert named_pid(["4242", "x"], module=None, code=None) is None
    Path("4242").unlink()
    with pytest.raises(UsageError, match="'4242 x' begins with a PID and goes on"):
        named_pid(["4242", "x"], module=None, code=None)
