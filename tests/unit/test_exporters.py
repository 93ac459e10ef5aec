"""The formats besides Perfetto's: what they say is what the timeline says, whatever names threads and files have."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from giltrace.analysis.report import analyse
from giltrace.api import Recording
from giltrace.cli import export
from giltrace.errors import OutputError, UsageError
from giltrace.exporters import EXPORTERS, Exporter, find
from giltrace.exporters._relations import relate
from giltrace.exporters.collapsed import WAKE_UP
from giltrace.exporters.tables import columns
from giltrace.exporters.tables.columns import TABLES
from giltrace.exporters.tables.schema import SCHEMA, VERSION
from giltrace.timeline.model import Flag, Process, Thread, Timeline
from tests import firefox_profile
from tests.synthetic import make_process, make_timeline
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS, US
from tests.unit.lock_scenes import taking_turns

AWKWARD = ('a,"b"\n', "semi;colon 7", "snow ☃", "")
STACKS = [
    [("ask", "a;b.py", 7), ("main", "a;b.py", 90)],
    [("give", 'c"d.py', 9), ("main", "a;b.py", 91)],
    [("ask", "a;b.py", 8)],
]


def staged(process: Process) -> Process:
    """With stacks for the first three threads' holds and waits, and for some switch requests; one is cut off."""
    return with_stacks(
        process,
        STACKS,
        hold={0: 0, 1: 1, 2: 2},
        wait={0: 1, 1: 2},
        request=dict.fromkeys(range(min(1, len(process.switch_requests))), 2),
        truncated=[1],
    )


ONE = make_timeline(staged(make_process(names=AWKWARD)))
SEVERAL = make_timeline(
    staged(make_process(pid=10, gils=2, threads=6)), make_process(pid=20, threads=2, seed=5, empty_holds=True)
)
CASES = {"one process": ONE, "several processes and GILs": SEVERAL}


@pytest.fixture(params=CASES)
def timeline(request: pytest.FixtureRequest) -> Timeline:
    return CASES[request.param]


def exported(timeline: Timeline, name: str, **options: str) -> bytes:
    file = io.BytesIO()
    format_of(name).stream()(timeline, file, **options)
    return file.getvalue()


def format_of(name: str) -> Exporter:
    exporter = find(name)
    assert exporter is not None
    return exporter


def lengths(rows: Any) -> int:
    return int((rows["end"] - rows["start"]).sum())


def ns(microseconds: float) -> int:
    return round(microseconds * 1000)


def test_chrome_has_every_hold_and_wait_on_its_thread(timeline: Timeline) -> None:
    events = json.loads(exported(timeline, "chrome"))["traceEvents"]
    got = Counter(
        (e["name"].split(" ")[0], e["pid"], e["tid"], ns(e["ts"]), ns(e["dur"]))
        for e in events
        if e["ph"] == "X" and e["name"].startswith(("holds GIL", "waits for GIL"))
    )
    want = Counter(
        (name, process.pid, process.threads[row["thread"]].tid, int(row["start"]), int(row["end"] - row["start"]))
        for process in timeline.processes
        for name, rows in (("holds", process.holds), ("waits", process.waits))
        for row in rows
    )
    assert got == want


