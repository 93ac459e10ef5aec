"""The report as a whole, and its JSON against the page that documents it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giltrace.analysis.kinds import KINDS
from giltrace.analysis.measure.activity import Doing
from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.analysis.report import analyse
from giltrace.recording.collected import CollectorReport
from giltrace.recording.events import NATIVE_SAMPLE, NativeCode, NativeFunction
from giltrace.reports.json import to_json
from giltrace.timeline.fleet import join
from giltrace.timeline.model import Process
from tests.synthetic import make_process, make_timeline
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS, US, process, timeline
from tests.unit.lock_scenes import joined, taking_turns
from tests.unit.test_analysis_findings import LOOP, STEP
from tests.unit.test_fleet import part
from tests.unit.test_summary_verdict import convoy, hog
from tests.unit.test_tasks import END, merged, scene

PAGE = Path(__file__).resolve().parents[2] / "docs" / "report-json.md"
COLLECTORS = (CollectorReport("gil", "ok", "12 ns per event"),)


def full() -> dict[str, Any]:
    """The JSON of a recording with a convoy, a hog, an event loop and a lock: every list has an entry."""
    made = [
        with_stacks(process(*parts), [LOOP, [STEP]], wait={1: 1, 2: 0}, hold={0: 1, 1: 1, 2: 0})
        for parts in (convoy(), hog())
    ]
    samples = np.array([(100 * MS, 101, 0)], NATIVE_SAMPLE)
    made = [replace(one, native_code=NativeCode((NativeFunction("sort", "/a.so"),), samples)) for one in made]
    made.append(joined(taking_turns()).process(200 * MS + 100 * US))
    result: dict[str, Any] = json.loads(to_json(analyse(make_timeline(*made, collectors=COLLECTORS))))
    return result


def of_fleet() -> dict[str, Any]:
    """The JSON of a recording of a cluster's worker, with tasks that waited for each other."""
    tasks = merged([(101, "a-1", 0, END), (102, "b-1", 0, END)])
    worker = replace(make_timeline(scene().process(END)), merged=(tasks,))
    whole = join(make_timeline(), [(part(0, "a"), worker)])
    result: dict[str, Any] = json.loads(to_json(analyse(whole)))
    return result


def sections() -> dict[str, set[str]]:
    """The names that each section of the page documents."""
    found: dict[str, set[str]] = {}
    for text in re.split(r"^## ", PAGE.read_text(), flags=re.M)[1:]:
        title, _, body = text.partition("\n")
        rows = [line.split("|")[1] for line in body.splitlines() if line.startswith("| `")]
        found[title.strip("` ")] = {name.removesuffix("[]") for row in rows for name in re.findall(r"`([^`]+)`", row)}
    return found


def written(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the report with the title of the section that documents it."""
    yield "The report", report
    if report["fleet"] is not None:
        yield "fleet", report["fleet"]
    yield "quality", report["quality"]
    for one in report["processes"]:
        yield "processes[]", one
        yield "quality", one["quality"]
        for name in (
            *("gils", "threads", "blame", "blame_by_function", "findings", "hogs", "convoys", "event_loops"),
            *("whereabouts", "lock_blame", "critical_path", "tasks", "task_blame"),
        ):
            for entry in one[name]:
                yield f"processes[].{name}[]", entry
        for name in ("wait_decomposition_ns", "what_if", "verdict"):
            yield f"processes[].{name}", one[name]


def test_every_field_is_documented_and_every_documented_field_is_written() -> None:
    documented = sections()
    seen = set()
    for title, entry in (*written(full()), *written(of_fleet())):
        assert set(entry) == documented[title], title
        seen.add(title)
    assert seen == set(documented)


def test_small_objects_are_documented_where_they_occur() -> None:
    page = PAGE.read_text()
    one = max(full()["processes"], key=lambda p: len(p["convoys"]))
    small = [one["blame"][0]["victim"], one["victims"][0], one["convoys"][0]["estimates"][0]]
    small += [one["hogs"][0]["functions"][0] for one in full()["processes"] if one["hogs"]]
    small += [row["meanwhile"][0] for told in full()["processes"] for row in told["lock_blame"] if row["meanwhile"]]
    small += [one["what_if"]["by_cores"][0], one["verdict"]["evidence"][0], one["quality"]["collectors"][0]]
    for entry in small:
        assert [name for name in entry if f"`{name}`" not in page] == []
    assert all(f"`{kind}`" in page for kind in KINDS)
    assert all(f"`{doing.label}`" in page for doing in Doing)
    assert all(f"`{cause.label}`" in page for cause in BlockCause)
    assert all(f"`{state}`" in page for state in one["threads"][0]["states_ns"])
    assert len(one["threads"][0]["states_ns"]) == 7


def numbers(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numbers(item, name if name.endswith("_ns") and isinstance(value, dict) and name else key)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item, name)
    else:
        yield name, value


def test_times_are_integers() -> None:
    times = [(name, value) for name, value in numbers(full()) if name == "ns" or name.endswith("_ns")]
    assert len(times) > 50
    assert [(name, value) for name, value in times if type(value) is not int] == []


def test_what_a_report_says_of_two_processes() -> None:
    report = full()
    assert report["schema"] == "giltrace-report-1"
    one, two, _ = report["processes"]
    assert (one["verdict"]["kind"], two["verdict"]["kind"]) == ("convoy", "hog")
    assert all((one["convoys"], two["hogs"], two["event_loops"]))
    for process_ in (one, two):
        waited = sum(thread["waited_ns"] for thread in process_["threads"])
        assert sum(process_["wait_decomposition_ns"].values()) == waited
        for gil in process_["gils"]:
            assert gil["held_ns"] + gil["free_ns"] == process_["duration_ns"]
            assert gil["forced"] + gil["voluntary"] == gil["holds"]


def bare_hog() -> Process:
    return process(hog()[0])


@pytest.mark.parametrize(
    "made",
    [
        make_process(threads=1, holds=0),
        make_process(sched=False),
        make_process(gils=3, threads=9, holds=50, empty_holds=True),
        bare_hog(),
    ],
    ids=["no holds", "no sched", "several GILs", "no stacks"],
)
def test_less_data_still_gives_a_report(made: Process) -> None:
    (one,) = analyse(make_timeline(made)).processes
    assert json.loads(to_json(analyse(make_timeline(made))))["processes"][0]["pid"] == made.pid
    assert one.wait_decomposition_ns.total_ns == sum(thread.waited_ns for thread in one.threads)
    assert len(one.gils) == made.gils
    assert not one.has_stacks


def test_damage_reaches_the_quality() -> None:
    script, kernel = hog()
    kernel.lost = 3
    script.acquire(1, 0).acquire(2, 0)
    report = analyse(timeline(script, kernel, collectors=COLLECTORS))
    assert report.quality.lost_events == 3
    assert report.quality.invariant_violations == len(report.quality.violations) > 0
    assert report.processes[0].quality.lost_events == 0


def test_an_empty_recording() -> None:
    report = analyse(make_timeline())
    assert json.loads(to_json(report))["processes"] == []
