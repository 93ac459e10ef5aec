"""giltrace: who held the GIL, on which core, for how long, and what every other thread lost to it.

``giltrace.load("out.giltrace")`` reads a recording; docs/api.md shows what can be done with it. Importing this package
starts nothing and imports nothing: the names below come with their first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from giltrace.api import Recording, analyse, load
    from giltrace.errors import GiltraceError
    from giltrace.integrations.releases import assert_releases_gil
    from giltrace.integrations.stalls import Stall, watch
    from giltrace.reports.shown import Report
    from giltrace.tracing import trace

__version__ = "0.1.0"

__all__ = [
    "GiltraceError",
    "Recording",
    "Report",
    "Stall",
    "__version__",
    "analyse",
    "assert_releases_gil",
    "load",
    "trace",
    "watch",
]

#: Where each public name is defined.
_HOMES = {
    "GiltraceError": "giltrace.errors",
    "Recording": "giltrace.api",
    "Report": "giltrace.reports.shown",
    "Stall": "giltrace.integrations.stalls",
    "analyse": "giltrace.api",
    "assert_releases_gil": "giltrace.integrations.releases",
    "load": "giltrace.api",
    "load_ipython_extension": "giltrace.integrations.notebook",
    "trace": "giltrace.tracing",
    "watch": "giltrace.integrations.stalls",
}


#: What is a module of its own, with what it needs.
_MODULES = {"dask": "giltrace.integrations.dask", "ray": "giltrace.integrations.ray"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'giltrace' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
