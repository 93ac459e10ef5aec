"""The tables of CSV and Parquet: what they say is what the timeline and the analyses say."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from giltrace import installation
from giltrace.analysis.measure.blame import find_blame
from giltrace.api import Recording
from giltrace.errors import UsageError
from giltrace.exporters._relations import relate
from giltrace.exporters.tables.columns import TABLES
from giltrace.timeline.model import Flag, Timeline
from tests.synthetic import make_process, make_timeline
from tests.unit.test_exporters import AWKWARD, CASES, ONE, SEVERAL, STACKS, exported, format_of


@pytest.fixture(params=CASES)
def timeline(request: pytest.FixtureRequest) -> Timeline:
    return CASES[request.param]


def table_of(timeline: Timeline, table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(exported(timeline, "csv", table=table).decode(), newline="")))


def test_csv_tables_are_those_of_the_python_interface(timeline: Timeline) -> None:
    recording = Recording(Path("x"), timeline)
    for table in ("processes", "threads", "holds", "waits", "switch_requests", "states", "runs"):
        rows = table_of(timeline, table)
        same = getattr(recording, table)
        assert len(rows) == len(same)
        for column in {"start", "end", "time", "gil", "core", "timeouts", "hold", "lost"} & set(same.dtype.names):
            assert [int(row[column]) for row in rows] == same[column].tolist(), f"{table}.{column}"
        if "thread" in same.dtype.names:
            tids = recording.threads.tid[same.thread].tolist()
            assert [int(row["tid"]) for row in rows] == tids
    holds = table_of(timeline, "holds")
    assert [row["forced"] == "true" for row in holds] == ((recording.holds["flags"] & Flag.FORCED) > 0).tolist()
    assert [int(row["hold"]) for row in holds] == list(range(len(holds)))


def test_numbers_lead_from_table_to_table(timeline: Timeline) -> None:
    threads = {row["thread_id"]: row for row in table_of(timeline, "threads")}
    assert sorted(map(int, threads)) == list(range(sum(len(process.threads) for process in timeline.processes)))
    innermost = {row["stack"]: row["text"] for row in table_of(timeline, "stacks") if row["position"] == "0"}
    holds = {row["hold"]: row for row in table_of(timeline, "holds")}
    waits = table_of(timeline, "waits")
    for row in [*holds.values(), *waits]:
        assert [row[name] for name in ("image", "tid")] == [
            threads[row["thread_id"]][name] for name in ("image", "tid")
        ]
        assert row["site"] == innermost.get(row["stack"], "")
    assert [row["culprit_site"] for row in waits] == [innermost.get(row["culprit_stack"], "") for row in waits]
    firsts = {row["image"]: int(row["first_hold"]) for row in table_of(timeline, "processes")}
    assert all(int(row["hold"]) >= firsts[row["image"]] for row in holds.values())


def test_each_frame_of_each_stack_is_a_row() -> None:
    rows = table_of(ONE, "stacks")
    told = [(row["stack"], row["depth"], row["position"], row["function"], row["file"], row["line"]) for row in rows]
    assert told == [
        (str(number), str(len(stack)), str(at), function, file, str(line))
        for number, stack in enumerate(STACKS)
        for at, (function, file, line) in enumerate(stack)
    ]
    assert [row["truncated"] for row in rows] == ["false", "false", "true", "true", "false"]
    assert {row["own"] for row in rows} == {"true"}


def test_hand_offs_stand_with_the_holds_that_ended(timeline: Timeline) -> None:
    rows = {int(row["hold"]): row for row in table_of(timeline, "holds")}
    first = 0
    for process in timeline.processes:
        relations = relate(process)
        for at, hold in enumerate(process.holds):
            after = int(relations.following[at])
            row = rows[first + at]
            on = (
                after >= 0
                and hold["thread"] != process.holds["thread"][after]
                and not hold["flags"] & Flag.PARTIAL_END
                and not process.holds["flags"][after] & Flag.PARTIAL_START
            )
            latency = int(process.holds["start"][after] - hold["end"]) if on else -1
            assert int(row["handoff_ns"]) == latency
            assert row["to_tid"] == (str(process.threads[process.holds["thread"][after]].tid) if on else "-1")
            assert row["to_waited"] == str(bool(on and relations.arrow_out[at])).lower()
        first += len(process.holds)


def test_blame_is_all_time_that_was_waited_for_a_holder(timeline: Timeline) -> None:
    rows = table_of(timeline, "blame")
    for process in timeline.processes:
        found = find_blame(process)
        mine = [row for row in rows if row["pid"] == str(process.pid)]
        assert sum(int(row["duration"]) for row in mine) == sum(row.ns for row in found.pairs) > 0
        assert max(int(row["max_duration"]) for row in mine) == max(row.max_ns for row in found.pairs)
        assert Counter(row["culprit"] for row in mine).keys() == {row.culprit.thread for row in found.pairs}


def test_so_many_waited_for_so_long(timeline: Timeline) -> None:
    rows = table_of(timeline, "waiting")
    for process in timeline.processes:
        mine = [row for row in rows if row["pid"] == str(process.pid)]
        waited = process.waits["end"] - process.waits["start"]
        assert sum(int(row["waiting"]) * int(row["duration"]) for row in mine) == int(waited.sum()) > 0
        assert sum(int(row["duration"]) for row in mine) == (process.end - process.start) * process.gils


def test_csv_survives_any_name() -> None:
    names = [row["thread"] for row in table_of(ONE, "threads")]
    assert names == [*AWKWARD[:3], f"thread {ONE.processes[0].threads[3].tid}"]
    waits = table_of(ONE, "waits")
    assert {row["site"] for row in waits} == {'give (c"d.py:9)', "ask (a;b.py:8)", ""}
    assert {row["culprit"] for row in waits} - {""} <= set(names)


def test_tables_of_more_than_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {table: exported(SEVERAL, "csv", table=table) for table in TABLES}
    monkeypatch.setattr("giltrace.exporters.tables.image.PIECE", 7)
    monkeypatch.setattr("giltrace.exporters._text.PIECE", 5)
    assert {table: exported(SEVERAL, "csv", table=table) for table in TABLES} == whole


def test_parquet_says_the_same_as_csv() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for table in TABLES:
        for timeline in CASES.values():
            read = parquet.read_table(io.BytesIO(exported(timeline, "parquet", table=table)))
            rows = table_of(timeline, table)
            assert read.column_names == list(rows[0]) if rows else True
            for column in read.column_names:
                values = read.column(column).to_pylist()
                told = [f"{v:.4f}" if isinstance(v, float) else str(v) for v in values]
                told = [text.lower() if isinstance(v, bool) else text for v, text in zip(values, told, strict=True)]
                assert told == [row[column] for row in rows], f"{table}.{column}"


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="pyarrow is not installed") as raised:
        format_of("parquet").write(ONE, tmp_path / "x")
    assert installation.with_extra("parquet") in raised.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_process_without_stacks_has_no_sites() -> None:
    bare = make_timeline(make_process())
    assert {row["site"] for row in table_of(bare, "waits")} == {""}
    assert {row["stack"] for row in table_of(bare, "waits")} == {"-1"}


def test_every_number_of_a_big_process_fits() -> None:
    process = make_process(holds=50)
    late = replace(
        process, holds=process.holds.copy(), waits=process.waits[:0], switch_requests=process.switch_requests[:0]
    )
    late.holds["start"] += np.int64(2) ** 61
    late.holds["end"] += np.int64(2) ** 61
    rows = table_of(make_timeline(late), "holds")
    assert [int(row["start"]) for row in rows] == late.holds["start"].tolist()
