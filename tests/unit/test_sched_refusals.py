"""Why context switches cannot be had, and what to type then."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from giltrace.collectors import _perf


def explain(code: int) -> str:
    return _perf.explain(OSError(code, os.strerror(code)))


@pytest.fixture
def paranoid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "perf_event_paranoid"
    monkeypatch.setattr(_perf, "_PARANOID", path)
    return path


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_a_strict_kernel(paranoid: Path, code: int) -> None:
    paranoid.write_text("4\n")
    assert explain(code) == "kernel.perf_event_paranoid is 4: sudo sysctl kernel.perf_event_paranoid=2"


def test_a_container_under_a_lenient_kernel(paranoid: Path) -> None:
    paranoid.write_text("2\n")
    assert "--cap-add PERFMON" in explain(errno.EPERM)


def test_a_sandbox_that_hides_the_call(paranoid: Path) -> None:
    paranoid.write_text("2\n")
    assert "seccomp" in explain(errno.ENOSYS)


def test_a_kernel_without_perf_events(paranoid: Path) -> None:
    assert "CONFIG_PERF_EVENTS" in explain(errno.ENOENT)


def test_an_unknown_machine(paranoid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paranoid.write_text("2\n")
    monkeypatch.setattr("platform.machine", lambda: "vax")
    reason = _perf.why_not()
    assert reason is not None
    assert "unknown machine type" in reason


def test_other_failures_are_passed_on(paranoid: Path) -> None:
    paranoid.write_text("2\n")
    assert explain(errno.EINVAL) == f"perf_event_open failed: {os.strerror(errno.EINVAL)}"
