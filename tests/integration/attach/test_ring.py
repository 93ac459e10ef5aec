"""`giltrace attach --ring`: a flight recorder beside a program that runs already, which it leaves as it was."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from giltrace.recording.gil import open_files
from giltrace.timeline.load import load
from tests.attaching import ROOT, Running, is_at_work
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, waiting

GILTRACE = (sys.executable, "-m", "giltrace")
#: Each has a dump of its own.
EACH = ("--dump-apart", "0s", "--max-dumps", "100")


@contextmanager
def flying(
    pid: int, folder: Path, *options: str, begun: Callable[[Path], bool] = is_at_work
) -> Iterator[subprocess.Popen[str]]:
    """The recorder, once the tracer is at work."""
    words = [*GILTRACE, "attach", str(pid), "--ring", "1MiB", "-o", str(folder / "app"), *options]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as recorder:
        try:
            while not begun(folder / "app.giltrace"):
                assert recorder.poll() is None, recorder.communicate()[1]
                time.sleep(0.005)
            yield recorder
        finally:
            recorder.kill()


def told_of_the_hold(recorder: subprocess.Popen[str]) -> tuple[str, Path]:
    """Wait for the dump of what the target does at "hold": the sentence, and the dump.

    On a busy machine a thread without a core holds the GIL for long, too.
    """
    assert recorder.stderr is not None
    while True:
        sentence, dumped = (recorder.stderr.readline().strip() for _ in range(2))
        found = re.search(r"hold of ([0-9.]+) ms by thread \d+ \(hold>100ms\): (.*)", dumped)
        assert found is not None, dumped
        if float(found[1]) >= 120:
            return sentence, Path(found[2])


@pytest.mark.on_some
def test_a_hold_over_its_limit_is_dumped(interpreter: Interpreter, tmp_path: Path) -> None:
    with Running(interpreter.path, "", target=TARGETS / "on_request.py") as target:
        with flying(target.pid, tmp_path, "--dump-on", "hold>100ms", "--dump-on", "wait>5s", *EACH) as recorder:
            target.say("hold")
            sentence, dump = told_of_the_hold(recorder)
            assert sentence.startswith("giltrace: Thread 'MainThread' held the GIL for ")
            recorder.send_signal(signal.SIGINT)
            _, rest = recorder.communicate(timeout=60)
            assert recorder.returncode == 0, rest
            assert "flight recorder ok (" in " ".join(rest.split())
        assert target.hooks() == 0
        target.say("hold")  # as before
    timeline = load(dump)
    assert timeline.violations == ()
    trigger = timeline.trigger
    assert trigger is not None
    (process,) = timeline.processes
    assert (trigger.kind, trigger.rule, trigger.pid) == ("hold", "hold>100ms", target.pid)
    longest = process.holds[(process.holds["end"] - process.holds["start"]).argmax()]
    assert process.threads[int(longest["thread"])].tid == trigger.tid
    assert int(longest["end"] - longest["start"]) == pytest.approx(trigger.length_ns, rel=1e-3)


def test_a_limit_ends_with_its_recording(tmp_path: Path) -> None:
    with Running(sys.executable, "", target=TARGETS / "on_request.py") as target:
        for number, rule in enumerate(("hold>100ms", "wait>5s")):
            folder = tmp_path / str(number)
            folder.mkdir()
            with flying(target.pid, folder, "--dump-on", rule) as recorder:
                target.say("hold")
                recorder.send_signal(signal.SIGINT)
                recorder.communicate(timeout=60)
            assert bool(list(folder.glob("app-*.giltrace"))) == (rule == "hold>100ms")


def test_the_newest_events_are_kept(tmp_path: Path) -> None:
    with (
        Running(sys.executable, "", target=TARGETS / "on_request.py") as target,
        flying(target.pid, tmp_path) as recorder,
    ):
        while not open_files(tmp_path / "app.giltrace")[0].header["overwritten"]:
            target.say("busy")
        ran = subprocess.run(
            [*GILTRACE, "dump", str(target.pid), "-o", str(tmp_path / "now")],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stderr
        recorder.send_signal(signal.SIGINT)
        _, rest = recorder.communicate(timeout=60)
        assert recorder.returncode == 0, rest
    for name in ("app", "now"):
        timeline = load(tmp_path / f"{name}.giltrace")
        (process,) = timeline.processes
        assert timeline.violations == ()
        assert process.lost == 0
        assert process.overwritten > 0
        (file,) = (tmp_path / f"{name}.giltrace").glob("gil-*.bin")
        assert file.stat().st_size <= 1 << 20


def _is_linked(folder: Path) -> bool:
    return any(path.is_symlink() for path in folder.glob("gil-*.bin"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_another_users_program(tmp_path: Path) -> None:
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    assert python is not None
    code = (TARGETS / "on_request.py").read_text()  # others may not look in here
    user = {"user": 65534, "group": 65534, "extra_groups": []}
    with (
        waiting(python, "-c", code, cwd="/", **user) as process,
        flying(process.pid, tmp_path, "--dump-on", "hold>100ms", *EACH, begun=_is_linked) as recorder,
    ):
        assert process.stdin is not None
        process.stdin.write("busy\nhold\n")
        process.stdin.flush()
        _, dump = told_of_the_hold(recorder)
        recorder.send_signal(signal.SIGINT)
        _, rest = recorder.communicate(timeout=60)
        assert recorder.returncode == 0, rest
    for folder in (tmp_path / "app.giltrace", dump):
        assert not any(path.is_symlink() for path in folder.iterdir())
        timeline = load(folder)
        assert timeline.violations == ()
        assert int((timeline.processes[0].holds["end"] - timeline.processes[0].holds["start"]).max()) >= 120_000_000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--dump-on", "wait>5ms"), "needs a ring"),
        (("--on-dump", "true"), "needs dumps"),
        (("--ring", "4kB"), "too small"),
        (("--ring", "1MiB", "--observe"), "--observe loads nothing"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    command = [*GILTRACE, "attach", str(os.getpid()), "-o", str(tmp_path / "x"), *options]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert not list(tmp_path.iterdir())
