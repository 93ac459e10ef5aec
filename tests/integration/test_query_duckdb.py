"""`giltrace query --engine duckdb`: the same names, columns and answers as the trace processor has."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from giltrace import installation
from giltrace.errors import OutputError, RecordingError
from giltrace.exporters import find
from giltrace.exporters.tables import columns
from giltrace.exporters.tables.schema import SCHEMA
from giltrace.timeline.load import load
from giltrace.views import columnar
from giltrace.views.columnar import ColumnarProcessor, as_dataset
from giltrace.views.gil_tables import GilTraceProcessor
from giltrace.views.subject import Subject
from giltrace.views.trace_processor import QueryError, Value, unavailable
from tests.integration.test_query import PAGE, QUESTIONS, WORKLOADS, giltrace

WHY_NOT = unavailable()
pytestmark = [
    pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or ""),
    pytest.mark.needs("duckdb", "pyarrow"),
]

#: Of the cookbook's, those that ask about the GIL and locks alone; two have an answer in DuckDB's own words.
BY_BOTH = (*range(1, 11), 13, 14)
OTHERWISE = {
    int(number): found[1]
    for number, text in re.findall(r"^## (\d+)\. (.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    if len(found := re.findall(r"^```sql\n(.*?)^```", text, re.M | re.S)) > 1
}
#: What the two call in their own ways.
OWN_NUMBERS = {"id", "utid", "upid", "to_utid", "stack", "waker_utid", "waker_stack"}


@dataclass(frozen=True)
class Both:
    """One recording, asked both ways."""

    name: Path
    trace: GilTraceProcessor
    tables: ColumnarProcessor

    @property
    def waited(self) -> bool:
        return bool(self.tables.run("select 1 from gil_waits limit 1").rows)


@pytest.fixture(scope="module", params=WORKLOADS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("both")
    name = folder / "x"
    done = giltrace("record", "--light", "--python", sys.executable, "-o", name, *WORKLOADS[request.param])
    assert done.returncode == 0, done.stderr
    with as_dataset(Subject.find(name)) as dataset:
        yield Both(name, GilTraceProcessor(name.with_suffix(".pftrace")), ColumnarProcessor(dataset))


def same(one: list[list[Value]], other: list[list[Value]]) -> bool:
    """Whether rows are equal, in whatever order where they tie; means may differ in the last digit."""

    def exact(rows: list[list[Value]]) -> list[list[Value]]:
        return sorted(([f"{v:.9g}" if isinstance(v, float) else v for v in row] for row in rows), key=repr)

    return exact(one) == exact(other)


@pytest.mark.parametrize("table", columnar.TABLES)
def test_a_table_has_the_columns_and_rows_that_it_has_in_the_trace(table: str, both: Both) -> None:
    columns = both.trace.run(f"select * from {table} limit 0").columns
    assert both.tables.run(f"select * from {table} limit 0").columns == columns
    asked = f"select {', '.join(name for name in columns if name not in OWN_NUMBERS)} from {table}"
    told, found = both.trace.run(asked).rows, both.tables.run(asked).rows
    assert Counter(map(tuple, found)) == Counter(map(tuple, told))
    assert told or not both.waited


@pytest.mark.parametrize("number", BY_BOTH)
def test_the_cookbooks_questions_have_the_same_answers(number: int, both: Both) -> None:
    told = both.trace.run(QUESTIONS[number])
    found = both.tables.run(OTHERWISE.get(number, QUESTIONS[number]))
    assert found.columns == told.columns
    if number == 9:
        states = {str(state): ms for state, ms in found.rows}
        seen = {str(state): ms for state, ms in told.rows}
        assert states.get("holding-running") == pytest.approx(seen.get("Running"))
        return
    assert same(found.rows, told.rows)


def test_they_are_not_empty(both: Both) -> None:
    if not both.waited:
        pytest.skip("nobody waited")
    answered = {number for number in BY_BOTH if both.tables.run(OTHERWISE.get(number, QUESTIONS[number])).rows}
    assert answered >= {1, 2, 3, 5, 6, 8, 10, 13, 14}


def test_stacks_are_those_of_the_trace_as_far_as_that_has_them(both: Both) -> None:
    asked = "select ts, tid, stack from gil_waits where stack is not null order by ts, tid"
    told, found = both.trace.run(asked).rows, both.tables.run(asked).rows
    assert [row[:2] for row in found] == [row[:2] for row in told]
    for (*_, short), (*_, whole) in zip(told, found, strict=True):
        assert str(whole).startswith(str(short).removesuffix(" < ..."))


# The command.


@pytest.fixture(scope="module")
def convoy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = tmp_path_factory.mktemp("convoy") / "x"
    done = giltrace("record", "--light", "--python", sys.executable, "-o", name, *WORKLOADS["convoy"])
    assert done.returncode == 0, done.stderr
    return name


COUNT = "select count() as n from gil_holds"


def holds(name: Path) -> int:
    return sum(len(process.holds) for process in load(name.with_suffix(".giltrace")).processes)


def test_it_answers_for_a_recording_a_data_set_and_a_part(convoy: Path, tmp_path: Path) -> None:
    done = giltrace("query", convoy, COUNT, "--engine", "duckdb", "--csv")
    assert (done.stdout, done.stderr) == (f"n\n{holds(convoy)}\n", "")
    made = tmp_path / "data"
    assert giltrace("export", convoy, "--to", "parquet", "-o", made).returncode == 0
    done = giltrace("query", made, "select 1 + 1 as two, true as yes, 0.5 as half, null as none", "--json")
    assert json.loads(done.stdout) == [{"two": 2, "yes": 1, "half": 0.5, "none": None}]
    part = ("select count() as n, sum(dur) as ns from gil_holds", "--window", "50ms..150ms", "--csv")
    told = giltrace("query", convoy, *part).stdout
    assert told.startswith("n,ns\n")
    assert giltrace("query", convoy, *part, "--engine", "duckdb").stdout == told
    refused = giltrace("query", made, COUNT, "--window", "100ms..101ms")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "a data set has no parts" in refused.stderr


def test_the_data_set_beside_a_recording_is_asked_if_it_is_all_of_it(convoy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "y.giltrace"
    shutil.copytree(convoy.with_suffix(".giltrace"), folder)
    beside = tmp_path / "y.parquet"

    def asked() -> Path:
        with as_dataset(Subject.find(tmp_path / "y")) as dataset:
            assert columnar.is_dataset(dataset)
            return dataset

    assert asked() != beside
    exporter, timeline = find("parquet"), load(folder)
    assert exporter is not None
    exporter.write(timeline, beside)
    assert asked() == beside
    # Written again later, the recording is another one.
    os.utime(folder / "meta.json", ns=(1 << 62, 1 << 62))
    assert asked() != beside
    os.utime(folder / "meta.json", ns=(0, 0))
    assert asked() == beside
    done = giltrace("export", folder, "--to", "parquet", "--window", "0s..100ms", "-f")
    assert done.returncode == 0, done.stderr
    assert asked() != beside


def test_no_name_of_a_folder_is_in_the_way(convoy: Path, tmp_path: Path) -> None:
    made = tmp_path / "run=3" / "it's [1] *?.parquet"
    assert giltrace("export", convoy, "--to", "parquet", "-o", made).returncode == 0
    columnar.check_version(made)
    tables = ColumnarProcessor(made)
    assert tables.run("select * from holds limit 0").columns == list(SCHEMA["holds"])
    assert tables.run(COUNT).rows == [[holds(convoy)]]


def test_what_is_not_whole_is_an_expected_error(convoy: Path, tmp_path: Path) -> None:
    made = tmp_path / "data"
    assert giltrace("export", convoy, "--to", "parquet", "-o", made).returncode == 0
    shutil.rmtree(made / "waits")
    done = giltrace("query", made, COUNT)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{made} cannot be read: " in done.stderr
    assert "--to parquet -f" in done.stderr
    (made / "processes" / "part-0.parquet").write_bytes(b"nonsense" * 100)
    done = giltrace("query", made, COUNT)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{made} cannot be read: " in done.stderr


def test_a_data_set_of_before_there_were_blocks_has_none(convoy: Path, tmp_path: Path) -> None:
    made = tmp_path / "data"
    assert giltrace("export", convoy, "--to", "parquet", "-o", made).returncode == 0
    asked = "select count() as n, sum(dur) as ns from lock_waits"
    ((told, _),) = ColumnarProcessor(made).run(asked).rows
    assert isinstance(told, int)
    assert told > 0
    for table in ("blocks", "held_locks"):
        shutil.rmtree(made / table)
    tables = ColumnarProcessor(made)
    assert tables.run(asked).rows == [[0, None]]
    assert tables.run("select * from blocks limit 0").columns == list(SCHEMA["blocks"])
    assert tables.run(COUNT).rows == [[holds(convoy)]]


def test_another_schema_is_refused_with_what_to_do(
    convoy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "data"
    assert giltrace("export", convoy, "--to", "parquet", "-o", made).returncode == 0
    monkeypatch.setattr(columnar, "VERSION", 2)
    with pytest.raises(RecordingError, match="has schema 1, this giltrace reads 2") as raised:
        columnar.check_version(made)
    assert "--to parquet -f" in raised.value.remedy


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["select foo from gil_holds", "--engine", "duckdb"], 'Referenced column "foo" not found'),
        (["select * from gil_spans", "--engine", "duckdb"], "leave out --engine duckdb"),
        (["select 1", "--engine", "sqlite"], "there is no --engine 'sqlite'"),
    ],
)
def test_mistakes_are_told(convoy: Path, words: list[str], message: str) -> None:
    done = giltrace("query", convoy, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("giltrace: error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


_INTERRUPTED = """
import signal, sys, threading
from pathlib import Path
from giltrace.views.columnar import ColumnarProcessor

