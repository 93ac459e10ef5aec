"""What the rows of a trace are called, in which order the UI numbers them, and what a wait's details begin with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from giltrace.timeline.cut import cut
from giltrace.timeline.model import Process
from giltrace.views.trace_processor import TraceProcessor, unavailable
from tests.synthetic import make_process, make_timeline
from tests.unit.analysis_stacks import with_stacks
from tests.unit.test_perfetto import load

_WHY_NOT = unavailable()
pytestmark = pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT))

#: Above this number a row comes below all processes in the UI.
BEFORE_PROCESSES = 50


def places(trace: TraceProcessor) -> dict[str, int]:
    """The number of each row that is not below another."""
    rows = trace.query(
        "include perfetto module viz.summary.track_event;"
        " select name, order_id from _track_event_tracks_ordered_groups where parent_id is null"
    )
    return {str(row["name"]): int(str(row["order_id"])) for row in rows}


@pytest.mark.parametrize("first", ["A", "0", "(", "GIL", " "])
def test_groups_have_the_first_numbers_whatever_threads_are_called(first: str, tmp_path: Path) -> None:
    names = [f"{first}{at}" for at in range(80)]
    many = make_process(threads=80, holds=800, names=names)
    other = make_process(pid=9000, threads=8, gils=2, seed=2)
    middle = (many.start + many.end) // 2
    timeline = cut(make_timeline(many, other), [(middle, middle + 1)])
    found = places(load(timeline, tmp_path))
    groups = ["Cut", "GIL (pid 4242)", "GIL 0 (pid 9000)", "GIL 1 (pid 9000)"]
    assert sorted(found, key=found.__getitem__)[: len(groups)] == groups
    assert max(found[name] for name in groups) < BEFORE_PROCESSES < max(found.values())


def test_the_gil_rows_of_threads_have_their_names(tmp_path: Path) -> None:
    process = make_process(threads=3, names=("MainThread", "线程", "io-worker"))
    process = replace(process, threads=(*process.threads[:2], process.threads[2]._replace(name="")))
    rows = load(make_timeline(process), tmp_path).query(
        "select k.name, t.tid from thread_track k join thread t using (utid) where k.name glob 'GIL*' order by t.tid"
    )
    names = ("MainThread", "线程", "thread 4244")
    assert [(row["name"], row["tid"]) for row in rows] == [
        (f"GIL of {name}", thread.tid) for name, thread in zip(names, process.threads, strict=True)
    ]


@pytest.mark.parametrize(
    ("processes", "titles"),
    [
        ((make_process(),), {"holder"}),
        ((make_process(), make_process(77, threads=2, holds=0, gils=0)), {"holder"}),
        ((make_process(threads=6, gils=2),), {"holder, GIL 0", "holder, GIL 1"}),
        (
            (make_process(12), replace(make_process(13), cmdline="python /srv/gunicorn worker")),
            {"holder, pid 12 convoy.py --threads 4", "holder, pid 13 gunicorn worker"},
        ),
        ((make_process(12), replace(make_process(13), cmdline="")), {"holder, pid 12 convoy.py --threads 4"}),
    ],
    ids=["one", "one with a GIL", "two GILs", "two", "no command line"],
)
def test_holders_of_several_processes_say_whose_they_are(
    processes: tuple[Process, ...], titles: set[str], tmp_path: Path
) -> None:
    rows = load(make_timeline(*processes), tmp_path).query("select name from track where name glob 'holder*'")
    names = {str(row["name"]) for row in rows}
    assert names >= titles
    assert len(names) == len(rows) == sum(process.gils for process in processes)


def test_a_waits_details_begin_with_its_culprit(tmp_path: Path) -> None:
    library = ("iterencode", "/usr/lib/python3.11/json/encoder.py", 257)
    made = with_stacks(make_process(threads=3, holds=30), [[library, ("crunch", "app.py", 5)]], hold={0: 0, 1: 0, 2: 0})
    assert len(made.waits)
    assert np.ptp(made.waits["end"] - made.waits["start"]) > 0
    trace = load(make_timeline(made), tmp_path)
    rows = trace.query(
        "select s.id, replace(a.key, 'debug.', '') as key from slice s join args a using (arg_set_id)"
        " where s.name = 'waits for GIL' and a.key glob 'debug.culprit*' or a.key = 'debug.timeouts'"
        " and s.name = 'waits for GIL' order by s.id, a.id"
    )
    keys: dict[object, list[object]] = {}
    for row in rows:
        keys.setdefault(row["id"], []).append(row["key"])
    full = ["culprit", "culprit share", "culprit own line", "culprit let go at", "culprit ns", "timeouts"]
    assert full in keys.values()
    assert {tuple(one) for one in keys.values()} <= {tuple(full), ("timeouts",)}
