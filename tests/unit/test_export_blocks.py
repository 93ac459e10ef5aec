"""Blocks in the JSON of Chrome and of the Firefox Profiler: every one, with its lock, its lines, and its waker."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giltrace.analysis.report import analyse
from giltrace.exporters._relations import waking_holds
from giltrace.exporters.perfetto.choosing import Bins
from giltrace.timeline.model import BlockEnd, Timeline
from tests import firefox_profile
from tests.made_blocks import BLOCKED, WAKING, causes, with_blocks
from tests.synthetic import make_process, make_timeline
from tests.unit.block_events import Scene
from tests.unit.gil_events import MS
from tests.unit.test_block_tables import SEVERAL, own, text
from tests.unit.test_exporters import exported, ns
from tests.unit.test_perfetto_blocks import CASES

Row = tuple[Any, ...]


def every_block(timeline: Timeline) -> Counter[Row]:
    """Tid, start, length, cause, lock, how it ended, both threads' lines, and who woke it how long before."""
    found: Counter[Row] = Counter()
    for process in timeline.processes:
        if not len(process.blocks):
            continue
        for at, (block, cause) in enumerate(zip(process.blocks, causes(process), strict=True)):
            waker = process.threads[block["waker"]] if block["waker"] >= 0 else None
            stack, wake = BLOCKED[at % len(BLOCKED)][1], WAKING[at % len(WAKING)]
            by = (waker.name, int(block["end"] - block["woken"]), own(wake), text(wake[0])) if waker else (None,) * 4
            what = (cause, f"Lock #{block['lock'] + 1}", BlockEnd(block["ended"]).label, own(stack), text(stack[0]))
            tid, start = process.threads[block["thread"]].tid, int(block["start"])
            row = (tid, start, int(block["end"]) - start, *what, *by)
            found[row] += 1
    return found


def test_chrome_has_every_block_on_its_thread() -> None:
    events = json.loads(exported(SEVERAL, "chrome"))["traceEvents"]
    found: Counter[Row] = Counter()
    for event in events:
        if event.get("cat") == "block" and event["ph"] == "X":
            args = event["args"]
            what = (
                event["name"].removeprefix("blocked: "),
                args["lock"],
                args["ended"],
                args["own line"],
                args["site"],
            )
            by = tuple(args.get(name) for name in ("waker", "wake-up ns", "waker own line", "waker site"))
            row = (event["tid"], ns(event["ts"]), ns(event["dur"]), *what, *by)
            found[row] += 1
    assert found == every_block(SEVERAL)


def arrows(timeline: Timeline) -> dict[int, dict[str, Any]]:
    """The two ends of each arrow to a block, by id and phase."""
    ends: dict[int, dict[str, Any]] = {}
    for event in json.loads(exported(timeline, "chrome"))["traceEvents"]:
        if event.get("cat") == "block" and event["ph"] in "sf":
            assert event["ph"] not in ends.setdefault(event["id"], {})
            ends[event["id"]][event["ph"]] = event
    return ends


def test_chrome_has_an_arrow_to_each_block_that_a_holder_ended() -> None:
    want: Counter[Row] = Counter()
    for process in SEVERAL.processes:
        for block in process.blocks[process.blocks["waker"] >= 0]:
            tids = (process.threads[block[name]].tid for name in ("waker", "thread"))
            row = (process.pid, *tids, int(block["woken"]), int(block["end"]))
            want[row] += 1
    found = Counter(
        (one["s"]["pid"], one["s"]["tid"], one["f"]["tid"], ns(one["s"]["ts"]), ns(one["f"]["ts"]))
        for one in arrows(SEVERAL).values()
    )
    assert found == want


def test_an_arrow_leaves_from_a_hold_or_not_at_all() -> None:
    process = with_blocks(make_process())
    found = waking_holds(process)
    woken = process.blocks["waker"] >= 0
    assert (found >= 0).tolist() == woken.tolist()
    holds, blocks = process.holds[found[woken]], process.blocks[woken]
    assert (holds["thread"] == blocks["waker"]).all()
    assert ((holds["start"] <= blocks["woken"]) & (blocks["woken"] <= holds["end"])).all()
    without = CASES["a GIL that is not used"]
    assert set(waking_holds(without.processes[0]).tolist()) == {-1}
    assert arrows(without) == {}
    assert np.array_equal(waking_holds(make_process()), [])


def test_firefox_has_a_marker_for_every_block() -> None:
    profile = json.loads(exported(SEVERAL, "firefox"))
    firefox_profile.check(profile)
    strings = profile["shared"]["stringArray"]
    found: Counter[Row] = Counter()
    for thread in profile["threads"]:
        markers = thread["markers"]
        columns = zip(*(markers[name] for name in ("data", "startTime", "endTime", "name", "category")), strict=True)
        for data, start, end, name, category in columns:
            if data["type"] != "LockBlock":
                continue
            assert (strings[name], profile["meta"]["categories"][category]["name"]) == ("blocked", "Blocked by a lock")
            what = tuple(strings[data[key]] for key in ("lockCause", "lock", "reason", "ownLine", "site"))
            by = tuple(
                data.get(key) if key == "wakeUpNs" else strings[data[key]] if key in data else None
                for key in ("waker", "wakeUpNs", "wakerOwnLine", "wakerSite")
            )
            times = (SEVERAL.start + round(start * 1e6), round((end - start) * 1e6))
            row = (thread["tid"], *times, *what, *by)
            found[row] += 1
            assert "cause" in data
    assert found == every_block(SEVERAL)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["chrome", "firefox"])
def test_any_blocks_can_be_written(name: str, case: str) -> None:
    told = exported(CASES[case], name)
    if name == "firefox":
        firefox_profile.check(json.loads(told))
    assert told.count(b"blocked: " if name == "chrome" else b'"LockBlock"') >= sum(
        len(process.blocks) for process in CASES[case].processes
    )


@pytest.mark.parametrize("line", ["for item in iter(tasks.get, None):", "with lock:"])
def test_what_is_awaited_is_told_by_the_source_here_too(line: str, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(line)
    scene = Scene(2, stacks={"take": [("take", str(app), 1)]}).hold(0, MS, 1, "take").hold(MS, 90 * MS, 0, "give")
    scene.block(MS, 80 * MS, 1, at="take", by=0, wake="give")
    made = make_timeline(scene.process(90 * MS))
    made = replace(made, realtime_offset=app.stat().st_mtime_ns + 1 - made.start)
    cause = "queue" if "tasks" in line else "lock"
    (process,) = analyse(made).processes
    assert [row.cause for row in process.whereabouts if row.doing == "lock"] == [cause]
    folded = exported(made, "collapsed", what="without").decode()
    assert f"worker-1;take ({app}:1);(blocked: {cause}) {79 * MS}\n" in folded
    # What is awaited as such is nothing that a thinned trace has to explain.
    assert int(Bins.of(made).lost.sum()) == (0 if cause == "queue" else 79 * MS)
