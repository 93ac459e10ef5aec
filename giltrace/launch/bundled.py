"""The bundled workloads: found in a checkout and in an installed wheel alike."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

_PACKAGE = Path(__file__).resolve().parent.parent
_VERDICT = re.compile(r"^Truth: verdict = (\S+)$", re.M)
_NEEDS = re.compile(r"^Needs: (.+)$", re.M)
_LOOK_FOR = re.compile(r"^What to look for: (.+?)(?:\n\n|\Z)", re.M | re.S)


class Header(NamedTuple):
    """What a workload's docstring says of it.

    `description` is its first line, without the full stop; `look_for` the paragraph on what its recording shows;
    `verdict` the kind of verdict that it gets; `needs` what not every interpreter has (`Python 3.12`, or a module), if
    anything.
    """

    description: str
    look_for: str
    verdict: str
    needs: str


def bundled() -> dict[str, Path]:
    """Return the path of each bundled workload by its name (``cpu_bound``), sorted by name; empty if there are none."""
    # An installed wheel has them inside the package, a checkout beside it.
    for folder in (_PACKAGE / "workloads", _PACKAGE.parent / "workloads"):
        programs = sorted(p for p in folder.glob("*.py") if not p.name.startswith("_"))
        if programs:
            return {p.stem: p for p in programs}
    return {}


def header(path: Path) -> Header:
    """Read the header of the workload at `path`; what it does not say is empty."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    look_for, verdict, needs = (pattern.search(text) for pattern in (_LOOK_FOR, _VERDICT, _NEEDS))
    return Header(
        description=text.partition("\n")[0].rstrip("."),
        look_for=look_for[1].replace("\n", " ") if look_for else "",
        verdict=verdict[1] if verdict else "",
        needs=needs[1] if needs else "",
    )
