"""Reads and writes `<collector>-<pid>.spans.npz`: the spans of one process from one collector."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from giltrace.errors import RecordingError
from giltrace.recording.events import SPAN, Spans
from giltrace.recording.replacing import replacing

_VERSION = 1


def write_spans(folder: Path, spans: Spans) -> Path:
    """Write `spans` into the recording `folder`, sorted as `Spans` promises, and return the file's path.

    The file appears under its name only when it is whole. Raises OSError if it cannot be written.
    """
    rows = spans.spans[np.lexsort((spans.spans["depth"], spans.spans["start"], spans.spans["tid"]))]
    about = {
        "version": _VERSION,
        "collector": spans.collector,
        "pid": spans.pid,
        "sampled": spans.sampled,
        "clock_error_ns": spans.clock_error_ns,
        "lost": spans.lost,
        "names": list(spans.names),
        "native": list(spans.native),
        "interval_ns": spans.interval_ns,
    }
    path = folder / f"{spans.collector}-{spans.pid}.spans.npz"
    # Names come from other people's source files: surrogates from undecodable paths must survive.
    text = json.dumps(about, ensure_ascii=True).encode("ascii")
    with replacing(path) as file:
        np.savez(file, about=np.frombuffer(text, np.uint8), spans=rows)
    return path


def read_spans(folder: Path, pid: int | None = None) -> list[Spans]:
    """Read the spans from every collector, of process `pid` or of all, ordered by the collector's name.

    Raises RecordingError where a file is damaged or from another version.
    """
    return [_read(path) for path in sorted(folder.glob(f"*-{'*' if pid is None else pid}.spans.npz"))]


def _read(path: Path) -> Spans:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes())
            rows = file["spans"]
        if about["version"] != _VERSION:
            raise RecordingError(f"{path} has version {about['version']}, not {_VERSION}", "upgrade giltrace")
        if rows.dtype != SPAN:
            raise ValueError(f"unexpected columns {rows.dtype}")
        return Spans(
            collector=about["collector"],
            pid=about["pid"],
            sampled=about["sampled"],
            names=tuple(about["names"]),
            spans=rows,
            clock_error_ns=about["clock_error_ns"],
            lost=about["lost"],
            # Recordings from before there was `--native` have neither.
            native=tuple(about.get("native", ())),
            interval_ns=about.get("interval_ns", 0),
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise RecordingError(f"{path} cannot be read: {error}", "delete that file to go on without it") from error
