"""What all tests share: the interpreters, tools that may be absent, and what happens when a test hangs or litters."""

from __future__ import annotations

import ctypes
import faulthandler
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from docs import recipes
from tests import pods, processes, prometheus, sanitizers, viewers
from tests.interpreters import Interpreter, interpreters, some

#: Tools named here, separated by commas, were installed on purpose: a test skipped for want of one fails instead.
# Tests that limit a process's memory count addresses, of which pyarrow's own allocator reserves a gigabyte at once.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
# What tests make containers and networks with lies where only a login of root's looks for sure.
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

REQUIRE = frozenset(filter(None, os.environ.get("GILTRACE_REQUIRE", "").split(",")))

#: Where `.ci/setup` puts interpreters that are not of this machine's kind.
PYTHONS = Path(os.environ.get("GILTRACE_PYTHONS_ROOT", "/opt/giltrace-pythons"))

_PR_SET_CHILD_SUBREAPER = 36


def _has_program(*names: str) -> Callable[[], bool]:
    # Looked for once, before the first test: one that is being installed meanwhile may be there and not yet work.
    found = any(shutil.which(name) for name in names)
    return lambda: found


def _has_version(*version: int) -> Callable[[], bool]:
    return lambda: any(i.version[:2] == version for i in interpreters())


def _has_package(name: str) -> Callable[[], bool]:
    return lambda: importlib.util.find_spec(name) is not None


def _can_probe_kernel() -> bool:
    return os.geteuid() == 0 and os.access("/sys/kernel/tracing/uprobe_events", os.W_OK)


def _can_make_containers() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--pid", "--fork", "--mount-proc", "mount", "-t", "tmpfs", "none", "/tmp"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _can_make_hosts() -> bool:
    """Whether there may be other hosts on this machine: with a network, a name and a clock of their own."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    command = "unshare --net --uts --time --monotonic 9 --boottime 9 --fork ip link add giltrace0 type veth"
    return subprocess.run(command.split(), capture_output=True, check=False).returncode == 0


#: Packages that are extras, or of which there is no wheel for each interpreter or machine.
PACKAGES = (
    *("aiohttp", "dask", "distributed", "duckdb", "fastapi", "flask", "gevent", "gunicorn", "pandas", "polars"),
    *("pyarrow", "ray", "tornado", "trio", "uvicorn", "uvloop", "ziglang"),
)
#: The tools that `@pytest.mark.needs(...)` may name, and whether this machine has each.
TOOLS: dict[str, Callable[[], bool]] = {
    **{name: _has_package(name) for name in PACKAGES},
    "cc": _has_program("cc"),
    "musl-gcc": _has_program("musl-gcc"),
    "ld-linux.so.2": _has_program("/lib/ld-linux.so.2"),
    "recipes": lambda: (recipes.HOME / "bin" / "dask").exists(),
    "musl python": lambda: (PYTHONS / "musl" / "complete").exists(),
    "arm64 python": lambda: (PYTHONS / "arm64" / "complete").exists(),
    "network namespaces": _can_make_hosts,
    "sanitizers": sanitizers.available,
    "clang-format": _has_program("clang-format"),
    "perf": _has_program("perf"),
    "chromium": _has_program("chromium", "chromium-browser", "google-chrome"),
    "chromedriver": _has_program("chromedriver"),
    "openssl": _has_program("openssl"),
    "setpriv": _has_program("setpriv"),
    "tmux": _has_program("tmux"),
    "image": pods.available,
    "less": _has_program("less"),
    "zsh": _has_program("zsh"),
    "fish": _has_program("fish"),
    "uprobes": _can_probe_kernel,
    "namespaces": _can_make_containers,
    "prometheus": prometheus.available,
    "speedscope": viewers.has_speedscope,
    "axe-core": viewers.has_axe,
    "profiler-cli": viewers.has_profiler_cli,
    "python3.14": _has_version(3, 14),
    "python3.15": _has_version(3, 15),
    "free-threaded": lambda: any(i.free_threaded for i in interpreters()),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="also what takes long and rarely tells anything")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    rare = [item for item in items if item.get_closest_marker("rarely") or _is_one_of_many(item)]
    config.hook.pytest_deselected(items=rare)
    left_out = set(rare)
    items[:] = [item for item in items if item not in left_out]


def _is_one_of_many(item: pytest.Item) -> bool:
    """Whether a test takes long on each interpreter, and this is none of those that tell most."""
    if item.get_closest_marker("on_some") is None:
        return False
    used = [value for value in item.callspec.params.values() if isinstance(value, Interpreter)]  # type: ignore[attr-defined]
    return bool(used) and used[0] not in some()


def pytest_configure(config: pytest.Config) -> None:
    unknown = REQUIRE - TOOLS.keys()
    if unknown:
        raise pytest.UsageError(f"GILTRACE_REQUIRE: unknown {', '.join(sorted(unknown))}; known: {', '.join(TOOLS)}")
    processes.heed_interrupts()
    # Orphans of a test's processes become ours, so that none can hide.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for tool in marker.args:
            if not TOOLS[tool]():
                pytest.skip(f"needs {tool}")
    if (kind := sanitizers.in_use()) is not None:
        for marker in item.iter_markers("unsanitized"):
            if not marker.args or kind in marker.args:
                pytest.skip(f"not under {kind}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        missed = [tool for tool in sorted(REQUIRE) if re.search(rf"(?<![\w/-]){re.escape(tool)}(?![\w-])", reason)]
        if missed:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid}: skipped for want of {', '.join(missed)}, which is required: {reason}"
    return report


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `interpreter` each interpreter that has a GIL, and `any_interpreter` the free-threaded ones too."""
    for name, chosen in (
        ("interpreter", [i for i in interpreters() if not i.free_threaded]),
        ("any_interpreter", list(interpreters())),
    ):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, chosen, ids=_interpreter_id)


def _interpreter_id(interpreter: Interpreter) -> str:
    return interpreter.id


@pytest.fixture(autouse=True)
def _no_process_left_over() -> Iterator[None]:
    """Fail a test that leaves a process behind, and end that process; those of wider fixtures may stay."""
    before = frozenset(processes.descendants(os.getpid()))
    yield
    late = processes.end(processes.descendants(os.getpid(), before), grace=2.0)
    assert not late, "the test left processes behind:\n" + "\n".join(late)


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """Time a test out as pytest-timeout does, but show first what its child processes hang on."""

    def out_of_time(signum: int, frame: FrameType | None) -> None:
        stacks = "\n".join(processes.describe(pid) for pid in processes.descendants(os.getpid()))
        pytest.fail(f"hung for {settings.timeout} s; its child processes then:\n{stacks or 'none'}")

    signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout)
    # A test that is stuck in C never runs the signal's handler: show where, and end the run.
    faulthandler.dump_traceback_later(settings.timeout + 60, exit=True, file=sys.__stderr__ or sys.stderr)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    faulthandler.cancel_dump_traceback_later()
    return True
