"""`giltrace metrics` beside a container: which capabilities it takes, and what is said where one is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from giltrace.cli.app import application
from giltrace.launch.attach.process import Process
from tests import processes
from tests.metrics_command import GILTRACE

KUBERNETES = Path(__file__).resolve().parents[3] / "docs" / "monitoring" / "kubernetes"
USER = 1000
#: What root needs for a process of root's, and of another user's.
FOR_ROOT = ("SYS_PTRACE",)
FOR_OTHERS = ("SYS_PTRACE", "SETUID", "SETGID", "DAC_READ_SEARCH")

PROGRAM = """
import os, sys, threading, time
def hold():
    while True:
        time.sleep(0.001)
threading.Thread(target=hold, name="holder-1", daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        while True:
            time.sleep(0.001)
    sys.stdin.readline()
    os.kill(pid, 9)
    os.waitpid(pid, 0)
print("as it was", flush=True)
"""

_container = pytest.mark.needs("namespaces", "setpriv")


@contextmanager
def contained(uid: int, *, own_pids: bool) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A program with another file system, that of a sidecar's neighbour or of a pod seen from its node."""
    spaces = ["--mount", *(["--pid", "--fork", "--mount-proc"] if own_pids else [])]
    ids = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    enter = ["unshare", *spaces, "sh", "-c", 'mount -t tmpfs none /tmp && exec "$@"', "sh", *ids]
    # The checkout, and its environment, may lie below /tmp themselves.
    python = "/usr/bin/python3" if uid else os.path.realpath(sys.executable)
    pipe = subprocess.PIPE
    with subprocess.Popen([*enter, python, "-c", PROGRAM], stdin=pipe, stdout=pipe, text=True) as started:
        assert started.stdout is not None
        try:
            assert started.stdout.readline() == "ready\n"
            below = processes.descendants(started.pid) if own_pids else [started.pid]
            yield started, min(pid for pid in below if Process(pid).comm(pid).startswith("python"))
        finally:
            processes.end([*processes.descendants(started.pid), started.pid], grace=0.0)


def with_capabilities(names: tuple[str, ...], *words: str) -> list[str]:
    bounds = ",".join(["-all", *(f"+{name.lower()}" for name in names)])
    return ["setpriv", f"--bounding-set={bounds}", "--inh-caps=-all", *GILTRACE, *words]


def went_on(started: subprocess.Popen[str]) -> bool:
    output, _ = started.communicate(timeout=60)
    return output == "as it was\n" and started.returncode == 0


@_container
@pytest.mark.parametrize("own_pids", [False, True], ids=["sidecar", "node"])
@pytest.mark.parametrize(("uid", "capabilities"), [(0, FOR_ROOT), (USER, FOR_OTHERS)])
def test_these_are_enough(uid: int, capabilities: tuple[str, ...], own_pids: bool) -> None:
    with contained(uid, own_pids=own_pids) as (started, pid):
        command = with_capabilities(capabilities, "metrics", "--json", "--interval", "200ms", str(pid))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as look:
            assert look.stdout is not None
            for text in look.stdout:
                line = json.loads(text)
                if sum(role["total"]["holds"] for role in line["roles"] if role["role"] == "holder-*") > 20:
                    break
            # A child that it forks is counted until it ends, by whatever number it is known there.
            assert started.stdin is not None
            for number, ended in ((2, 0), (1, 1)):
                started.stdin.write("\n")
                started.stdin.flush()
                for text in look.stdout:
                    line = json.loads(text)
                    if (len(line["processes"]), line["ended_processes"]) == (number, ended):
                        break
            look.terminate()
            assert look.communicate(timeout=60)[1] == ""
            assert look.returncode == 0
        assert went_on(started)


@_container
@pytest.mark.parametrize(
    ("uid", "missing"), [(0, "SYS_PTRACE"), *((USER, name) for name in FOR_OTHERS)], ids=lambda one: str(one)
)
@pytest.mark.parametrize("command", ["metrics", "doctor"])
def test_each_is_needed_and_is_told(uid: int, missing: str, command: str) -> None:
    others = tuple(name for name in (FOR_OTHERS if uid else FOR_ROOT) if name != missing)
    with contained(uid, own_pids=True) as (started, pid):
        words = ["metrics", "--json", str(pid)] if command == "metrics" else ["doctor", "--pid", str(pid)]
        ran = subprocess.run(with_capabilities(others, *words), capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == (2 if command == "metrics" else 1)
        assert f"--cap-add {missing}" in ran.stdout + ran.stderr
        assert "Traceback" not in ran.stderr
        assert went_on(started)


@_container
def test_the_programs_own_user_needs_none() -> None:
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if scope.exists() and scope.read_text().strip() != "0":
        pytest.skip("ptrace_scope is not 0")
    with contained(USER, own_pids=True) as (started, pid):
        # Neither giltrace nor its interpreter need be readable by that user here: those of a container are.
        own = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
        command = ["setpriv", *own, *GILTRACE, "metrics", "--json", "--interval", "200ms", str(pid)]
        can = subprocess.run(["setpriv", *own, sys.executable, "-c", "import giltrace, numpy"], check=False)
        if can.returncode:
            pytest.skip("that user cannot run this interpreter")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as look:
            assert look.stdout is not None
            assert json.loads(look.stdout.readline())["processes"]
            look.terminate()
            look.communicate(timeout=60)
        assert went_on(started)


@pytest.mark.parametrize("name", ["sidecar.yaml", "daemonset.yaml"])
def test_the_manifests_ask_for_these_and_for_commands_that_there_are(name: str) -> None:
    pod = yaml.safe_load((KUBERNETES / name).read_text())["spec"]["template"]["spec"]
    (container,) = [one for one in pod["containers"] if one["name"] == "giltrace"]
    security = container["securityContext"]
    assert tuple(security["capabilities"]["add"]) == FOR_OTHERS
    assert security["capabilities"]["drop"] == ["ALL"]
    assert security["allowPrivilegeEscalation"] is False
    assert pod.get("shareProcessNamespace") or pod.get("hostPID")
    arguments = container["args"]
    import typer.main

    command = typer.main.get_command(application(arguments)).commands[arguments[0]]  # type: ignore[attr-defined]
    parsed = command.make_context("metrics", arguments[1:]).params
    assert list(parsed["match"]) == ["gunicorn"]
    assert parsed["allow_seccomp"] is True


@pytest.mark.parametrize("version", ["1.25", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", ["sidecar.yaml", "daemonset.yaml"])
def test_the_manifests_are_what_kubernetes_takes(name: str, version: str) -> None:
    """By its own schemas; a field that these do not know is refused, too."""
    manifest = yaml.safe_load((KUBERNETES / name).read_text())
    kubernetes_validate.validate(manifest, version, strict=True)
    (ours,) = [one for one in manifest["spec"]["template"]["spec"]["containers"] if one["name"] == "giltrace"]
    ours["securityContext"]["capabilites"] = ours["securityContext"].pop("capabilities")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_image_installs_extras_that_there_are() -> None:
    text = (KUBERNETES / "Dockerfile").read_text()
    (extras,) = re.findall(r"\.whl\)\[([\w,]+)\]", text)
    project = (KUBERNETES.parents[2] / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.M) for extra in extras.split(","))
