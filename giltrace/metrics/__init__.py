"""Counters of the GIL and of locks, as they stand: always on, for dashboards and alerts.

``giltrace.metrics.start()`` lets this process count, and what it forks; `read` says what was counted. The rest is for
those who have a Prometheus registry or an OpenTelemetry meter already. docs/metrics.md tells more.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from giltrace.metrics.collector import PrometheusCollector
    from giltrace.metrics.inprocess import read, serve, start, stop
    from giltrace.metrics.instruments import instrument
    from giltrace.metrics.reading import Counts, ProcessReading
    from giltrace.metrics.totals import Totals

__all__ = [
    "Counts",
    "ProcessReading",
    "PrometheusCollector",
    "Totals",
    "instrument",
    "read",
    "serve",
    "start",
    "stop",
]

#: Where each public name is defined: what a program does not use is not imported into it.
_HOMES = {
    "Counts": "giltrace.metrics.reading",
    "ProcessReading": "giltrace.metrics.reading",
    "PrometheusCollector": "giltrace.metrics.collector",
    "Totals": "giltrace.metrics.totals",
    "instrument": "giltrace.metrics.instruments",
    "read": "giltrace.metrics.inprocess",
    "serve": "giltrace.metrics.inprocess",
    "start": "giltrace.metrics.inprocess",
    "stop": "giltrace.metrics.inprocess",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'giltrace.metrics' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
