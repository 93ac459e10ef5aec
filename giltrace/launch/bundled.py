"""The bundled workloads: found in a checkout and in an installed wheel alike."""

from __future__ import annotations

import ast
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def bundled() -> dict[str, Path]:
    """Return the path of each bundled workload by its name (``cpu_bound``), sorted by name; empty if there are none."""
    # An installed wheel has them inside the package, a checkout beside it.
    for folder in (_PACKAGE / "workloads", _PACKAGE.parent / "workloads"):
        programs = sorted(p for p in folder.glob("*.py") if not p.name.startswith("_"))
        if programs:
            return {p.stem: p for p in programs}
    return {}


def description(path: Path) -> str:
    """Return what the workload at `path` shows: the first line of its docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].rstrip(".")
