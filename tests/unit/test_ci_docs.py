"""The recipes of docs/ci.md: files that parse, commands that giltrace takes, and steps that do what is said of them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from giltrace.cli.app import application
from giltrace.cli.config import settings
from traces.regenerate import unpack

yaml = pytest.importorskip("yaml")

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "ci.md").read_text()
RECIPES = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)]
#: Where the words of a command end in a shell.
_ENDS = re.compile(r"^(?:[|&;<>]+|[12]?>>?)$")


def scripts(node: Any) -> Iterator[str]:
    """Yield the shell scripts of a recipe, whose steps have `run` or `script`."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("run", "script"):
                yield "\n".join(value) if isinstance(value, list) else value
            else:
                yield from scripts(value)
    elif isinstance(node, list):
        for one in node:
            yield from scripts(one)


def commands() -> list[list[str]]:
    """The giltrace commands of all recipes, as words."""
    found = []
    for line in "\n".join("\n".join(scripts(recipe)) for recipe in RECIPES).splitlines():
        words = shlex.split(line)
        if words[:1] == ["giltrace"]:
            end = next((at for at, word in enumerate(words) if _ENDS.match(word)), len(words))
            found.append(words[1:end])
    return found


def test_recipes_are_workflows() -> None:
    for workflow in RECIPES[:2]:
        # YAML's own `on` is a truth.
        assert set(workflow) == {"name", True, "jobs"}
        for job in workflow["jobs"].values():
            assert set(job) == {"runs-on", "steps"}
            assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    (job,) = RECIPES[2].values()
    assert job["artifacts"]["reports"]["junit"] in "".join(scripts(RECIPES[2]))
    assert len(RECIPES) == 3


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_are_giltraces(words: list[str]) -> None:
    group: Any = typer.main.get_command(application(words))
    group.commands[words[0]].make_context(words[0], words[1:])


def test_there_are_commands() -> None:
    assert {words[0] for words in commands()} == {"record", "check", "compare"}


def test_the_table_of_rules_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.M | re.S)
    (tmp_path / "rules.toml").write_text(text)
    assert settings(tmp_path / "rules.toml")["max-wait-p99"] == 10_000_000


@pytest.mark.parametrize("failing", [False, True])
def test_the_gitlab_job_keeps_its_report_and_its_status(failing: bool, tmp_path: Path) -> None:
    unpack("convoy" if failing else "single", tmp_path / "out")
    (tmp_path / "pyproject.toml").write_text('[tool.giltrace.check]\nverdict-not = ["convoy"]\n')
    lines = [line for line in RECIPES[2]["gil"]["script"] if not line.startswith(("pip", "giltrace record"))]
    giltrace = f'giltrace() {{ {shlex.quote(sys.executable)} -m giltrace "$@"; }}'
    ran = subprocess.run(
        ["bash", "-e", "-c", "\n".join([giltrace, *lines])], cwd=tmp_path, capture_output=True, text=True, timeout=90
    )
    assert (ran.returncode, ran.stderr) == (int(failing), "")
    assert ("FAIL verdict-not" in ran.stdout) == failing
    assert ("<failure" in (tmp_path / "gil.xml").read_text()) == failing
