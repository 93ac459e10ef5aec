"""What comes of a target program that records a cluster of this machine in one way or another."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import giltrace
from giltrace.timeline.model import Timeline

TARGETS = Path(__file__).resolve().parent / "targets"


class Ran(NamedTuple):
    """What a way of recording printed, and the recording."""

    told: dict[str, Any]
    name: Path

    @property
    def timeline(self) -> Timeline:
        return giltrace.load(self.name).timeline


def recorded(target: str, way: str, folder: Path, environment: Mapping[str, str]) -> Ran:
    """Let a target record in a `way` and write into the folder; it leaves nothing of it in the cluster."""
    command = [sys.executable, str(TARGETS / target), way, str(folder / "out")]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["left_behind"] == []
    return Ran(told, folder / "out")
