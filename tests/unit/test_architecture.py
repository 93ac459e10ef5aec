"""The rules of the house: imports run one way, files stay small, every command is documented."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from giltrace.cli.app import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "giltrace"

#: A module imports from its own layer and from those before it.
LAYERS = (
    "text",
    "errors",
    "installation",
    "native",
    "process",
    "recording",
    "timeline",
    "merging",
    "analysis",
    "exporters",
    "reports",
    "views",
    "collectors",
    "launch",
    "metrics",
    "integrations",
    "cli",
)
#: The rooms of `analysis`, with the same rule.
ROOMS = (
    *("durations", "kinds", "site", "lock_results", "task_results", "finding_results", "results"),
    *("measure", "selection", "replay", "findings", "compare"),
    *("summary", "fleet", "report"),
)
#: Run inside the target's interpreter, whatever that is: these may import the standard library only.
IN_TARGET = PACKAGE / "collectors" / "target"

MOST_LINES = 450
MOST_FUNCTION_LINES = 70

MODULES = sorted(
    p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.stem in ("errors", "installation", "text")
)
TREES = {path: ast.parse(path.read_text()) for path in MODULES}
SOURCES = sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.c"), *PACKAGE.rglob("*.h"), *ROOT.glob("tests/**/*.py")])


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE / "analysis").parts[0].removesuffix(".py")


def imported_layers(tree: ast.AST) -> Iterator[str]:
    """Yield the layer of each import of this package, those inside functions and TYPE_CHECKING too."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            whole = node.module == "giltrace"
            names = [f"giltrace.{alias.name}" for alias in node.names] if whole else [node.module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "giltrace" and len(parts) > 1 and not parts[1].startswith("__"):
                yield parts[1]


def test_there_is_something_to_check() -> None:
    assert {room_of(p) for p in MODULES if layer_of(p) == "analysis"} == {*ROOMS, "__init__"}
    assert {layer_of(p) for p in MODULES} <= set(LAYERS)
    assert len(MODULES) > 20


def test_imports_run_one_way() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} must not import from {layer}"
        for path in MODULES
        for layer in imported_layers(TREES[path])
        if LAYERS.index(layer) > LAYERS.index(layer_of(path))
    ]
    assert wrong == []


def test_the_rooms_of_analysis_import_one_way() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} must not import from {used}"
        for path in MODULES
        if layer_of(path) == "analysis" and (room := room_of(path)) != "__init__"
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("giltrace.analysis.")
        if ROOMS.index(used := node.module.split(".")[2]) > ROOMS.index(room)
    ]
    assert wrong == []


def test_what_runs_in_the_target_imports_nothing_of_ours() -> None:
    found = sorted(IN_TARGET.rglob("*.py"))
    assert found
    assert [path.name for path in found if list(imported_layers(TREES[path]))] == []


def test_no_relative_imports() -> None:
    nodes = [(path.name, node) for path in MODULES for node in ast.walk(TREES[path])]
    assert [(name, n.lineno) for name, n in nodes if isinstance(n, ast.ImportFrom) and n.level] == []


def test_files_stay_small() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length >= MOST_LINES} == {}


def test_functions_stay_small() -> None:
    functions = [
        (path.name, node.name, (node.end_lineno or 0) - node.lineno)
        for path in MODULES
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [one for one in functions if one[2] >= MOST_FUNCTION_LINES] == []


@pytest.mark.parametrize("name", [c.name for c in COMMANDS])
def test_every_command_is_documented(name: str) -> None:
    assert f"giltrace {name}" in (ROOT / "README.md").read_text()
