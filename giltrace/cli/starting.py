"""What makes a command start soon and end soon: when it imports what it needs, and how.

A program that is recorded does not wait for the imports that only its recording's end needs: they are done while it
runs (`giltrace.launch.beside`).
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from typer.core import TyperCommand

from giltrace.process.cores import allowed

#: Of so many more objects than there were, some may be unreachable. All imports together make fewer.
_GARBAGE = 200_000

#: The target has one, the imports the other.
_CORES = 2

#: How many threads numpy's OpenBLAS starts as it is imported, which takes twice the time of all else in it.
_BLAS = "OPENBLAS_NUM_THREADS"

#: What the end of a recording needs, the largest first, and what its trace needs besides.
_END = (
    "giltrace.timeline.fitting",
    # `numpy.unique` imports it when it is called first.
    "numpy.ma",
    "giltrace.collectors._gil_report",
    "giltrace.collectors._code_names",
    "giltrace.analysis.summary",
    "giltrace.reports.summary",
    "giltrace.reports.console",
    "giltrace.analysis.selection",
    "giltrace.cli.loading",
)
_TRACE = "giltrace.exporters.perfetto.trace"


def collect_rarely() -> None:
    """Look for garbage rarely: importing makes none, and most commands end before there is any."""
    gc.set_threshold(_GARBAGE)


def leave_the_rest() -> None:
    """Let Python end without looking for garbage among all that is about to go anyway."""
    gc.freeze()


def import_numpy() -> None:
    """Import numpy without the threads of its linear algebra: nothing here multiplies large matrices.

    What the environment says of them already is kept; the target's is made before, and has nothing of it. Only for
    processes of giltrace's own: a library leaves that to its user.
    """
    os.environ.setdefault(_BLAS, "1")
    import_module("numpy")


def ends(*, no_trace: bool) -> Iterator[str]:
    """Import what the end of a recording needs, one module each time it is asked for the next.

    With no core to spare that would be the target's time: it is left for the end.
    """
    here = allowed(os.getpid())
    if min(here.cpus, here.quota or here.cpus) < _CORES:
        return
    import_numpy()
    yield "numpy"
    for module in (*_END, *(() if no_trace else (_TRACE,))):
        import_module(module)
        yield module


class ReadingCommand(TyperCommand):
    """A command that reads recordings: when it is called, not when it is asked for help, numpy is needed."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        import_numpy()
        return super().invoke(ctx)
