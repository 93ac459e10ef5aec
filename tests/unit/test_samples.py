"""The samples of traces/: what they show is what the index says, small enough, and nobody's."""

from __future__ import annotations

import gzip
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from giltrace.analysis.report import analyse
from giltrace.launch.bundled import bundled
from giltrace.reports.json import to_json
from giltrace.timeline.load import load
from tests.truth import truths
from traces.regenerate import LARGEST, LARGEST_TOGETHER, figures, readme, unpack

FOLDER = Path(__file__).resolve().parents[2] / "traces"
INDEX: dict[str, dict[str, Any]] = json.loads((FOLDER / "index.json").read_text())

#: Folders that belong to a person or to a job, and so name them.
_SOMEBODYS = re.compile(rb"/(?:root|home|work|Users)/[^\x00\s]*")


def files(name: str) -> list[Path]:
    return [FOLDER / f"{name}.giltrace.tar.gz", FOLDER / f"{name}.pftrace.gz"]


@pytest.mark.parametrize("name", INDEX)
def test_shows_what_the_index_says(name: str, tmp_path: Path) -> None:
    report = json.loads(to_json(analyse(load(unpack(name, tmp_path)))))
    assert figures(report) == INDEX[name]["shows"]


@pytest.mark.parametrize("name", INDEX)
def test_shows_the_same_where_quiet_holds_are_added_up(name: str, tmp_path: Path) -> None:
    folder = unpack(name, tmp_path)
    whole, added = (figures(json.loads(to_json(analyse(load(folder, gathered=one))))) for one in (False, True))
    assert added == whole


@pytest.mark.parametrize("name", INDEX)
def test_has_the_verdict_that_the_workload_promises(name: str) -> None:
    (promised,) = (truth.value for truth in truths(bundled()[name]) if truth.metric == "verdict")
    shows = INDEX[name]["shows"]
    busiest = max(shows["processes"], key=lambda process: sum(gil["held_ns"] for gil in process["gils"]))
    assert busiest["verdict"] == promised
    assert (shows["lost_events"], shows["invariant_violations"]) == (0, 0)


@pytest.mark.parametrize("name", INDEX)
def test_has_no_path_of_anybodys(name: str) -> None:
    recording, trace = files(name)
    with tarfile.open(recording) as archive:
        members = {entry.name: archive.extractfile(entry) for entry in archive if entry.isfile()}
        assert all((entry.uname, entry.gname, entry.uid) == ("", "", 0) for entry in archive)
        content = b"".join(file.read() for file in members.values() if file is not None)
    assert len(members) >= 4
    assert _SOMEBODYS.findall(content + gzip.decompress(trace.read_bytes())) == []


def test_each_workload_has_one_and_all_are_small() -> None:
    assert list(INDEX) == list(bundled())
    assert {path.name for path in FOLDER.glob("*.gz")} == {path.name for name in INDEX for path in files(name)}
    sizes = {name: sum(path.stat().st_size for path in files(name)) for name in INDEX}
    assert max(sizes.values()) <= LARGEST
    assert sum(sizes.values()) <= LARGEST_TOGETHER


def test_the_folders_page_is_the_indexs() -> None:
    assert (FOLDER / "README.md").read_text() == readme(INDEX)
