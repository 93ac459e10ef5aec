"""Dump when a request took longer than a limit: told by our middleware, else by the server's worker frames.

Without the middleware (`giltrace.integrations.requests`) a request lasts from the first to the last release of a
thread with a frame of a server that answers one. What awaits has no frames: a coroutine's is what runs in one piece.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from giltrace.collectors.rules.base import PATIENCE_NS, Caught, Followed, Following
from giltrace.collectors.rules.outside import Outside
from giltrace.recording.door import is_int
from giltrace.recording.events import Array
from giltrace.recording.layout import Kind
from giltrace.recording.live import Update
from giltrace.recording.live_file import LiveFile
from giltrace.recording.slow_requests import FILE, LIMIT
from giltrace.recording.trigger import Trigger
from giltrace.text import visible

#: What answers a request: the last part of a function's name, and what its file's path has in it.
_WORKERS = (
    ("handle_request", "/gunicorn/workers/"),
    ("run_asgi", "/uvicorn/protocols/http/"),
    ("service", "/waitress/task.py"),
    ("run_wsgi", "/werkzeug/serving.py"),
    ("run", "/wsgiref/handlers.py"),
    ("respond", "/cheroot/wsgi.py"),
    ("handle_one_response", "/gevent/pywsgi.py"),
    ("_execute", "/tornado/web.py"),
    ("handle_http", "/hypercorn/"),
)
_TURNS = (Kind.REQUEST, Kind.ACQUIRE, Kind.RELEASE)
_MOST_READ = 1 << 20


@dataclass
class _Serving:
    """A request that a thread answers `since` then; None: it answers none.

    `begins`: since when it has or wants the GIL. `told`: it went on for so long that it was told of.
    """

    since: int | None = None
    begins: int = 0
    told: bool = False


@dataclass
class _Process(Followed):
    threads: dict[int, _Serving] = field(default_factory=dict)
    #: By the tracer's number of a stack: whether a request is answered there.
    answers: dict[int, bool] = field(default_factory=dict)


class Request(Following[_Process]):
    """``request>250ms``: a WSGI or ASGI request took longer."""

    kind = "http-request"

    def __init__(self, text: str, value: str) -> None:
        super().__init__(text, value)
        self._read: dict[Path, int] = {}
        self._told_by_middleware: set[int] = set()

    def prepare(self, env: dict[str, str]) -> None:
        """Tell the middleware from which length on to speak."""
        env[LIMIT] = str(min(self.limit_ns, int(env.get(LIMIT) or self.limit_ns)))

    def poll(self, folder: Path) -> list[Caught]:
        """What the middleware has written since."""
        found = []
        for path in folder.iterdir():
            name = FILE.fullmatch(path.name)
            if name is None:
                continue
            self._told_by_middleware.add(int(name[1]))
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                lines = file.read(_MOST_READ)
            whole = lines[: lines.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            found += [caught for line in whole.splitlines() if (caught := self._of_line(line, int(name[1])))]
        return found

    def _of_line(self, line: bytes, pid: int) -> Caught | None:
        """What a line tells; None for one that makes no sense."""
        try:
            told: dict[str, Any] = json.loads(line)
            start, end, tid = (told[name] for name in ("start", "end", "tid"))
            request, task = visible(str(told["request"])), visible(str(told["task"]))
        except (ValueError, KeyError, TypeError):
            return None
        if not (is_int(start) and is_int(end) and is_int(tid, 1, 1 << 22)) or end - start < self.limit_ns:
            return None
        trigger = Trigger(self.kind, self.text, end, end - start, pid, tid, task=task)
        return Caught(trigger, f"the request {request}")

    def _meet(self, update: Update) -> _Process:
        return _Process()

    def _follow(self, process: _Process, update: Update, until: int, outside: Outside) -> list[Caught]:
        file = update.file
        if file.pid in self._told_by_middleware or file.stacks is None:
            process.threads.clear()
            return []
        turns = update.events.compress(np.isin(update.events["kind"], _TURNS))
        answering = self._answering(process, file, turns)
        found: list[Caught] = []
        for thread in np.unique(turns["thread"]).tolist():
            mine = turns["thread"] == thread
            if thread in process.threads or answering[mine].any():
                serving = process.threads.setdefault(thread, _Serving())
                found += self._follow_thread(update, process, thread, serving, turns.compress(mine), answering[mine])
        if update.ended:
            return found
        for thread, serving in process.threads.items():
            if serving.since is not None and not serving.told:
                length = until - serving.since
                if length > max(2 * self.limit_ns, PATIENCE_NS):
                    serving.told = True
                    trigger = self._trigger(process, update, thread, serving.since, until)
                    found.append(Caught(trigger, "a request", goes_on=True))
        return found

    def _follow_thread(
        self,
        update: Update,
        process: _Process,
        thread: int,
        serving: _Serving,
        rows: Array,
        answering: npt.NDArray[np.bool_],
    ) -> list[Caught]:
        """Follow one thread by its new turns, and whether each is a release while it answers a request."""
        released = np.flatnonzero(rows["kind"] == Kind.RELEASE)
        # When each hold that was given up began, or was asked for.
        first = np.append(0, released[:-1] + 1) if len(released) else released
        begins = rows["time"][first]
        if len(begins) and serving.begins:
            begins[0] = serving.begins
        left = released[-1] + 1 if len(released) else 0
        if left < len(rows):
            serving.begins = serving.begins if serving.begins and not len(released) else int(rows["time"][left])
        else:
            serving.begins = 0
        now = answering[released]
        found = []
        for at in np.flatnonzero(now != np.append(serving.since is not None, now[:-1])[: len(now)]).tolist():
            if now[at]:
                serving.since, serving.told = int(begins[at]), False
                continue
            assert serving.since is not None
            length = int(begins[at]) - serving.since
            if length > self.limit_ns and not serving.told:
                trigger = self._trigger(process, update, thread, serving.since, int(begins[at]))
                found.append(Caught(trigger, "a request"))
            serving.since = None
        return found

    @staticmethod
    def _answering(process: _Process, file: LiveFile, turns: Array) -> npt.NDArray[np.bool_]:
        """Which turns are releases of a thread that answers a request."""
        result = np.zeros(len(turns), np.bool_)
        if file.stacks is None:
            return result
        file.stacks.update()
        released = np.flatnonzero((turns["kind"] == Kind.RELEASE) & (turns["stack"] > 0))
        used, of = np.unique(turns["stack"][released], return_inverse=True)
        for number in used.tolist():
            if number not in process.answers:
                process.answers[number] = any(map(_answers, file.stacks.stack(number)))
        if len(used):
            result[released] = np.array([process.answers[number] for number in used.tolist()], np.bool_)[of.ravel()]
        return result


def _answers(frame: tuple[str, str, int]) -> bool:
    """Whether a frame is one of a server that answers a request."""
    name = frame[0].rpartition(".")[2]
    return any(name == function and part in frame[1] for function, part in _WORKERS)
