"""What runs in a Dask worker, without a cluster: when it ends by itself, what it notes, and what it sends home."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

pytestmark = pytest.mark.needs("distributed")

TOKEN = "0123"


class Loop:
    """An event loop that does what is asked when a test wants it."""

    def __init__(self) -> None:
        self.later: list[Callable[[], None]] = []

    def call_later(self, seconds: float, work: Callable[[], None]) -> None:
        self.later.append(work)

    def turn(self) -> None:
        todo, self.later = self.later, []
        for work in todo:
            work()


class Worker:
    """What of a worker is looked at."""

    def __init__(self) -> None:
        self.address, self.name, self.loop = "tcp://here:1", "w", Loop()
        self.active_threads_lock = threading.Lock()
        self.active_threads: Any = {}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    import dask

    with dask.config.set({"temporary-directory": str(tmp_path)}):
        yield tmp_path


def recorder(most_bytes: int = 1 << 30, version: str | None = None) -> Any:
    import giltrace
    from giltrace.integrations.dask.worker import Recorder

    return Recorder(TOKEN, 8, most_bytes, version or giltrace.__version__)


def test_tasks_are_noted_by_their_threads_and_in_flight_ones_too(place: Path) -> None:
    from giltrace.integrations.dask.worker import GROUND
    from giltrace.integrations.fleet import session as module

    worker, plugin = Worker(), recorder()
    ident = threading.get_ident()
    plain = worker.active_threads
    plain[ident] = "before-1"
    plugin.setup(worker)
    shown = worker.active_threads
    assert (dict(shown), shown.copy(), len(shown), bool(shown)) == ({ident: "before-1"}, {ident: "before-1"}, 1, True)
    del plain[ident]  # as a task does that began with what was there
    plugin.transition("before-1", "executing", "memory")
    plugin.transition(("x", 1), "ready", "executing")
    shown[ident] = ("x", 1)
    assert plain == {ident: ("x", 1)}
    del shown[ident]
    plugin.transition(("x", 1), "executing", "memory")
    plugin.transition("co-1", "ready", "executing")
    plugin.transition("co-1", "executing", "memory")
    told = module.stop(TOKEN)
    assert told is not None
    assert (told["ended"], told["tasks"], told["workers"]) == ("asked", 1, {"tcp://here:1": "w"})
    assert worker.active_threads is plain
    notes = [json.loads(line) for line in (Path(told["place"]) / module.TASKS).read_text().splitlines()]
    tid = threading.get_native_id()
    assert [(what, of, key) for what, _, of, key in notes] == [
        ("before", tid, "before-1"),
        ("after", 0, "before-1"),
        ("runs", 0, "('x', 1)"),
        ("begin", tid, "('x', 1)"),
        ("end", tid, ""),
        ("runs", 0, "co-1"),
        ("stops", 0, "co-1"),
    ]
    plugin.teardown(worker)
    GROUND.discard(TOKEN, told["place"])
    assert (list(place.iterdir()), module.status(TOKEN)) == ([], None)


def test_a_worker_ends_by_itself_once_the_client_is_gone(place: Path) -> None:
    from giltrace.integrations.fleet import session as module

    worker = Worker()
    recorder().setup(worker)
    session = module._sessions[TOKEN]
    session.renewed_ns -= 61 * 10**9
    worker.loop.turn()  # late, which may be this thread's own fault
    assert session.ended == ""
    module.status(TOKEN)
    worker.loop.turn()
    assert session.ended == ""
    session.renewed_ns -= 61 * 10**9
    worker.loop.turn()
    worker.loop.turn()
    assert session.ended == "the client was gone"
    assert len(list(place.iterdir())) == 1
    worker.loop.turn()
    assert list(place.iterdir()) == []


def test_a_worker_ends_where_it_has_recorded_too_much(place: Path) -> None:
    from giltrace.integrations.fleet import session as module

    worker = Worker()
    recorder(most_bytes=0).setup(worker)
    worker.loop.turn()
    assert module._sessions[TOKEN].ended == "it had 0 MiB"
    worker.loop.turn()


def test_another_version_does_nothing(place: Path) -> None:
    worker, plugin = Worker(), recorder(version="0.0.1")
    plugin.setup(worker)
    plugin.transition("x", "ready", "executing")
    plugin.teardown(worker)
    assert (type(worker.active_threads), list(place.iterdir())) == (dict, [])


def test_the_plugin_is_sent_as_an_expression() -> None:
    made = pickle.loads(pickle.dumps(recorder()))
    assert type(made).__name__ == "Recorder"
    assert made.name == f"giltrace-{TOKEN}"


def test_files_come_home_in_pieces_without_their_holes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from giltrace.integrations.dask.worker import GROUND
    from giltrace.integrations.fleet import session as module

    monkeypatch.setattr(module, "PIECE", 4096)
    folder = place / f"giltrace-dask-{TOKEN}-x"
    (folder / "inner").mkdir(parents=True)
    (place / "secret").write_text("no")
    path = folder / "inner" / "sparse"
    with path.open("wb") as file:
        file.write(b"a" * 5000)
        file.seek(1 << 20)
        file.write(b"b" * 10)
        file.truncate(2 << 20)
    (folder / "link").symlink_to(place / "secret")
    assert GROUND.files(TOKEN, str(folder)) == {"inner/sparse": 2 << 20}
    copy, at, calls = bytearray(2 << 20), 0, 0
    while at < len(copy):
        begin, at, packed = GROUND.piece(TOKEN, str(folder), "inner/sparse", at)
        data = zstandard.ZstdDecompressor().decompress(packed, max_output_size=module.PIECE)
        copy[begin : begin + len(data)] = data
        calls += 1
    assert bytes(copy) == path.read_bytes()
    assert calls <= 5
    for name in ("../secret", "link", "/etc/passwd"):
        with pytest.raises(ValueError, match="is no file of the recording"):
            GROUND.piece(TOKEN, str(folder), name, 0)
    for other in (place, place / "giltrace-dask-other-x", folder / "inner", folder / ".." / ".."):
        with pytest.raises(ValueError, match="is no place of this recording"):
            GROUND.files(TOKEN, str(other))
    (folder / module.ABOUT).write_text(json.dumps({"clock": "c", "place": "elsewhere"}))
    assert GROUND.left_behind(TOKEN) == [{"clock": "c", "place": str(folder)}]
    assert GROUND.left_behind("other") == []
