"""Blocks in CSV, in the data set and in SQL: every one, with its lock and its waker, as the timeline has it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giltrace.exporters.perfetto import trace as perfetto
from giltrace.exporters.tables.schema import SCHEMA
from giltrace.timeline.model import BlockEnd, LockKind, Timeline
from giltrace.views.columnar import ColumnarProcessor
from giltrace.views.gil_tables import GilTraceProcessor
from giltrace.views.trace_processor import unavailable
from tests.made_blocks import BLOCKED, WAKING, causes, with_blocks
from tests.synthetic import make_process, make_timeline
from tests.unit.test_exporters import exported, format_of

SEVERAL = make_timeline(
    with_blocks(make_process(10, names=("=1", 'a,"b"', "cpu-2", "io"))),
    make_process(15, holds=20),
    with_blocks(make_process(20, threads=6, gils=2, seed=3)),
)


def table_of(timeline: Timeline, table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(exported(timeline, "csv", table=table).decode(), newline="")))


def text(frame: tuple[str, str, int]) -> str:
    function, file, line = frame
    return f"{function} ({file}:{line})"


def own(stack: tuple[tuple[str, str, int], ...]) -> str:
    return next(text(frame) for frame in stack if frame[1] == "/srv/app.py")


def test_every_block_is_a_row_with_all_that_is_known() -> None:
    want: list[dict[str, str]] = []
    for image, process in enumerate(SEVERAL.processes):
        assert process.stacks is not None or not len(process.blocks)
        told = causes(process) if process.stacks is not None else []
        for at, (block, cause) in enumerate(zip(process.blocks, told, strict=True)):
            waker = process.threads[block["waker"]] if block["waker"] >= 0 else None
            stack, wake = BLOCKED[at % len(BLOCKED)][1], WAKING[at % len(WAKING)]
            want.append(
                {
                    "block": str(len(want)),
                    "image": str(image),
                    "tid": str(process.threads[block["thread"]].tid),
                    "start": str(block["start"]),
                    "duration": str(block["end"] - block["start"]),
                    "cause": cause,
                    "lock": str(block["lock"] + 1),
                    "lock_kind": LockKind.SEMAPHORE.label,
                    "ended": BlockEnd(block["ended"]).label,
                    "timed": "true" if block["timed"] else "false",
                    "owned": "true" if block["owned"] else "false",
                    "site": text(stack[0]),
                    "own_line": own(stack),
                    "waker_tid": str(waker.tid) if waker else "-1",
                    "woken": str(block["woken"]) if waker else "-1",
                    "waker_site": text(wake[0]) if waker else "",
                    "waker_own_line": own(wake) if waker else "",
                }
            )
    rows = table_of(SEVERAL, "blocks")
    assert [{name: row[name] for name in one} for row, one in zip(rows, want, strict=True)] == want
    assert {row["ended"] for row in want} == {"woken", "timed-out"}
    assert list(rows[0]) == list(SCHEMA["blocks"])


def test_numbers_lead_to_threads_and_stacks() -> None:
    threads = {row["thread_id"]: row for row in table_of(SEVERAL, "threads")}
    innermost = {row["stack"]: row["text"] for row in table_of(SEVERAL, "stacks") if row["position"] == "0"}
    for row in table_of(SEVERAL, "blocks"):
        for who in ("", "waker_"):
            thread = threads.get(row[f"{who}thread_id"], {"tid": "-1", "thread": ""})
            assert (row[f"{who}tid"], row[who.rstrip("_") or "thread"]) == (thread["tid"], thread["thread"])
            assert row[f"{who}site"] == innermost.get(row[f"{who}stack"], "")


def test_what_blocked_threads_had_taken_leads_to_their_blocks() -> None:
    blocks = table_of(SEVERAL, "blocks")
    rows = table_of(SEVERAL, "held_locks")
    first = len(SEVERAL.processes[0].blocks)
    assert [(row["image"], row["block"], row["lock"]) for row in rows] == [("0", "0", "2"), ("2", str(first), "2")]
    assert all(blocks[int(row["block"])]["image"] == row["image"] for row in rows)


def test_only_the_chosen_threads_have_rows() -> None:
    process = SEVERAL.processes[0]
    chosen = np.arange(len(process.threads)) != process.blocks["thread"][0]
    timeline = make_timeline(replace(process, chosen=chosen))
    want = int(chosen[process.blocks["thread"]].sum())
    assert len(table_of(timeline, "blocks")) == want < len(process.blocks)
    assert table_of(timeline, "held_locks") == []


def by_duckdb(path: Path) -> dict[str, int]:
    import duckdb

    asked = f"select cause || ' ' || waker, sum(duration)::bigint from '{path}/blocks/**/*.parquet' group by 1"
    return dict(duckdb.connect().execute(asked).fetchall())


def by_polars(path: Path) -> dict[str, int]:
    import polars

    frame = polars.scan_parquet(path / "blocks").group_by("cause", "waker").agg(polars.sum("duration"))
    return {f"{cause} {waker}": ns for cause, waker, ns in frame.collect().rows()}


def by_pandas(path: Path) -> dict[str, int]:
    import pandas

    sums = pandas.read_parquet(path / "blocks").groupby(["cause", "waker"], observed=True)["duration"].sum()
    return {f"{cause} {waker}": int(ns) for (cause, waker), ns in sums.items()}


READERS = {"duckdb": by_duckdb, "polars": by_polars, "pandas": by_pandas}


@pytest.mark.needs("pyarrow")
@pytest.mark.parametrize("reader", [pytest.param(name, marks=pytest.mark.needs(name)) for name in READERS])
def test_readers_find_the_same_sums(reader: str, tmp_path: Path) -> None:
    want = Counter[str]()
    for row in table_of(SEVERAL, "blocks"):
        # Only a spreadsheet is kept from taking a name for a formula.
        want[f"{row['cause']} {row['waker'].removeprefix(chr(39))}"] += int(row["duration"])
    format_of("parquet").write(SEVERAL, tmp_path / "it.parquet")
    assert READERS[reader](tmp_path / "it.parquet") == want


# SQL.


@pytest.mark.needs("pyarrow", "duckdb")
@pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")
@pytest.mark.parametrize("table", ["lock_waits", "lock_blame"])
def test_both_engines_have_the_same_rows(table: str, tmp_path: Path) -> None:
    file = io.BytesIO()
    perfetto.stream(SEVERAL, file)
    trace = GilTraceProcessor(file.getvalue())
    format_of("parquet").write(SEVERAL, tmp_path / "it.parquet")
    tables = ColumnarProcessor(tmp_path / "it.parquet")
    columns = trace.run(f"select * from {table} limit 0").columns
    assert tables.run(f"select * from {table} limit 0").columns == columns
    # Each engine numbers threads, processes and slices in its own way.
    asked = f"select {', '.join(set(columns) - {'id', 'utid', 'upid', 'waker_utid'})} from {table}"
    told = trace.run(asked).rows
    assert Counter(map(tuple, tables.run(asked).rows)) == Counter(map(tuple, told))
    assert told


@pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")
def test_blame_is_all_time_that_was_blocked_by_pairs_of_lines() -> None:
    file = io.BytesIO()
    perfetto.stream(SEVERAL, file)
    rows = GilTraceProcessor(file.getvalue()).query("select * from lock_blame")
    pairs: dict[Any, list[int]] = {}
    locks: dict[Any, set[tuple[str, str]]] = {}
    threads = {row["thread_id"]: row["role"] for row in table_of(SEVERAL, "threads")}
    for row in table_of(SEVERAL, "blocks"):
        roles = (threads[row["thread_id"]], threads.get(row["waker_thread_id"], ""))
        key = (row["pid"], row["cause"], *roles, row["own_line"], row["waker_own_line"])
        pairs.setdefault(key, []).append(int(row["duration"]))
        locks.setdefault(key, set()).add((row["image"], row["lock"]))
    names = ("pid", "cause", "victim", "waker", "victim_own_line", "waker_own_line")
    unquoted = {tuple(part.removeprefix("'") for part in key): key for key in pairs}
    assert len(rows) == len(pairs)
    for found in rows:
        key = unquoted[tuple(str(found[name]) for name in names)]
        told = tuple(found[name] for name in ("blocks", "dur", "max_dur", "locks"))
        assert told == (len(pairs[key]), sum(pairs[key]), max(pairs[key]), len(locks[key]))
    assert [found["dur"] for found in rows] == sorted((sum(one) for one in pairs.values()), reverse=True)
