"""The pager of `report` and `compare`: when there is one, which, and that a command ends with its own status."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.terminal import Terminal
from traces.regenerate import unpack

pytestmark = pytest.mark.needs("tmux")

ROOT = Path(__file__).resolve().parents[2]
VERDICT = r"(?s)\Aconvoy.{0,20}\n?.*convoy"
#: A pager that shows nothing, keeps what it gets, and says how it was called.
KEEPS = """\
#!/bin/sh
cat > kept
echo "$LESS|$*" > called
"""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack("convoy", tmp_path_factory.mktemp("recording"))


@pytest.fixture
def keeps(tmp_path: Path) -> Path:
    path = tmp_path / "keeps"
    path.write_text(KEEPS)
    path.chmod(0o755)
    return path


def run(folder: Path, *words: object, rows: int = 24, **changes: str) -> Terminal:
    usual = {"GILTRACE_PAGER": "less", "PYTHONPATH": str(ROOT), "PAGER": "", "LESS": "FRX"}
    command = [sys.executable, "-m", "giltrace", *map(str, words)]
    return Terminal(command, folder, 100, rows, **{**usual, **changes})


@pytest.mark.needs("less")
def test_a_report_begins_with_its_verdict(recording: Path, tmp_path: Path) -> None:
    with run(tmp_path, "report", recording) as terminal:
        shown = terminal.wait_for(r"\n:\s*\Z")
        assert re.search(r"(?i)convoy", "\n".join(shown.split("\n")[:3]))
        assert "How good the measurement is" not in shown
        terminal.press("G")
        terminal.wait_for("How good the measurement is")
        terminal.press("q")
        assert terminal.status() == 0
        assert terminal.is_as_before()
    assert terminal.errors() == ""


@pytest.mark.needs("less")
def test_one_who_leaves_early_or_interrupts_sees_no_error(recording: Path, tmp_path: Path) -> None:
    with run(tmp_path, "report", recording, "--all") as terminal:
        terminal.wait_for(r"\n:\s*\Z")
        terminal.press("C-c")

        def left() -> bool:
            # `less` throws away what is typed while it is being interrupted.
            terminal.press("q")
            return terminal.ended()

        terminal.wait_until(left, "the end")
        assert terminal.status() == 0
        assert terminal.is_as_before()
    assert terminal.errors() == ""


def test_a_pager_that_reads_nothing_is_no_error(recording: Path, tmp_path: Path) -> None:
    with run(tmp_path, "report", recording, GILTRACE_PAGER="true") as terminal:
        assert terminal.status() == 0
    assert terminal.errors() == ""


def test_what_fits_needs_none(recording: Path, tmp_path: Path, keeps: Path) -> None:
    with run(tmp_path, "report", recording, rows=200, GILTRACE_PAGER=str(keeps)) as terminal:
        terminal.wait_for("How good the measurement is")
        assert terminal.status() == 0
    assert not (tmp_path / "kept").exists()


def test_the_users_pager_gets_all_with_its_colours(recording: Path, tmp_path: Path, keeps: Path) -> None:
    with run(tmp_path, "report", recording, GILTRACE_PAGER=f"{keeps} -x 'a b'", PAGER="false", LESS="Q") as terminal:
        assert terminal.status() == 0
    kept = (tmp_path / "kept").read_text()
    assert "\x1b[" in kept
    assert "How good the measurement is" in kept
    assert (tmp_path / "called").read_text() == "Q|-x a b\n"


def test_pager_is_heeded_where_giltrace_has_none_of_its_own(recording: Path, tmp_path: Path, keeps: Path) -> None:
    command = f"env -u GILTRACE_PAGER -u LESS PAGER={keeps} {sys.executable} -m giltrace report {recording}"
    with Terminal(["sh", "-c", command], tmp_path, 100, 24, PYTHONPATH=str(ROOT)) as terminal:
        assert terminal.status() == 0
    assert (tmp_path / "called").read_text() == "FRX|\n"


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["--no-pager"], {}),
        ([], {"GILTRACE_PAGER": ""}),
        ([], {"GILTRACE_PAGER": "cat"}),
        ([], {"GILTRACE_PAGER": "no-such-pager -x"}),
        ([], {"GILTRACE_PAGER": "'"}),
        ([], {"TERM": "dumb"}),
    ],
    ids=str,
)
def test_none_where_there_is_to_be_none(
    words: list[str], changes: dict[str, str], recording: Path, tmp_path: Path, keeps: Path
) -> None:
    term = changes.pop("TERM", None)
    changes = {"GILTRACE_PAGER": str(keeps), **changes}
    command = [sys.executable, "-m", "giltrace", "report", str(recording), *words]
    command = ["env", f"TERM={term}", *command] if term else command
    with Terminal(command, tmp_path, 100, 24, PYTHONPATH=str(ROOT), **changes) as terminal:
        terminal.wait_for("How good the measurement is")
        assert terminal.status() == 0
    assert not (tmp_path / "kept").exists()


def test_none_in_a_pipe(recording: Path, tmp_path: Path, keeps: Path) -> None:
    env = {**os.environ, "GILTRACE_PAGER": str(keeps), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "giltrace", "report", str(recording)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True, timeout=60)
    assert "How good the measurement is" in done.stdout
    assert not (tmp_path / "kept").exists()


def test_a_status_that_says_something_stays(recording: Path, tmp_path: Path, keeps: Path) -> None:
    other = tmp_path / "other.giltrace"
    shutil.copytree(unpack("hog", tmp_path / "unpacked"), other)
    words = ("compare", recording, other, "--all", "--fail-on", "changed")
    with run(tmp_path, *words, rows=10, GILTRACE_PAGER=str(keeps)) as terminal:
        assert terminal.status() == 1
    assert (tmp_path / "kept").read_text()


def test_an_interrupt_reaches_the_pager_only(recording: Path, tmp_path: Path) -> None:
    pager = tmp_path / "waits"
    pager.write_text(
        "#!/bin/sh\ntrap 'echo interrupted > told; exit' INT\ncat > kept\necho $PPID > ready\nread line </dev/tty\n"
    )
    pager.chmod(0o755)
    with run(tmp_path, "report", recording, GILTRACE_PAGER=str(pager)) as terminal:
        terminal.wait_until(lambda: (tmp_path / "ready").exists(), "the pager")
        terminal.press("C-c")
        assert terminal.status() == 0
        assert (tmp_path / "told").exists()
    assert terminal.errors() == ""
