"""The recipes of the documentation, followed as they stand: the line that each is about is the one that is blamed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from docs.recipes import HOME, PAGE, Recipe, follow, missing, recipes

ALL = recipes(PAGE.read_text(encoding="utf-8"))
#: Those that every run of the tests follows: a server, and a tree of processes.
ALWAYS = ("Flask under gunicorn", "Dask")


def chosen(recipe: Recipe) -> object:
    marks = [] if recipe.title in ALWAYS else [pytest.mark.rarely]
    return pytest.param(recipe, id=recipe.title.split()[0], marks=marks)


@pytest.mark.needs("recipes")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("recipe", [chosen(recipe) for recipe in ALL])
def test_it_comes_out_as_the_page_says(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = (HOME / "bin", Path(sys.executable).parent, os.environ["PATH"])
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, path)))
    if lacking := missing(recipe, str(HOME / "bin" / "python")):
        pytest.skip(f"{HOME} is without {', '.join(lacking)}")
    assert follow(recipe, tmp_path) == ""


def test_every_recipe_is_found_with_its_programs() -> None:
    assert [recipe.title.split()[0] for recipe in ALL] == ["Flask", "FastAPI", "Django", "Celery", "Dask", "PyTorch"]
    for recipe in ALL:
        used = [name for name in recipe.programs if name.removesuffix(".py") in recipe.commands]
        assert set(used) >= set(recipe.programs) - {"load.py"}, recipe.title
        assert recipe.needs
        assert recipe.function in " ".join(recipe.programs.values()) or "." in recipe.function


def test_what_comes_out_otherwise_is_told(tmp_path: Path) -> None:
    (flask,) = (recipe for recipe in ALL if recipe.title == "Flask under gunicorn")
    broken = Recipe(flask.title, (), flask.programs, "echo begun\nfalse\n: giltrace record -o out/none\n", "total", "")
    assert follow(broken, tmp_path) == "status 1\nbegun\n"
    assert missing(Recipe("", ("json", "no_such_package"), {}, "", "", ""), sys.executable) == ["no_such_package"]
