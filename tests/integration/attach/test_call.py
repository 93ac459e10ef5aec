"""A thread that was made to call something goes on as if nothing had been, whatever becomes of who made it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.attaching import die_on_the_way, make_it_call
from tests.tracing import TARGETS

pytestmark = pytest.mark.needs("cc")

#: In a system call, and in code of its own.
MOMENTS = ("read", "spin")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("registers") / "registers"
    wide = ["-DWIDE", "-mavx512f"] if " avx512f " in Path("/proc/cpuinfo").read_text() else ["-mavx"]
    subprocess.run(["cc", "-O1", *wide, "-o", out, TARGETS / "registers.c", "-lpthread"], check=True, timeout=60)
    return out


@pytest.fixture(params=MOMENTS)
def target(program: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([program, request.param], stdin=pipe, stdout=pipe, text=True) as process:
        assert _line(process.stdout) == "ready"
        yield process


def _line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


def _finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate("x", timeout=60)
    return said


def test_everything_is_as_it_was_also_if_the_tracer_dies_at_any_step(target: subprocess.Popen[str]) -> None:
    for _ in range(20):
        make_it_call(target.pid)
    made = die_on_the_way(target.pid, "call")
    assert made.returncode == 0, made.stderr
    assert int(made.stdout) > 20
    assert target.poll() is None
    make_it_call(target.pid)
    assert _finish(target) == "0 changed\n"
    assert target.returncode == 0
