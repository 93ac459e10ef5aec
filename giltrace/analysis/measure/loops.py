"""Which event loop a stack is of, and whether it waits in its selector: told by frames, as they are in each version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: The function and the file of a frame.
Place = tuple[str, str]


class _Loop(NamedTuple):
    """`runners` are on every stack of its callbacks, `selector` are the innermost frames of one that waits.

    A place is the last part of a function's name and the end of its file's.
    """

    name: str
    runners: tuple[Place, ...]
    selector: tuple[tuple[Place, ...], ...]


_RUN_ONCE = ("_run_once", "asyncio/base_events.py")
_UVLOOP = (("run", "uvloop/__init__.py"), ("run", "asyncio/runners.py"))
#: The more special first: Tornado's loop is one of asyncio, and what calls uvloop's may be asyncio's.
_LOOPS = (
    _Loop("trio", (("unrolled_run", "trio/_core/_run.py"),), ((("get_events", "trio/_core/_io_epoll.py"),),)),
    # A greenlet has a stack of its own, on which the hub is not.
    _Loop("gevent", (), ((("run", "gevent/hub.py"),),)),
    _Loop("asyncio", (_RUN_ONCE,), ((("select", "/selectors.py"), _RUN_ONCE),)),
    # Its own code has no frames.
    _Loop("uvloop", _UVLOOP, tuple((place,) for place in _UVLOOP)),
)
_RUNNERS = {loop.name: loop.runners for loop in _LOOPS}
#: What `number_of` tells: of several of a thread the last one counts.
LOOPS = ("", "asyncio", "uvloop", "trio", "gevent", "Tornado")
_TORNADO = ("tornado/platform/asyncio.py", "tornado/ioloop.py")


def selector_of(frames: Sequence[Place]) -> str:
    """The loop that waits in its selector where a thread has given the GIL up with this stack; empty if none does.

    Where uvloop is not loaded, "uvloop" is a loop of asyncio that is only about to begin or to end.
    """
    for loop in _LOOPS:
        if any(len(frames) >= len(inner) and all(map(_is, frames, inner)) for inner in loop.selector):
            return _tornado(frames) if loop.name == "asyncio" else loop.name
    return ""


def runs(frames: Sequence[Place], loop: str) -> bool:
    """Whether a stack is that of a callback of the `loop`."""
    runners = _RUNNERS.get(loop, (_RUN_ONCE,))
    return not runners or any(_is(frame, runner) for frame in frames for runner in runners)


def number_of(frame: Place) -> int:
    """The number in `LOOPS` of the loop that is run where a stack has this frame; 0 for none."""
    function, file = frame[0].rpartition(".")[2], frame[1]
    if file.endswith(_TORNADO):
        return LOOPS.index("Tornado")
    if file.endswith("gevent/hub.py") and function == "run":
        return LOOPS.index("gevent")
    if function == "unrolled_run" and file.endswith("trio/_core/_run.py"):
        return LOOPS.index("trio")
    if file.endswith(("uvloop/__init__.py", "uvloop/loop.pyx")):
        return LOOPS.index("uvloop")
    return int(function in ("_run_once", "run_forever") and file.endswith("asyncio/base_events.py"))


def may_wait(leaf: Place) -> bool:
    """Whether a stack may be that of a loop in its selector, by its innermost frame."""
    return any(_is(leaf, inner[0]) for loop in _LOOPS for inner in loop.selector)


def own_frames(frames: Sequence[Place]) -> int:
    """How many of the innermost frames are those of a callback or coroutine, and not of the loop that runs it."""
    for at, frame in enumerate(frames):
        if frame[1].endswith(("/asyncio/events.py", "/trio/_core/_run.py")) or _is(frame, _RUN_ONCE):
            return at
        if any(_is(frame, place) for place in _UVLOOP):
            return at
    return len(frames)


def _tornado(frames: Sequence[Place]) -> str:
    return "Tornado" if any(file.endswith(_TORNADO) for _, file in frames) else "asyncio"


def _is(frame: Place, place: Place) -> bool:
    return frame[0].rpartition(".")[2] == place[0] and frame[1].endswith(place[1])
