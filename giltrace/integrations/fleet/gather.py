"""Bring home what workers recorded, a piece at a time, also of those that are gone where their machine still has it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from giltrace.errors import RecordingError
from giltrace.integrations.fleet import session
from giltrace.integrations.fleet.cluster import Cluster
from giltrace.integrations.fleet.tasks import Kinds, write_tasks
from giltrace.recording.clock import read_pairs
from giltrace.recording.meta import Meta
from giltrace.recording.packing import Packer

#: What is there of a recording that reads as one.
_LEAST = ("meta.json", "clock.bin")


@dataclass
class Member:
    """A process that was recorded: what it told of itself, the workers that have its files, and what is to be told."""

    about: dict[str, Any]
    holders: list[str] = field(default_factory=list)
    told: str = ""

    @property
    def place(self) -> str:
        """Its folder, on its machine."""
        return str(self.about["place"])

    @property
    def address(self) -> str:
        """Where it is, or was, as a session."""
        return ", ".join(self.about["workers"])

    @property
    def name(self) -> str:
        """What its workers are called: by their address unless they have another name."""
        return ", ".join(self.about["workers"].values())


def bring(cluster: Cluster, token: str, member: Member, folder: Path, hurried: threading.Event) -> bool:
    """Bring the recording of a member to `folder`, with its tasks; whether there is anything of it.

    It ends with what is there if it is `hurried`. What is missing is added to what is told of the member.
    Raises OSError if it cannot be written here.
    """
    beside = folder.with_name(f".{folder.name}")
    try:
        _files(cluster, token, member, beside, hurried)
        inner = beside / session.RECORDING
        if not all((inner / name).is_file() for name in _LEAST):
            member.told = member.told or "nothing of it could be had"
            return False
        _complete(beside, inner, member, Kinds(cluster.name, cluster.prefix_of))
        inner.rename(folder)
    except RecordingError as error:
        member.told = f"{member.told}; {error.message}".removeprefix("; ")
        return False
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    packer = Packer(folder)
    while packer.step():
        pass
    return True


def _complete(beside: Path, inner: Path, member: Member, kinds: Kinds) -> None:
    """Put the tasks into a recording, and end it if its worker did not come to that."""
    meta = Meta.read(inner)
    last = meta.end_ns or int(read_pairs(inner)["ns"].max(initial=meta.start_ns))
    with suppress(FileNotFoundError):
        write_tasks(inner, beside / session.TASKS, int(member.about["pid"]), meta.start_ns, last, kinds)
    if not meta.finished:
        meta.state = "complete"
        meta.write(inner)


def _files(cluster: Cluster, token: str, member: Member, folder: Path, hurried: threading.Event) -> None:
    listed = _first(cluster, cluster.ground.files, member, token, member.place)
    # What makes a recording of it comes first.
    for name, size in sorted((listed or {}).items(), key=lambda file: file[1]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        at = 0
        with path.open("wb") as file:
            file.truncate(size)
            while at < size:
                found = None
                if not hurried.is_set():
                    found = _first(cluster, cluster.ground.piece, member, token, member.place, name, at)
                if found is None:
                    member.told = f"{member.told}; only a part of it could be had".removeprefix("; ")
                    return
                begin, at, packed = found
                data = zstandard.ZstdDecompressor().decompress(packed, max_output_size=session.PIECE)
                file.seek(begin)
                file.write(data)
                if not data:
                    break


def _first(cluster: Cluster, function: Any, member: Member, *arguments: Any) -> Any:
    """What the first of those that have a member's files answers; who does not is not asked again. None if nobody."""
    while member.holders:
        try:
            return cluster.one(function, member.holders[0], *arguments)
        except Exception:
            member.holders.pop(0)
    return None


def holders(cluster: Cluster, token: str, addresses: Iterable[str]) -> dict[tuple[str, str], Member]:
    """What workers have of such as are gone, by clock and place."""
    found: dict[tuple[str, str], Member] = {}
    for address, answer in cluster.ask_all(cluster.ground.left_behind, list(addresses), token).items():
        for about in [] if isinstance(answer, Exception) else answer:
            member = found.setdefault((str(about["clock"]), str(about["place"])), Member(about))
            member.holders.append(address)
    return found
