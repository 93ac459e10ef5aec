"""Follow the recipes of recipes.md: save their programs, run their commands, and see that the report names their line.

    python -m docs.recipes [TITLE]...

TITLE is a heading of the page, or its first word. A recipe whose packages the interpreter of `PATH` has not is skipped,
and that is said. Ends with status 1 if one does not come out as the page says.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).with_name("recipes.md")
#: An environment that has the packages, as `.ci/setup recipes` makes it.
HOME = Path(os.environ.get("GILTRACE_RECIPES", "/opt/giltrace-recipes"))
#: Longer than any of them takes on a busy machine, in seconds.
PATIENCE = 240

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
_NAMED = re.compile(r"# ([\w.]+)\n")
_LINE = re.compile(r"([\w.<>]+) \((\S+\.py|<dynamic-code>):\d+\)")
#: The port of the page, which may be taken here.
_PORT = "8000"


@dataclass(frozen=True)
class Recipe:
    """A section of the page: what has to be installed, programs by their names, commands, and what is to be blamed.

    `place` is the line to be blamed as reports write it, "total (shop.py:10)", of `function`.
    """

    title: str
    needs: tuple[str, ...]
    programs: dict[str, str]
    commands: str
    function: str
    place: str

    @property
    def recording(self) -> str:
        """The name of what it records."""
        found = re.search(r"record -o (\S+)", self.commands)
        assert found is not None, self.title
        return found[1]


def recipes(page: str) -> list[Recipe]:
    """The recipes of the page that can be run, in order; all have the programs of its introduction."""
    introduction, *sections = re.split(r"^## ", page, flags=re.M)
    common = _programs(introduction)
    return [_recipe(section, common) for section in sections if "```sh\n" in section]


def _programs(text: str) -> dict[str, str]:
    bodies = [body for kind, body in _BLOCK.findall(text) if kind == "python"]
    named = [(_NAMED.match(body), body) for body in bodies]
    return {name[1]: body for name, body in named if name is not None}


def _recipe(section: str, common: dict[str, str]) -> Recipe:
    needs = re.search(r"^Needs (.*?)\.", section, re.M)
    assert needs is not None
    blocks = _BLOCK.findall(section)
    (commands,) = (body for kind, body in blocks if kind == "sh")
    (shown,) = (body for kind, body in blocks if kind == "text")
    line = _LINE.search(shown)
    assert line is not None
    packages = tuple(re.findall(r"`(\w+)`", needs[1]))
    return Recipe(section.partition("\n")[0], packages, common | _programs(section), commands, line[1], line[0])


def missing(recipe: Recipe, python: str = "python") -> list[str]:
    """The packages that `python` has not."""
    code = "import sys, importlib.util as u; print(*[n for n in sys.argv[1:] if u.find_spec(n) is None])"
    done = subprocess.run([python, "-c", code, *recipe.needs], capture_output=True, text=True, check=True)
    return done.stdout.split()


def follow(recipe: Recipe, folder: Path) -> str:
    """Run a recipe in a folder; returns "" if it comes out as the page says, or what is wrong."""
    for name, body in recipe.programs.items():
        (folder / name).write_text(body)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    script = "set -e\n" + recipe.commands.replace(_PORT, port)
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=os.environ | {"COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            printed, _ = shell.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, 9)
            return f"not done after {PATIENCE} s"
    if shell.returncode:
        return f"status {shell.returncode}\n{printed}"
    told = ["giltrace", "report", recipe.recording, "--json"]
    report = json.loads(subprocess.run(told, cwd=folder, capture_output=True, text=True, check=True).stdout)
    rows = [row for process in report["processes"] for row in process["blame"]]
    worst = max(rows, key=lambda row: int(row["ns"]), default={"culprit": {}})["culprit"]
    name = worst.get("own_function") or worst.get("function")
    if name != recipe.function:
        return f"{name} is blamed, not {recipe.function}\n{printed}"
    return "" if recipe.place in printed else f"the line is not {recipe.place}\n{printed}"


def main(titles: list[str]) -> int:
    """Follow those of these titles, or all."""
    failed = 0
    for recipe in recipes(PAGE.read_text(encoding="utf-8")):
        if titles and not {recipe.title, recipe.title.split()[0]} & set(titles):
            continue
        if lacking := missing(recipe):
            print(f"{recipe.title}: skipped, without {', '.join(lacking)}")
            continue
        with tempfile.TemporaryDirectory(prefix="giltrace-recipe-") as folder:
            wrong = follow(recipe, Path(folder))
        print(f"{recipe.title}: {wrong or 'as the page says'}", flush=True)
        failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
