"""The image of docs/monitoring/kubernetes, built from the wheel, and the sidecar of the manifest in a real pod."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import giltrace
from tests.integration.attach.test_metrics_containers import FOR_OTHERS
from tests.pods import Pods

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "docs" / "monitoring" / "kubernetes"
SECONDS = 60.0

SHOP = """
ARG BASE
FROM ${BASE}
RUN pip install --no-cache-dir gunicorn
COPY shop.py /shop/
WORKDIR /shop
"""
APP = """
import time
def app(environ, start_response):
    time.sleep(0.001)
    start_response("200 OK", [])
    return [b"sold"]
"""
ASK = """
import sys, urllib.request
for _ in range(int(sys.argv[2])):
    text = urllib.request.urlopen(sys.argv[1], timeout=30).read().decode()
print(text)
"""

FIND = """
import os
for pid in filter(str.isdecimal, os.listdir("/proc")):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        if b"bin/gunicorn" in file.read():
            print(pid)
"""
RECORDED = """
import threading, time
def compute():
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        pass
threads = [threading.Thread(target=compute) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""

# The image takes a minute to build, each pod some seconds.
pytestmark = [pytest.mark.rarely, pytest.mark.needs("image"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Pods:
    folder = tmp_path_factory.mktemp("pods")
    wheel = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder / "dist")]
    subprocess.run(wheel, cwd=ROOT, capture_output=True, check=True, timeout=300)
    found = Pods(folder)
    found.build("giltrace:0.1.0", KUBERNETES / "Dockerfile", folder / "dist")
    (folder / "shop").mkdir()
    (folder / "shop" / "Dockerfile").write_text(SHOP)
    (folder / "shop" / "shop.py").write_text(APP)
    found.build("shop:1.0", folder / "shop" / "Dockerfile", folder / "shop")
    return found


def sidecar(without: str = "") -> dict[str, Any]:
    """The manifest, less a capability, and the port, for there is no network; the variable is what a cluster sets."""
    manifest: dict[str, Any] = yaml.safe_load((KUBERNETES / "sidecar.yaml").read_text())
    _, ours = manifest["spec"]["template"]["spec"]["containers"]
    del ours["ports"]
    ours["env"] = [{"name": "KUBERNETES_SERVICE_HOST", "value": "10.0.0.1"}]
    if without:
        ours["securityContext"]["capabilities"]["add"].remove(without)
    return manifest


def ask(pods: Pods, url: str, times: int = 1) -> str:
    """What a server within the pod answers the last time; "" if it does not yet."""
    done = pods.run("podman", "exec", "shop-pod-0-shop", "python3", "-c", ASK, url, str(times), check=False)
    return done.stdout


def said(pods: Pods) -> str:
    done = pods.run("podman", "logs", "shop-pod-0-giltrace")
    return done.stdout + done.stderr


def gunicorn(pods: Pods) -> str:
    """The id of the server's first process, as the sidecar sees it."""
    found = pods.run("podman", "exec", "shop-pod-0-giltrace", "python3", "-c", FIND).stdout.split()
    return min(found, key=int)


def wait_for(what: Callable[[], bool], told: Callable[[], str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < deadline, told()
        time.sleep(0.2)


def counted(pods: Pods) -> tuple[float, float]:
    """How many processes are counted, and how often they had the GIL."""
    text = ask(pods, "http://127.0.0.1:9464/metrics")
    processes = re.findall(r"^python_gil_processes\{.*\} (\S+)", text, re.M)
    holds = re.findall(r"^python_gil_holds_total\{.*\} (\S+)", text, re.M)
    return sum(map(float, processes)), sum(map(float, holds))


def test_it_is_giltrace_and_records(pods: Pods) -> None:
    alone = ("podman", "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--workdir", "/tmp")
    assert pods.run(*alone, "giltrace:0.1.0", "--version").stdout == f"giltrace {giltrace.__version__}\n"
    assert "gil          ok" in pods.run(*alone, "giltrace:0.1.0", "doctor").stdout
    recorded = pods.run(*alone, "giltrace:0.1.0", "record", "-o", "/tmp/x", "-c", RECORDED).stderr
    assert "compute (<string>:" in recorded, recorded
    assert "0 lost events, 0 broken invariants" in recorded


def test_the_sidecar_counts_its_neighbour(pods: Pods) -> None:
    with pods.playing(sidecar()):
        # The first process and four workers; all of them may have begun before the sidecar came.
        wait_for(lambda: counted(pods)[0] == 5, lambda: said(pods))
        _, before = counted(pods)
        assert ask(pods, "http://127.0.0.1:8000/", times=100) == "sold\n"
        # Each request sleeps once, and so gives up the GIL.
        wait_for(lambda: counted(pods)[1] >= before + 100, lambda: said(pods))
        assert said(pods) == "giltrace: metrics at http://0.0.0.0:9464/metrics\n"


def test_attaching_from_the_sidecar(pods: Pods) -> None:
    manifest = sidecar()
    ours = manifest["spec"]["template"]["spec"]["containers"][1]
    ours["args"] = ["metrics", "--match", "nothing that there is", "--json"]  # it stays, and is otherwise idle
    with pods.playing(manifest):
        wait_for(lambda: ask(pods, "http://127.0.0.1:8000/") == "sold\n", lambda: said(pods))
        pid, enter = gunicorn(pods), ("podman", "exec", "--workdir", "/tmp", "shop-pod-0-giltrace", "giltrace")
        doctor = pods.run(*enter, "doctor", "--pid", pid, check=False).stdout
        # Podman's default filter is the only thing in the way, and it is one that only forbids.
        assert re.search(
            r"^exact +process \d+ runs under a seccomp filter[^;]*; or add --allow-seccomp.*\)$", doctor, re.M
        )
        attached = pods.run(*enter, "attach", "--allow-seccomp", "-d", "1s", "-o", "/tmp/x", pid).stderr
        assert "Arbiter" in attached, attached
        assert "0 broken invariants" in attached
        left = pods.run("podman", "exec", "shop-pod-0-shop", "ls", "-A", "/tmp").stdout
        assert "giltrace" not in left
        assert ask(pods, "http://127.0.0.1:8000/") == "sold\n"


@pytest.mark.parametrize("missing", FOR_OTHERS)
def test_with_one_less_it_says_which(pods: Pods, missing: str) -> None:
    with pods.playing(sidecar(without=missing)):
        remedy = f"add {missing} to securityContext.capabilities.add of this container"
        wait_for(lambda: remedy in said(pods), lambda: said(pods))
        assert counted(pods) == (0, 0)
        looked = pods.run(
            "podman", "exec", "shop-pod-0-giltrace", "giltrace", "doctor", "--pid", gunicorn(pods), check=False
        )
        assert looked.returncode == 1
        (exact,) = re.findall(r"^exact .*", looked.stdout, re.M)
        assert remedy in exact
        assert "--allow-seccomp" in exact
        assert ask(pods, "http://127.0.0.1:8000/") == "sold\n"
