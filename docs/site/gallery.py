"""The gallery: each bundled workload with its picture, its verdict and what to look for."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any

from giltrace.launch.bundled import bundled

#: The page in docs/ that begins the gallery; the workloads follow in it.
SOURCE = "gallery.md"
#: The site's folder with the samples, and the checkout's.
DOWNLOADS = "samples"
SAMPLES = Path(__file__).resolve().parents[2] / "traces"

#: Lines of a workload's docstring that are for the tests.
_FOR_TESTS = re.compile(r"^(Truth|Needs): .*$", re.M)


def downloads() -> list[Path]:
    """The samples' files, as they are to be offered."""
    return sorted(SAMPLES.glob("*.gz"))


def page(written: str) -> str:
    """The page that begins with what was `written`: then comes a section for each workload."""
    samples: dict[str, dict[str, Any]] = json.loads((SAMPLES / "index.json").read_text(encoding="utf-8"))
    workloads = {name: _section(name, path, samples.get(name)) for name, path in bundled().items()}
    return "\n".join([written, *workloads.values()])


def _section(name: str, program: Path, sample: dict[str, Any] | None) -> str:
    text = inspect.cleandoc(ast.get_docstring(ast.parse(program.read_text(encoding="utf-8"))) or "")
    first, *more = _FOR_TESTS.sub("", text).strip().split("\n\n")
    parts = [f"## {name}", first]
    parts += _shown(name, sample) if sample else []
    parts += [
        re.sub(r"^What to look for: (\w)", lambda m: f"**What to look for.** {m[1].upper()}", one) for one in more
    ]
    return "\n\n".join(parts) + "\n"


def _shown(name: str, sample: dict[str, Any]) -> list[str]:
    picture = f"![The Perfetto UI with the sample of {name}](pictures/{name}.png)"
    said = dict.fromkeys(process["summary"] for process in sample["shows"]["processes"])
    verdicts = "\n>\n".join(f"> {summary}" for summary in said)
    where = f"`{sample['command']}` on Python {sample['python'].split()[0]}"
    offered = f"[trace]({DOWNLOADS}/{name}.pftrace.gz), [recording]({DOWNLOADS}/{name}.giltrace.tar.gz)"
    return [picture, f"{where}: {offered}. The report's verdict:", verdicts]
