"""The page for a browser: one file, nothing from elsewhere, and no way out for hostile names."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giltrace.analysis.measure.activity import Doing
from giltrace.analysis.measure.asleep_causes import AsleepCause
from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.analysis.report import analyse
from giltrace.errors import OutputError
from giltrace.reports.html import write_html
from giltrace.reports.html.lanes import BUDGET
from giltrace.timeline.model import Timeline
from tests.synthetic import make_process, make_timeline
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS, US
from tests.unit.lock_scenes import joined, taking_turns
from tests.unit.test_analysis_native_code import CALLED, SORT, made

HOSTILE = "</script><script>alert(1)</script><!--"


def page(timeline: Timeline, folder: Path) -> str:
    write_html(timeline, analyse(timeline), folder / "page.html")
    return (folder / "page.html").read_text()


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    data = json.loads(found[1])
    assert isinstance(data, dict)
    return data


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    text = page(make_timeline(make_process()), tmp_path)
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", text)
    assert "default-src 'none'" in text
    assert not re.search(r"https?://(?!www\.w3\.org)", re.sub(r"<!--.*?-->", "", text))


def test_hostile_names_stay_data(tmp_path: Path) -> None:
    timeline = make_timeline(make_process())
    process = timeline.processes[0]
    threads = tuple(thread._replace(name=HOSTILE) for thread in process.threads)
    bad = replace(timeline, processes=(replace(process, threads=threads, cmdline=HOSTILE),))
    text = page(bad, tmp_path)
    assert text.count("<script") == 2
    assert "alert(1)</" not in text
    assert HOSTILE in json.dumps(data_of(text), ensure_ascii=False)


def test_large_recordings_make_small_pages(tmp_path: Path) -> None:
    stacks = [[("work", "/srv/work.py", 7), ("run", "/srv/run.py", line)] for line in range(3_000)]
    process = with_stacks(make_process(threads=12, holds=400_000), stacks)
    assert process.stacks is not None
    random = np.random.default_rng(1)
    of_holds, of_waits = (
        random.integers(0, len(stacks), len(rows), dtype=np.int32) for rows in (process.holds, process.waits)
    )
    mixed = replace(process.stacks, hold_begin=of_holds, hold_end=of_holds, wait=of_waits)
    process = replace(process, stacks=mixed)
    text = page(make_timeline(process), tmp_path)
    (sent,) = data_of(text)["processes"]
    assert BUDGET // 2 < sum(lane["count"] for lane in sent["gil_lanes"] + sent["thread_lanes"]) <= BUDGET
    assert len(text) < 4_000_000


def test_functions_have_all_of_their_time_however_many_lines_there_are(tmp_path: Path) -> None:
    stacks = [[("work", "/srv/work.py", line)] for line in range(1, 400)]
    process = with_stacks(make_process(holds=4000), stacks)
    assert process.stacks is not None
    random = np.random.default_rng(1)
    of_holds = random.integers(0, len(stacks), len(process.holds), dtype=np.int32)
    process = replace(process, stacks=replace(process.stacks, hold_begin=of_holds, hold_end=of_holds))
    timeline = make_timeline(process)
    (sent,) = data_of(page(timeline, tmp_path))["processes"]
    (told,) = analyse(timeline).processes
    lost = sum(row.ns for row in told.blame_by_function)
    assert sent["more_blame"] > 0
    assert sum(row["ns"] for row in sent["blame"]) < sum(row["ns"] for row in sent["blame_by_function"]) == lost
    assert lost == told.wait_decomposition_ns.total_ns - told.wait_decomposition_ns.wake_up_ns


def test_native_functions_are_sent_in_words(tmp_path: Path) -> None:
    process = made([(10 * MS, 200 * MS, SORT), (200 * MS, 300 * MS, CALLED)])
    (sent,) = data_of(page(make_timeline(process), tmp_path))["processes"]
    assert [[one["told"] for one in hog["functions"]] for hog in sent["hogs"]] == [
        ["list_sort_impl (libpython.so)", "a function without a name of fast.so, called from run of slow.so"]
    ]


def test_the_page_has_words_for_all_that_threads_did_and_were_blocked_by() -> None:
    """Lanes have the numbers of causes: the words stand in their order."""
    script = (resources.files("giltrace.reports.html") / "format.js").read_text()

    def names(table: str) -> list[str]:
        found = re.search(rf"const {table} = \{{(.*?)\}};", script, re.DOTALL)
        assert found is not None
        return re.findall(r'"([\w-]+)": "', found[1])

    assert names("BLOCK_TEXT") == [cause.label for cause in BlockCause]
    assert ["", *names("ASLEEP_TEXT")] == [cause.label for cause in AsleepCause]
    assert set(names("DID_TEXT")) == {doing.label for doing in Doing}
    assert {*names("DOING_TEXT"), "lock"} == {doing.label for doing in Doing}


def test_the_critical_path_is_on_the_lanes_and_long_tables_are_cut(tmp_path: Path) -> None:
    made_up = joined(taking_turns()).process(200 * MS + 100 * US)
    (sent,) = data_of(page(make_timeline(made_up), tmp_path))["processes"]
    assert sum(end - start for _, start, end in sent["path"]) >= 0.99 * (200 * MS) / 100
    assert {lane for lane, _, _ in sent["path"]} == {0, 1, 2}
    assert [(one["by"], one["own_function"]) for one in sent["wakes"] if one["own_function"]] == [
        ("worker-1", "give"),
        ("worker-2", "give"),
    ]
    assert sent["python_lanes"] == [0, 1, 2]


def test_unwritable_places_are_an_error_with_a_remedy(tmp_path: Path) -> None:
    timeline = make_timeline(make_process())
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError) as caught:
        write_html(timeline, analyse(timeline), tmp_path / "taken" / "page.html")
    assert caught.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