class Endless:
    def __init__(self):
        self.begun, self.interrupted = threading.Event(), threading.Event()
    def execute(self, sql):
        self.begun.set()
        self.interrupted.wait()
    def interrupt(self):
        self.interrupted.set()

signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
signal.signal(signal.SIGINT, signal.default_int_handler)
tables = ColumnarProcessor(Path(sys.argv[1]))
base = tables._base = Endless()
main = threading.main_thread().ident
threading.Thread(target=lambda: base.begun.wait() and signal.pthread_kill(main, signal.SIGINT)).start()
try:
    tables.run("select 1")
except KeyboardInterrupt:
    print(base.interrupted.is_set())
"""


def test_ctrl_c_ends_a_query_that_goes_on_and_on(convoy: Path) -> None:
    """In a process of its own: whatever else has been loaded into this one may have its own way with signals."""
    with as_dataset(Subject.find(convoy)) as dataset:
        command = [sys.executable, "-c", _INTERRUPTED, str(dataset)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_full_disk_is_told_with_what_to_do(convoy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(columns.TABLES, "waits", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OutputError, match="No space left") as raised, as_dataset(Subject.find(convoy)):
        pass
    assert "TMPDIR" in raised.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_trace_alone_has_no_tables(convoy: Path, tmp_path: Path) -> None:
    shutil.copy(convoy.with_suffix(".pftrace"), tmp_path / "alone.pftrace")
    done = giltrace("query", tmp_path / "alone.pftrace", COUNT, "--engine", "duckdb")
    assert done.returncode == 2
    assert "needs the recording, not its trace alone" in done.stderr


def test_without_duckdb_the_error_says_what_to_install(convoy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(QueryError, match="DuckDB is not installed") as raised, contextlib.ExitStack() as stack:
        stack.enter_context(as_dataset(Subject.find(convoy)))
    assert installation.with_extra("duckdb") == raised.value.remedy
