"""Which capabilities a container lacks, and how it is told to get them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from giltrace.launch.attach import refusals
from giltrace.launch.attach.process import Process
from giltrace.process import capabilities
from giltrace.process.capabilities import granted, lacking

_NAMES = {"SETGID": (6,), "SETUID": (7,), "DAC_READ_SEARCH": (2, 1), "SYS_PTRACE": (19,)}


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


@pytest.mark.parametrize(
    ("has", "lacks"),
    [
        (0x800C4, []),
        (0x800C2, []),  # who may override may read, too
        (0x80044, ["SETUID"]),
        (0xC0, ["DAC_READ_SEARCH", "SYS_PTRACE"]),
        (0, ["SETGID", "SETUID", "DAC_READ_SEARCH", "SYS_PTRACE"]),
    ],
)
def test_which_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has: int, lacks: list[str]) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tpython\nCapPrm:\t000001ffffffffff\nCapEff:\t{has:016x}\n")
    monkeypatch.setattr(capabilities, "_OWN", status)
    assert lacking(_NAMES) == lacks


def test_the_remedy_is_in_the_terms_of_what_runs_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    assert granted("SETUID", "SETGID") == "in a container, start it with --cap-add SETUID --cap-add SETGID"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert granted("SETUID", "SETGID") == "add SETUID, SETGID to securityContext.capabilities.add of this container"


@pytest.mark.parametrize("scope", ["0", "1", "2"])
def test_root_is_not_told_to_use_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str) -> None:
    """Whatever Yama says, it is a capability that root lacks."""
    (tmp_path / "scope").write_text(scope)
    (tmp_path / "status").write_text("CapEff:\t0000000000000000\n")
    monkeypatch.setattr(refusals, "_YAMA", tmp_path / "scope")
    monkeypatch.setattr(capabilities, "_OWN", tmp_path / "status")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(Process, "owner", 1000)
    remedy = refusals._denied_remedy(Process(os.getpid()))
    assert remedy == granted("SYS_PTRACE", "SETUID", "SETGID", "DAC_READ_SEARCH")
