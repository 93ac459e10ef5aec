"""A long recording is packed while it is made, and read as if it were not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import giltrace

PAIRS = 400_000
PROGRAM = f"""
import os
zero = os.open("/dev/zero", os.O_RDONLY)
for _ in range({PAIRS}):
    os.read(zero, 1)
"""


def test_a_long_recording_is_packed_and_has_every_hold(tmp_path: Path) -> None:
    (tmp_path / "reads.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "giltrace", "record", "--light", "--no-trace", "-o", "reads", "reads.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=True)
    folder = tmp_path / "reads.giltrace"
    (packed,) = folder.glob("packed-*.bin")
    (plain,) = folder.glob("gil-*.bin")
    assert 4 * packed.stat().st_size < 16 * PAIRS
    assert plain.stat().st_blocks * 512 < plain.stat().st_size / 2
    recording = giltrace.load(folder)
    assert len(recording.holds) >= PAIRS
    assert "0 lost events, 0 broken invariants" in " ".join(ran.stderr.split())
    told = recording.report().processes[0]
    assert sum(thread.holds for thread in told.threads) == len(recording.holds)
