"""Starts viztracer in every Python below the target, and leaves no trace of how it came to run.

Python imports this module at start-up because its folder is the first on PYTHONPATH. It removes the folder from
sys.path and itself from sys.modules, runs the sitecustomize that would have run without it, and then runs
`giltrace_snaptrace.py` and `giltrace_viztracer.py`. It is written for any Python, 2.7 included: a traced command may
start others.
"""

import os
import sys

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_VARIABLE = "GILTRACE_VIZTRACER"


def _step_aside():  # type: () -> object
    for index, entry in enumerate(sys.path):
        if os.path.abspath(entry) == _FOLDER:
            del sys.path[index]
            break
    sys.path_importer_cache.pop(_FOLDER, None)
    return sys.modules.pop("sitecustomize", None)


def _run(name):  # type: (str) -> dict[str, object]
    path = os.path.join(_FOLDER, name + ".py")
    namespace = {"__name__": name, "__file__": path}  # type: dict[str, object] # not in sys.modules: it must not show
    with open(path, "rb") as file:
        exec(compile(file.read(), path, "exec"), namespace)
    return namespace


def _start_tracer():  # type: () -> None
    load = _run("giltrace_snaptrace")["load"]
    _run("giltrace_viztracer")["start"](os.environ[_VARIABLE], load)  # type: ignore[operator]


_this = _step_aside()  # Python 2 empties a module that nobody refers to
try:
    # Where there is none, the ImportError must reach the site module from here as it would have from there: that
    # also keeps the import system from looking for this module in sys.modules, where it no longer is.
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
finally:
    if sys.version_info >= (3, 8) and os.environ.get(_VARIABLE):
        try:  # noqa: SIM105 - Python 2 has no contextlib.suppress
            _start_tracer()
        except Exception:  # tracing is optional, the target is not
            pass
