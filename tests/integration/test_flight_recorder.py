"""`giltrace record --ring` and `giltrace dump`: bounded, triggered, and every dump a normal recording."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from giltrace.analysis.findings.verdict import judge
from giltrace.collectors.flight import dump
from giltrace.collectors.rules.base import Caught
from giltrace.errors import OutputError
from giltrace.exporters.perfetto.trace import write
from giltrace.process.folder import Folder
from giltrace.recording.gil import open_files
from giltrace.recording.locate import being_written
from giltrace.recording.meta import Meta
from giltrace.recording.trigger import Trigger
from giltrace.timeline.load import load
from tests.stuck import TARGET, stood
from tests.tracing import TARGETS

GILTRACE = (sys.executable, "-m", "giltrace")


class Flight:
    """A target under the flight recorder that does what it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @property
    def target(self) -> int:
        """The recorded process."""
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def tell(self, word: str) -> None:
        """Give the target a task and wait until it is done."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def announced(self) -> str:
        """Wait for the recorder's next line, which comes when a dump is there."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().strip()

    def end(self) -> str:
        """Let the target end; returns what else the recorder said."""
        _, rest = self.process.communicate("end\n", timeout=60)
        assert self.process.returncode == 0, rest
        return rest


@contextmanager
def flight(folder: Path, *options: str) -> Iterator[Flight]:
    command = [*GILTRACE, "record", "-o", "app", *options, str(TARGETS / "on_request.py")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield Flight(process)
        finally:
            if process.poll() is None:
                process.kill()


def test_a_hold_over_its_limit_is_dumped_and_marked(tmp_path: Path) -> None:
    with flight(tmp_path, "--ring", "4MiB", "--dump-on", "hold>100ms") as under_way:
        under_way.tell("hold")
        assert under_way.announced().startswith("giltrace: Thread 'MainThread' held the GIL for 1")
        told = under_way.announced()
        assert told.startswith("giltrace: hold of 1")
        assert told.endswith("(hold>100ms): app-1.giltrace")
        assert "flight recorder ok (1 dumps)" in " ".join(under_way.end().split())
    timeline = load(tmp_path / "app-1.giltrace")
    assert timeline.violations == ()
    trigger = timeline.trigger
    assert trigger is not None
    (process,) = timeline.processes
    assert (trigger.kind, trigger.rule, trigger.pid) == ("hold", "hold>100ms", process.pid)
    longest = process.holds[(process.holds["end"] - process.holds["start"]).argmax()]
    assert process.threads[int(longest["thread"])].tid == trigger.tid
    assert int(longest["end"] - longest["start"]) == pytest.approx(trigger.length_ns, rel=1e-3)
    assert int(longest["end"]) == pytest.approx(trigger.time_ns, abs=10_000)
    write(timeline, tmp_path / "dump.pftrace")
    assert str(trigger).encode() in (tmp_path / "dump.pftrace").read_bytes()
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_signal_dumps_and_does_not_reach_the_program(tmp_path: Path) -> None:
    with flight(tmp_path, "--ring", "4MiB", "--dump-on", "USR1", "--max-dumps", "1") as under_way:
        under_way.tell("hold")
        under_way.process.send_signal(signal.SIGUSR1)
        assert under_way.announced() == "giltrace: USR1: app-1.giltrace"
        under_way.process.send_signal(signal.SIGUSR1)
        under_way.tell("hold")  # alive, though the signal would have ended it
        assert "(1 dumps, 1 further trigger" in " ".join(under_way.end().split())
    assert Meta.read(tmp_path / "app-1.giltrace").state == "complete"
    assert not (tmp_path / "app-2.giltrace").exists()


def test_a_ring_that_has_forgotten_since_when_threads_hang(tmp_path: Path) -> None:
    command = [*GILTRACE, "record", "--light", "--ring", "1MiB", "-o", "app", str(TARGET), "ring", "RLock"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            under_way = Flight(process)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            assert process.stdin is not None
            process.stdin.write("go on\n")
            process.stdin.flush()
            while not open_files(tmp_path / "app.giltrace")[0].header["overwritten"]:
                time.sleep(0.001)
            target = under_way.target
            subprocess.run([*GILTRACE, "dump", str(target), "-o", str(tmp_path / "dump")], check=True, timeout=60)
            os.kill(target, signal.SIGKILL)
            process.communicate(timeout=60)
        finally:
            process.kill()
    (dumped,) = load(tmp_path / "dump.giltrace").processes
    assert dumped.violations == ()
    verdict = judge(dumped)
    assert verdict.summary.startswith("Deadlock: from before the record begins on, to the end")
    assert all(at in verdict.summary for at in stood())


def test_dumps_of_a_busy_ring_are_sound(tmp_path: Path) -> None:
    with flight(tmp_path, "--ring", "1MiB") as under_way:
        assert under_way.process.stdin is not None
        under_way.process.stdin.write("busy\n")
        under_way.process.stdin.flush()
        written = being_written(under_way.target)
        assert written is not None
        while not open_files(written.path)[0].header["overwritten"]:
            time.sleep(0.001)  # the recording itself says when its ring is full
        for number in range(12):
            dump(
                written.folder, tmp_path / f"dump-{number}.giltrace", Caught(Trigger("request", "test", 0)), os.getpid()
            )
        assert under_way.process.stdout is not None
        assert under_way.process.stdout.readline() == "done\n"
        under_way.end()
    for number in range(12):
        timeline = load(tmp_path / f"dump-{number}.giltrace")
        assert timeline.violations == ()
        assert sum(process.lost for process in timeline.processes) == 0
        assert all(process.overwritten for process in timeline.processes)
    timeline = load(tmp_path / "app.giltrace")
    assert timeline.violations == ()
    (process,) = timeline.processes
    assert process.overwritten > 100_000
    assert len(process.holds) > 30_000
    assert any("earlier records were overwritten" in remark for remark in timeline.remarks)
    (file,) = (tmp_path / "app.giltrace").glob("gil-*.bin")
    assert file.stat().st_size <= 1 << 20
    # Two halves per core, each turned over at its first drain past its share of four rings.
    halves = sum(path.stat().st_size for path in (tmp_path / "app.giltrace").glob("sched-*.bin"))
    assert halves < 2 * (4 << 20) + (os.cpu_count() or 1) * 2 * (2 << 20)


def test_dump_by_hand_and_its_refusals(tmp_path: Path) -> None:
    def dump_cli(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*GILTRACE, "dump", *words], cwd=tmp_path, capture_output=True, text=True, check=False)

    with flight(tmp_path, "--light") as under_way:
        under_way.tell("hold")
        ran = dump_cli(str(under_way.target), "-o", "now")
        assert (ran.returncode, ran.stdout) == (0, "now.giltrace\n"), ran.stderr
        again = dump_cli(str(under_way.target), "-o", "now")
        assert again.returncode == 2
        assert "exists" in again.stderr
        under_way.end()
    (process,) = load(tmp_path / "now.giltrace").processes
    assert int((process.holds["end"] - process.holds["start"]).max()) >= 120_000_000
    gone = dump_cli(str(os.getpid()))
    assert gone.returncode == 2
    assert "is not being recorded" in gone.stderr
    with subprocess.Popen(["sleep", "60"]) as other:
        ran = dump_cli(str(other.pid))
        other.kill()
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"giltrace: error: process {other.pid} is not Python\n  ")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        dump(
            Folder.own(tmp_path / "app.giltrace"),
            tmp_path / "file" / "where.giltrace",
            Caught(Trigger("request", "test", 0)),
            os.getpid(),
        )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--dump-on", "wait>5ms"), "needs a ring"),
        (("--ring", "4kB"), "too small"),
        (("--ring", "lots"), "is no size"),
        (("--ring", "1MiB", "--dump-on", "wait>fast"), "is no duration"),
        (("--ring", "1MiB", "--dump-on", "boredom"), "no reason to dump"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    command = [*GILTRACE, "record", "-o", "x", *options, "-c", "pass"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert told in ran.stderr
    assert not (tmp_path / "x.giltrace").exists()
