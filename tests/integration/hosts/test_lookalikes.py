"""A host's own locks are never taken for a GIL, however alike they are, and answer as they do without a tracer."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from giltrace.recording import layout
from giltrace.recording.clock_file import append_pair
from tests import embedding
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, of_kind, overlaps, read, traced_environment


@pytest.mark.needs("cc")
@pytest.mark.parametrize("static", [True, False], ids=["static", "shared"])
def test_locks_like_gils_are_none(interpreter: Interpreter, static: bool, tmp_path: Path) -> None:
    program = embedding.embedding(interpreter, TARGETS / "hosts" / "lookalikes.c", tmp_path / "host", static)
    append_pair(tmp_path)
    env = {**traced_environment(tmp_path), **embedding.environment(interpreter)}
    ran = subprocess.run([program], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    (process,) = read(tmp_path)
    assert (process.note, process.lost, overlaps(process.events)) == ("", 0, 0)
    assert len(process.gils) == 1
    acquired = of_kind(process.events, layout.Kind.ACQUIRE)
    for i, thread in enumerate(process.threads):
        assert thread.name in ("MainThread", "worker")
        assert (acquired["thread"] == i).sum() >= 100
    assert len(process.threads) == 4