def test_chrome_has_a_group_per_gil(timeline: Timeline) -> None:
    events = json.loads(exported(timeline, "chrome"))["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    groups = {pid for pid, name in names.items() if name.startswith("GIL")}
    assert len(groups) == sum(process.gils for process in timeline.processes)
    held = sum(lengths(process.holds) for process in timeline.processes)
    assert sum(ns(e["dur"]) for e in events if e["ph"] == "X" and e["pid"] in groups) == held
    counts = [e for e in events if e["ph"] == "C"]
    assert {e["pid"] for e in counts} == groups
    assert min(e["args"]["threads"] for e in counts) == 0
    requests = [e for e in events if e["ph"] == "i"]
    assert len(requests) == sum(len(process.switch_requests) for process in timeline.processes) > 0
    assert all(e["args"]["by"] for e in requests)


def test_chrome_arrows_pair_and_lead_to_another_thread(timeline: Timeline) -> None:
    events = json.loads(exported(timeline, "chrome"))["traceEvents"]
    leave, arrive = ({e["id"]: e for e in events if e["ph"] == phase} for phase in "sf")
    assert leave.keys() == arrive.keys()
    assert len(leave) == sum(int(relate(process).arrow_out.sum()) for process in timeline.processes) > 0
    assert len(leave) == sum(e["ph"] == "s" for e in events)
    for number, start in leave.items():
        assert start["tid"] != arrive[number]["tid"]
        assert start["ts"] <= arrive[number]["ts"]


def test_chrome_says_why_and_where() -> None:
    events = json.loads(exported(ONE, "chrome"))["traceEvents"]
    holds = [e["args"] for e in events if e["name"] == "holds GIL"]
    (process,) = ONE.processes
    ended = (process.holds["flags"] & Flag.PARTIAL_END) > 0
    forced = (process.holds["flags"] & Flag.FORCED) > 0
    assert [h["release"] for h in holds] == [
        "still held at the end" if e else "forced" if f else "voluntary" for e, f in zip(ended, forced, strict=True)
    ]
    assert {h.get("site") for h in holds} == {"ask (a;b.py:7)", 'give (c"d.py:9)', "ask (a;b.py:8)", None}
    assert sum("core" not in h for h in holds) == 1
    waits = [e["args"] for e in events if e["name"] == "waits for GIL"]
    assert {w["culprit"] for w in waits if "culprit" in w} <= {*AWKWARD[:3], f"thread {process.threads[3].tid}"}
    named = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name" and e["pid"] == process.pid}
    assert named[process.threads[0].tid] == AWKWARD[0]


def test_firefox_is_a_sound_profile_with_the_same_sums(timeline: Timeline) -> None:
    profile = json.loads(exported(timeline, "firefox"))
    firefox_profile.check(profile)
    strings = profile["shared"]["stringArray"]
    threads = [(process, at) for process in timeline.processes for at in range(len(process.threads))]
    for thread, (process, at) in zip(profile["threads"], threads, strict=True):
        assert (thread["pid"], thread["tid"]) == (str(process.pid), process.threads[at].tid)
        held, waited = (rows[rows["thread"] == at] for rows in (process.holds, process.waits))
        weights = [round(weight * 1e6) for weight in thread["samples"]["weight"]]
        assert sum(weights) == lengths(held) + lengths(waited)
        markers = thread["markers"]
        counts = Counter(strings[name] for name in markers["name"])
        asked = int((process.switch_requests["thread"] == at).sum())
        assert counts == +Counter({"holds GIL": len(held), "waits for GIL": len(waited), "switch request": asked})
        ends = zip(markers["startTime"], markers["endTime"], markers["phase"], strict=True)
        assert sum(round((end - start) * 1e6) for start, end, phase in ends if phase) == sum(weights)


def test_firefox_times_are_exact_and_samples_end() -> None:
    profile = json.loads(exported(ONE, "firefox"))
    (process,) = ONE.processes
    own = process.holds["thread"] == 1
    known = {round(time * 1e6) + ONE.start for time in profile["threads"][1]["samples"]["time"]}
    assert set(process.holds["start"][own].tolist()) <= known
    samples = profile["threads"][1]["samples"]
    assert samples["stack"][-1] is None
    assert samples["weight"][-1] == 0


def test_firefox_markers_carry_reason_culprit_and_site() -> None:
    profile = json.loads(exported(ONE, "firefox"))
    strings = profile["shared"]["stringArray"]
    waits = [data for thread in profile["threads"] for data in thread["markers"]["data"] if data["type"] == "GilWait"]
    assert {strings[data["site"]] for data in waits if "site" in data} == {'give (c"d.py:9)', "ask (a;b.py:8)"}
    assert {strings[data["culprit"]] for data in waits if "culprit" in data} & set(AWKWARD[:3])
    assert {strings[data["reason"]] for data in waits} == {"acquired"}
    assert any("culpritSite" in data and "cause" in data for data in waits)


def test_speedscope_weights_are_the_time_spent(timeline: Timeline) -> None:
    whole = json.loads(exported(timeline, "speedscope"))
    frames = whole["shared"]["frames"]
    for title, table in (("waiting", "waits"), ("holding", "holds")):
        mine = [profile for profile in whole["profiles"] if profile["name"].startswith(title)]
        want = {
            f"{process.pid}, tid {thread.tid}": lengths(rows[rows["thread"] == at])
            for process in timeline.processes
            for rows in [getattr(process, table)]
            for at, thread in enumerate(process.threads)
        }
        got = {profile["name"].partition("(pid ")[2].rstrip(")"): sum(profile["weights"]) for profile in mine}
        assert got == {thread: length for thread, length in want.items() if length}
    for profile in whole["profiles"]:
        assert len(profile["samples"]) == len(profile["weights"])
        assert profile["endValue"] == sum(profile["weights"])
        assert all(0 <= frame < len(frames) for stack in profile["samples"] for frame in stack)
    assert whole["profiles"][whole["activeProfileIndex"]]["name"].startswith("waiting")


def test_speedscope_stacks_begin_outside() -> None:
    whole = json.loads(exported(ONE, "speedscope"))
    frames = whole["shared"]["frames"]
    stacks = {tuple(frames[at]["name"] for at in stack) for p in whole["profiles"] for stack in p["samples"]}
    assert stacks == {("main", "ask"), ("(outer frames cut off)", "main", "give"), ("ask",), ("(no Python stack)",)}
    assert {"name": "give", "file": 'c"d.py', "line": 9} in frames


def folded(timeline: Timeline, **options: str) -> dict[str, int]:
    lines = exported(timeline, "collapsed", **options).decode().splitlines()
    told = {stack: int(count) for stack, _, count in (line.rpartition(" ") for line in lines)}
    assert len(told) == len(lines)
    return told


@pytest.mark.parametrize(("what", "table"), [("waiting", "waits"), ("holding", "holds")])
def test_collapsed_adds_up(what: str, table: str, timeline: Timeline) -> None:
    told = folded(timeline, what=what)
    assert sum(told.values()) == sum(lengths(getattr(process, table)) for process in timeline.processes)


@pytest.mark.parametrize("sched", [True, False])
def test_collapsed_has_the_time_without_the_gil_and_what_was_done_then(sched: bool) -> None:
    made = taking_turns().process(200 * MS + 100 * US, sched=sched)
    told = folded(make_timeline(made), what="without")
    (process,) = analyse(make_timeline(made)).processes
    assert sum(told.values()) == sum(row.ns for row in process.whereabouts)
    assert told["worker-1;take (/srv/app.py:1);(blocked: lock)"] == pytest.approx(100_475_000, abs=25_000)
    assert f"worker-1;work (/srv/app.py:1);({'asleep' if sched else 'off'})" in told


@pytest.mark.parametrize("what", ["holding", "without"])
def test_only_waiting_has_culprits(what: str) -> None:
    with pytest.raises(UsageError, match="only waiting has culprits"):
        exported(ONE, "collapsed", what=what, by="culprit")


def test_collapsed_by_culprit_adds_up_with_the_wake_up(timeline: Timeline) -> None:
    lines = exported(timeline, "collapsed", by="culprit").decode().splitlines()
    nobody = [int(line.rpartition(" ")[2]) for line in lines if line.startswith(WAKE_UP)]
    report = Recording(Path("x"), timeline).report()
    assert sum(nobody) == sum(process.wait_decomposition_ns.wake_up_ns for process in report.processes)
    total = sum(int(line.rpartition(" ")[2]) for line in lines)
    assert total == sum(thread.waited_ns for process in report.processes for thread in process.threads)


def test_collapsed_names_cannot_break_a_line_or_a_frame() -> None:
    told = folded(ONE, what="holding")
    assert 'a,"b" ;main (a:b.py:90);ask (a:b.py:7)' in told
    assert 'semi:colon 7;(outer frames cut off);main (a:b.py:91);give (c"d.py:9)' in told
    assert {stack.partition(";")[0] for stack in told} == {
        'a,"b" ', "semi:colon 7", "snow ☃", f"thread {ONE.processes[0].threads[3].tid}"
    }  # fmt: skip


def test_collapsed_tells_threads_of_several_processes_apart() -> None:
    assert {stack.partition(";")[0] for stack in folded(SEVERAL)} >= {"io-worker (pid 20)", "cpu-worker-1 (pid 10)"}


@pytest.mark.parametrize("name", ["chrome", "firefox"])
def test_pieces_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def events() -> Any:
        whole = json.loads(exported(SEVERAL, name))
        return sorted(map(str, whole["traceEvents"])) if name == "chrome" else whole

    before = events()
    monkeypatch.setattr("giltrace.exporters._text.PIECE", 11)
    assert events() == before


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda e: e.name)
def test_nothing_to_tell_is_an_error_or_an_empty_whole(exporter: Exporter, tmp_path: Path) -> None:
    idle = make_timeline(replace(make_process(holds=0, sched=False), threads=(Thread(1, "", 0, 5),), gils=0))
    path = tmp_path / "x"
    if exporter.name in ("firefox", "speedscope", "collapsed"):
        with pytest.raises(UsageError) as raised:
            exporter.write(idle, path)
        assert raised.value.remedy
        assert list(tmp_path.iterdir()) == []
    else:
        exporter.write(idle, path)
        assert list(tmp_path.iterdir()) == [path]
    if exporter.name == "chrome":
        assert [e["ph"] for e in json.loads(path.read_text())["traceEvents"]] == ["M"] * 3


