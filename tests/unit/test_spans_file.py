"""Spans survive the way to the disk and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from giltrace.errors import RecordingError
from giltrace.recording.events import SPAN, Spans
from giltrace.recording.spans import read_spans, write_spans


def make(collector: str, pid: int, rows: list[tuple[int, int, int, int, int]], names: tuple[str, ...]) -> Spans:
    return Spans(collector, pid, True, names, np.array(rows, SPAN), clock_error_ns=77, lost=3)


def test_round_trip_sorts_by_thread_start_and_depth(tmp_path: Path) -> None:
    rows = [(5, 6, 2, 1, 0), (1, 9, 2, 0, 1), (1, 9, 2, 0, 0), (7, 8, 1, 0, 0)]
    write_spans(tmp_path, make("py-spy", 42, rows, ("f", "naïve \ud800 name")))
    (back,) = read_spans(tmp_path, 42)
    assert back.spans.tolist() == [(7, 8, 1, 0, 0), (1, 9, 2, 0, 0), (1, 9, 2, 0, 1), (5, 6, 2, 1, 0)]
    assert (back.collector, back.pid, back.sampled, back.names) == ("py-spy", 42, True, ("f", r"naïve \ud800 name"))
    assert (back.clock_error_ns, back.lost) == (77, 3)


def test_files_of_older_versions_that_tell_more_are_read(tmp_path: Path) -> None:
    path = write_spans(tmp_path, make("py-spy", 1, [(1, 2, 3, 1, 0)], ("f", "memcpy (libc.so)")))
    with np.load(path) as file:
        about, rows = json.loads(file["about"].tobytes()), file["spans"]
    about |= {"native": [1], "interval_ns": 9}
    with path.open("wb") as older:
        np.savez(older, about=np.frombuffer(json.dumps(about).encode(), np.uint8), spans=rows)
    (back,) = read_spans(tmp_path, 1)
    assert (back.names, len(back.spans)) == (("f", "memcpy (libc.so)"), 1)


def test_only_the_process_asked_for(tmp_path: Path) -> None:
    for collector, pid in [("viztracer", 2), ("py-spy", 2), ("py-spy", 12)]:
        write_spans(tmp_path, make(collector, pid, [], ()))
    assert [(spans.collector, spans.pid) for spans in read_spans(tmp_path, 2)] == [("py-spy", 2), ("viztracer", 2)]
    assert len(read_spans(tmp_path)) == 3


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = write_spans(tmp_path, make("py-spy", 1, [(1, 2, 3, 0, 0)], ("f",)))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(RecordingError, match=r"py-spy-1\.spans\.npz"):
        read_spans(tmp_path, 1)


def test_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil-1.spans.npz", about=np.array([{}], object), spans=np.empty(0, SPAN))
    with pytest.raises(RecordingError):
        read_spans(tmp_path, 1)


def test_no_half_written_file_bears_the_final_name(tmp_path: Path) -> None:
    write_spans(tmp_path, make("py-spy", 1, [], ()))
    assert [path.name for path in tmp_path.iterdir()] == ["py-spy-1.spans.npz"]
