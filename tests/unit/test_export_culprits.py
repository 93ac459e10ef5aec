"""Who held the GIL during a wait, and where: what the formats besides Perfetto's say of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from giltrace.exporters import EXPORTERS
from giltrace.timeline.model import Process, Timeline
from tests.synthetic import make_process, make_timeline
from tests.unit.analysis_stacks import with_stacks
from tests.unit.test_exporters import CASES, exported
from tests.unit.test_tables import table_of

LIBRARY = make_timeline(
    with_stacks(
        make_process(threads=5),
        [
            [("iterencode", "/usr/lib/python3.11/json/encoder.py", 257), ("crunch", "app.py", 5)],
            [("ask", "app.py", 0)],
            [("wait", "/usr/lib/python3.11/threading.py", 327)],
        ],
        hold={0: 0, 1: 1, 2: 2, 3: 0},
        wait={0: 2, 1: 0, 2: 1},
    )
)


def held_during(process: Process) -> list[list[object]]:
    """Of each wait the holders' names and times, most first, in one list; by plain numpy."""
    names = [thread.name or f"thread {thread.tid}" for thread in process.threads]
    told = []
    for wait in process.waits:
        own = process.holds["gil"] == wait["gil"]
        lost = np.minimum(process.holds["end"], wait["end"]) - np.maximum(process.holds["start"], wait["start"])
        by_thread = np.bincount(process.holds["thread"], np.where(own, np.maximum(lost, 0), 0), len(names)).astype(int)
        ranked = [at for at in np.argsort(-by_thread, kind="stable").tolist() if by_thread[at] > 0][:3]
        told.append([part for at in ranked for part in (names[at], int(by_thread[at]))])
    return told


def by_thread_and_time(process: Process) -> list[int]:
    """The order in which a profile has the waits."""
    order: list[int] = np.lexsort((process.waits["start"], process.waits["thread"])).tolist()
    return order


@pytest.mark.parametrize("timeline", CASES.values(), ids=CASES)
def test_every_format_tells_who_held_the_gil_during_a_wait(timeline: Timeline) -> None:
    want = [told for process in timeline.processes for told in held_during(process)]
    assert max(map(len, want)) >= 4
    rows = table_of(timeline, "waits")
    names = ("culprit", "second_culprit", "third_culprit")
    columns = [(row[name], int(row[f"{name}_ns"])) for row in rows for name in names]
    assert columns == [pair for told in want for pair in [*zip(told[::2], told[1::2], strict=True), *[("", 0)] * 3][:3]]
    length = [int(row["duration"]) for row in rows]
    share = [float(row["culprit_share"]) for row in rows]
    assert share == [round(told[1] / ns, 4) if told else 0 for told, ns in zip(want, length, strict=True)]  # type: ignore[operator]
    events = json.loads(exported(timeline, "chrome"))["traceEvents"]
    args = [e["args"] for e in events if e["ph"] == "X" and e["name"].startswith("waits for GIL")]
    keys = [key for name in ("culprit", "second culprit", "third culprit") for key in (name, f"{name} ns")]
    assert [[one[key] for key in keys if key in one] for one in args] == want
    assert [one.get("culprit share", 0) for one in args] == pytest.approx(share, abs=0.0006)
    profile = json.loads(exported(timeline, "firefox"))
    strings = profile["shared"]["stringArray"]
    markers = [data for thread in profile["threads"] for data in thread["markers"]["data"] if data["type"] == "GilWait"]
    first, order = 0, []
    for process in timeline.processes:
        order += [first + at for at in by_thread_and_time(process)]
        first += len(process.waits)
    for data, at in zip(markers, order, strict=True):
        told = [
            part
            for name in ("culprit", "secondCulprit", "thirdCulprit")
            if name in data
            for part in (strings[data[name]], data[f"{name}Ns"])
        ]
        assert told == want[at]
        assert data.get("culpritShare", 0) == share[at]


def test_every_format_tells_the_own_line_and_the_leaf_and_no_line_0() -> None:
    encoded, crunch = "iterencode (/usr/lib/python3.11/json/encoder.py:257)", "crunch (app.py:5)"
    want = {(crunch, encoded), ("ask (app.py)", "ask (app.py)"), ("", "")}
    want.add(("wait (/usr/lib/python3.11/threading.py:327)",) * 2)
    for table, known_by in (("holds", {"let go", ""}), ("waits", None)):
        rows = table_of(LIBRARY, table)
        assert {(row["own_line"], row["site"]) for row in rows} == want
        assert known_by is None or {row["known_by"] for row in rows} == known_by
    assert {(row["culprit_own_line"], row["culprit_site"]) for row in table_of(LIBRARY, "waits")} == want
    events = json.loads(exported(LIBRARY, "chrome"))["traceEvents"]
    for name in ("holds GIL", "waits for GIL"):
        args = [e["args"] for e in events if e["name"] == name]
        assert {(one.get("own line", ""), one.get("site", "")) for one in args} == want
    assert {one.get("culprit known by", "") for one in args} == {"let go", ""}
    profile = json.loads(exported(LIBRARY, "firefox"))
    strings = [*profile["shared"]["stringArray"], ""]
    for kind in ("GilHold", "GilWait"):
        made = [data for thread in profile["threads"] for data in thread["markers"]["data"] if data["type"] == kind]
        assert {tuple(strings[data.get(key, -1)] for key in ("ownLine", "site")) for data in made} == want
    for exporter in EXPORTERS:
        if exporter.name not in ("perfetto", "parquet"):
            tables = [{"table": "waits"}, {"table": "holds"}] if exporter.name == "csv" else [{}]
            assert all(b":0)" not in exported(LIBRARY, exporter.name, **options) for options in tables)
