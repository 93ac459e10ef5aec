"""The registry of collectors: which ones there are, in the order in which they start and stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from giltrace.collectors.base import Collector

#: All collectors by name, and those that `--light` keeps.
NAMES = ("gil", "sched", "py-spy", "viztracer")
LIGHT = ("gil", "sched")


def registry() -> tuple[type[Collector], ...]:
    """Return the collector classes, in the order of `NAMES`; imports them, which takes a while."""
    from giltrace.collectors.gil import GilCollector
    from giltrace.collectors.pyspy import PySpyCollector
    from giltrace.collectors.sched import SchedCollector
    from giltrace.collectors.viztracer import VizTracerCollector

    return GilCollector, SchedCollector, PySpyCollector, VizTracerCollector


def choose(
    *, light: bool, without: Sequence[str], settings: Mapping[str, Mapping[str, int]] | None = None
) -> list[Collector]:
    """Return new collectors: all, or with `light` the cheap ones, but none of those named in `without`.

    `settings` has arguments for the constructors, by the collector's name. Raises UsageError where `without` has a name
    that no collector bears.
    """
    unknown = sorted(set(without) - set(NAMES))
    if unknown:
        from giltrace.errors import UsageError

        raise UsageError(f"no collector is called {unknown[0]}", f"choose from {', '.join(NAMES)}")
    wanted = set(LIGHT if light else NAMES) - set(without)
    given = settings or {}
    makers: list[tuple[str, Callable[..., Collector]]] = [(kind.name, kind) for kind in registry()]
    return [make(**given.get(name, {})) for name, make in makers if name in wanted]
