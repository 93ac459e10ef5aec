"""How much of the machine a process may use, read from outside: the affinity of its threads, its cgroups' CPU quota."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from giltrace.process.kernel_text import lines_of


class Allowed(NamedTuple):
    """What a process may use: `cpus` cores, and of their time at most `quota` cores' worth; None for no such limit."""

    cpus: int
    quota: float | None


def allowed(pid: int) -> Allowed:
    """Read what process `pid` may use now. Raises OSError once it is gone."""
    return Allowed(len(_affinity(pid)), cpu_quota(pid))


def _affinity(pid: int) -> set[int]:
    """The cores that one of its threads or another may run on: each has an affinity of its own."""
    cpus = set(os.sched_getaffinity(pid))
    machine = os.cpu_count() or 1
    for name in _entries(Path(f"/proc/{pid}/task")):
        if len(cpus) >= machine:
            break
        try:
            cpus |= os.sched_getaffinity(int(name))
        except OSError:
            continue  # it has just ended
    return cpus


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def cpu_quota(pid: int, proc: Path = Path("/proc")) -> float | None:
    """The smallest CPU quota of its cgroups and those above them, in cores; None if there is none, or none to be seen.

    Both versions of cgroups are asked. What lies above the root of this process's own cgroup namespace is not seen.
    """
    try:
        lines = lines_of(proc / str(pid) / "cgroup")
    except OSError:
        return None
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    found: list[float] = []
    for root, point, version in _mounts(proc):
        for controllers, path in paths.items():
            wanted = controllers == "" if version == 2 else "cpu" in controllers.split(",")
            if wanted:
                quotas = map(_quota_v2 if version == 2 else _quota_v1, _folders(root, point, path))
                found += [quota for quota in quotas if quota is not None]
    return min(found, default=None)


def _mounts(proc: Path) -> Iterator[tuple[str, Path, int]]:
    """Where cgroups that have to do with CPU time are mounted here: the cgroup there, the place, the version."""
    try:
        lines = lines_of(proc / "self/mountinfo")
    except OSError:
        return
    for line in lines:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            root, point = (word.encode().decode("unicode_escape") for word in before.split(" ")[3:5])
            yield root, Path(point), 2 if kind == "cgroup2" else 1


def _folders(root: str, point: Path, path: str) -> Iterator[Path]:
    """The folder of a cgroup and of those above it, as far as they are mounted; none for one that lies outside."""
    below = os.path.relpath(path, root)
    if ".." in path.split("/") or below.startswith(".."):
        return
    folder = point / below
    yield folder
    while folder != point:
        folder = folder.parent
        yield folder


def _quota_v2(folder: Path) -> float | None:
    words = _words(folder / "cpu.max")
    return _ratio(*words) if len(words) == 2 else None


def _quota_v1(folder: Path) -> float | None:
    words = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
    return _ratio(*words) if len(words) == 2 else None


def _ratio(quota: str, period: str) -> float | None:
    # No quota is "max", or -1.
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []  # the root has none, and not every kernel counts
