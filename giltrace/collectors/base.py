"""What every collector offers to the recorder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from giltrace.process.folder import Folder
from giltrace.recording.collected import CollectorReport


class Session(NamedTuple):
    """One recording under way: its `folder`, the `pid` of the target, and the `python` it is expected to run.

    `python` is None where the target is a command that is not known to be an interpreter. `files` is where the tracers
    write, if that is not the recording: there are links to it meanwhile.
    """

    folder: Path
    pid: int
    python: str | None
    files: Folder | None = None


class Collector(Protocol):
    """A source of data about the target. Its life: available, prepare, start, poll..., stop.

    A collector never makes the recording fail: what it cannot do it says in its report's status.
    """

    name: str

    def available(self, python: str | None) -> str | None:
        """Say in one line why it cannot run here, remedy included; None when it can."""

    def prepare(self, folder: Path, env: dict[str, str]) -> None:
        """Change the environment that the target will start with."""

    def start(self, session: Session) -> None:
        """Begin. The target's process exists but has not yet executed its program."""

    def poll(self) -> None:
        """Drain buffers and notice new processes; called about 20 times a second while the target runs."""

    def stop(self) -> CollectorReport:
        """End, once the target has ended (or the recording was cut short), and leave finished files."""
