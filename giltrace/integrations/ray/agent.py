"""What runs on each node of a Ray cluster while it is recorded: an actor that asks the workers there."""

from __future__ import annotations

import json
import os
import pickle
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from giltrace.integrations.fleet.session import now
from giltrace.integrations.ray import worker

#: A worker may have to wait for its GIL.
_ANSWER_SECONDS = 25
_GROUND = worker.GROUND
#: Processes that run nobody's tasks, by their titles.
_NO_WORK = tuple(b"ray::" + name for name in (b"IDLE", b"DashboardAgent", b"RuntimeEnvAgent", b"GiltraceAgent"))
#: What reads files, or a clock, is for whoever is on the node.
_OF_THE_NODE = (_GROUND.files, _GROUND.piece, _GROUND.left_behind, now)

Answer = tuple[bool, Any]


class GiltraceAgent:
    """Asks the workers of its node, by their process ids; 0 is itself."""

    def __init__(self) -> None:
        worker.withdraw()
        self._files: dict[str, Path] = {}

    def workers(self) -> list[str]:
        """The addresses of the workers on this node that were prepared. Its recordings go on, as this shows."""
        for path in self._files.values():
            path.touch()
        return [f"{worker.node_name()}:{pid}" for pid in self._pids()]

    def begin(self, given: tuple[Any, ...]) -> None:
        """Let all workers begin, and those that will be there; `given` is a `Begin`."""
        path = self._files[str(given[0])] = worker.base().parent / f"{worker.node_name()}-{given[0]}.begin"
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(given))
        beside.rename(path)
        for pid in self._pids():
            self.run(pid, worker.start, given)

    def leave(self, token: str) -> None:
        """Let no more workers begin."""
        path = self._files.pop(token, None)
        if path is not None:
            path.unlink(missing_ok=True)

    def run(self, pid: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Answer:
        """What the function returns in the worker, or in words what went wrong: whether it did not, and that."""
        if pid and function not in _OF_THE_NODE:
            try:
                return _asked(worker.socket_of(pid), function, arguments)
            except (OSError, EOFError) as error:
                if function != _GROUND.discard:
                    return False, f"its process does not answer: {error or type(error).__name__}"
        try:
            return True, function(*arguments)
        except Exception as error:
            return False, f"{type(error).__name__}: {error}"

    def unprepared(self) -> int:
        """How many workers of this node run tasks or are actors, and were not prepared."""
        found = 0
        ready = {*self._pids(), os.getpid()}
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError, IndexError):
                title = (path / "cmdline").read_bytes()
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                busy = title.startswith(b"ray::") and not title.startswith(_NO_WORK)
                found += busy and parent == os.getppid() and int(path.name) not in ready
        return found

    def _pids(self) -> list[int]:
        pids = []
        for path in worker.base().parent.glob(f"{worker.node_name()}-*.sock"):
            pid = int(path.stem.rpartition("-")[2])
            if Path(f"/proc/{pid}").exists():
                pids.append(pid)
            else:
                path.unlink(missing_ok=True)
        return sorted(pids)


def _asked(path: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Answer:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(_ANSWER_SECONDS)
        asking.connect(str(path))
        asking.sendall(pickle.dumps((function, arguments)))
        asking.shutdown(socket.SHUT_WR)
        with asking.makefile("rb") as file:
            answer: Answer = pickle.load(file)
            return answer
