"""The registry of collectors: which ones there are, in the order in which they start and stop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from giltrace.collectors.base import Collector

#: Where the class of each is: a new collector is one file in this package and one line here.
_HOMES = {
    "gil": "gil:GilCollector",
    "sched": "sched:SchedCollector",
    "py-spy": "pyspy:PySpyCollector",
    "viztracer": "viztracer:VizTracerCollector",
}

#: All collectors by name, those that run unless more or fewer are asked for, and those that `--light` keeps.
NAMES = tuple(_HOMES)
USUAL = ("gil", "sched", "py-spy")
LIGHT = ("gil", "sched")


def registry(names: Collection[str] = NAMES) -> tuple[type[Collector], ...]:
    """Return the collector classes of these names, in the order of `NAMES`; imports them, which takes a while."""
    homes = (home.split(":") for name, home in _HOMES.items() if name in names)
    return tuple(getattr(import_module(f"{__name__}.{module}"), kind) for module, kind in homes)


def choose(
    base: Sequence[str],
    *,
    also: Sequence[str] = (),
    without: Sequence[str] = (),
    settings: Mapping[str, Mapping[str, int]] | None = None,
) -> list[Collector]:
    """Return new collectors: those of `base` and those named in `also`, but none of those named in `without`.

    `settings` has arguments for the constructors, by the collector's name. Raises UsageError where no collector bears a
    name, or one is both wanted and not.
    """
    from giltrace.errors import UsageError

    if unknown := sorted({*also, *without} - set(NAMES)):
        raise UsageError(f"no collector is called {unknown[0]}", f"choose from {', '.join(NAMES)}")
    if both := sorted(set(also) & set(without)):
        raise UsageError(f"{both[0]} is asked for and left out", "drop one of the two")
    wanted = {*base, *also} - set(without)
    given = settings or {}
    makers: list[tuple[str, Callable[..., Collector]]] = [(kind.name, kind) for kind in registry(wanted)]
    return [make(**given.get(name, {})) for name, make in makers]
