"""`giltrace query` and the cookbook: real recordings asked by SQL say what their reports say."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from giltrace.analysis.site import frame_text
from giltrace.timeline.load import load
from giltrace.timeline.model import Process
from giltrace.views.gil_tables import TABLES, GilTraceProcessor, definition
from giltrace.views.trace_processor import Value, unavailable

WHY_NOT = unavailable()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cookbook.md"
QUESTIONS = {
    int(number): sql for number, sql in re.findall(r"^## (\d+)\. .*?^```sql\n(.*?)^```", PAGE.read_text(), re.M | re.S)
}
Rows = Counter[tuple[Value, ...]]

WORKLOADS = {
    "convoy": ("convoy", "--steps", "40"),
    "multiprocess": ("multiprocess", "--processes", "2", "--count", "1000000"),
    "hog": ("hog", "--rounds", "3"),
}


def giltrace(*words: object, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "giltrace", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, **more)


@dataclass(frozen=True)
class Recording:
    name: Path

    @cached_property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(giltrace("report", self.name, "--json").stdout)
        return found

    @cached_property
    def trace(self) -> GilTraceProcessor:
        return GilTraceProcessor(self.name.with_suffix(".pftrace"))

    @cached_property
    def process(self) -> Process:
        (process,) = load(self.name.with_suffix(".giltrace")).processes
        return process


def record(folder: Path, *target: str) -> Recording:
    done = giltrace("record", "--light", "--python", sys.executable, "-o", folder / "x", *target)
    assert done.returncode == 0, done.stderr
    return Recording(folder / "x")


@pytest.fixture(scope="module", params=WORKLOADS)
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return record(tmp_path_factory.mktemp("recording"), *WORKLOADS[request.param])


@pytest.fixture(scope="module")
def convoy(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    found = record(tmp_path_factory.mktemp("convoy"), *WORKLOADS["convoy"])
    with_steps(found)
    return found


def with_steps(recording: Recording) -> None:
    """Merge a made-up file of a training loop: its steps are around waits of 'io-0', which asks a GPU for work."""
    process = load(recording.name.with_suffix(".giltrace")).processes[0]
    (thread,) = (at for at, one in enumerate(process.threads) if one.name == "io-0")
    own = {"pid": process.pid, "tid": process.threads[thread].tid, "ph": "X"}
    events = []
    for number, wait in enumerate(process.waits[process.waits["thread"] == thread], 1):
        start, end = int(wait["start"]) / 1e3, int(wait["end"]) / 1e3
        asked = {"correlation": number, "device": 0, "stream": 7}
        events += [
            {**own, "cat": "user_annotation", "name": f"ProfilerStep#{number}", "ts": start, "dur": end - start},
            {**own, "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": end, "dur": 0, "args": asked},
            {"ph": "X", "pid": 0, "tid": 7, "cat": "kernel", "name": "gemm", "ts": end, "dur": 1, "args": asked},
        ]
    file = recording.name.with_name("steps.json")
    file.write_text(json.dumps({"viztracer_metadata": {}, "traceEvents": events}))
    done = giltrace("merge", recording.name, file)
    assert done.returncode == 0, done.stderr


def site(found: dict[str, Any]) -> tuple[str, str, str]:
    """The thread, the innermost frame, and the line that it is told by."""
    leaf, own = (
        frame_text((found[f"{which}function"], found[f"{which}file"], found[f"{which}line"])) for which in ("", "own_")
    )
    return found["thread"], leaf, own or leaf


def test_the_tables_add_up_to_the_report(recording: Recording) -> None:
    by_gil: Rows = Counter()
    by_thread: Rows = Counter()
    blame: Rows = Counter()
    for process in recording.report["processes"]:
        pid = process["pid"]
        for gil in process["gils"]:
            by_gil.update([(pid, *(gil[name] for name in ("gil", "holds", "held_ns", "forced", "handoffs")))])
        for thread in process["threads"]:
            if thread["waits"]:
                names = ("tid", "name", "waits", "waited_ns", "wait_max_ns")
                by_thread.update([(pid, *(thread[name] for name in names))])
        for row in process["blame"]:
            pair = (pid, *site(row["victim"]), *site(row["culprit"]))
            blame[pair] += row["ns"]
    waits = "select pid, tid, thread, count(), sum(dur), max(dur) from gil_waits group by utid"
    assert rows(recording, waits) == by_thread
    columns = "pid, victim, victim_site, victim_own_line, culprit, culprit_site, culprit_own_line"
    found = {tuple(row[:-1]): row[-1] for row in recording.trace.run(f"select {columns}, dur from gil_blame").rows}
    assert found == blame
    sql = """
        with handed as (select upid, gil, count() as handoffs from gil_handoffs group by upid, gil)
        select pid, gil, count(), sum(dur), sum(forced), ifnull(handoffs, 0)
        from gil_holds left join handed using (upid, gil) group by upid, gil
    """
    assert rows(recording, sql) == by_gil
    assert by_gil


def rows(recording: Recording, sql: str) -> Rows:
    return Counter(map(tuple, recording.trace.run(sql).rows))


def test_hand_offs_that_were_waited_for_have_an_arrow(recording: Recording) -> None:
    sql = """
        select a.ts + a.dur as ts, b.ts - a.ts - a.dur as dur
        from flow join slice a on slice_out = a.id join slice b on slice_in = b.id
        where a.name = 'holds GIL'
    """
    assert rows(recording, "select ts, dur from gil_handoffs where waited") == rows(recording, sql)


# The cookbook: one check per question, on the rows as they are printed.

Answer = list[dict[str, Value]]


def total(answer: Answer, column: str) -> float:
    return sum(float(str(row[column])) for row in answer)


def check_1(answer: Answer, of: Recording) -> None:
    (report,) = of.report["processes"]
    want = {thread["name"]: thread["waited_ns"] / 1e6 for thread in report["threads"] if thread["waits"]}
    assert {row["thread"]: row["waited_ms"] for row in answer} == pytest.approx(want)
    assert answer[0]["thread"] == max(want, key=lambda name: want[name])


def check_2(answer: Answer, of: Recording) -> None:
    waits = of.process.waits
    assert len(answer) == 10
    assert answer[0]["ms"] == pytest.approx(int((waits["end"] - waits["start"]).max()) / 1e6)
    ids = {f"{of.process.threads[row['thread']].tid}@{row['start']}" for row in waits}
    assert {row["wait"] for row in answer} <= ids
    assert all(0 < float(str(row["culprit_share"])) <= 1 for row in answer)


def check_3(answer: Answer, of: Recording) -> None:
    (report,) = of.report["processes"]
    want = [(*site(row["site"]), row["ns"] / 1e6) for row in report["culprits"]][:10]
    assert [row["cost_ms"] for row in answer] == pytest.approx([cost for *_, cost in want])
    assert tuple(answer[0][name] for name in ("culprit", "culprit_site", "culprit_own_line")) == want[0][:3]


def check_4(answer: Answer, of: Recording) -> None:
    (report,) = of.report["processes"]
    want = [row["ns"] / 1e6 for row in report["blame"] if row["victim"]["thread"] == "io-0"]
    assert [row["ms"] for row in answer] == pytest.approx(want)
    assert answer[0]["culprit"] == "cpu-*"


def check_5(answer: Answer, of: Recording) -> None:
    assert {row["release"] for row in answer} == {"forced", "voluntary"}
    (arrows,) = of.trace.query(
        "select count() as n from flow join slice a on slice_out = a.id where a.category = 'gil'"
    )
    assert total(answer, "handoffs") == arrows["n"]


def check_6(answer: Answer, of: Recording) -> None:
    (report,) = of.report["processes"]
    want = {thread["name"]: (thread["holds"], thread["forced"]) for thread in report["threads"] if thread["holds"]}
    assert {row["thread"]: (row["holds"], row["forced"]) for row in answer} == want


def check_7(answer: Answer, of: Recording) -> None:
    holds = of.process.holds
    assert total(answer, "holds") == int((holds["end"] - holds["start"] > 5_000_000).sum())
    assert {"cpu-0", "cpu-1"} <= {row["thread"] for row in answer}


def check_8(answer: Answer, of: Recording) -> None:
    thread = of.process.holds["thread"]
    assert total(answer, "handoffs") == int((thread[1:] != thread[:-1]).sum())


def check_9(answer: Answer, of: Recording) -> None:
    if not of.process.has_sched:
        pytest.skip("no context switches were recorded")
    states: Counter[str] = Counter()
    for thread in of.report["processes"][0]["threads"]:
        states.update(thread["states_ns"])
    told = {row["state"]: row["ms"] for row in answer}
    assert told["Running"] == pytest.approx(states["holding-running"] / 1e6)
    assert sum(map(float, map(str, told.values()))) == pytest.approx(
        sum(states[name] for name in ("holding-running", "holding-runnable", "holding-blocked")) / 1e6, rel=1e-3
    )


def check_10(answer: Answer, of: Recording) -> None:
    (report,) = of.report["processes"]
    waited = sum(thread["waited_ns"] for thread in report["threads"]) / 1e6
    assert sum(float(str(row["waiting"])) * float(str(row["ms"])) for row in answer) == pytest.approx(waited)
    contended = sum(float(str(row["ms"])) for row in answer if row["waiting"])
    assert contended == pytest.approx(report["gils"][0]["contended_ns"] / 1e6)


def of_waits(of: Recording, thread: str) -> list[float]:
    """How long each wait of a thread was, in ms, the longest first."""
    (number,) = (at for at, one in enumerate(of.process.threads) if one.name == thread)
    waits = of.process.waits[of.process.waits["thread"] == number]
    return sorted(((waits["end"] - waits["start"]) / 1e6).tolist(), reverse=True)


def check_11(answer: Answer, of: Recording) -> None:
    # A double has no place for each ns of a time since the machine was started.
    assert [row["waited_ms"] for row in answer] == pytest.approx(of_waits(of, "io-0")[:10], abs=1e-5)
    assert {str(row["culprit"])[:4] for row in answer} == {"cpu-"}
    assert all("convoy.py" in str(row["culprit_own_line"]) for row in answer)


def check_12(answer: Answer, of: Recording) -> None:
    # The thread's own track has gaps too, between its calls.
    gaps = [row for row in answer if row["track"] == "GPU 0 stream 7"]
    assert {(row["before"], row["after"]) for row in gaps} == {("gemm", "gemm")}
    assert all(0 < float(str(row["waited_ms"])) <= float(str(row["ms"])) for row in gaps)
    assert {str(row["culprit"])[:4] for row in gaps} == {"cpu-"}


def check_13(answer: Answer, of: Recording) -> None:
    blocks = of.process.blocks
    assert sum(int(str(row["blocks"])) for row in answer) == len(blocks)
    assert total(answer, "ms") == pytest.approx(int((blocks["end"] - blocks["start"]).sum()) / 1e6)
    # The main thread starts the others, each of which says that it is there, and awaits their ends.
    assert {row["cause"] for row in answer} == {"start", "join"}
    assert {row["victim"] for row in answer} == {"MainThread"}
    assert all("convoy.py" in str(row["victim_own_line"]) for row in answer)


def check_14(answer: Answer, of: Recording) -> None:
    blocks = of.process.blocks
    want = {int(lock) + 1: int((blocks["lock"] == lock).sum()) for lock in blocks["lock"]}
    assert {row["lock"]: row["blocks"] for row in answer} == want
    assert total(answer, "ms") == pytest.approx(int((blocks["end"] - blocks["start"]).sum()) / 1e6)
    assert {row["threads"] for row in answer} == {1}


CHECKS: dict[int, Callable[[Answer, Recording], None]] = {
    1: check_1,
    2: check_2,
    3: check_3,
    4: check_4,
    5: check_5,
    6: check_6,
    7: check_7,
    8: check_8,
    9: check_9,
    10: check_10,
    11: check_11,
    12: check_12,
    13: check_13,
    14: check_14,
}


@pytest.mark.parametrize("number", CHECKS)
def test_cookbook(number: int, convoy: Recording) -> None:
    answer = convoy.trace.query(QUESTIONS[number])
    assert answer
    CHECKS[number](answer, convoy)


def test_every_question_of_the_cookbook_is_checked() -> None:
    assert QUESTIONS.keys() == CHECKS.keys()


@pytest.mark.parametrize("table", TABLES)
def test_the_cookbook_lists_every_column(table: str, convoy: Recording) -> None:
    (line,) = re.findall(rf"^\| `{table}` \| (.*) \|$", PAGE.read_text(), re.M)
    assert re.findall(r"`(\w+)`", line) == convoy.trace.run(f"select * from {table} limit 0").columns
    assert definition(table).partition("\n")[0].endswith(".")


# The command.


def test_a_table_is_whole_when_it_is_not_read_on_a_terminal(convoy: Recording) -> None:
    done = giltrace("query", convoy.name, "select * from gil_waits order by dur desc limit 3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    assert lines[0].split() == convoy.trace.run("select * from gil_waits limit 0").columns
    assert all("convoy.py" in line for line in lines[2:])


def test_csv_and_json_have_the_same_rows(convoy: Recording) -> None:
    sql = "select wait, dur, hold, partial, 0.5 as half, x'00ff' as raw, 'a,\"b' as text from gil_waits limit 4"
    told = json.loads(giltrace("query", convoy.name, sql, "--json").stdout)
    assert len(told) == 4
    assert told[0]["raw"] == "00ff"
    assert told[0]["partial"] is None
    lines = csv.DictReader(io.StringIO(giltrace("query", convoy.name, sql, "--csv").stdout))
    assert list(lines) == [{k: "" if v is None else str(v) for k, v in row.items()} for row in told]


def test_sql_comes_from_a_file_or_from_standard_input(convoy: Recording, tmp_path: Path) -> None:
    file = tmp_path / "q.sql"
    file.write_text("-- a comment\nselect count() as n from gil_holds;\n")
    want = f"n\n{len(convoy.process.holds)}\n"
    assert giltrace("query", convoy.name, "-f", file, "--csv").stdout == want
    assert giltrace("query", convoy.name, "--csv", input=file.read_text()).stdout == want


def test_every_name_of_a_recording_will_do(convoy: Recording) -> None:
    for suffix in ("", ".giltrace", ".pftrace"):
        done = giltrace("query", f"{convoy.name}{suffix}", "select count() as n from gil_holds", "--csv")
        assert done.stdout == f"n\n{len(convoy.process.holds)}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["select\n  foo from slice"], "SQL error in line 2, column 3: no such column: foo\n"),
        (["select\n  foo from slice"], "\n      foo from slice\n      ^\n"),
        (["select * from gil_hold"], "no such table: gil_hold"),
        (["selekt"], "SQL error in line 1, column 1: syntax error"),
        ([""], "SQL error: No valid SQL"),
        (["select 1", "-f", "x.sql"], "both SQL and a file"),
        (["-f", "gone.sql"], "gone.sql: No such file"),
        (["select 1", "--csv", "--json"], "exclude each other"),
    ],
)
def test_mistakes_are_told_with_their_place(convoy: Recording, words: list[str], message: str) -> None:
    done = giltrace("query", convoy.name, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("giltrace: error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_no_trace_is_an_expected_error(tmp_path: Path) -> None:
    (tmp_path / "x.pftrace").write_bytes(b"nonsense" * 100)
    for name in ("x.pftrace", "gone"):
        done = giltrace("query", tmp_path / name, "select 1")
        assert done.returncode == 2
        assert done.stderr.startswith("giltrace: error: ")


def test_a_reader_that_goes_away_is_no_error(convoy: Recording) -> None:
    sql = "select a.ts from gil_holds a, gil_holds b limit 200000"
    command = [sys.executable, "-m", "giltrace", "query", str(convoy.name), sql, "--csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ts\n"
        process.stdout.close()
        assert process.stderr.read() == ""


def test_a_trace_that_is_missing_or_older_is_made_for_the_query(convoy: Recording, tmp_path: Path) -> None:
    shutil.copytree(convoy.name.with_suffix(".giltrace"), tmp_path / "y.giltrace")
    trace = tmp_path / "y.pftrace"
    for content in (None, b"older"):
        if content is not None:
            trace.write_bytes(content)
            os.utime(trace, (0, 0))
        done = giltrace("query", tmp_path / "y", "select count() as n from gil_holds", "--csv")
        assert done.stdout == f"n\n{len(convoy.process.holds)}\n"
    assert trace.read_bytes() == b"older"
