"""`giltrace export` on a fresh recording: other programs read it, and find what the report says."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import giltrace as api
from giltrace.exporters import EXPORTERS
from giltrace.exporters._relations import waking_holds
from giltrace.views.trace_processor import TraceProcessor, unavailable
from tests import firefox_profile
from tests.integration.test_record import GILTRACE, giltrace
from tests.viewers import SPEEDSCOPE_SCHEMA, FirefoxProfiler

Json = Any


@dataclass(frozen=True)
class Recorded:
    """A recording of the convoy in `folder`, and what its report says, by tid."""

    folder: Path
    report: Json
    process: Json
    threads: dict[int, Json]

    def export(self, to: str, *words: str) -> Path:
        """Export anew, and return where to."""
        before = set(self.folder.iterdir())
        ran = giltrace("export", "convoy", "--to", to, *words, folder=self.folder)
        assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
        (made,) = set(self.folder.iterdir()) - before
        assert ran.stderr == f"giltrace: wrote {made.name}\n"
        return made

    def sums(self, figure: str) -> dict[int, int]:
        """A figure of each thread for which it is not 0."""
        return {tid: thread[figure] for tid, thread in self.threads.items() if thread[figure]}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("export")
    command = ("record", "--light", "--python", sys.executable, "-o", "convoy", "convoy", "--steps", "40")
    ran = giltrace(*command, folder=folder)
    assert ran.returncode == 0, ran.stderr
    report = json.loads(giltrace("report", "convoy", "--json", folder=folder).stdout)
    assert report["quality"]["invariant_violations"] == report["quality"]["lost_events"] == 0
    (process,) = report["processes"]
    assert process["has_stacks"]
    (folder / "convoy.pftrace").unlink()
    return Recorded(folder, report, process, {thread["tid"]: thread for thread in process["threads"]})


def test_perfetto_is_what_record_writes(recorded: Recorded) -> None:
    made = recorded.export("perfetto")
    assert made.name == "convoy.pftrace"
    piped = subprocess.run(
        [*GILTRACE, "export", "convoy", "--to", "perfetto", "-o", "-"],
        cwd=recorded.folder,
        capture_output=True,
        check=True,
    )
    assert piped.stdout == made.read_bytes()


def test_a_trace_is_cut_as_for_the_view(recorded: Recorded, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.pftrace", tmp_path / "cut.pftrace"
    for path, words in ((whole, ()), (cut, ("--top-waits", "3")), (tmp_path / "none", ("--window", "0s..1ms"))):
        ran = giltrace("export", "convoy", "--to", "perfetto", *words, "-o", str(path), folder=recorded.folder)
        assert ran.returncode == 0, ran.stderr
    assert b"left out" in cut.read_bytes()
    assert b"left out" not in whole.read_bytes()
    assert cut.stat().st_size < whole.stat().st_size
    refused = giltrace("export", "convoy", "--to", "csv", "--top-waits", "3", folder=recorded.folder)
    assert refused.returncode == 2
    assert "--top-waits is not for csv" in refused.stderr


@pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")
def test_chrome_in_trace_processor(recorded: Recorded) -> None:
    trace = TraceProcessor(recorded.export("chrome"))
    assert trace.query("select name from stats where severity in ('error', 'data_loss') and value > 0") == []
    (process,) = api.load(recorded.folder / "convoy").timeline.processes
    for name, rows in (("holds GIL", process.holds), ("waits for GIL", process.waits)):
        found = trace.query(
            "select s.ts, s.dur, t.tid from slice s join thread_track k on s.track_id = k.id join thread t using (utid)"
            f" where s.name = '{name}'"
        )
        want = Counter((int(r["start"]), int(r["end"] - r["start"]), process.threads[r["thread"]].tid) for r in rows)
        assert Counter(tuple(row.values()) for row in found) == want
    held = trace.query(
        "select sum(s.dur) as ns from slice s join thread_track k on s.track_id = k.id join thread t using (utid)"
        f" join process p using (upid) where p.name = 'GIL (pid {process.pid})' and s.name != 'switch request'"
    )
    assert held == [{"ns": sum(recorded.sums("held_ns").values())}]
    arrows = trace.query(
        "select count(*) as n, sum(a.ts + a.dur <= b.ts) as later,"
        " sum(a.name = 'holds GIL' and b.name = 'holds GIL') as of"
        " from flow f join slice a on f.slice_out = a.id join slice b on f.slice_in = b.id"
        " where extract_arg(f.arg_set_id, 'cat') = 'gil'"
    )
    assert arrows[0]["n"] == arrows[0]["later"] == arrows[0]["of"]
    assert 0 < int(str(arrows[0]["n"])) <= recorded.process["gils"][0]["handoffs"]
    wakes = trace.query(
        "select count(*) as n, sum(a.ts < b.ts and a.name = 'holds GIL') as of, sum(b.category = 'gil') as into_gil"
        " from flow f join slice a on f.slice_out = a.id join slice b on f.slice_in = b.id"
        " where extract_arg(f.arg_set_id, 'cat') = 'block'"
    )
    assert set(wakes[0].values()) == {int((waking_holds(process) >= 0).sum())} != {0}


def test_firefox_is_sound_and_has_the_reports_sums(recorded: Recorded) -> None:
    profile = json.loads(recorded.export("firefox").read_bytes())
    firefox_profile.check(profile)
    for thread in profile["threads"]:
        told = recorded.threads[thread["tid"]]
        spent = Counter[str]()
        for data, start, end in zip(
            *(thread["markers"][name] for name in ("data", "startTime", "endTime")), strict=True
        ):
            spent[data["type"]] += round((end - start) * 1e6) if end is not None else 1
        assert (spent["GilHold"], spent["GilWait"]) == (told["held_ns"], told["waited_ns"])
    blocked = [
        data for thread in profile["threads"] for data in thread["markers"]["data"] if data["type"] == "LockBlock"
    ]
    (process,) = api.load(recorded.folder / "convoy").timeline.processes
    assert len(blocked) == len(process.blocks) > 0


@pytest.mark.needs("profiler-cli")
def test_the_firefox_profiler_itself_reads_it(recorded: Recorded) -> None:
    path = recorded.folder / "loaded.json"
    ran = giltrace("export", "convoy", "--to", "firefox", "-o", path, folder=recorded.folder)
    assert ran.returncode == 0, ran.stderr
    # Its daemon's socket must have a short name.
    with tempfile.TemporaryDirectory() as short, FirefoxProfiler(path, Path(short)) as profiler:
        shown = profiler.ask("profile", "info", "--all")["processes"][0]["threads"]
        assert {thread["tid"] for thread in shown} == recorded.threads.keys()
        for thread in shown:
            told = recorded.threads[thread["tid"]]
            assert thread["name"] == told["name"]
            words = ("--thread", thread["threadHandle"])
            kinds = {kind["markerName"]: kind for kind in profiler.ask("thread", "markers", *words)["byType"]}
            assert kinds["holds GIL"]["count"] == told["holds"]
            assert kinds.get("waits for GIL", {"count": 0})["count"] == told["waits"]
            functions = profiler.ask("thread", "functions", *words, "--include-idle")["functions"]
            spent = {function["name"]: function["selfSamples"] for function in functions}
            assert spent["[holds the GIL]"] * 1e6 == pytest.approx(told["held_ns"], abs=1)
            assert spent.get("[waits for the GIL]", 0) * 1e6 == pytest.approx(told["waited_ns"], abs=1)


@pytest.mark.needs("speedscope")
def test_speedscope_keeps_to_its_schema(recorded: Recorded) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    path = recorded.folder / "checked.json"
    ran = giltrace("export", "convoy", "--to", "speedscope", "-o", path, folder=recorded.folder)
    assert ran.returncode == 0, ran.stderr
    schema = json.loads(SPEEDSCOPE_SCHEMA.read_text())
    # The file's own `$ref` names its main definition.
    jsonschema.Draft7Validator(schema).validate(json.loads(path.read_bytes()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate({"profiles": []})


def test_speedscope_has_the_reports_sums(recorded: Recorded) -> None:
    whole = json.loads(recorded.export("speedscope").read_bytes())
    for title, figure in (("waiting", "waited_ns"), ("holding", "held_ns")):
        mine = [profile for profile in whole["profiles"] if profile["name"].startswith(title)]
        got = {int(one["name"].rpartition("tid ")[2].rstrip(")")): sum(one["weights"]) for one in mine}
        assert got == recorded.sums(figure)


@pytest.mark.parametrize(
    ("words", "figure"), [((), "waited_ns"), (("--what", "holding"), "held_ns")], ids=["waiting", "holding"]
)
def test_collapsed_on_stdout_has_the_reports_sums(words: tuple[str, ...], figure: str, recorded: Recorded) -> None:
    ran = giltrace("export", "convoy", "--to", "collapsed", "-o", "-", *words, folder=recorded.folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    spent = Counter[str]()
    for line in ran.stdout.splitlines():
        stack, _, count = line.rpartition(" ")
        spent[stack.partition(";")[0]] += int(count)
    assert spent == {recorded.threads[tid]["name"]: ns for tid, ns in recorded.sums(figure).items()}


def test_collapsed_by_culprit_blames_as_the_report_does(recorded: Recorded) -> None:
    made = recorded.export("collapsed", "--by", "culprit")
    lines = [line.rpartition(" ") for line in made.read_text().splitlines()]
    innermost = Counter[str]()
    for stack, _, count in lines:
        innermost[stack.rpartition(";")[2]] += int(count)
    told = Counter[str]()
    for row in recorded.process["culprits"]:
        site = row["site"]
        told[f"{site['function']} ({site['file']}:{site['line']})"] += row["ns"]
    worst, ns = told.most_common(1)[0]
    assert innermost[worst] == ns > 0
    assert sum(innermost.values()) == sum(recorded.sums("waited_ns").values())


@pytest.mark.needs("duckdb", "pandas")
def test_csv_loads_in_duckdb_and_pandas_with_the_reports_sums(recorded: Recorded) -> None:
    folder = recorded.export("csv")
    check_tables(folder, ".csv", recorded)
    import pandas

    check_frames({table: pandas.read_csv(folder / f"{table}.csv") for table in ("holds", "waits", "states")}, recorded)


@pytest.mark.needs("duckdb", "pandas", "pyarrow")
def test_parquet_loads_in_duckdb_and_pandas_with_the_reports_sums(recorded: Recorded) -> None:
    import pandas

    folder = recorded.export("parquet")
    assert folder.name == "convoy.parquet"
    check_tables(folder, "/**/*.parquet", recorded)
    check_frames({table: pandas.read_parquet(folder / table) for table in ("holds", "waits", "states")}, recorded)


def check_tables(folder: Path, files: str, recorded: Recorded) -> None:
    import duckdb

    base = duckdb.connect()

    def place(table: str) -> str:
        return f"'{folder / table}{files}'"

    def by_thread(table: str, what: str) -> dict[int, int]:
        return dict(base.execute(f"select tid, {what} from {place(table)} group by tid").fetchall())

    assert by_thread("holds", "sum(duration)::bigint") == recorded.sums("held_ns")
    assert by_thread("waits", "sum(duration)::bigint") == recorded.sums("waited_ns")
    assert by_thread("waits", "max(duration)") == recorded.sums("wait_max_ns")
    forced = by_thread("holds", "count(*) filter (where forced)")
    assert {tid: count for tid, count in forced.items() if count} == recorded.sums("forced")
    assert by_thread("threads", "sum(duration)::bigint") == recorded.sums("life_ns")
    led = base.execute(
        f'select count(*), sum((w.tid = h.tid and w."end" = h.start)::int) from {place("waits")} w'
        f" join {place('holds')} h using (hold)"
    ).fetchone()
    assert led is not None
    assert led[0] == led[1] > 0


def check_frames(frames: dict[str, Any], recorded: Recorded) -> None:
    assert frames["holds"].groupby("tid")["duration"].sum().to_dict() == recorded.sums("held_ns")
    assert frames["waits"].groupby("tid")["duration"].sum().to_dict() == recorded.sums("waited_ns")
    assert frames["holds"]["forced"].dtype == bool
    if not recorded.process["has_sched"]:
        return
    spent = frames["states"].groupby(["tid", "state"])["duration"].sum().to_dict()
    told = {(tid, state): ns for tid, one in recorded.threads.items() for state, ns in one["states_ns"].items() if ns}
    assert {key: ns for key, ns in spent.items() if ns} == told


def test_one_table_on_stdout(recorded: Recorded) -> None:
    ran = giltrace("export", "convoy", "--to", "csv", "--table", "threads", "-o", "-", folder=recorded.folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(ran.stdout)))
    assert {int(row["tid"]): row["thread"] for row in rows} == {
        tid: thread["name"] for tid, thread in recorded.threads.items()
    }  # fmt: skip


def test_a_reader_that_stops_early_is_no_error(recorded: Recorded) -> None:
    command = " ".join([*GILTRACE, "export", "convoy", "--to", "chrome", "-o", "-"])
    ran = subprocess.run(f"{command} | head -c 10", shell=True, cwd=recorded.folder, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ('{"displayT', "")


def test_a_full_disk_behind_stdout_is_said(recorded: Recorded) -> None:
    command = [*GILTRACE, "export", "convoy", "--to", "chrome", "-o", "-"]
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(command, cwd=recorded.folder, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode != 0
    assert ran.stderr.startswith("giltrace: error: cannot write stdout: No space left on device\n")
    assert "Traceback" not in ran.stderr


def test_what_is_there_stays_without_force(recorded: Recorded) -> None:
    path = recorded.folder / "mine"
    path.write_text("mine")
    words = ("export", "convoy", "--to", "collapsed", "-o", "mine")
    ran = giltrace(*words, folder=recorded.folder)
    assert (ran.returncode, path.read_text()) == (2, "mine")
    assert "--force" in ran.stderr
    assert giltrace(*words, "--force", folder=recorded.folder).returncode == 0
    assert path.read_text() != "mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("convoy", "--to", "pdf"), "there is no format 'pdf' one of perfetto, chrome,"),
        (("gone", "--to", "csv"), "there is no recording gone"),
        (("convoy", "--to", "csv", "-o", "-"), "csv is a folder of several tables name one"),
        (("convoy", "--to", "csv", "--table", "hods"), "there is no --table 'hods' one of hosts, processes,"),
        (("convoy", "--to", "chrome", "--by", "victim"), "--by is not for chrome it is an option of collapsed"),
        (("convoy", "--to", "perfetto", "--table", "holds"), "it is an option of csv and parquet"),
        (("convoy", "--to", "collapsed", "--what", "both"), "there is no --what 'both' one of waiting, holding"),
        (
            ("convoy", "--to", "collapsed", "--what", "holding", "--by", "culprit", "-o", "x"),
            "only waiting has culprits",
        ),
        (("convoy", "--to", "chrome", "-o", "convoy.giltrace/meta.json/x"), "cannot write convoy.giltrace/meta.json/x"),
        (("convoy", "--to", "perfetto", "-o", "x", "--window", "900s.."), "nothing from 900 s on the recording is "),
        (("convoy",), "missing option '--to'"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_what_cannot_be_exported_is_said(words: tuple[str, ...], said: str, recorded: Recorded) -> None:
    before = set(recorded.folder.iterdir())
    ran = giltrace("export", *words, folder=recorded.folder)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in " ".join(ran.stderr.split())
    assert "Traceback" not in ran.stderr
    assert set(recorded.folder.iterdir()) == before


def test_an_empty_recording_says_so(tmp_path: Path) -> None:
    ran = giltrace("record", "--light", "-o", "empty", "--", "/bin/true", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    for exporter in EXPORTERS:
        ran = giltrace("export", "empty", "--to", exporter.name, "-o", "x", folder=tmp_path)
        assert ran.returncode == 2
        assert "empty.giltrace is empty" in ran.stderr
        assert "giltrace doctor" in ran.stderr
    assert not (tmp_path / "x").exists()