def test_a_folder_of_tables_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "tables"
    format_of("csv").write(ONE, path)
    assert {file.name for file in path.iterdir()} == {f"{table}.csv" for table in TABLES}
    (path / "holds.csv").write_text("old")
    format_of("csv").write(ONE, path)
    assert (path / "holds.csv").read_bytes() == exported(ONE, "csv", table="holds")
    assert list(tmp_path.iterdir()) == [path]


def test_somebodys_own_folder_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "home"
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="not an earlier export"):
        format_of("csv").write(ONE, path)
    assert [(file.name, file.read_text()) for file in path.iterdir()] == [("thesis.txt", "years of work")]
    assert list(tmp_path.iterdir()) == [path]


def test_the_folder_one_is_in_and_the_root_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=r"^\. is the folder that you are in"):
        format_of("csv").write(ONE, Path("."))
    with pytest.raises(OutputError, match=r"^/ is not an earlier export"):
        format_of("csv").write(ONE, Path("/"))
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to("place")
    format_of("csv").write(ONE, tmp_path / "link")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link", "place"]
    assert (tmp_path / "link").is_symlink()
    assert {file.name for file in (tmp_path / "place").iterdir()} == {f"{table}.csv" for table in TABLES}


def test_a_failure_leaves_the_earlier_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tables"
    format_of("csv").write(ONE, path)
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(TABLES, "waits", full)
    with pytest.raises(OutputError, match="No space left"):
        format_of("csv").write(SEVERAL, path)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_names_every_format() -> None:
    _, option = get_args(export._To)
    assert option.metavar == "perfetto|chrome|firefox|speedscope|collapsed|csv|parquet"


def test_every_format_and_column_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    told = {name: columns.split("`")[1::2] for name, columns in re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.M)}
    assert told == {name: list(next(columns.table_of(ONE, name))) for name in TABLES}
    assert told == {name: list(kinds) for name, kinds in SCHEMA.items()}
    assert f"schema {VERSION}" in page
    headings = [word for line in re.findall("^## (.*)$", page, re.M) for word in line.split(" and ")]
    assert headings == [exporter.name for exporter in EXPORTERS]


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda e: e.name)
def test_a_process_that_never_touched_its_gil_is_in_the_way_of_nothing(exporter: Exporter, tmp_path: Path) -> None:
    idle = replace(make_process(pid=30, holds=0, sched=False), threads=(), gils=0)
    exporter.write(make_timeline(*ONE.processes, idle), tmp_path / "x")
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]
