"""The data set of `export --to parquet`: always the same columns, read by all alike, and whole or not there."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from giltrace.errors import OutputError
from giltrace.exporters.tables import columns, parquet
from giltrace.exporters.tables.image import Image
from giltrace.exporters.tables.schema import PART_KEY, PARTED, SCHEMA, VERSION
from giltrace.timeline.model import Thread, Timeline
from tests.synthetic import make_process, make_timeline
from tests.unit.test_exporters import CASES, ONE, SEVERAL, exported, format_of

pytestmark = pytest.mark.needs("pyarrow")

IDLE = make_timeline(replace(make_process(holds=0, sched=False), threads=(Thread(1, "", 0, 5),), gils=0))
TIMELINES = {**CASES, "nothing": IDLE}


def written(timeline: Timeline, folder: Path) -> Path:
    path = folder / "it.parquet"
    format_of("parquet").write(timeline, path)
    return path


def files(path: Path, table: str) -> list[Path]:
    return sorted((path / table).rglob("*.parquet"))


def rows_of(timeline: Timeline, table: str) -> Counter[tuple[Any, ...]]:
    """What the table has, by the file that has all of it."""
    import io

    from pyarrow import parquet as reader

    whole = reader.read_table(io.BytesIO(exported(timeline, "parquet", table=table)))
    return Counter(zip(*(whole[name].to_pylist() for name in sorted(whole.column_names)), strict=True))


@pytest.mark.parametrize("timeline", TIMELINES.values(), ids=TIMELINES)
def test_every_table_has_its_columns_and_types_whatever_was_recorded(timeline: Timeline, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet as reader

    text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    types = {"int": pyarrow.int64(), "bool": pyarrow.bool_(), "share": pyarrow.float64(), "text": text}
    path = written(timeline, tmp_path)
    assert {place.name for place in path.iterdir()} == set(SCHEMA)
    for table, kinds in SCHEMA.items():
        want = [(name, types[kind]) for name, kind in kinds.items() if table not in PARTED or name != PART_KEY]
        found = files(path, table)
        assert found
        for file in found:
            schema = reader.read_schema(file)
            assert list(zip(schema.names, schema.types, strict=True)) == want, file
            assert schema.metadata[b"giltrace.schema"] == str(VERSION).encode()
            assert schema.metadata[b"giltrace.table"] == table.encode()
            assert schema.metadata[b"giltrace.part"] == b""


@pytest.mark.parametrize("timeline", TIMELINES.values(), ids=TIMELINES)
@pytest.mark.parametrize("table", SCHEMA)
def test_it_has_the_rows_of_the_single_files(table: str, timeline: Timeline, tmp_path: Path) -> None:
    from pyarrow import parquet as reader

    whole = reader.read_table(written(timeline, tmp_path) / table)
    told = {name: whole[name].to_pylist() for name in whole.column_names}
    # Of folders' names pyarrow makes int32 by itself.
    assert Counter(zip(*(told[name] for name in sorted(SCHEMA[table])), strict=True)) == rows_of(timeline, table)


def test_many_pieces_and_files_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import parquet as reader

    monkeypatch.setattr("giltrace.exporters.tables.image.PIECE", 7)
    monkeypatch.setattr(parquet, "FILE_ROWS", 20)
    path = written(SEVERAL, tmp_path)
    for table in PARTED:
        whole = reader.read_table(path / table)
        told = [whole[name].to_pylist() for name in sorted(whole.column_names)]
        assert Counter(zip(*told, strict=True)) == rows_of(SEVERAL, table)
    parts = files(path, "holds")
    assert len(parts) > 20
    read = [reader.ParquetFile(file) for file in parts]
    assert max(one.metadata.num_rows for one in read) == 21
    assert max(one.metadata.row_group(0).num_rows for one in read) == 7


def held(frame: Any) -> dict[str, int]:
    """Sums by pid and thread of anything that is like a data frame of pandas."""
    return {f"{pid} {name}": int(ns) for (pid, name), ns in frame.items() if ns}


def by_duckdb(path: Path) -> dict[str, int]:
    import duckdb

    asked = (
        f"select pid || ' ' || thread, sum(duration)::bigint from '{path}/holds/**/*.parquet' where forced group by 1"
    )
    return {name: ns for name, ns in duckdb.connect().execute(asked).fetchall() if ns}


def by_polars(path: Path) -> dict[str, int]:
    import polars

    frame = polars.scan_parquet(path / "holds").filter("forced").group_by("pid", "thread").agg(polars.sum("duration"))
    return {f"{pid} {name}": ns for pid, name, ns in frame.collect().rows() if ns}


def by_pyarrow(path: Path) -> dict[str, int]:
    from pyarrow import dataset

    read = dataset.dataset(path / "holds", partitioning="hive").to_table(filter=dataset.field("forced"))
    summed = read.unify_dictionaries().group_by(["pid", "thread"]).aggregate([("duration", "sum")]).to_pylist()
    return {f"{row['pid']} {row['thread']}": row["duration_sum"] for row in summed if row["duration_sum"]}


def by_pandas(path: Path) -> dict[str, int]:
    import pandas

    frame = pandas.read_parquet(path / "holds")
    return held(frame[frame["forced"]].groupby(["pid", "thread"], observed=True)["duration"].sum())


def by_dask(path: Path) -> dict[str, int]:
    import dask
    from dask import dataframe

    # No pool of threads: what one leaves behind is not of this test.
    with dask.config.set(scheduler="synchronous"):
        frame = dataframe.read_parquet(path / "holds")
        return held(frame[frame["forced"]].groupby(["pid", "thread"], observed=True)["duration"].sum().compute())


READERS = {"duckdb": by_duckdb, "polars": by_polars, "pyarrow": by_pyarrow, "pandas": by_pandas, "dask": by_dask}


# Dask's own, of how it calls pandas.
@pytest.mark.filterwarnings("ignore:The inplace keyword")
@pytest.mark.parametrize("reader", [pytest.param(name, marks=pytest.mark.needs(name)) for name in READERS])
def test_readers_find_the_same_sums(reader: str, tmp_path: Path) -> None:
    want = Counter[str]()
    for process in SEVERAL.processes:
        for hold in process.holds[process.holds["flags"] & 1 != 0]:
            name = process.threads[hold["thread"]].name
            want[f"{process.pid} {name}"] += int(hold["end"] - hold["start"])
    assert want
    assert READERS[reader](written(SEVERAL, tmp_path)) == want


def test_a_part_says_so(tmp_path: Path) -> None:
    from pyarrow import parquet as reader

    path = written(replace(ONE, part=("1 s to 2 s of 3 s", "1 of 4 threads (io-*)")), tmp_path)
    metadata = reader.read_schema(path / "processes" / "part-0.parquet").metadata
    assert metadata[b"giltrace.part"].decode() == "1 s to 2 s of 3 s; 1 of 4 threads (io-*)"


def test_an_earlier_one_is_replaced_whole_and_a_strangers_left_alone(tmp_path: Path) -> None:
    path = written(SEVERAL, tmp_path)
    assert (path / "holds" / "image=1").exists()
    written(ONE, tmp_path)
    assert not (path / "holds" / "image=1").exists()
    assert list(tmp_path.iterdir()) == [path]
    for stranger in ("holds/image=0/thesis.txt", "thesis/part-0.parquet", "holds/image=x/part-0.parquet"):
        file = path / stranger
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text("years of work")
        with pytest.raises(OutputError, match="not an earlier export"):
            written(SEVERAL, tmp_path)
        assert file.read_text() == "years of work"
        file.unlink()
        if not any(file.parent.iterdir()):
            with pytest.raises(OutputError, match="not an earlier export"):
                written(SEVERAL, tmp_path)
            file.parent.rmdir()


@pytest.mark.parametrize("earlier", [False, True], ids=["new", "in place of another"])
def test_what_is_interrupted_leaves_nothing(earlier: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if earlier:
        written(ONE, tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.parquet") if file.is_file()}

    def interrupted(image: Image) -> Any:
        yield from real(image)
        raise KeyboardInterrupt

    real = columns.TABLES["waits"]
    monkeypatch.setitem(columns.TABLES, "waits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        written(SEVERAL, tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.parquet") if file.is_file()} == before
    assert len(list(tmp_path.iterdir())) == earlier
