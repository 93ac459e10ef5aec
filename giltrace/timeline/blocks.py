"""Match sleeps in the interpreter's own locks with what ended them: the layer of blocks over the threads' states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.recording.events import ProcessEvents
from giltrace.recording.layout import Kind, Outcome, WakeFlag, Way
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.model import BLOCK, HELD_LOCK, LOCK, Array, BlockEnd, LockKind, Thread

#: A wake that is told after the act is told so soon.
LATE_NS = 20_000_000
#: Several sleepers of one semaphore may have been woken by posts that came before any of them was up: so many of these
#: are told apart.
_POSTS_AT_ONCE = 8


def kind_of(way: int) -> LockKind:
    """What a thread sleeps in that sleeps so (`layout.Way`)."""
    if way & Way.RAW:
        return LockKind.RAW
    if not way & Way.PARKED:
        return LockKind.SEMAPHORE
    if way & Way.OWN_STATE:
        return LockKind.WORLD
    return LockKind.PARKED if way & Way.WITH_ARGUMENT else LockKind.EVENT


_KINDS = np.array([kind_of(way) for way in range(2 * Way.OWN_STATE)], np.uint8)


class Blocks(NamedTuple):
    """The `blocks` of a process (dtype `BLOCK`, sorted by start) and the `locks` that they were for (dtype `LOCK`).

    `stack` and `wake_stack` (int32, one per block) number the stack of the blocked thread and that of its waker, -1
    where there is none. `held` (dtype `HELD_LOCK`) are the locks that blocked threads had taken. `types` (one per lock)
    are those of the objects that the locks belong to, empty where that is not known.
    """

    blocks: Array
    locks: Array
    held: Array
    stack: npt.NDArray[np.int32]
    wake_stack: npt.NDArray[np.int32]
    types: tuple[str, ...] = ()


def match_blocks(events: Array, recorded: ProcessEvents, threads: Sequence[Thread]) -> Blocks:
    """Match the events (dtype `GIL_EVENT`, sorted by time) of the process that was `recorded`, with these threads."""
    told = events[(events["kind"] >= Kind.SLEPT) & (events["kind"] <= Kind.POSTED)]
    told = told[(told["kind"] == Kind.AWOKE) | (told["arg"] < len(recorded.places))]
    slept, awoke = _pairs(told)
    blocks = np.empty(len(slept), BLOCK)
    first = told[slept]
    ends = np.array([thread.end for thread in threads], np.int64)
    done = awoke >= 0
    last = told[np.maximum(awoke, 0)]
    blocks["thread"], blocks["start"] = first["thread"], first["time"]
    blocks["end"] = np.where(done, last["time"], np.maximum(ends[first["thread"]], first["time"]))
    blocks["ended"] = np.where(done, np.minimum(last["arg"], Outcome.FAILED), np.uint8(BlockEnd.OPEN))
    blocks["timed"] = (first["flags"] & np.uint8(Way.TIMED)) != 0
    place = recorded.places[first["arg"]]
    address = np.where(place["lock"] != 0, place["lock"], place["semaphore"])
    kind = _KINDS[first["flags"] & np.uint8(len(_KINDS) - 1)]
    locks, number = _locks(address, kind)
    blocks["lock"] = number
    wake = _wakes(told, blocks, place["semaphore"], recorded)
    woken = wake >= 0
    by = told[np.maximum(wake, 0)]
    blocks["waker"] = np.where(woken, by["thread"].astype(np.int64), -1)
    owned = (by["flags"] & np.uint8(WakeFlag.OWNED)) != 0
    blocks["owned"] = woken & (owned | (locks["kind"][blocks["lock"]] == LockKind.PARKED))
    blocks["woken"] = np.where(woken, np.clip(by["time"], blocks["start"], blocks["end"]), blocks["end"])
    wake_stack = np.where(woken, by["stack"], -1).astype(np.int32)
    order = np.argsort(blocks["start"], kind="stable")
    held = _held(recorded, blocks[order], locks)
    types = _types(recorded, len(locks), number, first["arg"])
    return Blocks(blocks.take(order), locks, held, first["stack"][order].astype(np.int32), wake_stack[order], types)


def _locks(address: npt.NDArray[np.uint64], kind: npt.NDArray[np.uint8]) -> tuple[Array, Ints]:
    """The distinct locks (dtype `LOCK`), sorted, of which there is one at each of these addresses, and its number.

    What is made where another one was is told from that if it is of another kind.
    """
    order = np.lexsort((kind, address))
    rows = np.empty(len(order), LOCK)
    rows["address"], rows["kind"] = address[order], kind[order]
    fresh = np.append(True, rows[1:] != rows[:-1])[: len(rows)]
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(fresh) - 1
    return rows[fresh], number


def _types(recorded: ProcessEvents, locks: int, number: Ints, place: npt.NDArray[np.uint32]) -> tuple[str, ...]:
    """The name of the type that the object of each lock has; blocks were in these locks, at these places."""
    if recorded.stacks is None or not recorded.place_types.any():
        return ("",) * locks
    types = np.zeros(locks, np.int64)
    types[number] = recorded.place_types[place]
    names = ("", *recorded.stacks.types)
    return tuple(names[kind] if kind < len(names) else "" for kind in types.tolist())


def _pairs(told: Array) -> tuple[Ints, Ints]:
    """Where each sleep begins and ends among the events; -1 where its end is not on record."""
    turns = np.flatnonzero(told["kind"] != Kind.POSTED)
    turns = turns[np.argsort(told["thread"][turns], kind="stable")]
    kind, thread = told["kind"][turns], told["thread"][turns]
    begins = kind == Kind.SLEPT
    ended = np.zeros(len(turns), np.bool_)
    ended[:-1] = begins[:-1] & ~begins[1:] & (thread[1:] == thread[:-1])
    followed = np.zeros(len(turns), np.bool_)
    followed[:-1] = begins[:-1] & begins[1:] & (thread[1:] == thread[:-1])
    # Whose end was lost has ended by the time that its thread sleeps again: nobody knows when.
    at = np.flatnonzero(begins & ~followed)
    after = np.minimum(at + 1, max(len(turns) - 1, 0))
    return turns[at].astype(np.int64), np.where(ended[at], turns[after], -1).astype(np.int64)


def _wakes(told: Array, blocks: Array, semaphore: npt.NDArray[np.uint64], recorded: ProcessEvents) -> Ints:
    """Which event woke each of the blocks, which were in these semaphores; -1 for none.

    A sleep ends with the last post of its semaphore before its end. Each post wakes one thread: of several that end
    with the same one, the first has it, and the others have those before.
    """
    posts = np.flatnonzero(told["kind"] == Kind.POSTED)
    result = np.full(len(blocks), -1, np.int64)
    asked = np.flatnonzero(blocks["ended"] == BlockEnd.WOKEN)
    if not len(posts) or not len(asked):
        return result
    at_of = recorded.places["semaphore"][told["arg"][posts]]
    names, number = np.unique(np.concatenate([at_of, semaphore[asked]]), return_inverse=True)
    number = number.ravel().astype(np.int64)
    origin = int(min(told["time"][0], blocks["start"].min()))
    span = int(max(told["time"][-1], blocks["end"].max())) - origin + 2 * LATE_NS
    if len(names) * span >= np.iinfo(np.int64).max:
        return result
    late = (told["flags"][posts] & np.uint8(WakeFlag.LATE)) != 0
    place = number[: len(posts)] * span + (told["time"][posts] - origin)
    order = np.argsort(place, kind="stable")
    place, posts, late = place[order], posts[order], late[order]
    mine = number[len(posts) :]
    begin, end = (mine * span + (blocks[edge][asked] - origin) for edge in ("start", "end"))
    at = np.searchsorted(place, end, "right") - 1
    fits = (at >= 0) & (place[np.maximum(at, 0)] >= begin)
    at = _shared_out(at, fits, end, place, begin)
    # Posted just as the thread fell asleep, and told after that.
    after = np.searchsorted(place, end, "right")
    following = np.minimum(after, len(place) - 1)
    behind = ~fits & (after < len(place)) & late[following] & (place[following] <= end + LATE_NS)
    at = np.where(behind, following, at)
    result[asked] = np.where(at >= 0, posts[np.maximum(at, 0)], -1)
    return result


def _shared_out(at: Ints, fits: Bools, end: Ints, place: Ints, begin: Ints) -> Ints:
    """Give posts that ended several sleeps to the first of them, and those before to the others, where they fit.

    -1 where there is none: the post was not seen.
    """
    at = np.where(fits, at, -1)
    again = _again(at, end)
    for _ in range(_POSTS_AT_ONCE):
        fit = (at[again] > 0) & (place[np.maximum(at[again] - 1, 0)] >= begin[again])
        at[again] = np.where(fit, at[again] - 1, -1)
        again = _again(at, end)
        if not len(again):
            break
    at[again] = -1
    return at


def _again(at: Ints, end: Ints) -> Ints:
    """Which sleeps have a post that one with an earlier end has, too."""
    rows = np.flatnonzero(at >= 0)
    rows = rows[np.lexsort((end[rows], at[rows]))]
    found: Ints = rows[1:][at[rows[1:]] == at[rows[:-1]]]
    return found


def _held(recorded: ProcessEvents, blocks: Array, locks: Array) -> Array:
    """What threads had taken, of the locks that somebody was blocked in, when they were blocked themselves."""
    place = np.flatnonzero(np.isin(locks["kind"], (LockKind.SEMAPHORE, LockKind.PARKED)))
    addresses = np.append(locks["address"][place], np.uint64(0))
    found = np.searchsorted(addresses[:-1], recorded.held["semaphore"])
    known = addresses[found] == recorded.held["semaphore"]
    found = np.append(place, -1)[found]
    rows, found = recorded.held[known], found[known]
    if not len(rows) or not len(blocks):
        return np.empty(0, HELD_LOCK)
    order = np.argsort(_keys(blocks["thread"], blocks["start"]))
    keys, wanted = _keys(blocks["thread"], blocks["start"])[order], _keys(rows["thread"], rows["time"])
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    there = keys[at] == wanted
    held = np.empty(int(there.sum()), HELD_LOCK)
    held["block"], held["lock"] = order[at[there]], found[there]
    # What a thread has taken and waits for itself, others are to give to it: a condition's waiter.
    others: Array = held[held["lock"] != blocks["lock"][held["block"]]]
    return others


def _keys(thread: npt.NDArray[np.uint32], time: Ints) -> npt.NDArray[np.uint64]:
    """A number for a thread and a time: a thread is blocked once at a time."""
    keys: npt.NDArray[np.uint64] = thread.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ time.astype(np.uint64)
    return keys
