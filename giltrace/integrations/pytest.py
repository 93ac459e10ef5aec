"""The pytest plugin: ``--giltrace``, ``@pytest.mark.gil`` and the fixture ``assert_releases_gil``.

It is loaded in every run of pytest where giltrace is installed: nothing of giltrace is imported before it is used, and
only what pytest has had for long is used of that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from giltrace.integrations.limits import Limits
    from giltrace.integrations.seen import Seen

#: How many tests are told of at the end.
WORST = 10
#: Tests that waited for less (ns) have no line read for them.
_WORTH_A_LINE_NS = 100_000
_ROW = "{:>12} {:>12} {:>12}  {}"
_PREFIX = "giltrace_"
_MARKER = (
    "gil(max_hold=None, max_wait=None, releases=None): fail the test if its thread holds the GIL for longer at a time "
    'without giving it up when asked ("5ms"), waits longer for it, or does without it for a smaller share (0.9)'
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--giltrace``."""
    group = parser.getgroup("giltrace", "who held the GIL")
    group.addoption(
        "--giltrace",
        action="store_true",
        help=f"record each test's use of the GIL; tell the {WORST} that lost most to it, and JUnit properties of all",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, and where the figures of all tests come together."""
    config.addinivalue_line("markers", _MARKER)
    if config.getoption("--giltrace"):
        config.pluginmanager.register(_Totals(), "giltrace-totals")


@pytest.fixture
def assert_releases_gil() -> Callable[..., Any]:
    """`giltrace.assert_releases_gil`: call a function and fail if it does not release the GIL."""
    import giltrace

    return giltrace.assert_releases_gil


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Read a test's marks when it is collected: there an error in them is one of its module."""
    try:
        _limits(metafunc.definition)
    except ValueError as error:
        raise pytest.Collector.CollectError(f"{metafunc.definition.nodeid}: @pytest.mark.{error}") from None


def _limits(item: pytest.Item) -> Limits | None:
    marks = [(mark.args, mark.kwargs) for mark in item.iter_markers("gil")]
    if not marks:
        return None
    from giltrace.integrations.limits import Limits

    return Limits.of(marks)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a marked test where there is nothing to judge it by."""
    try:
        limits = _limits(item)
    except ValueError as error:  # a mark of one set of parameters, or of a unittest.TestCase
        pytest.fail(f"@pytest.mark.{error}", pytrace=False)
    if limits is not None:
        from giltrace.integrations.watch import why_not

        reason = why_not()
        if reason is not None:
            pytest.skip(f"the GIL cannot be watched here: {reason}")


@pytest.hookimpl(hookwrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, None]:
    """Watch the test's thread during its call; judge it if that passed."""
    limits, told = _limits(item), bool(item.config.getoption("--giltrace"))
    if limits is None and not told:
        yield
        return
    from giltrace.errors import TargetError
    from giltrace.integrations.releases import collecting_nothing
    from giltrace.integrations.watch import Watch

    def worth_lines(seen: Seen) -> bool:
        if limits is not None and limits.broken(seen, ""):
            return True
        return told and bool(seen.lost(seen.waits).max(initial=0) > _WORTH_A_LINE_NS)

    watch = Watch(asked=limits is not None, lines=worth_lines)
    outcome: Any = None
    try:
        with contextlib.nullcontext() if limits is None else collecting_nothing(), watch:
            outcome = yield
        _tell(item, watch.seen, limits, told, outcome)
    except TargetError as error:
        if outcome is None:
            outcome = yield
        if told:
            item.user_properties.append((f"{_PREFIX}not_recorded", error.message))
        if limits is not None and outcome.excinfo is None:
            outcome.force_exception(pytest.skip.Exception(error.message))


def _tell(item: pytest.Item, seen: Seen, limits: Limits | None, told: bool, outcome: Any) -> None:
    """Keep the figures of a test, if they are to be `told`, and let it fail if it broke its limits."""
    if told:
        item.user_properties += [(f"{_PREFIX}{name}", value) for name, value in _figures(seen).items()]
    if limits is not None and outcome.excinfo is None:
        broken = limits.broken(seen, item.name)
        if broken:
            outcome.force_exception(pytest.fail.Exception(broken, pytrace=False))


def _figures(seen: Seen) -> dict[str, object]:
    lost = seen.lost(seen.waits)
    figures: dict[str, object] = {
        "releases": round(seen.share, 4),
        "longest_hold_ms": round(seen.stubborn_ns / 1e6, 3),
        "waited_ms": round(int(lost.sum()) / 1e6, 3),
        "longest_wait_ms": round(int(lost.max(initial=0)) / 1e6, 3),
    }
    if lost.any():
        wait = seen.waits[int(lost.argmax())]
        who = "its own thread" if wait["thread"] == seen.own else seen.name(wait["thread"]) or "another thread"
        figures["longest_wait"] = f"{who} waited for {seen.culprit(wait)}"
    return figures


class _Totals:
    """Gathers the figures of all tests, of xdist's workers too, and tells the worst at the end."""

    def __init__(self) -> None:
        self._tests: list[tuple[str, dict[str, Any]]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            told = {name[len(_PREFIX) :]: value for name, value in report.user_properties if name.startswith(_PREFIX)}
            if told:
                self._tests.append((report.nodeid, told))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        reasons = {told["not_recorded"] for _, told in self._tests if "not_recorded" in told}
        tests = [(name, told) for name, told in self._tests if "waited_ms" in told]
        worst = sorted((one for one in tests if one[1]["waited_ms"]), key=lambda one: -one[1]["waited_ms"])
        terminalreporter.section("GIL")
        for reason in sorted(reasons):
            terminalreporter.line(f"not recorded: {reason}")
        if not worst:
            terminalreporter.line(f"in none of {len(tests)} tests did a thread wait for the GIL")
            return
        terminalreporter.line(f"threads waited for the GIL in {len(worst)} of {len(tests)} tests; most in these:")
        terminalreporter.line(_ROW.format("all waits", "longest", "longest hold", "test"))
        for name, told in worst[:WORST]:
            times = (f"{told[one]:,.1f} ms" for one in ("waited_ms", "longest_wait_ms", "longest_hold_ms"))
            terminalreporter.line(_ROW.format(*times, name))
            if told.get("longest_wait"):
                terminalreporter.line(_ROW.format("", "", "", f"  {told['longest_wait']}"))
