"""Held shares, blame and hogs against programs that know the truth about themselves."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import giltrace
from giltrace.exporters._places import Places
from giltrace.exporters._relations import relate
from giltrace.timeline.model import Process
from tests.tracing import TARGETS

#: sys.getswitchinterval(): a waiter notices a hog only after so long, at each of its waits.
INTERVAL_NS = 5_000_000


@dataclass(frozen=True)
class Mix:
    """A recording of hold_mix.py, and what it says itself."""

    recording: giltrace.Recording
    start: int
    end: int
    held_ns: int
    hold_line: int
    victim_line: int
    rounds: int

    @property
    def process(self) -> Process:
        (process,) = self.recording.timeline.processes
        return process


def record(folder: Path, hold_ms: float, free_ms: float, rounds: int) -> Mix:
    command = [sys.executable, "-m", "giltrace", "record", "--light", "--python", sys.executable, "-o", "mix"]
    target = [str(TARGETS / "hold_mix.py"), str(hold_ms), str(free_ms), str(rounds)]
    ran = subprocess.run([*command, *target], cwd=folder, capture_output=True, text=True, timeout=90, check=True)
    start, end, held_ns, hold_line, victim_line = map(int, ran.stdout.split())
    return Mix(giltrace.load(folder / "mix"), start, end, held_ns, hold_line, victim_line, rounds)


@pytest.mark.parametrize(
    ("hold_ms", "free_ms", "rounds"), [(0.5, 0.5, 500), (5, 5, 100), (50, 50, 12), (1000, 50, 2)], ids=str
)
def test_held_share_is_that_of_the_target_within_half_a_point(
    hold_ms: float, free_ms: float, rounds: int, tmp_path: Path
) -> None:
    mix = record(tmp_path, hold_ms, free_ms, rounds)
    (number,) = (i for i, thread in enumerate(mix.process.threads) if thread.name == "holder")
    measured, waited = (
        sum(np.clip(rows["end"], mix.start, mix.end) - np.clip(rows["start"], mix.start, mix.end))
        / (mix.end - mix.start)
        for rows in (table[table["thread"] == number] for table in (mix.process.holds, mix.process.waits))
    )
    assert mix.recording.timeline.violations == ()
    # Between its readings of the clock and the GIL's changes the target does a few microseconds of work in each round.
    unseen = 10_000 * mix.rounds / (mix.end - mix.start)
    # Asked for the GIL it gives that up before it reads the clock: what it waits then, its reading has in it.
    assert -0.005 - waited < measured - mix.held_ns / (mix.end - mix.start) < 0.005 + unseen


def test_blame_names_both_lines_and_agrees_with_the_truth(tmp_path: Path) -> None:
    mix = record(tmp_path, 50, 20, 12)
    (process,) = mix.recording.report().processes
    worst = process.blame[0]
    assert (worst.victim.thread, worst.victim.function, worst.victim.line) == ("victim", "victim", mix.victim_line)
    assert (worst.culprit.thread, worst.culprit.function, worst.culprit.line) == ("holder", "hold", mix.hold_line)
    assert worst.culprit.file.endswith("hold_mix.py")
    # The victim sleeps 0.2 ms between its tries: it loses nearly all of each hold.
    slack = 0.01 * mix.held_ns + mix.rounds * INTERVAL_NS
    assert abs(worst.ns - mix.held_ns) <= slack
    assert worst.waits == pytest.approx(mix.rounds, abs=2)
    assert worst.max_ns == pytest.approx(50e6, rel=0.5)


def test_hogs_are_found_with_their_line(tmp_path: Path) -> None:
    mix = record(tmp_path, 50, 20, 12)
    (process,) = mix.recording.report().processes
    hog = process.hogs[0]
    assert (hog.site.thread, hog.site.function, hog.site.line) == ("holder", "hold", mix.hold_line)
    assert hog.count == pytest.approx(mix.rounds, abs=2)
    # From the switch request on: the first interval is any holder's right.
    assert abs(hog.ns - (mix.held_ns - mix.rounds * INTERVAL_NS)) <= 0.01 * mix.held_ns + mix.rounds * INTERVAL_NS
    assert process.verdict.kind == "hog"


def test_what_if_predicts_what_processes_really_take(tmp_path: Path) -> None:
    """Without a GIL two counting threads would take what the same work takes in one of two processes."""
    for name in ("cpu_bound", "io_bound"):
        command = [sys.executable, "-m", "giltrace", "record", "--light", "--python", sys.executable, "-o", name, name]
        subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=90, check=True)
    (cpu_bound,) = giltrace.load(tmp_path / "cpu_bound").report().processes
    (io_bound,) = giltrace.load(tmp_path / "io_bound").report().processes
    assert cpu_bound.what_if is not None
    assert io_bound.what_if is not None
    assert 1.6 <= cpu_bound.what_if.speedup_bound <= 2.05
    assert io_bound.what_if.speedup_bound == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("threads", "turn_us"), [(2, 3000), (8, 300), (8, 3000), (50, 1000)])
def test_short_holds_are_blamed_on_the_lines_that_compute(threads: int, turn_us: int, tmp_path: Path) -> None:
    target = TARGETS / "short_holds.py"
    command = [sys.executable, "-m", "giltrace", "record", "--light", "-o", "short", str(target)]
    command += [str(threads), str(turn_us), "2"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=True)
    source = target.read_text().splitlines()
    loops = [next(at for at, line in enumerate(source, 1) if mark in line) for mark in ("# FIRST", "# SECOND")]
    (process,) = giltrace.load(tmp_path / "short").report().processes
    assert process.holder_samples > 0
    lost = sum(row.ns for row in process.culprits)
    shares = [sum(row.ns for row in process.culprits if row.site.line in (at, at + 1)) / lost for at in loops]
    # On a machine with no core to spare the waiters look late; at the release it would be 0.
    assert sum(shares) > 0.8
    assert shares == pytest.approx([1 / 3, 2 / 3], abs=0.2)


def test_every_wait_has_a_culprit_and_the_right_one(tmp_path: Path) -> None:
    """The one that held the GIL for most of it, also where nobody did when the wait began."""
    mix = record(tmp_path, 5, 5, 100)
    holds, waits = mix.process.holds, mix.process.waits
    places = Places(mix.process, relate(mix.process))
    found = places.culprits
    assert (found.thread[:, 0] >= 0).mean() > 0.95
    for wait, thread, ns, share in zip(
        waits, found.thread[:, 0], found.ns[:, 0], places.share(slice(None)), strict=True
    ):
        lost = np.minimum(holds["end"], wait["end"]) - np.maximum(holds["start"], wait["start"])
        by_thread = np.bincount(holds["thread"], weights=np.maximum(lost, 0))
        assert ns == by_thread.max()
        assert (by_thread[thread] == ns) if thread >= 0 else ns == 0
        assert share == ns / (wait["end"] - wait["start"])
