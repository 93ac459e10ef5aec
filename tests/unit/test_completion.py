"""Shell completion: what is offered for which word, and how bash, zsh and fish put it into their command lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from giltrace.analysis.kinds import KINDS
from giltrace.cli import app, export
from giltrace.cli.completion.answer import candidates
from giltrace.cli.completion.shells import VARIABLE, Shell, script
from giltrace.exporters import EXPORTERS
from giltrace.exporters.tables.columns import TABLES
from giltrace.launch.bundled import bundled
from tests.terminal import Terminal

#: A name that a shell would run a part of, if it took it for more than a name.
EVIL = "x$(touch owned)`touch owned`;'\"\\$(touch owned)"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with recordings, a trace alone, a script and a hidden recording."""
    for name in ("convoy", "slow", "out/a b", ".hidden"):
        (tmp_path / f"{name}.giltrace").mkdir(parents=True)
    for name in ("convoy.pftrace", "alone.pftrace", "app.py", "note.txt"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def offered(*words: str, keeps_option: bool = False) -> list[str]:
    return [value for value, _ in candidates(app.application(words[:-1]), words, keeps_option=keeps_option)]


def ask(shell: str, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "giltrace", *words]
    env = {**os.environ, VARIABLE: shell, "PYTHONPATH": str(Path(__file__).parents[2]), **changes}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=60)


def test_commands_and_their_options() -> None:
    assert offered("") == [command.name for command in app.COMMANDS]
    assert offered("re") == ["record", "report"]
    assert {"--version", "-V", "--help"} <= set(offered("-"))
    assert offered("report", "--ht") == ["--html"]
    assert "--html" not in offered("report", "--html", "page", "--")
    assert offered("report", "--thread", "a", "--th") == ["--thread"]
    assert offered("nonsense", "") == []


def test_recordings_have_their_short_names() -> None:
    assert offered("report", "") == ["convoy", "out/", "slow"]
    assert offered("report", "out/") == ["out/a b"]
    assert offered("report", "convoy.gil") == ["convoy.giltrace"]
    assert offered("report", ".h") == [".hidden"]
    assert offered("compare", "convoy", "s") == ["slow"]
    assert offered("compare", "convoy", "slow", "") == []
    assert offered("check", "convoy", "--max-wait", "1ms", "s") == ["slow"]
    assert offered("report", "nowhere/") == []


def test_a_trace_alone_can_be_viewed() -> None:
    assert offered("view", "") == offered("query", "") == ["convoy", "out/", "slow", "alone.pftrace"]


def test_what_is_recorded_and_then_its_own_arguments(folder: Path) -> None:
    shown = offered("record", "")
    assert set(bundled()) < set(shown)
    assert {"app.py", "out/"} < set(shown)
    assert not {"note.txt", "convoy.giltrace/", "convoy.pftrace"} & set(shown)
    assert offered("record", "app.py", "--l") == []
    assert offered("record", "app.py", "no") == ["note.txt"]
    assert offered("record", "-m", "http.server", "no") == ["note.txt"]
    assert offered("record", "--light", "--", "--l") == []


def test_options_may_follow_a_pid() -> None:
    assert offered("top", "4242", "--onc") == ["--once"]
    assert offered("top", "app.py", "--onc") == offered("record", "4242", "--li") == []


def test_values_that_are_fixed() -> None:
    assert offered("check", "--verdict-not", "") == list(KINDS)
    assert offered("record", "--with", "v") == ["viztracer"]
    assert offered("record", "--stacks", "f") == ["full"]
    assert offered("export", "--to", "") == [one.name for one in EXPORTERS]
    assert offered("export", "--table", "") == list(TABLES) == list(export.VALUES["table"])
    assert offered("export", "--what", "") == ["waiting", "holding", "without"]
    assert offered("export", "--by", "") == ["victim", "culprit"]
    assert offered("--show-completion", "") == [shell.value for shell in Shell]
    assert offered("report", "--html", "n") == ["note.txt"]


def test_a_value_after_an_equals_sign() -> None:
    assert offered("compare", "--format=j") == ["json"]
    assert offered("compare", "--format=j", keeps_option=True) == ["--format=json"]
    assert offered("compare", "--format", "=", "j") == ["json"]
    assert offered("compare", "--format", "=") == ["text", "json", "markdown"]


def test_processes_with_their_command_lines() -> None:
    code = "import sys; sys.stdin.read(); '\\x1b'"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        for words in (("attach",), ("top",), ("doctor", "--pid")):
            found = dict(candidates(app.application(words), [*words, str(process.pid)], keeps_option=False))
            assert code[:30] in found[str(process.pid)], words
            assert found[str(process.pid)].isprintable()
        assert offered("dump", str(process.pid)) == []
        process.communicate()


def test_nothing_large_is_imported(tmp_path: Path) -> None:
    program = "import sys\nfrom giltrace.cli.app import main\ntry:\n    main()\nexcept SystemExit:\n"
    program += "    print(*sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)"
    for words in (["report", ""], ["record", ""], ["attach", ""], ["check", "--verdict", ""]):
        env = {**os.environ, VARIABLE: "zsh"}
        done = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, env=env, check=True
        )
        assert done.stdout
        assert not set(done.stderr.split()) & {"rich", "numpy", "perfetto", "google", "pydantic", "pygments"}


