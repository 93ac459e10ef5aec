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
    "native",
    "process",
    "recording",
    "timeline",
    "analysis",
    "exporters",
    "reports",
    "views",
    "collectors",
    "launch",
    "integrations",
    "cli",
)
#: The rooms of `analysis`, with the same rule.
ROOMS = ("durations", "results", "measure", "selection", "replay", "findings", "compare", "summary", "report")
#: Run inside the target's interpreter, whatever that is: these may import the standard library only.
IN_TARGET = PACKAGE / "collectors" / "target"

MOST_LINES = 450
MOST_FUNCTION_LINES = 70

MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.stem in ("errors", "text"))
SOURCES = sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.c"), *PACKAGE.rglob("*.h"), *ROOT.glob("tests/**/*.py")])


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


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
    assert {layer_of(p) for p in MODULES} <= set(LAYERS)
    assert len(MODULES) > 20


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    allowed = LAYERS[: LAYERS.index(layer_of(path)) + 1]
    wrong = [layer for layer in imported_layers(ast.parse(path.read_text())) if layer not in allowed]
    assert wrong == [], f"{layer_of(path)} must not import from {', '.join(wrong)}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "analysis").rglob("*.py")), ids=lambda p: p.stem)
def test_the_rooms_of_analysis_import_one_way(path: Path) -> None:
    room = path.relative_to(PACKAGE / "analysis").parts[0].removesuffix(".py")
    if room == "__init__":
        return
    allowed = ROOMS[: ROOMS.index(room) + 1]
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom) and n.module]
    used = {n.module.split(".")[2] for n in nodes if n.module and n.module.startswith("giltrace.analysis.")}
    assert used <= set(allowed)


@pytest.mark.parametrize("path", sorted(IN_TARGET.rglob("*.py")), ids=lambda p: p.name)
def test_what_runs_in_the_target_imports_nothing_of_ours(path: Path) -> None:
    assert list(imported_layers(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_relative_imports(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text()))
    assert [n.lineno for n in nodes if isinstance(n, ast.ImportFrom) and n.level] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) < MOST_LINES


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_functions_stay_small(path: Path) -> None:
    functions = [
        n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= MOST_FUNCTION_LINES]
    assert long == []


@pytest.mark.parametrize("name", [c.name for c in COMMANDS])
def test_every_command_is_documented(name: str) -> None:
    assert f"giltrace {name}" in (ROOT / "README.md").read_text()
