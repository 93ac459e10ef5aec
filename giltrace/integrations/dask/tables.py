"""Blame over data sets that no single machine holds, worked out where they lie: by the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any, NamedTuple

from dask.delayed import delayed

from giltrace.errors import OutputError, RecordingError, UsageError
from giltrace.exporters import find
from giltrace.exporters.tables.schema import SCHEMA, VERSION
from giltrace.recording.fleet import read_fleet
from giltrace.recording.locate import locate
from giltrace.timeline.load import load

#: What rows are grouped by unless something else is asked for: as in the report, by own line.
BY = ("victim", "victim_own_line", "culprit", "culprit_own_line")
#: So many partial sums become one at a time.
_TOGETHER = 16
_FILE = "part-0.parquet"


def export(client: Any, recording: str | Path, folder: str | Path) -> list[Path]:
    """Write a recording of several machines as data sets for `blame`, one for each of its parts, by the cluster::

        giltrace.dask.export(client, "/shared/slow", "/shared/tables")      # part-000.parquet, part-001.parquet, ...
        giltrace.dask.blame(client, "/shared/tables/*.parquet")

    Workers read and write by the same paths; each needs memory for the parts that its threads work on. Any other
    recording becomes one data set. Raises `RecordingError` for what is no recording, `OutputError` if a data set is
    there already or cannot be written.
    """
    place = locate(Path(recording)).absolute()
    names = [part.folder for part in read_fleet(place).parts]
    targets = {name: Path(folder).absolute() / f"{name or place.stem}.parquet" for name in names or [""]}
    for target in targets.values():
        if target.exists():
            raise OutputError(f"{target} exists", "choose another folder")
    tasks = [delayed(_export)(place, name, target) for name, target in targets.items()]
    together = delayed(list)(tasks)
    return list(client.compute(together).result() if client is not None else together.compute())


def _export(recording: Path, part: str, target: Path) -> Path:
    exporter = find("parquet")
    assert exporter is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    exporter.write(load(recording, parts=[part] if part else None), target)
    return target


class Part(NamedTuple):
    """Some rows of a data set: one group of a file, of at most 65,536 rows."""

    file: str
    group: int


def blame(client: Any, path: str | Path | Iterable[str | Path], by: Sequence[str] = BY) -> Any:
    """Who waited for whom, of one data set or of many, worked out by the workers of a Dask cluster::

        giltrace.dask.blame(client, "/shared/slow.parquet")
        giltrace.dask.blame(client, "/shared/*.parquet", by=["culprit_own_line"])

    `path` is what `giltrace export --to parquet` wrote, a pattern for such folders, or several; workers read it by the
    same path. The result is a pandas data frame: the columns `by` (of the table `blame`), `waits`, `duration` and
    `max_duration` (ns), the largest `duration` first: the same figures as of `giltrace query` and the report where that
    fits into one machine. A worker holds one group of rows and the sums of `_TOGETHER` others at a time.

    Without a `client` Dask's own scheduler does it. Raises `UsageError` for a column that there is not, and
    `RecordingError` for what is no data set, or one of another version.
    """
    known = [name for name, kind in SCHEMA["blame"].items() if kind == "text" or name in ("image", "pid")]
    for name in by:
        if name not in known:
            raise UsageError(f"blame is not told by {name}", f"take some of {', '.join(known)}")
    columns = list(by)
    level: list[Any] = [delayed(_sums)(part, columns) for part in parts(path)]
    while len(level) > 1:
        groups = (level[at : at + _TOGETHER] for at in range(0, len(level), _TOGETHER))
        level = [delayed(_added)(group, columns) for group in groups]
    found = client.compute(level[0]).result() if client is not None else level[0].compute()
    order = ["duration", *columns]
    return found.sort_values(order, ascending=[False, *(True for _ in columns)]).reset_index(drop=True)


def parts(path: str | Path | Iterable[str | Path]) -> list[Part]:
    """The groups of rows of the table `blame` in all data sets; raises `RecordingError`."""
    given = [path] if isinstance(path, str | Path) else list(path)
    folders = [folder for one in map(str, given) for folder in (sorted(glob(one)) if has_magic(one) else [one])]
    found = [part for folder in folders for part in _parts(Path(folder))]
    if not found:
        raise RecordingError(f"there is no data set {', '.join(map(str, given))}", _ANEW)
    return found


_ANEW = "name what this made: giltrace export NAME --to parquet"


def _parts(folder: Path) -> Iterator[Part]:
    from pyarrow import ArrowException, parquet

    file = folder / "blame" / _FILE
    try:
        about = parquet.read_metadata(file)
    except (OSError, ArrowException) as error:
        raise RecordingError(f"{folder} is no data set: {error}", _ANEW) from None
    version = (about.metadata or {}).get(b"giltrace.schema", b"").decode()
    if version != str(VERSION):
        raise RecordingError(f"{folder} has schema {version or 'none'}, this giltrace reads {VERSION}", _ANEW)
    # A file without rows is a part too: of columns and no sums.
    for group in range(max(about.num_row_groups, 1)):
        yield Part(str(file), group)


def _sums(part: Part, by: list[str]) -> Any:
    """The sums of one group of rows."""
    from pyarrow import parquet

    file = parquet.ParquetFile(part.file)
    figures = ["waits", "duration", "max_duration"]
    columns = [*by, *figures]
    some = part.group < file.num_row_groups
    table = file.read_row_group(part.group, columns) if some else file.schema_arrow.empty_table().select(columns)
    frame = table.to_pandas()
    for name in by:
        if SCHEMA["blame"][name] == "text":
            frame[name] = frame[name].astype(str)
    return _grouped(frame, by)


def _added(sums: list[Any], by: list[str]) -> Any:
    import pandas

    return _grouped(pandas.concat(sums, ignore_index=True), by)


def _grouped(frame: Any, by: list[str]) -> Any:
    how = {"waits": "sum", "duration": "sum", "max_duration": "max"}
    return frame.groupby(by, sort=False, observed=True, as_index=False).agg(how)
