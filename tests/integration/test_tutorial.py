"""The tutorial, followed word for word in a fresh environment, shows what it says.

The page is the script: the Python block is saved under the name that the text gives it, each shell block is run as it
stands, one after the other in one shell, and the text block that follows it, if any, has to be in what it printed.
Figures are masked, white space counts as one blank, and ``...`` stands for anything.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="needs hatchling, which builds what the tutorial installs")

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
_SAVED_AS = re.compile(r"Save this as `([\w.]+)` in the folder `([\w/]+)`")
#: A number with its unit, a list of cores, or the number in a thread's name.
_FIGURE = re.compile(r"(?<![A-Za-z0-9.])\d[\d,.]*(?:-\d+)?(?: ?(?:ns|us|ms|s|x|min)\b| ?%)?")

#: A browser that sees enough, and then types Ctrl-C where the command runs.
BROWSER = """#!/bin/sh
echo "opened: $1"
kill -INT $PPID
"""


@dataclass(frozen=True)
class Step:
    """A shell block and the text that the page shows for it, "" if none."""

    commands: str
    shown: str


def steps(page: str) -> list[Step]:
    """The steps of `page`, in order."""
    found: list[Step] = []
    for kind, body in _BLOCK.findall(page):
        if kind == "sh":
            found.append(Step(body, ""))
        elif kind == "text":
            assert found[-1].shown == ""
            found[-1] = Step(found[-1].commands, body)
    return found


def masked(text: str) -> str:
    """`text` with ``#`` for every figure, without bars, in one line."""
    without_bars = re.sub(r"#+", "", text)
    return _FIGURE.sub("#", " ".join(without_bars.split()))


def missing(shown: str, printed: str) -> list[str]:
    """The stretches of the page's text, between ``...``, that are not in what was `printed`, or not in that order."""
    rest, lost = masked(printed), []
    for stretch in re.split(r"^\.\.\.$", shown, flags=re.M):
        wanted = masked(stretch)
        _, found, after = rest.partition(wanted) if wanted else ("", "", rest)
        if found != wanted:
            lost.append(wanted)
        else:
            rest = after
    return lost


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this checkout, for the tutorial installs from it and writes into it."""
    unwanted = shutil.ignore_patterns(".*", "build", "traces", "tests", "*.so", "__pycache__")
    return shutil.copytree(ROOT, tmp_path / "giltrace", ignore=unwanted)


def environment(scratch: Path) -> dict[str, str]:
    """A person's environment, but offline: what is to be installed from the network is here already."""
    tools = scratch / "tools"
    tools.mkdir()
    (tools / "python3").symlink_to(sys.executable)
    (tools / "browser").write_text(BROWSER)
    (tools / "browser").chmod(0o755)
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "PIP_"))
    }
    return inherited | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "BROWSER": str(tools / "browser"),
        "COLUMNS": "80",
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


@pytest.mark.needs("cc")
@pytest.mark.timeout(300)
def test_it_shows_what_it_says(checkout: Path, tmp_path: Path) -> None:
    page = PAGE.read_text()
    saved, program = _SAVED_AS.search(page), next(body for kind, body in _BLOCK.findall(page) if kind == "python")
    assert saved is not None
    target = checkout / saved[2] / saved[1]
    target.parent.mkdir(parents=True)
    target.write_text(program)
    script = "set -e\n"
    for number, step in enumerate(steps(page)):
        script += f"{{\n{step.commands}}} >{tmp_path}/printed-{number} 2>&1\n"
    done = subprocess.run(["bash", "-c", script], cwd=checkout, env=environment(tmp_path), timeout=280, check=False)
    printed = {int(path.name.partition("-")[2]): path.read_text() for path in tmp_path.glob("printed-*")}
    assert done.returncode == 0, printed[max(printed)]
    assert len(printed) == len(steps(page)) >= 8
    for number, step in enumerate(steps(page)):
        assert missing(step.shown, printed[number]) == [], f"{step.commands}\nprinted:\n{printed[number]}"
    (viewed,) = (printed[number] for number, step in enumerate(steps(page)) if "giltrace view" in step.commands)
    assert "opened: http://127.0.0.1:" in viewed


def test_what_is_missing_is_found() -> None:
    printed = "a 12.5 ms\nb 3\nc 4%  ####\n"
    assert missing("a 1 s\n...\nc 99.1% ##\n", printed) == []
    assert missing("a 1 s\nc 99.1%\n", printed) == ["a # c #"]
    assert missing("...\nc 1%\n...\na 1 ms\n", printed) == ["a #"]
    assert masked("worker_1 on 0-1, x 13 ns, primes.py:10") == "worker_# on #, x #, primes.py:#"
