"""Asking about a part of a real recording, by the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import giltrace as package
from tests.integration.test_record import giltrace

#: Four workers that count in a module of their own, beside a thread that only sleeps; it starts itself once more.
PROGRAM = """
import subprocess, sys, threading, time
from lib import counting
child = subprocess.Popen([sys.executable, __file__, "child"]) if len(sys.argv) == 1 else None
workers = [threading.Thread(target=counting.count, name=f"worker-{at}") for at in range(4)]
sleeper = threading.Thread(target=lambda: [time.sleep(0.01) for _ in range(30)], name="sleeper")
for one in (*workers, sleeper): one.start()
for one in (*workers, sleeper): one.join()
if child: child.wait()
"""
COUNTING = """
def step():
    for _ in range(1000): pass
def count():
    for _ in range(3000): step()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("selection")
    (folder / "lib").mkdir()
    (folder / "app.py").write_text(PROGRAM)
    (folder / "lib" / "counting.py").write_text(COUNTING)
    ran = giltrace("record", "--light", "-o", "app", "app.py", folder=folder)
    assert ran.returncode == 0, ran.stderr
    return folder


def report(folder: Path, *options: str) -> dict[str, Any]:
    ran = giltrace("report", "app", "--json", *options, folder=folder)
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


def test_the_report_of_a_part_is_of_that_part(folder: Path) -> None:
    whole = package.load(folder / "app")
    parent, child = sorted(whole.timeline.processes, key=lambda process: process.cmdline.endswith(" child"))
    first = whole.timeline.recorded[0]
    begin = max(t.start for t in child.threads if t.name.startswith("worker")) - first
    window = f"{begin}ns..{begin + 200_000_000}ns"
    told = report(folder, "--window", window, "--process", "*child", "--role", "worker-*")
    assert told["duration_ns"] == 200_000_000
    (process,) = told["processes"]
    assert process["pid"] == child.pid
    assert {thread["role"] for thread in process["threads"]} == {"worker-*"}
    assert all(0 < thread["life_ns"] <= 200_000_000 for thread in process["threads"])
    assert all(sum(thread["states_ns"].values()) in (0, thread["life_ns"]) for thread in process["threads"])
    waited = sum(thread["waited_ns"] for thread in process["threads"])
    parts = process["wait_decomposition_ns"]
    causes = ("holder_python", "holder_c", "holder_off_core", "wake_up")
    assert sum(parts[cause] for cause in causes) == waited > 0
    assert {row["victim"]["thread"] for row in process["blame"]} == {"worker-*"}
    part = whole.select(window=window, process=str(child.pid), role="worker-*")
    assert int((part.waits.end - part.waits.start)[part.threads.chosen[part.waits.thread]].sum()) == waited
    page = giltrace("report", "app", "--window", window, "--process", "*child", folder=folder).stdout
    assert " ".join(page.split()).startswith("A part of the recording: ")
    assert f"process {parent.pid} " not in page


def test_own_paths_make_the_rest_a_library(folder: Path) -> None:
    told = report(folder, "--own", "app.py", "--process", "*child")
    (process,) = told["processes"]
    assert {row["culprit"]["own_file"].rpartition("/")[2] for row in process["blame"]} <= {"app.py", ""}
    told = report(folder, "--own", "lib", "--process", "*child")
    (process,) = told["processes"]
    assert any(row["culprit"]["own_function"] in ("step", "count") for row in process["blame"])
    assert {row["culprit"]["own_file"].rpartition("/")[2] for row in process["blame"]} <= {"counting.py", ""}


def test_every_command_takes_the_same_words(folder: Path) -> None:
    words = ("--after", "0.05", "--process", "*child", "--thread", "worker-*")
    compared = giltrace("compare", "app", "app", "--json", *words, folder=folder)
    assert [role["role"] for role in json.loads(compared.stdout)["roles"]] == ["worker-*"]
    checked = giltrace("check", "app", "--max-wait", "1m", "--json", *words, folder=folder)
    assert json.loads(checked.stdout)["part"][1:] == ["1 of 2 processes (*child)", "4 of 6 threads (worker-*)"]
    table = giltrace("export", "app", "--to", "csv", "--table", "waits", "-o", "-", *words, folder=folder).stdout
    rows = list(csv.DictReader(table.splitlines()))
    assert {row["thread"] for row in rows} == {f"worker-{at}" for at in range(4)}
    assert {row["culprit"] for row in rows} & {f"worker-{at}" for at in range(4)}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("report", "app", "--thread", "wroker-0"), "no thread is named wroker-0 there are: worker-0,"),
        (("report", "app", "--role", "io-*"), "no thread has the role io-* there are: "),
        (("compare", "app", "app", "--window", "900.."), "there is nothing from 900 s on the recording is "),
        (("check", "app", "--max-wait", "1s", "--own", "/nowhere"), "no recorded line is in /nowhere there are: "),
        (("export", "app", "--to", "perfetto", "-o", "x", "--role", "worker-*"), "a trace has all threads"),
        (("view", "app", "--print-url", "--process", "7"), "the recording has no process 7 there are: "),
        (("report", "app", "--own", "/nowhere"), "no recorded line is in /nowhere there are: "),
        (("report", "app", "--window", "1..2", "--window", "3..4"), "figures are of one window"),
    ],
)
def test_what_is_not_there_is_an_expected_error(words: tuple[str, ...], said: str, folder: Path) -> None:
    ran = giltrace(*words, folder=folder)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in " ".join(ran.stderr.split())
    assert "Traceback" not in ran.stderr
