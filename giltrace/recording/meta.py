"""meta.json: what was recorded, when, on what machine, by which collectors, and how it ended."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from giltrace.errors import RecordingError
from giltrace.recording.replacing import replacing
from giltrace.recording.trigger import Trigger

FILE = "meta.json"
FORMAT = "giltrace-recording"
VERSION = 1


@dataclass
class Meta:
    """The recording's own description. Times are CLOCK_MONOTONIC ns, offsets are that clock minus MONOTONIC.

    `state` is "recording" until the recorder ends it, then "complete"; a recording that stayed in the former was
    cut short and is read as far as it goes. `exit_status` is the target's, negative for a signal; None if it was not
    waited for. `thread_names` has, by tid, the names of threads that were there before the recording. `ids` has, for
    a target in a pid namespace of its own, the id here of each process and thread by its id there. As in all of JSON,
    keys are texts. `trigger` is what a flight recorder wrote it for.
    """

    giltrace: str
    command: list[str]
    start_ns: int
    realtime_offset_ns: int
    boottime_offset_ns: int
    machine: dict[str, str | int]
    state: str = "recording"
    end_ns: int = 0
    exit_status: int | None = None
    collectors: list[dict[str, Any]] = field(default_factory=list)
    thread_names: dict[str, str] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    trigger: Trigger | None = None
    format: str = FORMAT
    version: int = VERSION

    @property
    def finished(self) -> bool:
        """Tell whether the recorder has ended it."""
        return self.state == "complete"

    @classmethod
    def begin(cls, giltrace: str, command: list[str]) -> Meta:
        """Describe a recording that begins now."""
        uname = os.uname()
        return cls(
            giltrace=giltrace,
            command=command,
            start_ns=time.monotonic_ns(),
            realtime_offset_ns=_offset(time.CLOCK_REALTIME),
            boottime_offset_ns=_offset(time.CLOCK_BOOTTIME),
            machine={
                "sysname": uname.sysname,
                "release": uname.release,
                "version": uname.version,
                "machine": uname.machine,
                "cpus": os.cpu_count() or 1,
            },
        )

    def write(self, folder: Path) -> None:
        """Replace meta.json in one step, so that a reader sees the old one or the new one."""
        with replacing(folder / FILE) as file:
            file.write((json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> Meta:
        """Read a folder's meta.json; raises `RecordingError` if it is not a recording that can be read."""
        try:
            data = json.loads((folder / FILE).read_text())
        except FileNotFoundError:
            raise RecordingError(
                f"{folder} is not a giltrace recording (no {FILE})",
                "name a NAME.giltrace folder made by `giltrace record`",
            ) from None
        except OSError as error:
            raise RecordingError.unreadable(folder / FILE, error) from None
        except ValueError as error:
            raise RecordingError(f"{folder / FILE} is damaged: {error}", "record again") from None
        if not isinstance(data, dict):
            raise RecordingError(f"{folder / FILE} is damaged: it holds no description", "record again")
        if data.get("format") != FORMAT or data.get("version") != VERSION:
            raise RecordingError(
                f"{folder} has recording version {data.get('version')}, this giltrace reads {VERSION}",
                f"read it with giltrace {data.get('giltrace', '?')}",
            )
        trigger = data.pop("trigger", None)
        return cls(**data, trigger=Trigger(**trigger) if trigger else None)


def _offset(clock: int) -> int:
    """How far `clock` is ahead of CLOCK_MONOTONIC: the best of a few readings."""
    best, offset = None, 0
    for _ in range(5):
        before = time.monotonic_ns()
        other = time.clock_gettime_ns(clock)
        after = time.monotonic_ns()
        if best is None or after - before < best:
            best, offset = after - before, other - (before + after) // 2
    return offset
