"""`giltrace check` and `giltrace compare` on real recordings: output, JSON and exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_record import THREADS, giltrace

#: Two threads that want the GIL all the time, until each has counted far enough.
COUNTING = """
import threading
def count():
    for _ in range(3_000_000): pass
threads = [threading.Thread(target=count, name='cpu-%d' % i) for i in range(2)]
for t in threads: t.start()
for t in threads: t.join()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check")
    for name, code in (("steps", THREADS), ("counting", COUNTING)):
        ran = giltrace("record", "--light", "-o", name, "-c", code, folder=folder)
        assert ran.returncode == 0, ran.stderr
    return folder


def test_all_rules_pass_on_generous_limits(folder: Path) -> None:
    ran = giltrace(
        "check", "steps", "--max-wait", "1m", "--max-wait-p99", "30s", "--max-wait-share", "100%", "--max-hold", "1m",
        "--max-overstay", "30s", "--max-lost", "0", "--verdict-not", "free-threaded", folder=folder,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert len(lines) == 7
    assert all(line.startswith("PASS ") for line in lines)
    assert lines[0].startswith("PASS max-wait: ")
    assert lines[0].partition(" (")[0].endswith("<= 60.0 s")
    assert lines[5] == "PASS max-lost: 0 <= 0 (the recording)"


def test_one_failed_rule_fails_the_check(folder: Path) -> None:
    limits = ("--max-hold", "1m", "--max-wait-p99", "1ns")
    ran = giltrace("check", "counting.giltrace", *limits, "--thread", "cpu-*", folder=folder)
    assert ran.returncode == 1
    part, *rules = ran.stdout.splitlines()
    hold, wait = sorted(rules, reverse=True)
    assert part == "part: 2 of 3 threads (cpu-*)"
    assert hold.startswith("PASS max-hold: ")
    assert wait.startswith("FAIL max-wait-p99: ")
    assert "> 1 ns (cpu-*), by cpu-*: count (<string>:" in wait


def test_json_has_exact_figures(folder: Path) -> None:
    ran = giltrace("check", "counting", "--max-wait-share", "0.0001", "--thread", "cpu-*", "--json", folder=folder)
    assert ran.returncode == 1
    told = json.loads(ran.stdout)
    (rule,) = told["rules"]
    assert (told["schema"], told["passed"], told["lost"]) == ("giltrace-check-1", False, 0)
    assert (rule["rule"], rule["passed"], rule["limit"], rule["unit"], rule["where"]) == (
        "max-wait-share", False, 0.0001, "share", "cpu-*"
    )  # fmt: skip
    assert 0.0001 < rule["measured"] < 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("steps",), "nothing to check"),
        (("steps", "--max-wait", "10"), "'10' is no duration"),
        (("steps", "--max-wait-share", "120%"), "is no share"),
        (("steps", "--verdict", "slow"), "there is no verdict 'slow'"),
        (("steps", "--max-wait", "1s", "--thread", "nobody"), "no thread is named nobody"),
        (("steps", "--max-wait", "1s", "--process", "1"), "no process 1"),
        (("gone", "--max-wait", "1s"), "there is no recording gone"),
    ],
)
def test_what_cannot_be_checked_is_status_2(folder: Path, words: tuple[str, ...], said: str) -> None:
    ran = giltrace("check", *words, folder=folder)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in " ".join(ran.stderr.split())
    assert "Traceback" not in ran.stderr


def test_a_recording_compared_with_itself_has_not_changed(folder: Path) -> None:
    ran = giltrace("compare", "counting", "counting.pftrace", folder=folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("no change beyond noise\n")
    assert "cpu-* (2)" in ran.stdout


def test_compare_tells_two_programs_apart_as_json(folder: Path) -> None:
    ran = giltrace("compare", "steps", "counting", "--json", folder=folder)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["schema"] == "giltrace-compare-1"
    assert told["before"]["recording"].endswith("steps.giltrace")
    roles = {role["role"]: (role["threads_before"], role["threads_after"]) for role in told["roles"]}
    assert roles == {"MainThread": (1, 1), "w-*": (3, 0), "cpu-*": (0, 2)}


@pytest.mark.parametrize(("limit", "status"), [("1m", 0), ("1ns", 1)])
def test_the_status_is_the_checks_also_if_nobody_reads_it(folder: Path, limit: str, status: int) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-m", "giltrace", "check", "counting", "--max-wait", limit]
        ran = subprocess.run(command, cwd=folder, stdout=write, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(write)
    assert (ran.returncode, ran.stderr) == (status, b"")