@pytest.mark.parametrize(
    "words", [[], ["report"], ["--nonsense", ""], ["report", "\udcff"], ["report", "\0"[:0] + "a" * 5000]]
)
def test_what_cannot_be_completed_is_silent(words: list[str]) -> None:
    done = ask("bash", *words)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_that_may_not_be_read_is_silent(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    assert offered("report", "loop/") == []
    assert "loop" in offered("report", "--html", "l")


def giltrace_in(folder: Path) -> str:
    """A folder for PATH with a command `giltrace` in it."""
    place = folder / "bin"
    place.mkdir()
    program = place / "giltrace"
    root = Path(__file__).parents[2]
    program.write_text(f'#!/bin/sh\nPYTHONPATH={root} exec {sys.executable} -m giltrace "$@"\n')
    program.chmod(0o755)
    return f"{place}:{os.environ['PATH']}"


def bash(folder: Path, *words: str) -> list[str]:
    """What bash makes of the line: it is asked as readline asks it."""
    program = """
source <(giltrace --show-completion bash)
complete -p giltrace >&2
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
compopt() { echo "compopt $*"; }
_giltrace giltrace
((${#COMPREPLY[@]})) && printf '%s\\n' "${COMPREPLY[@]}"
"""
    command = ["bash", "--norc", "-c", program, "bash", "giltrace", *words]
    env = {**os.environ, "PATH": giltrace_in(folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=60)
    assert done.stderr == "complete -F _giltrace giltrace\n"
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["re"], ["record", "report"]),
        (["report", ""], ["bin/", "convoy", "out/", "slow"]),
        (["report", "out/"], ["out/a\\ b"]),
        (["report", "out/a\\ "], ["out/a\\ b"]),
        (["report", "ou"], ["compopt -o nospace", "out/"]),
        (["compare", "--format", "=", "m"], ["markdown"]),
        (["nonsense", ""], []),
    ],
    ids=" ".join,
)
def test_bash(words: list[str], expected: list[str], folder: Path) -> None:
    assert bash(folder, *words) == expected


def test_bash_quotes_and_runs_nothing(folder: Path) -> None:
    (folder / f"{EVIL}.giltrace").mkdir()
    (found,) = bash(folder, "report", "x")
    shown = subprocess.run(["bash", "-c", f"printf %s {found}"], capture_output=True, text=True, check=True)
    assert shown.stdout == EVIL
    assert not (folder / "owned").exists()


@pytest.mark.needs("fish")
def test_fish(folder: Path) -> None:
    (folder / f"{EVIL}.giltrace").mkdir()
    lines = ["giltrace report ", "giltrace compare --format=m", "giltrace re", "giltrace nonsense "]
    asked = "; ".join(f"echo '>'; complete -C {line!r}" for line in lines)
    command = ["fish", "--no-config", "-c", f"giltrace --show-completion fish | source; {asked}"]
    env = {**os.environ, "PATH": giltrace_in(folder), "HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True, timeout=60)
    assert done.stderr == ""
    _, reports, formats, commands, none = done.stdout.split(">\n")
    assert reports.splitlines() == ["bin/", "convoy\trecording", "out/", "slow\trecording", f"{EVIL}\trecording"]
    assert formats == "--format=markdown\n"
    assert [line.split("\t")[0] for line in commands.splitlines()] == ["record", "report"]
    assert none == ""
    assert not (folder / "owned").exists()


@pytest.mark.needs("zsh")
@pytest.mark.needs("tmux")
def test_zsh(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (folder / f"{EVIL}.giltrace").mkdir()
    home = tmp_path_factory.mktemp("home")
    env = {"PATH": giltrace_in(folder), "ZDOTDIR": str(home), "HOME": str(home)}
    # As it is installed: in a folder of `fpath`.
    (home / "_giltrace").write_text(script(Shell.zsh))
    (home / ".zshrc").write_text(f"PS1='> '; fpath=({home} $fpath); autoload -Uz compinit; compinit -u; cd {folder}")
    with Terminal(["zsh", "-d", "-i"], home, 100, 40, **env) as terminal:
        terminal.wait_for(r"(?m)^> *$")
        for typed, expected in (
            ("report sl", r"> giltrace report slow"),
            ("report ou", r"> giltrace report out/a\\ b"),
            ("compare --format=m", r"> giltrace compare --format=markdown"),
            ("rep", r"> giltrace report"),
            ("report ", r"convoy  -- recording"),
        ):
            terminal.press("C-u")
            terminal.wait_without(r"> giltrace")
            terminal.press("-l", f"giltrace {typed}")
            terminal.press("Tab")
            if typed.endswith("ou"):
                terminal.wait_for(r"out/")
                terminal.press("Tab")
            terminal.wait_for(expected)
        terminal.press("C-u")
        terminal.press("-l", "printf '<%s>' giltrace; : giltrace report; giltrace report x")
        terminal.press("Tab")
        terminal.wait_for(r"giltrace report x\\\$")
        assert not (folder / "owned").exists()


@pytest.mark.parametrize("shell", Shell, ids=lambda one: one.value)
def test_install(shell: Shell, folder: Path) -> None:
    env = {**os.environ, "HOME": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])}
    env = {name: value for name, value in env.items() if not name.startswith("XDG_")}
    command = [sys.executable, "-m", "giltrace", "--install-completion", shell.value]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
    places = {
        Shell.bash: ".local/share/bash-completion/completions/giltrace",
        Shell.zsh: ".local/share/zsh/site-functions/_giltrace",
        Shell.fish: ".config/fish/completions/giltrace.fish",
    }
    assert (folder / places[shell]).read_text() == script(shell)
    assert f"wrote {folder / places[shell]}; new shells have it" in done.stderr


def test_install_where_nothing_can_be_written(folder: Path) -> None:
    env = {**os.environ, "XDG_DATA_HOME": str(folder / "app.py"), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "giltrace", "--install-completion", "bash"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert "--show-completion bash" in done.stderr
